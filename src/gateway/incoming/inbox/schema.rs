//! The inbox's database: opened once, made where there is none.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use super::InboxError;

/// Another process that looks into the database holds it only for moments.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const VERSION: i64 = 2;
/// What makes each version of the one before.
const STEPS: [&str; VERSION as usize] = [FIRST, "ALTER TABLE messages ADD COLUMN extra TEXT;"];
const FIRST: &str = "
    CREATE TABLE messages (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        platform TEXT NOT NULL,
        id TEXT NOT NULL,
        place TEXT NOT NULL,
        quoted TEXT,
        sender TEXT NOT NULL,
        text TEXT,
        tries INTEGER NOT NULL DEFAULT 0,
        answer TEXT,
        apology INTEGER NOT NULL DEFAULT 0,
        begun INTEGER NOT NULL DEFAULT 0,
        sent INTEGER NOT NULL DEFAULT 0,
        done INTEGER NOT NULL DEFAULT 0,
        taken_at INTEGER NOT NULL,
        UNIQUE (platform, id)
    );
    CREATE INDEX messages_of_place ON messages (place, number);
    CREATE INDEX messages_waiting ON messages (place) WHERE done = 0;
    CREATE TABLE marks (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
";

/// The open database. One that could not be opened is tried again the next time: the disk may have room then.
pub(super) fn opened<'a>(slot: &'a mut Option<Connection>, path: &Path) -> Result<&'a mut Connection, InboxError> {
    let connection = match slot.take() {
        Some(connection) => connection,
        None => open(path)?,
    };
    Ok(slot.insert(connection))
}

fn open(path: &Path) -> Result<Connection, InboxError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // A platform that was told "taken" never sends it again: a power cut must not take it.
    connection.pragma_update(None, "synchronous", "full")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: u16 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for step in STEPS.iter().skip(version.into()) {
        transaction.execute_batch(step)?;
    }
    if usize::from(version) < STEPS.len() {
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inbox_of_the_first_version_is_brought_up_with_its_messages() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inbox.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(FIRST).unwrap();
        old.execute_batch(
            "INSERT INTO messages (platform, id, place, sender, text, taken_at) VALUES ('telegram', '1', '{}', 'ada', 'hi', 0);
             PRAGMA user_version = 1;",
        )
        .unwrap();
        drop(old);
        for _ in 0..2 {
            let connection = open(&path).unwrap();
            let row =
                connection.query_row("SELECT text, extra FROM messages", [], |row| Ok((row.get(0)?, row.get(1)?)));
            assert_eq!(row.unwrap(), ("hi".to_owned(), None::<String>));
        }
    }
}
