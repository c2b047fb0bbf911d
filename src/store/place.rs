//! Where a store is, and how it is opened there without ever harming what is found.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use redb::backends::FileBackend;
use redb::{Database, DatabaseError};

use crate::domain::{InstallationId, Timestamp};

use super::disk::{Disk, OnDisk};
use super::error::OpenError;
use super::schema::{self, Identity, Migration, SchemaError};

/// Pages that redb keeps in memory, beside those that the system keeps of every file: records are read at boot alone, and
/// the inner pages by which a commit finds its place fit in many times over.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// Files below this size are left alone.
const COMPACTED_ABOVE: u64 = 32 * 1024 * 1024;
/// Far more rounds than any file needs; a start must not go on compacting for ever.
const COMPACTION_ROUNDS: usize = 32;

#[derive(Debug, Clone)]
pub(super) enum Place {
    File(PathBuf),
    Memory(Arc<dyn Disk>),
}

/// What a store becomes that is not there yet, and how one that is there is read.
#[derive(Debug, Clone)]
pub(super) struct Opening {
    pub(super) installation: InstallationId,
    pub(super) created_at: Timestamp,
    pub(super) separate_as: Option<InstallationId>,
    pub(super) check_integrity: bool,
    pub(super) migrations: &'static [Migration],
}

/// Held for as long as the store is in use, over every reopening too: between two openings of the file nobody else may
/// take it.
#[derive(Debug)]
pub(super) struct Lock {
    _file: Option<File>,
}

enum Backend {
    File(File),
    Memory(Arc<dyn Disk>),
}

impl Place {
    /// # Errors
    /// [`OpenError::InUse`] if another process has the store.
    pub(super) fn lock(&self) -> Result<Lock, OpenError> {
        match self {
            Self::Memory(_) => Ok(Lock { _file: None }),
            Self::File(path) => lock_beside(path).map(|file| Lock { _file: Some(file) }),
        }
    }

    /// Opens the store. One that is not there is made; anything that is there and is no store is refused.
    pub(super) fn open(&self, opening: &Opening) -> Result<(Database, Identity), OpenError> {
        if self.is_missing()? {
            self.create(opening)?;
        }
        let (database, mut identity) = self.reopen(opening)?;
        if let Some(installation) = opening.separate_as {
            identity = self.guarded(|| schema::separate(&database, identity, installation))?;
        }
        if self.is_mostly_free(&database) {
            return self.compacted(database, opening);
        }
        Ok((database, identity))
    }

    /// Whether a large file is mostly free pages: redb uses them again, but never gives them back by itself.
    pub(super) fn is_mostly_free(&self, database: &Database) -> bool {
        let used = || {
            let txn = database.begin_write()?;
            let stats = txn.stats()?;
            txn.abort()?;
            Ok(stats.allocated_pages() * stats.page_size() as u64)
        };
        matches!(self, Self::File(_)) && self.bytes().is_ok_and(|bytes| is_worth_compacting(bytes, used))
    }

