//! The inbox's database: opened once, made where there is none.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::InboxError;

/// Another process that looks into the database holds it only for moments.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const VERSION: i64 = 1;
const SCHEMA: &str = "
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
    PRAGMA user_version = 1;
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
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // A platform that was told "taken" never sends it again: a power cut must not take it.
    connection.pragma_update(None, "synchronous", "full")?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version < VERSION {
        connection.execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA} COMMIT;"))?;
    }
    Ok(connection)
}
