//! Conversations of paired clients, by the name that the client gives them (`X-Session-Id`, `session_id`).
//!
//! They are in `state/sessions.db` in the workspace, so that a restart forgets none. Their number, the length of each and
//! their age are bounded; the oldest make room. All methods but [`Sessions::turn`] block on the disk.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;

use super::context;
use super::persona::head;
use super::provider::{AssistantMessage, Message, spoken};
use crate::domain::Timestamp;

/// Sessions that are kept.
const SESSIONS: i64 = 1_000;
/// Messages that are read of one session, and its longest text in tokens (estimated); more is not put to any model.
const MESSAGES: i64 = 1_000;
const TOKENS: i64 = 200_000;
/// As much of one message as is kept, in bytes.
const TEXT: usize = 200_000;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const VERSION: i64 = 1;
const TABLES: &str = "
    CREATE TABLE messages (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        session TEXT NOT NULL,
        message TEXT NOT NULL,
        tokens INTEGER NOT NULL,
        at INTEGER NOT NULL
    );
    CREATE INDEX messages_of_session ON messages (session, number);
    CREATE TABLE sessions (id TEXT PRIMARY KEY, created INTEGER NOT NULL, active INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX sessions_by_activity ON sessions (active);
";

#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("the sessions cannot be read or written")]
    Database(#[from] rusqlite::Error),
    #[error("the sessions have no folder")]
    Folder(#[from] std::io::Error),
    #[error("the sessions were written by a newer version of this program")]
    TooNew,
}

/// A session as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Session {
    pub(super) session_id: String,
    pub(super) created_at: Timestamp,
    pub(super) last_activity: Timestamp,
    pub(super) message_count: u64,
}

/// One message of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Said {
    pub(super) role: String,
    pub(super) content: String,
    pub(super) timestamp: Timestamp,
}

/// A message as it is stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
enum Kept {
    User { text: String },
    Assistant(AssistantMessage),
}

impl Kept {
    /// Its text is cut to what is kept; questions and answers alone are.
    fn of(message: &Message) -> Option<Self> {
        match message {
            Message::User(text) => Some(Self::User { text: head(text, TEXT).to_owned() }),
            Message::Named { name, text } => Some(Self::User { text: head(&spoken(name, text), TEXT).to_owned() }),
            Message::Assistant(said) => Some(Self::Assistant(said.kept(TEXT))),
            Message::System(_) | Message::ToolResult { .. } => None,
        }
    }

    fn tokens(&self) -> usize {
        match self {
            Self::User { text } => context::tokens(text),
            Self::Assistant(said) => context::tokens(&said.text) + said.extra_bytes().div_ceil(4),
        }
    }
}

impl From<Kept> for Message {
    fn from(kept: Kept) -> Self {
        match kept {
            Kept::User { text } => Self::User(text),
            Kept::Assistant(said) => Self::Assistant(said),
        }
    }
}

impl Said {
    fn of(kept: Kept, timestamp: Timestamp) -> Self {
        let (role, content) = match kept {
            Kept::User { text } => ("user", text),
            Kept::Assistant(said) => ("assistant", said.text),
        };
        Self { role: role.to_owned(), content, timestamp }
    }
}

type Turn = Arc<tokio::sync::Mutex<()>>;

pub(super) struct Sessions {
    /// `None` keeps them in memory, for as long as the process lives.
    path: Option<PathBuf>,
    /// Unused for so long, a session is forgotten; `None` is never.
    keep: Option<jiff::SignedDuration>,
    connection: Mutex<Option<Connection>>,
    turns: Mutex<HashMap<String, Turn>>,
}

impl Sessions {
    pub(super) fn new(workspace: &Path, persistent: bool, ttl_hours: u32) -> Self {
        Self {
            path: persistent.then(|| workspace.join("state/sessions.db")),
            keep: (ttl_hours > 0).then(|| jiff::SignedDuration::from_hours(i64::from(ttl_hours))),
            connection: Mutex::new(None),
            turns: Mutex::default(),
        }
    }