    fn compacted(&self, mut database: Database, opening: &Opening) -> Result<(Database, Identity), OpenError> {
        let before = self.bytes().unwrap_or_default();
        // Each step of a compaction is a commit, so one that fails leaves a store that is whole. A call moves what it can
        // move at once; what was in its way is free for the next one.
        for _ in 0..COMPACTION_ROUNDS {
            match database.compact() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(store = %self, %error, "the store could not be compacted");
                    break;
                }
            }
        }
        drop(database);
        tracing::info!(store = %self, before, after = self.bytes().unwrap_or_default(), "compacted the store");
        self.reopen(opening)
    }

    /// Opens the store that must be there: one that went missing is not replaced by an empty one.
    pub(super) fn reopen(&self, opening: &Opening) -> Result<(Database, Identity), OpenError> {
        let backend = self.backend()?;
        self.guarded(|| {
            let db = database(backend, opening.check_integrity)?;
            let identity = schema::upgrade(&db, opening.migrations)?;
            Ok((db, identity))
        })
    }

    fn is_missing(&self) -> Result<bool, OpenError> {
        match self {
            Self::File(path) => match fs::symlink_metadata(path) {
                Ok(_) => Ok(false),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
                Err(error) => Err(self.cannot("open", &error)),
            },
            Self::Memory(disk) => disk.is_empty().map_err(|error| self.cannot("open", &error)),
        }
    }

    /// Makes a store elsewhere and moves it to its place when it is whole, so that a crash leaves all of it or nothing.
    fn create(&self, opening: &Opening) -> Result<(), OpenError> {
        let found = |backend: Backend| {
            self.guarded(|| {
                let db = database(backend, false)?;
                schema::found(&db, opening.installation, opening.created_at, opening.migrations)?;
                Ok(db.close()?)
            })
        };
        let path = match self {
            Self::Memory(disk) => return found(Backend::Memory(disk.clone())),
            Self::File(path) => path,
        };
        let draft = suffixed(path, ".new");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&draft);
        let file = file.map_err(|error| self.cannot("create", &error))?;
        found(Backend::File(file))?;
        fs::rename(&draft, path)
            .and_then(|()| File::open(folder_of(path))?.sync_all())
            .map_err(|error| self.cannot("create", &error))
    }

    /// Length in bytes.
    pub(super) fn bytes(&self) -> io::Result<u64> {
        match self {
            Self::File(path) => Ok(fs::metadata(path)?.len()),
            Self::Memory(disk) => disk.len(),
        }
    }

    /// Tells this store from a copy of it: the same over restarts, another one for a file that was copied.
    pub(super) fn identity(&self) -> io::Result<String> {
        match self {
            Self::Memory(_) => Ok("memory".to_owned()),
            Self::File(path) => {
                let file = fs::metadata(path)?;
                Ok(format!("{}:{}:{}", fs::canonicalize(path)?.display(), file.dev(), file.ino()))
            }
        }
    }

    fn backend(&self) -> Result<Backend, OpenError> {
        match self {
            Self::Memory(disk) => Ok(Backend::Memory(disk.clone())),
            Self::File(path) => {
                let file = OpenOptions::new().read(true).write(true).open(path);
                let file = file.map_err(|error| self.cannot("open", &error))?;
                // redb would take an empty file for a new store. It is one that lost its contents.
                let length = file.metadata().map_err(|error| self.cannot("open", &error))?.len();
                if length == 0 { Err(self.damaged("it is empty")) } else { Ok(Backend::File(file)) }
            }
        }
    }

    /// Translates what redb says. It may panic on a file that decayed in a bad place; that is an answer too.
    fn guarded<T>(&self, open: impl FnOnce() -> Result<T, SchemaError>) -> Result<T, OpenError> {
        match catch_unwind(AssertUnwindSafe(open)) {
            Ok(Ok(opened)) => Ok(opened),
            Ok(Err(error)) => Err(self.explain(error)),
            Err(_) => Err(self.damaged("its pages contradict each other")),
        }
    }

    pub(super) fn explain(&self, error: SchemaError) -> OpenError {
        match error {
            SchemaError::Newer { found, known } => OpenError::Newer { path: self.to_string(), found, known },
            SchemaError::Foreign => self.damaged("it is a redb file, but not of this service"),
            SchemaError::Damaged => self.damaged("its identity does not match its checksum"),
            SchemaError::Medium(redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch) => {
                OpenError::InUse { path: self.to_string(), holder: String::new() }
            }
            SchemaError::Medium(redb::Error::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                self.damaged(&error.to_string())
            }
            SchemaError::Medium(redb::Error::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.damaged("it is cut short")
            }
            SchemaError::Medium(redb::Error::Io(error)) => self.cannot("open", &error),
            SchemaError::Medium(error) => self.damaged(&error.to_string()),
        }
    }

    fn damaged(&self, reason: &str) -> OpenError {
        OpenError::Damaged { path: self.to_string(), reason: reason.to_owned() }
    }

    fn cannot(&self, action: &'static str, error: &io::Error) -> OpenError {
        OpenError::Io { action, path: self.to_string(), reason: error.to_string() }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Memory(_) => f.write_str("the store in memory"),
        }
    }
}

/// Whether a file of so many bytes, of which so many are in use, is compacted.
fn is_worth_compacting(bytes: u64, used: impl FnOnce() -> Result<u64, redb::Error>) -> bool {
    bytes > COMPACTED_ABOVE && used().is_ok_and(|used| used < bytes / 2)
}

fn database(backend: Backend, check_integrity: bool) -> Result<Database, DatabaseError> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(check_integrity);
    match backend {
        Backend::File(file) => builder.create_with_backend(FileBackend::new(file)?),
        Backend::Memory(disk) => builder.create_with_backend(OnDisk(disk)),
    }
}

fn lock_beside(path: &Path) -> Result<File, OpenError> {
    let place = suffixed(path, ".lock");
    let cannot = |action, error: &io::Error| OpenError::Io {
        action,
        path: place.display().to_string(),
        reason: error.to_string(),
    };
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&place);
    let mut file = file.map_err(|error| cannot("open", &error))?;
    match locked(|| file.try_lock(), || thread::sleep(LOCK_PAUSE)) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let read = (&file).take(20).read_to_string(&mut pid);
            let known = read.is_ok() && !pid.trim().is_empty();
            let holder = if known { format!(" (process {})", pid.trim()) } else { String::new() };
            return Err(OpenError::InUse { path: path.display().to_string(), holder });
        }
        Err(TryLockError::Error(error)) => return Err(cannot("lock", &error)),
    }
    // The pid is for people. A full disk must not keep the service from starting, so a failure is none.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// How often a lock is tried again that is held, and the pause before each time: a second in all.
