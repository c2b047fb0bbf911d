//! The inbox: messages from platforms, on disk before their platform hears that they were taken.
//!
//! ```text
//! waiting ──► asked (tries counted) ──► answered (the text is kept) ──► piece begun ──► piece sent … ──► done
//! ```
//! Each arrow is one commit, so that a process that dies at any point leaves behind what the next one needs: a message
//! without an answer is asked again, an answer is sent from the first piece that was not begun. Only a piece that was
//! begun and not marked as sent is in doubt: it is not sent again, and the person is asked to look.
//!
//! Done messages stay for a while: their ids are known when a platform sends them again, and they are the history of
//! their conversation.

mod schema;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::message::{Batch, Content, Event, Incoming};
use crate::domain::Timestamp;
use crate::gateway::channels::{Place, Platform};
use crate::gateway::provider::AssistantMessage;

/// Messages that may wait in all, and in one conversation: one flood must not take the room of all others.
const WAITING: i64 = 1_000;
const WAITING_OF_ONE: i64 = 50;
/// Done messages whose text is kept, and whose id is known.
const TEXTS: i64 = 2_000;
const KNOWN: i64 = 20_000;
/// Old messages are looked for once in so many.
const PRUNE_EVERY: i64 = 100;
/// A person hears once in this time that something cannot be read, unless text came in between.
const NOTICE_SECS: i64 = 3_600;
/// What is said to a message without text, and to one too many.
pub(super) const ONLY_TEXT: &str = "Sorry, I can only read text.";
pub(super) const TOO_MANY: &str = "Sorry, too many messages are waiting here; I could not take this one.";

#[derive(Debug, thiserror::Error)]
pub(in crate::gateway) enum InboxError {
    #[error("the inbox cannot be read or written")]
    Database(#[from] rusqlite::Error),
    #[error("the inbox has no folder")]
    Folder(#[from] std::io::Error),
    #[error("too many messages are waiting")]
    Full,
    #[error("the inbox's work was interrupted")]
    Interrupted,
}

/// A message that is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) number: i64,
    pub(super) place: Place,
    pub(super) quoted: Option<String>,
    pub(super) sender: String,
    pub(super) text: String,
    /// How often a process began to ask the model for it.
    pub(super) tries: u32,
    pub(super) answer: Option<String>,
    /// Whether the answer is no answer but an apology.
    pub(super) apology: bool,
    /// Pieces of the answer whose sending began, and that arrived.
    pub(super) begun: usize,
    pub(super) sent: usize,
}

/// What a message is answered with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) text: String,
    /// No answer, but an apology.
    pub(super) apology: bool,
    /// What the provider wants back with the next question, as JSON of an [`AssistantMessage`] without its text.
    pub(super) extra: Option<String>,
}

impl Answered {
    pub(super) fn apology(text: &str) -> Self {
        Self { text: text.to_owned(), apology: true, extra: None }
    }

    pub(super) fn of(said: &AssistantMessage) -> Self {
        /// More than all platforms take of an answer.
        const LONGEST: usize = 1_000_000;
        let beside = AssistantMessage { text: String::new(), ..said.kept(LONGEST) };
        let extra = (!beside.extra.is_empty()).then(|| serde_json::to_string(&beside).ok()).flatten();
        Self { text: said.text.clone(), apology: false, extra }
    }
}

pub(super) struct Inbox {
    path: PathBuf,
    /// Opened at its first use: an agent without channels needs none.
    connection: Mutex<Option<Connection>>,
}

impl Inbox {
    pub(super) fn new(workspace: &Path) -> Self {
        Self { path: workspace.join("state/inbox.db"), connection: Mutex::new(None) }
    }