    /// The right to answer in a session: one message at a time, in the order in which they came.
    pub(super) async fn turn(&self, id: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(id.to_owned()).or_default().clone()
        };
        turn.lock_owned().await
    }

    /// The conversation of a session, oldest first.
    pub(super) fn history(&self, id: &str) -> Result<Vec<Message>, SessionError> {
        Ok(self.read(id)?.into_iter().map(|(kept, _)| kept.into()).collect())
    }

    /// Adds what was said.
    pub(super) fn add(&self, id: &str, said: &[Message], at: Timestamp) -> Result<(), SessionError> {
        self.write(|transaction| {
            let now = at.as_microsecond();
            transaction.execute(
                "INSERT INTO sessions (id, created, active) VALUES (?1, ?2, ?2) ON CONFLICT (id) DO UPDATE SET active = ?2",
                params![id, now],
            )?;
            for kept in said.iter().filter_map(Kept::of) {
                let text = serde_json::to_string(&kept).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
                transaction
                    .prepare_cached("INSERT INTO messages (session, message, tokens, at) VALUES (?1, ?2, ?3, ?4)")?
                    .execute(params![id, text, kept.tokens() as i64, now])?;
            }
            trim(transaction, id)?;
            self.expire(transaction, at)
        })
    }

    /// Leaves only the newest `keep` messages of a session: the model calls more too long.
    pub(super) fn shorten(&self, id: &str, keep: usize) -> Result<(), SessionError> {
        self.write(|transaction| {
            transaction.execute(
                "DELETE FROM messages WHERE session = ?1 AND number NOT IN
                 (SELECT number FROM messages WHERE session = ?1 ORDER BY number DESC LIMIT ?2)",
                params![id, keep as i64],
            )?;
            Ok(())
        })
    }

    /// All sessions, those used last first.
    pub(super) fn list(&self) -> Result<Vec<Session>, SessionError> {
        self.write(|transaction| {
            self.expire(transaction, Timestamp::now())?;
            transaction
                .prepare_cached(
                    "SELECT id, created, active, (SELECT count(*) FROM messages WHERE session = id)
                     FROM sessions ORDER BY active DESC",
                )?
                .query_map([], |row| {
                    Ok(Session {
                        session_id: row.get(0)?,
                        created_at: time(row.get(1)?),
                        last_activity: time(row.get(2)?),
                        message_count: row.get::<_, i64>(3)?.unsigned_abs(),
                    })
                })?
                .collect()
        })
    }

    /// What was said in a session, oldest first; empty for one that is not there.
    pub(super) fn messages(&self, id: &str) -> Result<Vec<Said>, SessionError> {
        Ok(self.read(id)?.into_iter().map(|(kept, at)| Said::of(kept, at)).collect())
    }

    fn read(&self, id: &str) -> Result<Vec<(Kept, Timestamp)>, SessionError> {
        self.write(|transaction| {
            let rows: Vec<(String, i64)> = transaction
                .prepare_cached("SELECT message, at FROM messages WHERE session = ?1 ORDER BY number DESC LIMIT ?2")?
                .query_map(params![id, MESSAGES], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?;
            // One that cannot be read was written by another version; the rest of the conversation is worth having.
            Ok(rows
                .into_iter()
                .rev()
                .filter_map(|(text, at)| Some((serde_json::from_str(&text).ok()?, time(at))))
                .collect())
        })
    }

    /// Whether there was one.
    pub(super) fn delete(&self, id: &str) -> Result<bool, SessionError> {
        self.write(|transaction| {
            transaction.execute("DELETE FROM messages WHERE session = ?1", [id])?;
            Ok(transaction.execute("DELETE FROM sessions WHERE id = ?1", [id])? > 0)
        })
    }

    /// Forgets what is too old, and the least used of too many.
    fn expire(&self, transaction: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<()> {
        let oldest =
            self.keep.and_then(|keep| now.checked_sub(keep).ok()).map_or(i64::MIN, |oldest| oldest.as_microsecond());
        let gone: Vec<String> = transaction
            .prepare_cached(
                "SELECT id FROM sessions WHERE active < ?1 UNION
                 SELECT id FROM (SELECT id FROM sessions ORDER BY active DESC LIMIT -1 OFFSET ?2)",
            )?
            .query_map(params![oldest, SESSIONS], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for id in gone {
            transaction.execute("DELETE FROM messages WHERE session = ?1", [&id])?;
            transaction.execute("DELETE FROM sessions WHERE id = ?1", [&id])?;
        }
        Ok(())
    }

    fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, SessionError> {
        let mut slot = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = match slot.take() {
            Some(connection) => connection,
            None => self.open()?,
        };
        let connection = slot.insert(connection);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    fn open(&self) -> Result<Connection, SessionError> {
        let mut connection = match &self.path {
            None => Connection::open_in_memory()?,
            Some(path) => {
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder)?;
                }
                Connection::open(path)?
            }
        };
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        // A process that dies loses nothing; a power cut may cost the last words.
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.pragma_update(None, "cache_size", -256)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        match transaction.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))? {
            VERSION => {}
            0 => {
                transaction.execute_batch(TABLES)?;
                transaction.pragma_update(None, "user_version", VERSION)?;
            }
            _ => return Err(SessionError::TooNew),
        }
        transaction.commit()?;
        Ok(connection)
    }
}

fn time(microsecond: i64) -> Timestamp {
    Timestamp::from_microsecond(microsecond).unwrap_or_default()
}

