//! The lease of an installation on this machine: a locked file outside of every data folder.
//!
//! A copied data folder leads to the same file, because the file's name is the installation's id. The kernel holds the lock
//! for as long as the process lives, so a holder that was killed needs no time-out, and one that lives cannot be passed
//! over: `take_over` has no effect here, the other process has to be ended.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::errors::failed;
use crate::domain::{InstallationId, Timestamp};
use crate::runtime::lease::{LeaseAnswer, LeasePurpose, LeaseRecord, LeaseRequest, decide};
use crate::runtime::{RuntimeError, RuntimeResult};

/// A process between fork and exec has all files of its parent: the lock of a holder that was killed is free when that
/// process runs its program, milliseconds later.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(5);
/// A holder writes every few seconds. What nobody wrote for so long, and nobody has locked, is of one that was killed and
/// never came again.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);
/// A record is a few hundred bytes; more is not ours.
const MAX_RECORD: u64 = 64 * 1024;

#[derive(Debug)]
pub(super) struct LeaseFile {
    path: PathBuf,
    /// While it is held: the locked file and what it says.
    held: Option<(File, LeaseRecord)>,
}

impl LeaseFile {
    /// All data folders of this user and this machine have their leases in one folder.
    pub(super) fn of(installation: InstallationId) -> Self {
        let user = rustix::process::geteuid().as_raw();
        let folder = Path::new("/tmp").join(format!("zeroone-{user}"));
        Self { path: folder.join(format!("{installation}.lease")), held: None }
    }

    pub(super) fn ask(&mut self, request: &LeaseRequest, now: Timestamp) -> RuntimeResult<LeaseAnswer> {
        let path = &self.path;
        let Some((file, record)) = self.held.as_mut().filter(|(file, _)| is_at(file, path)) else {
            return self.ask_anew(request, now);
        };
        let (written, answer) = decide(Some(&*record), request, now);
        if let Some(written) = written {
            write(file, &written)?;
            *record = written;
        }
        if record.released {
            // Whoever waits for the lock sees that it is another file's by now.
            let _ = fs::remove_file(path);
            self.held = None;
        }
        Ok(answer)
    }

    /// Nothing is held, or the file was removed by hand or by a cleaner of old files, so that the lock keeps no one out.
    fn ask_anew(&mut self, request: &LeaseRequest, now: Timestamp) -> RuntimeResult<LeaseAnswer> {
        self.held = None;
        if let LeasePurpose::Release { epoch } = request.purpose {
            return Ok(LeaseAnswer::Held { epoch });
        }
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        make_folder(folder)?;
        if matches!(request.purpose, LeasePurpose::Claim { .. }) {
            sweep(folder, ABANDONED);
        }
        let (mut file, locked) = lock(&self.path).map_err(failed("cannot lock the lease file of this installation"))?;
        let found = read(&file).map_err(failed("cannot read the lease file of this installation"))?;
        if !locked {
            return Ok(LeaseAnswer::InUse(found.unwrap_or_else(|| unknown(now))));
        }
        // The kernel gave us the lock, so the holder before has ended.
        let before = found.map(|found| LeaseRecord { released: true, ..found });
        let (written, answer) = decide(before.as_ref(), request, now);
        if let Some(written) = written {
            write(&mut file, &written)?;
            self.held = Some((file, written));
        }
        Ok(answer)
    }
}

/// Removes lease files that have no use any more. Those that cannot be read or removed stay.
fn sweep(folder: &Path, after: Duration) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let age = entry.metadata().and_then(|found| found.modified()).ok().and_then(|written| written.elapsed().ok());
        if path.extension().is_none_or(|extension| extension != "lease") || age.is_none_or(|age| age < after) {
            continue;
        }
        let Ok(file) = File::open(&path) else { continue };
        if file.try_lock().is_ok() && is_at(&file, &path) {
            let _ = fs::remove_file(&path);
        }
    }
}

fn write(file: &mut File, record: &LeaseRecord) -> RuntimeResult<()> {
    let text = serde_json::to_vec(record).map_err(|error| RuntimeError::Invalid(error.to_string()))?;
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(&text))
        .map_err(failed("cannot write the lease file of this installation"))
}

/// The folder is this user's alone: whoever may write into it could keep us from starting.
fn make_folder(folder: &Path) -> RuntimeResult<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("cannot make the folder of the leases")(error));
        }
        Ok(()) | Err(_) => {}
    }
    let found = fs::symlink_metadata(folder).map_err(failed("cannot read the folder of the leases"))?;
    let ours = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0;
    if ours {
        return Ok(());
    }
    let folder = folder.display();
    Err(RuntimeError::Invalid(format!("{folder} must be a folder of this user that no other user can write into")))
}