    /// Takes what a platform sent, all of it or nothing, and tells which conversations have something to do.
    ///
    /// # Errors
    /// [`InboxError::Full`] when the platform should send it again later; others when the disk fails.
    pub(super) fn take(&self, batch: &Batch) -> Result<Vec<Place>, InboxError> {
        let now = Timestamp::now().as_second();
        self.write(|transaction| {
            let mut places = Vec::new();
            for event in &batch.events {
                let place = match event {
                    Event::Message(incoming) => take_message(transaction, incoming, now)?,
                    Event::Edit { of, message } => take_edit(transaction, of, message, now)?,
                    Event::Delete { platform, of } => {
                        transaction.execute(
                            "UPDATE messages SET done = 1 WHERE platform = ?1 AND id = ?2 AND answer IS NULL AND tries = 0",
                            params![platform.as_str(), of],
                        )?;
                        None
                    }
                };
                places.extend(place.filter(|place| !places.contains(place)));
            }
            for (key, value) in &batch.marks {
                transaction.execute(
                    "INSERT INTO marks (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2",
                    params![key, value],
                )?;
            }
            Ok(places)
        })
    }

    /// A mark that came with an earlier batch: how far a platform was read.
    pub(super) fn mark(&self, key: &str) -> Result<Option<String>, InboxError> {
        self.read(|connection| {
            connection.query_row("SELECT value FROM marks WHERE key = ?1", [key], |row| row.get(0)).optional()
        })
    }

    /// The conversations with messages that are not done.
    pub(super) fn unfinished(&self) -> Result<Vec<Place>, InboxError> {
        self.read(|connection| {
            let mut query =
                connection.prepare("SELECT place FROM messages WHERE done = 0 GROUP BY place ORDER BY min(number)")?;
            let rows = query.query_map([], |row| row.get::<_, String>(0))?;
            Ok(rows
                .collect::<Result<Vec<_>, _>>()?
                .iter()
                .filter_map(|place| serde_json::from_str(place).ok())
                .collect())
        })
    }

    /// The oldest message of a conversation that is not done.
    pub(super) fn next(&self, place: &Place) -> Result<Option<Pending>, InboxError> {
        self.read(|connection| {
            let query = "SELECT number, quoted, sender, text, tries, answer, apology, begun, sent FROM messages
                         WHERE place = ?1 AND done = 0 ORDER BY number LIMIT 1";
            let pending = connection.query_row(query, [key(place)], |row| {
                Ok(Pending {
                    number: row.get(0)?,
                    place: place.clone(),
                    quoted: row.get(1)?,
                    sender: row.get(2)?,
                    text: row.get::<_, Option<String>>(3)?.unwrap_or_default(),
                    tries: row.get(4)?,
                    answer: row.get(5)?,
                    apology: row.get(6)?,
                    begun: row.get::<_, i64>(7)?.unsigned_abs() as usize,
                    sent: row.get::<_, i64>(8)?.unsigned_abs() as usize,
                })
            });
            pending.optional()
        })
    }

    /// What was said before in a conversation, oldest first: questions with their answers.
    pub(super) fn history(
        &self,
        place: &Place,
        before: i64,
        most: usize,
    ) -> Result<Vec<(String, AssistantMessage)>, InboxError> {
        self.read(|connection| {
            let query =
                "SELECT text, answer, extra FROM messages WHERE place = ?1 AND number < ?2 AND done = 1 AND apology = 0
                         AND text IS NOT NULL AND answer IS NOT NULL ORDER BY number DESC LIMIT ?3";
            let mut query = connection.prepare(query)?;
            let rows = query.query_map(params![key(place), before, most as i64], |row| {
                let (text, extra) = (row.get(1)?, row.get::<_, Option<String>>(2)?);
                let kept = extra.and_then(|extra| serde_json::from_str::<AssistantMessage>(&extra).ok());
                Ok((row.get(0)?, AssistantMessage { text, ..kept.unwrap_or_default() }))
            })?;
            let mut found = rows.collect::<Result<Vec<_>, _>>()?;
            found.reverse();
            Ok(found)
        })
    }