/// Removes the oldest messages of a session beyond [`TOKENS`] and [`MESSAGES`].
fn trim(transaction: &Transaction<'_>, id: &str) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "DELETE FROM messages WHERE session = ?1 AND number <= (
                 SELECT coalesce(max(number), 0) FROM (
                     SELECT number, sum(tokens) OVER (ORDER BY number DESC) AS total,
                            row_number() OVER (ORDER BY number DESC) AS place
                     FROM messages WHERE session = ?1)
                 WHERE total > ?2 OR place > ?3)",
        )?
        .execute(params![id, TOKENS, MESSAGES])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn turn(question: &str, answer: &str) -> [Message; 2] {
        [Message::User(question.into()), Message::assistant(answer)]
    }

    fn sessions(folder: &tempfile::TempDir) -> Sessions {
        Sessions::new(folder.path(), true, 0)
    }

    #[test]
    fn a_session_survives_a_restart_until_it_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let first = sessions(&folder);
        first.add("a", &turn("hi", "hello"), at(0)).unwrap();
        first.add("a", &turn("how are you?", "fine"), at(1)).unwrap();
        first.add("b", &turn("other", "yes"), at(2)).unwrap();
        drop(first);
        let again = sessions(&folder);
        let history = again.history("a").unwrap();
        assert_eq!(history[0], Message::User("hi".into()));
        assert_eq!(history[3], Message::assistant("fine"));
        let listed: Vec<(String, u64)> =
            again.list().unwrap().into_iter().map(|session| (session.session_id, session.message_count)).collect();
        assert_eq!(listed, [("b".into(), 2), ("a".into(), 4)]);
        assert!(again.delete("a").unwrap() && !again.delete("a").unwrap());
        assert!(again.history("a").unwrap().is_empty() && again.messages("b").unwrap().len() == 2);
    }

    #[test]
    fn what_the_provider_wants_back_is_kept_and_rows_of_before_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let sessions = sessions(&folder);
        let extra = serde_json::json!({ "reasoning_content": "so" });
        let said = AssistantMessage {
            text: "hello".into(),
            extra: extra.as_object().unwrap().clone(),
            from: "api.example".into(),
            ..AssistantMessage::default()
        };
        sessions.add("a", &[Message::User("hi".into()), Message::Assistant(said.clone())], at(0)).unwrap();
        assert_eq!(sessions.history("a").unwrap()[1], Message::Assistant(said));
        let before: Kept = serde_json::from_str(r#"{"role":"assistant","text":"fine"}"#).unwrap();
        assert_eq!(Message::from(before), Message::assistant("fine"));
    }

    #[test]
    fn length_number_and_age_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let sessions = Sessions::new(folder.path(), true, 1);
        let long = "用".repeat(40_000);
        for number in 0..10 {
            sessions.add("long", &turn(&long, "ok"), at(number)).unwrap();
        }
        let kept = sessions.messages("long").unwrap();
        assert!(kept.iter().map(|said| context::tokens(&said.content)).sum::<usize>() <= 200_000);
        assert!(kept.len() >= 6, "{}", kept.len());
        for number in 0..SESSIONS + 5 {
            sessions.add(&format!("s{number}"), &turn("q", "a"), at(100 + number)).unwrap();
        }
        assert!(sessions.messages("long").unwrap().is_empty() && sessions.messages("s0").unwrap().is_empty());
        sessions.add("late", &turn("q", "a"), at(100 + SESSIONS + 3_603)).unwrap();
        assert!(sessions.messages("s5").unwrap().is_empty(), "an hour unused");
        assert_eq!(sessions.messages(&format!("s{}", SESSIONS + 4)).unwrap().len(), 2);
    }

    #[test]
    fn what_is_too_long_for_the_model_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let sessions = sessions(&folder);
        for number in 0..5 {
            sessions.add("a", &turn(&format!("q{number}"), "a"), at(number)).unwrap();
        }
        sessions.shorten("a", 4).unwrap();
        assert_eq!(sessions.history("a").unwrap()[0], Message::User("q3".into()));
    }

    #[test]
    fn without_persistence_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let sessions = Sessions::new(folder.path(), false, 0);
        sessions.add("a", &turn("q", "a"), at(0)).unwrap();
        assert_eq!(sessions.messages("a").unwrap().len(), 2);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn one_message_of_a_session_is_answered_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let sessions = sessions(&folder);
        let first = sessions.turn("a").await;
        drop(sessions.turn("b").await);
        let waiting = tokio::time::timeout(Duration::from_millis(20), sessions.turn("a")).await;
        assert!(waiting.is_err());
        drop(first);
        sessions.turn("a").await;
    }
}