///
/// A service that is killed in the very moment in which it starts an agent leaves a child between fork and exec, which
/// still has all of its files: the lock is free when that child runs its program, milliseconds later.
const LOCK_RETRIES: usize = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

fn locked(try_lock: impl Fn() -> Result<(), TryLockError>, pause: impl Fn()) -> Result<(), TryLockError> {
    let mut outcome = try_lock();
    for _ in 0..LOCK_RETRIES {
        let Err(TryLockError::WouldBlock) = outcome else { return outcome };
        pause();
        outcome = try_lock();
        if outcome.is_ok() {
            // That child lets go of the store's own file in the same breath: let it breathe out.
            pause();
        }
    }
    outcome
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_large_file_is_compacted_if_less_than_half_of_it_is_used() {
        let large = 2 * COMPACTED_ABOVE;
        for (bytes, used, compacted) in [
            (COMPACTED_ABOVE, 0, false),
            (COMPACTED_ABOVE + 1, 0, true),
            (large, large / 2 - 1, true),
            (large, large / 2, false),
            (large, large, false),
        ] {
            assert_eq!(is_worth_compacting(bytes, || Ok(used)), compacted, "{used} of {bytes}");
        }
        assert!(!is_worth_compacting(large, || Err(redb::Error::Corrupted("unreadable".into()))));
    }

    /// Tries a lock that is free after so many tries; gives the outcome and the number of pauses.
    fn lock_held_for(tries: usize) -> (Result<(), TryLockError>, usize) {
        let (left, pauses) = (Cell::new(tries), Cell::new(0));
        let try_lock = || {
            let held = left.get() > 0;
            left.set(left.get().saturating_sub(1));
            if held { Err(TryLockError::WouldBlock) } else { Ok(()) }
        };
        (locked(try_lock, || pauses.set(pauses.get() + 1)), pauses.get())
    }

    #[test]
    fn a_lock_that_outlives_its_holder_a_little_is_waited_for_and_then_the_file_beside_it() {
        for (held, pauses) in [(0, 0), (1, 2), (2, 3), (LOCK_RETRIES, LOCK_RETRIES + 1)] {
            assert!(matches!(lock_held_for(held), (Ok(()), paused) if paused == pauses), "{held}");
        }
        let refused = lock_held_for(LOCK_RETRIES + 1);
        assert!(matches!(refused, (Err(TryLockError::WouldBlock), LOCK_RETRIES)), "{refused:?}");
        let broken = || Err(TryLockError::Error(io::Error::other("no locks here")));
        let outcome = locked(broken, || panic!("nothing is waited for"));
        assert!(matches!(outcome, Err(TryLockError::Error(_))));
    }

    #[test]
    fn a_store_that_cannot_be_looked_for_is_not_taken_for_missing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let is_missing = |path: PathBuf| Place::File(path).is_missing();
        assert_eq!(is_missing(file.clone()), Ok(true));
        fs::write(&file, "a store").unwrap();
        assert_eq!(is_missing(file.clone()), Ok(false));
        let below_a_file = is_missing(file.join("zeroone.redb"));
        assert!(matches!(below_a_file, Err(OpenError::Io { action: "open", .. })), "{below_a_file:?}");
    }

    #[test]
    fn trouble_with_the_disk_is_told_from_damage() {
        let explain = |error| Place::File("zeroone.redb".into()).explain(SchemaError::Medium(error));
        for (kind, damage) in [
            (io::ErrorKind::InvalidData, Some("invalid data")),
            (io::ErrorKind::UnexpectedEof, Some("it is cut short")),
            (io::ErrorKind::PermissionDenied, None),
            (io::ErrorKind::StorageFull, None),
        ] {
            match explain(redb::Error::Io(kind.into())) {
                OpenError::Damaged { reason, .. } => assert_eq!(Some(reason.as_str()), damage, "{kind}"),
                OpenError::Io { action: "open", .. } => assert_eq!(damage, None, "{kind}"),
                error => panic!("{kind}: {error}"),
            }
        }
        assert!(matches!(explain(redb::Error::DatabaseAlreadyOpen), OpenError::InUse { .. }));
        assert!(matches!(explain(redb::Error::Corrupted("a page".into())), OpenError::Damaged { .. }));
    }

    #[test]
    fn a_file_without_a_folder_is_in_the_present_one() {
        for (file, folder) in [("/data/zeroone.redb", "/data"), ("data/zeroone.redb", "data"), ("zeroone.redb", ".")] {
            assert_eq!(folder_of(Path::new(file)), Path::new(folder));
        }
    }
}