    /// Only the newest `keep` questions of a conversation before this one stay in its history: the model calls more too long.
    pub(super) fn shorten(&self, place: &Place, before: i64, keep: usize) -> Result<(), InboxError> {
        self.write(|transaction| {
            transaction.execute(
                "UPDATE messages SET text = NULL, answer = NULL, extra = NULL
                 WHERE place = ?1 AND done = 1 AND number < ?2 AND number NOT IN (
                     SELECT number FROM messages WHERE place = ?1 AND number < ?2 AND done = 1 AND apology = 0
                     AND text IS NOT NULL AND answer IS NOT NULL ORDER BY number DESC LIMIT ?3)",
                params![key(place), before, keep as i64],
            )?;
            Ok(())
        })
    }

    /// The model is about to be asked.
    pub(super) fn asking(&self, number: i64) -> Result<(), InboxError> {
        self.update("UPDATE messages SET tries = tries + 1 WHERE number = ?1", number)
    }

    /// The question was withdrawn because the gateway stops: that try does not count.
    pub(super) fn not_asked(&self, number: i64) -> Result<(), InboxError> {
        self.update("UPDATE messages SET tries = max(tries - 1, 0) WHERE number = ?1", number)
    }

    /// The answer is known; nothing of it was sent.
    pub(super) fn answered(&self, number: i64, answer: &Answered) -> Result<(), InboxError> {
        let Answered { text, apology, extra } = answer;
        self.write(|transaction| {
            transaction.execute(
                "UPDATE messages SET answer = ?2, apology = ?3, extra = ?4, begun = 0, sent = 0 WHERE number = ?1",
                params![number, text, apology, extra],
            )?;
            Ok(())
        })
    }

    /// The next piece is about to be sent.
    pub(super) fn sending(&self, number: i64) -> Result<(), InboxError> {
        self.update("UPDATE messages SET begun = sent + 1 WHERE number = ?1", number)
    }

    /// The piece that was begun surely did not arrive.
    pub(super) fn not_sent(&self, number: i64) -> Result<(), InboxError> {
        self.update("UPDATE messages SET begun = sent WHERE number = ?1", number)
    }

    /// The piece arrived, and with the last one the message is done.
    pub(super) fn sent(&self, number: i64, last: bool) -> Result<(), InboxError> {
        self.write(|transaction| {
            transaction
                .execute("UPDATE messages SET sent = begun, done = ?2 WHERE number = ?1", params![number, last])?;
            Ok(())
        })
    }

    /// Nothing more is to be done.
    pub(super) fn done(&self, number: i64) -> Result<(), InboxError> {
        self.update("UPDATE messages SET done = 1 WHERE number = ?1", number)
    }

    fn update(&self, statement: &str, number: i64) -> Result<(), InboxError> {
        self.write(|transaction| transaction.execute(statement, [number]).map(drop).map_err(Into::into))
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, InboxError> {
        let mut slot = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(work(schema::opened(&mut slot, &self.path)?)?)
    }

    fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, InboxError>) -> Result<T, InboxError> {
        let mut slot = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = schema::opened(&mut slot, &self.path)?.transaction()?;
        let result = work(&transaction)?;
        transaction.commit()?;
        Ok(result)
    }
}

/// A conversation as a text, always the same for the same one.
fn key(place: &Place) -> String {
    serde_json::to_string(place).expect("a place has no maps with keys that are no texts")
}

