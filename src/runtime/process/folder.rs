//! An agent's folder on disk.
//!
//! ```text
//! <root>/<agent id>/       0700, or where the agent is a user of its own 0710 with its group
//!   data/                  HOME of the instance: .zeroclaw/config.toml, workspace/; 0700, the agent's
//!   tmp/                   its temporary files; the same
//!   logs/<start>.log       output of the run that began then, in nanoseconds since 1970
//!   logs/<start>.json      which process that was, and how it ended
//!   spec.json              the instance exists; what it was created from, without secrets
//!   lock                   held by the running instance itself
//! ```
//!
//! What is in `data` and `tmp` is the agent's, see [`data`](super::data).
//!
//! `spec.json` comes last when an instance is made and goes first when it is removed, so a service that dies between
//! leaves an instance that is there or not, never a half one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;
use serde::de::DeserializeOwned;

use super::data;
use super::errors::absent;
use super::record::{Record, RunRecord};
use crate::domain::{AgentId, Timestamp};

/// Runs whose output is kept, the current one included.
const RUNS_KEPT: usize = 5;

#[derive(Debug, Clone)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn of(root: &Path, agent: AgentId) -> Self {
        Self { path: root.join(agent.to_string()) }
    }

    /// The agents that have a folder under `root`.
    pub(super) fn agents(root: &Path) -> io::Result<Vec<AgentId>> {
        Ok(fs::read_dir(root)?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// For temporary files: those of the machine's own folder are everybody's.
    pub(super) fn temporary(&self) -> PathBuf {
        self.path.join("tmp")
    }

    pub(super) fn workspace(&self) -> PathBuf {
        self.data().join("workspace")
    }

    pub(super) fn log(&self, started: Timestamp) -> PathBuf {
        self.logs().join(format!("{}.log", started.as_nanosecond()))
    }

    fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    fn run_record_path(&self, started: Timestamp) -> PathBuf {
        self.logs().join(format!("{}.json", started.as_nanosecond()))
    }

    fn record_path(&self) -> PathBuf {
        self.path.join("spec.json")
    }

    /// `None` where no instance is: no folder, or one with data alone.
    pub(super) fn record(&self) -> io::Result<Option<Record>> {
        read_json(&self.record_path())
    }

    pub(super) fn make(&self) -> io::Result<()> {
        for path in [self.workspace(), self.data().join(".zeroclaw"), self.temporary(), self.logs()] {
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        }
        Ok(())
    }

    pub(super) fn write_record(&self, record: &Record) -> io::Result<()> {
        replace(&self.record_path(), &serde_json::to_vec(record)?, 0o600, Durable::Yes)
    }

    /// The uid that the data belongs to.
    pub(super) fn owner(&self) -> io::Result<u32> {
        Ok(fs::symlink_metadata(self.data())?.uid())
    }

    /// Gives the agent what is its own: as `user`, or as the service's user. Looks at four folders only, unless one of them
    /// has another owner: one that was restored, adopted, or made just now. For an agent that does not run.
    pub(super) fn give_to(&self, user: Option<u32>) -> io::Result<()> {
        let (owner, mode) = user.map_or_else(|| (geteuid().as_raw(), 0o700), |user| (user, 0o710));
        let found = fs::metadata(&self.path)?;
        if user.is_some_and(|user| user != found.gid()) {
            std::os::unix::fs::chown(&self.path, None, user)?;
        }
        if found.mode() & 0o777 != mode {
            fs::set_permissions(&self.path, fs::Permissions::from_mode(mode))?;
        }
        for folder in [self.data().join(".zeroclaw"), self.workspace(), self.temporary(), self.data()] {
            data::give(&folder, owner)?;
        }
        Ok(())
    }

    pub(super) fn run_record(&self, started: Timestamp) -> io::Result<Option<RunRecord>> {
        read_json(&self.run_record_path(started))
    }

    pub(super) fn write_run_record(&self, started: Timestamp, record: &RunRecord) -> io::Result<()> {
        // Not worth a disk's time in every start: after a power cut the run is over anyway.
        let path = self.run_record_path(started);
        replace(&path, &serde_json::to_vec(record)?, 0o600, Durable::No)
    }

    /// The starts of all runs whose output is kept, oldest first.
    pub(super) fn runs(&self) -> io::Result<Vec<Timestamp>> {
        let entries = match fs::read_dir(self.logs()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut runs = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".log")?.parse::<i128>().ok())
            .filter_map(|nanoseconds| Timestamp::from_nanosecond(nanoseconds).ok())
            .collect::<Vec<_>>();
        runs.sort_unstable();
        Ok(runs)
    }

    /// Removes the oldest runs, so that there is room for one more.
    pub(super) fn prune_runs(&self) -> io::Result<()> {
        let runs = self.runs()?;
        for started in &runs[..(runs.len() + 1).saturating_sub(RUNS_KEPT)] {
            absent(fs::remove_file(self.log(*started)))?;
            absent(fs::remove_file(self.run_record_path(*started)))?;
        }
        Ok(())
    }

    /// Takes the lock, or answers `None` at once where somebody has it. It is held for as long as any process has the
    /// file open: the one that gets it as its standard input holds it until it dies, whatever becomes of us.
    pub(super) fn try_lock(&self) -> io::Result<Option<File>> {
        let path = self.path.join("lock");
        loop {
            let file =
                OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            // The folder may have been removed and made anew since we opened it; then this lock means nothing.
            match fs::metadata(&path) {
                Ok(there) if there.ino() == file.metadata()?.ino() => return Ok(Some(file)),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes the instance and leaves its data.
    pub(super) fn forget(&self) -> io::Result<()> {
        absent(fs::remove_file(self.record_path()))?;
        remove_tree(&self.logs())
    }

    /// Removes all there is. The folder goes away in one step; a removal that was cut short is finished by [`Folder::sweep`].
    pub(super) fn remove(&self, now: Timestamp) -> io::Result<()> {
        let Some(name) = self.path.file_name().and_then(|name| name.to_str()) else { return Ok(()) };
        let aside = self.path.with_file_name(format!("{REMOVED}{name}-{}", now.as_nanosecond()));
        match fs::rename(&self.path, &aside) {
            Ok(()) => remove_tree(&aside),
            Err(error) => absent(Err(error)),
        }
    }

    /// Finishes what an earlier service began to remove.
    pub(super) fn sweep(root: &Path) -> io::Result<()> {
        for entry in fs::read_dir(root)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(REMOVED) {
                remove_tree(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// Begins the names of folders that are being removed.
const REMOVED: &str = ".removed-";

/// Rounds of removing a folder into which somebody still writes: how a run ended is written down beside us.
const REMOVALS: usize = 10;

fn remove_tree(path: &Path) -> io::Result<()> {
    let mut removed = absent(fs::remove_dir_all(path));
    for _ in 1..REMOVALS {
        match removed {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                removed = absent(fs::remove_dir_all(path));
            }
            other => return other,
        }
    }
    removed
}

/// A file that cannot be read as what it should be counts as absent: it is made anew from what the control plane knows.
fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)
            .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "ignoring a broken file"))
            .ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a file must be on disk before it takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durable {
    /// After a power cut it has its old content or its new one.
    Yes,
    No,
}

fn replace(path: &Path, content: &[u8], mode: u32, durable: Durable) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    absent(fs::remove_file(&beside))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    file.write_all(content)?;
    if durable == Durable::Yes {
        file.sync_all()?;
    }
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::RunId;

    fn folder() -> (tempfile::TempDir, Folder) {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::of(root.path(), AgentId::new());
        folder.make().unwrap();
        (root, folder)
    }

    #[test]
    fn only_the_newest_runs_are_kept() {
        let (_root, folder) = folder();
        for second in 1..=8 {
            folder.prune_runs().unwrap();
            let started = Timestamp::from_second(second).unwrap();
            File::create(folder.log(started)).unwrap();
            folder.write_run_record(started, &RunRecord::begun(RunId("b".into()))).unwrap();
        }
        let kept = folder.runs().unwrap().iter().map(|run| run.as_second()).collect::<Vec<_>>();
        assert_eq!(kept, [4, 5, 6, 7, 8]);
        assert_eq!(fs::read_dir(folder.logs()).unwrap().count(), 10);
        assert_eq!(fs::metadata(&folder.path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn one_lock_at_a_time_and_a_removed_folder_frees_it() {
        let (root, folder) = folder();
        let held = folder.try_lock().unwrap().unwrap();
        assert!(folder.try_lock().unwrap().is_none());
        folder.remove(Timestamp::now()).unwrap();
        folder.make().unwrap();
        assert!(folder.try_lock().unwrap().is_some());
        drop(held);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_broken_record_counts_as_none() {
        let (_root, folder) = folder();
        fs::write(folder.record_path(), b"{\"installation\":").unwrap();
        assert_eq!(folder.record().unwrap(), None);
    }

    #[test]
    fn a_removal_that_was_cut_short_is_finished() {
        let (root, _folder) = folder();
        fs::create_dir_all(root.path().join(".removed-x-1/data")).unwrap();
        Folder::sweep(root.path()).unwrap();
        assert!(!root.path().join(".removed-x-1").exists());
    }
}
