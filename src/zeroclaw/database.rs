//! A copy of an SQLite database, made whole.
//!
//! A gateway that runs has the newest part of its memory in a log beside the database. Both were copied at one moment;
//! SQLite itself puts them together here, so that whoever gets the copy has one file, and nothing that was deleted in it.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::domain::{Secret, StagedFile};

const LOG: &str = "-wal";

/// Replaces each database and its log by one database. One that cannot be read stays as it is, with its log.
pub fn made_whole(mut files: Vec<StagedFile>) -> Vec<StagedFile> {
    let is_database = |file: &&StagedFile| file.path.ends_with(".db");
    let databases: Vec<String> = files.iter().filter(is_database).map(|file| file.path.to_string()).collect();
    for path in databases {
        let log = format!("{path}{LOG}");
        let content = |path: &str| files.iter().find(|file| file.path == path).map(|file| file.content.expose());
        let Some(database) = content(&path).filter(|database| !database.is_empty()) else { continue };
        match put_together(database, content(&log).map(Vec::as_slice)) {
            Ok(whole) => {
                files.retain(|file| file.path != log.as_str());
                if let Some(file) = files.iter_mut().find(|file| file.path == path) {
                    file.content = Secret::new(whole);
                }
            }
            Err(error) => tracing::warn!(path, %error, "a database cannot be read; it is copied as it is"),
        }
    }
    files
}

fn put_together(database: &[u8], log: Option<&[u8]>) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("copy.db"), database)?;
    if let Some(log) = log {
        std::fs::write(at(&format!("copy.db{LOG}")), log)?;
    }
    vacuum(&at("copy.db"), &at("whole.db"))?;
    Ok(std::fs::read(at("whole.db"))?)
}

fn vacuum(from: &Path, to: &Path) -> rusqlite::Result<()> {
    let connection = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
            Some(verdict),
        ));
    }
    connection.execute("VACUUM INTO ?1", [to.to_string_lossy()]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, content: Vec<u8>) -> StagedFile {
        StagedFile { path: path.to_owned().into(), content: Secret::new(content), mode: 0o600 }
    }

    /// A database and its log as they are while it is open and in use.
    fn in_use() -> [Vec<u8>; 2] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("brain.db");
        let open = Connection::open(&path).unwrap();
        open.execute_batch(
            "PRAGMA journal_mode=WAL; CREATE TABLE memories (key TEXT); INSERT INTO memories VALUES ('forgotten');
             PRAGMA wal_checkpoint(TRUNCATE); DELETE FROM memories; INSERT INTO memories VALUES ('kept'), ('newest');",
        )
        .unwrap();
        ["brain.db", "brain.db-wal"].map(|name| std::fs::read(folder.path().join(name)).unwrap())
    }

    #[test]
    fn a_database_and_its_log_become_one_with_the_newest_and_without_what_was_deleted() {
        let [database, log] = in_use();
        assert!(!database.windows(6).any(|window| window == b"newest"), "it is in the log alone");
        let files = [file("memory/brain.db", database), file("memory/brain.db-wal", log), file("a.txt", b"a".into())];
        let whole = made_whole(files.into());
        assert_eq!(whole.iter().map(|file| file.path.as_ref()).collect::<Vec<_>>(), ["memory/brain.db", "a.txt"]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("brain.db");
        std::fs::write(&path, whole[0].content.expose()).unwrap();
        let open = Connection::open(&path).unwrap();
        let mut keys = open.prepare("SELECT key FROM memories ORDER BY key").unwrap();
        let keys: Vec<String> = keys.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(keys, ["kept", "newest"]);
        assert!(!whole[0].content.expose().windows(9).any(|window| window == b"forgotten"));
    }

    #[test]
    fn what_is_no_database_stays_as_it_is() {
        let files = vec![file("x.db", b"no database".into()), file("x.db-wal", b"log".into()), file("y.db", vec![])];
        assert_eq!(made_whole(files.clone()), files);
    }
}
