//! A copy of a gateway's database while the gateway uses it.

use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// How long another process may hold the database.
const BUSY: Duration = Duration::from_secs(5);

/// Writes one moment of the database into a new file. The database is only read, and no link is followed to it.
///
/// # Errors
/// It is no database, or is damaged, or `to` is there already.
pub fn copy_database(from: &Path, to: &Path) -> io::Result<()> {
    // A reader of a database in use takes part in its locks, so it opens it for writing.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let copied = Connection::open_with_flags(from, flags).and_then(|database| {
        database.busy_timeout(BUSY)?;
        // The file is an agent's: nothing that its schema defines is run.
        database.pragma_update(None, "trusted_schema", false)?;
        database.execute("VACUUM INTO ?1", [to.to_string_lossy()])
    });
    copied.map(|_| ()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_yet_in_the_main_file_is_copied_too() {
        let folder = tempfile::TempDir::new().unwrap();
        let (from, to) = (folder.path().join("a.db"), folder.path().join("b.db"));
        let database = Connection::open(&from).unwrap();
        database.pragma_update(None, "journal_mode", "wal").unwrap();
        database.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (42)").unwrap();
        assert!(folder.path().join("a.db-wal").metadata().unwrap().len() > 0);
        copy_database(&from, &to).unwrap();
        let read = |path| Connection::open(path).unwrap().query_row("SELECT x FROM t", [], |row| row.get::<_, i64>(0));
        assert_eq!(read(&to), Ok(42));
        assert!(copy_database(&from, &to).is_err(), "nothing is overwritten");
        std::fs::write(folder.path().join("text"), "no database").unwrap();
        assert!(copy_database(&folder.path().join("text"), &folder.path().join("c.db")).is_err());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&from, &link).unwrap();
        assert!(copy_database(&link, &folder.path().join("d.db")).is_err(), "no link is followed");
    }
}