/// The file, and whether the lock on it is ours now.
fn lock(path: &Path) -> io::Result<(File, bool)> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match file.try_lock() {
            // Between opening and locking it may have been removed.
            Ok(()) if is_at(&file, path) => return Ok((file, true)),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Ok((file, false)),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let same = |file: io::Result<fs::Metadata>| Some(file.ok()?).map(|file| (file.dev(), file.ino()));
    let open = same(file.metadata());
    open.is_some() && open == same(fs::symlink_metadata(path))
}

/// `None` where it is empty or says something else: it was cut off while it was written.
fn read(mut file: &File) -> io::Result<Option<LeaseRecord>> {
    let mut text = Vec::new();
    file.rewind()?;
    file.take(MAX_RECORD).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text).ok())
}

fn unknown(now: Timestamp) -> LeaseRecord {
    let description = "another process of this machine".to_owned();
    LeaseRecord { epoch: 0, holder: String::new(), description, renewed_at: now, released: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(holder: &str, purpose: LeasePurpose) -> LeaseRequest {
        LeaseRequest { holder: holder.into(), description: format!("test {holder}"), purpose }
    }

    fn claim(holder: &str, take_over: bool) -> LeaseRequest {
        request(holder, LeasePurpose::Claim { take_over })
    }

    fn pair() -> (tempfile::TempDir, LeaseFile, LeaseFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("an-installation.lease");
        let file = || LeaseFile { path: path.clone(), held: None };
        let (first, second) = (file(), file());
        (folder, first, second)
    }

    #[test]
    fn a_live_holder_is_never_passed_over_and_a_dead_one_at_once() {
        let (_folder, mut first, mut second) = pair();
        let now = Timestamp::now();
        assert_eq!(first.ask(&claim("a", false), now), Ok(LeaseAnswer::Held { epoch: 1 }));
        for take_over in [false, true] {
            let answer = second.ask(&claim("b", take_over), now).unwrap();
            let LeaseAnswer::InUse(holder) = answer else { panic!("{answer:?}") };
            assert_eq!(holder.description, "test a");
        }
        assert_eq!(first.ask(&request("a", LeasePurpose::Renew { epoch: 1 }), now), Ok(LeaseAnswer::Held { epoch: 1 }));
        drop(first);
        assert_eq!(second.ask(&claim("b", false), now), Ok(LeaseAnswer::Held { epoch: 2 }));
    }

    #[test]
    fn a_released_lease_is_free_while_its_process_lives() {
        let (_folder, mut first, mut second) = pair();
        let now = Timestamp::now();
        first.ask(&claim("a", false), now).unwrap();
        first.ask(&request("a", LeasePurpose::Release { epoch: 1 }), now).unwrap();
        assert!(!first.path.exists(), "nothing is left of it");
        assert_eq!(second.ask(&claim("b", false), now), Ok(LeaseAnswer::Held { epoch: 1 }));
        assert!(matches!(first.ask(&request("a", LeasePurpose::Renew { epoch: 1 }), now), Ok(LeaseAnswer::InUse(_))));
    }

    #[test]
    fn lease_files_of_holders_that_were_killed_go_and_those_in_use_stay() {
        let (folder, mut first, _) = pair();
        first.ask(&claim("a", false), Timestamp::now()).unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["killed.lease", "something.else"] {
            fs::write(at(name), "{}").unwrap();
        }
        sweep(folder.path(), ABANDONED);
        assert!(at("killed.lease").exists(), "it may be about to be used");
        sweep(folder.path(), Duration::ZERO);
        assert!(!at("killed.lease").exists() && at("something.else").exists() && first.path.exists());
    }

    #[test]
    fn a_removed_lease_file_is_made_again_by_its_holder() {
        let (_folder, mut first, mut second) = pair();
        let now = Timestamp::now();
        first.ask(&claim("a", false), now).unwrap();
        fs::remove_file(&first.path).unwrap();
        assert_eq!(first.ask(&request("a", LeasePurpose::Renew { epoch: 1 }), now), Ok(LeaseAnswer::Held { epoch: 1 }));
        assert!(matches!(second.ask(&claim("b", true), now), Ok(LeaseAnswer::InUse(_))));
    }
}