/// Takes a message unless it is known. The place, if there is something to do.
fn take_message(transaction: &Transaction<'_>, incoming: &Incoming, now: i64) -> Result<Option<Place>, InboxError> {
    if is_known(transaction, incoming.place.platform, &incoming.id)? {
        return Ok(None);
    }
    let place = key(&incoming.place);
    let waiting = |filter: &str, of: &str| -> rusqlite::Result<i64> {
        let query = format!("SELECT count(*) FROM messages WHERE done = 0 {filter}");
        transaction.query_row(&query, [of], |row| row.get(0))
    };
    if waiting("AND ?1 = ?1", "")? >= WAITING {
        return Err(InboxError::Full);
    }
    let (text, notice) = match &incoming.content {
        Content::Text(text) if waiting("AND place = ?1", &place)? < WAITING_OF_ONE => (Some(text), None),
        Content::Text(_) => (None, Some(TOO_MANY)),
        Content::Unreadable => (None, Some(ONLY_TEXT)),
    };
    // The same notice again and again would be noise: an album of ten pictures gets one.
    let notice = match notice {
        Some(notice) if !was_told(transaction, &place, notice, now)? => Some(notice),
        _ => None,
    };
    let nothing_to_do = text.is_none() && notice.is_none();
    transaction.execute(
        "INSERT INTO messages (platform, id, place, quoted, sender, text, answer, apology, done, taken_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            incoming.place.platform.as_str(),
            incoming.id,
            place,
            incoming.quoted,
            incoming.sender,
            text,
            notice,
            notice.is_some(),
            nothing_to_do,
            now
        ],
    )?;
    if transaction.last_insert_rowid() % PRUNE_EVERY == 0 {
        prune(transaction)?;
    }
    Ok((!nothing_to_do).then(|| incoming.place.clone()))
}

/// An edit changes a question that was not asked yet; later it is a question of its own, unless the text is the same.
fn take_edit(
    transaction: &Transaction<'_>,
    of: &str,
    message: &Incoming,
    now: i64,
) -> Result<Option<Place>, InboxError> {
    let Content::Text(text) = &message.content else { return Ok(None) };
    let platform = message.place.platform;
    let original: Option<(i64, Option<String>, bool)> = transaction
        .query_row(
            "SELECT number, text, done = 0 AND tries = 0 AND answer IS NULL FROM messages WHERE platform = ?1 AND id = ?2",
            params![platform.as_str(), of],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()?;
    match original {
        // It was not for us before, and is now: the edit is the message, should it come again as one.
        None => take_message(transaction, &Incoming { id: of.to_owned(), ..message.clone() }, now),
        Some((_, Some(before), _)) if before == *text => Ok(None),
        Some((number, Some(_), true)) => {
            transaction.execute("UPDATE messages SET text = ?2 WHERE number = ?1", params![number, text])?;
            Ok(None)
        }
        Some(_) => take_message(transaction, message, now),
    }
}

fn is_known(transaction: &Transaction<'_>, platform: Platform, id: &str) -> rusqlite::Result<bool> {
    let query = "SELECT 1 FROM messages WHERE platform = ?1 AND id = ?2";
    Ok(transaction.query_row(query, params![platform.as_str(), id], |_| Ok(())).optional()?.is_some())
}

/// Whether a conversation got this notice a while ago and has said nothing readable since.
fn was_told(transaction: &Transaction<'_>, place: &str, notice: &str, now: i64) -> rusqlite::Result<bool> {
    let query = "SELECT answer, text IS NOT NULL, taken_at FROM messages
                 WHERE place = ?1 AND (text IS NOT NULL OR answer IS NOT NULL) ORDER BY number DESC LIMIT 1";
    let last: Option<(Option<String>, bool, i64)> =
        transaction.query_row(query, [place], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
    Ok(last
        .is_some_and(|(answer, is_text, at)| !is_text && answer.as_deref() == Some(notice) && now - at < NOTICE_SECS))
}

fn prune(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let last = transaction.last_insert_rowid();
    transaction.execute("DELETE FROM messages WHERE done = 1 AND number <= ?1", [last - KNOWN])?;
    transaction.execute(
        "UPDATE messages SET text = NULL, answer = NULL, extra = NULL
         WHERE done = 1 AND number <= ?1 AND text IS NOT NULL",
        [last - TEXTS],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests;
