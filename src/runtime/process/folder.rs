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
//! What is in `data` and `tmp` may be the work of an agent that wishes the service no good. A link there that leads out is
//! not followed, or the service would read and write for the agent what the agent itself may not.
//!
//! `spec.json` comes last when an instance is made and goes first when it is removed, so a service that dies between
//! leaves an instance that is there or not, never a half one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use rustix::fs::{AtFlags, FlockOperation, chownat, fchown, flock};
use rustix::process::{Gid, Uid, geteuid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::domain::{AgentId, HostPort, InstallationId, Origin, Secret, Slug, Timestamp};
use crate::runtime::{Exit, InstanceSpec, RunId, StagedFile};

/// Runs whose output is kept, the current one included.
const RUNS_KEPT: usize = 5;

#[derive(Debug, Clone)]
pub(super) struct Folder {
    path: PathBuf,
}

/// What is kept of an instance's spec: all but its environment and files, which hold secrets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) installation: InstallationId,
    pub(super) agent: AgentId,
    pub(super) slug: Slug,
    pub(super) generation: u64,
    pub(super) spec_hash: String,
    pub(super) port: Option<HostPort>,
    pub(super) memory_mb: u32,
    /// Runs before this belong to an instance that was replaced.
    pub(super) created: Timestamp,
    #[serde(default)]
    pub(super) origin: Option<Arc<Origin>>,
}

impl Record {
    pub(super) fn new(installation: InstallationId, spec: &InstanceSpec, created: Timestamp) -> Self {
        Self {
            installation,
            agent: spec.key.agent,
            slug: spec.key.slug.clone(),
            generation: spec.generation,
            spec_hash: spec.hash(),
            port: spec.port,
            memory_mb: spec.memory_mb,
            created,
            origin: spec.origin.clone(),
        }
    }
}

/// What is kept of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunRecord {
    #[serde(rename = "boot")]
    pub(super) run_id: RunId,
    /// Its end was seen, and nothing of it is left.
    #[serde(default)]
    pub(super) ended: bool,
    #[serde(default)]
    pub(super) code: Option<i32>,
    #[serde(default)]
    pub(super) oom: bool,
}

impl RunRecord {
    pub(super) const fn begun(run_id: RunId) -> Self {
        Self { run_id, ended: false, code: None, oom: false }
    }

    pub(super) const fn over(run_id: RunId, exit: &Exit) -> Self {
        Self { run_id, ended: true, code: exit.code, oom: exit.oom }
    }

    pub(super) const fn exit(&self) -> Exit {
        Exit { code: self.code, oom: self.oom, asked: false, reason: None }
    }
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

    /// Writes each file beside its place and renames it there: the instance sees the old content or the new.
    pub(super) fn stage(&self, files: &[StagedFile]) -> io::Result<()> {
        let data = Dir::open_ambient_dir(self.data(), ambient_authority())?;
        for file in files {
            let path = inside(&file.path)?;
            stage(&data, path, file).map_err(|error| leads_out(path, error))?;
        }
        Ok(())
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
            let found = fs::symlink_metadata(&folder)?;
            if found.uid() != owner {
                give(&folder, owner).map_err(|error| not_ours(&folder, found.uid(), error))?;
            }
        }
        Ok(())
    }

    /// The regular files below a folder of the data, in the order of their paths; `None` where they have more than
    /// `most` bytes. One that goes away meanwhile is left out.
    pub(super) fn read_data(&self, folder: &str, most: usize) -> io::Result<Option<Vec<StagedFile>>> {
        let (mut files, mut left) = (Vec::new(), most as u64);
        let mut folders = vec![inside(folder)?.to_owned()];
        let data = match Dir::open_ambient_dir(self.data(), ambient_authority()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(files)),
            data => data?,
        };
        while let Some(folder) = folders.pop() {
            let entries = match data.read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(|error| leads_out(&folder, error))?,
            };
            for entry in entries {
                let entry = entry?;
                let (kind, path) = (entry.file_type()?, folder.join(entry.file_name()));
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() {
                    // A name that is no text is nothing that we could write again.
                    let Some(path) = path.to_str() else { continue };
                    let Some((content, mode)) = read_at_most(&entry, left)? else { continue };
                    let Some(rest) = left.checked_sub(content.len() as u64) else { return Ok(None) };
                    left = rest;
                    files.push(StagedFile { path: path.to_owned().into(), content: Secret::new(content), mode });
                }
            }
        }
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(Some(files))
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

/// Writes a file into an agent's data; it and new folders above it belong to whom the data belongs.
fn stage(data: &Dir, path: &Path, file: &StagedFile) -> io::Result<()> {
    use cap_std::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
    let (to, service) = (data.dir_metadata()?, geteuid().as_raw());
    let (owner, group) = (Uid::from_raw(to.uid()), Gid::from_raw(to.gid()));
    let given = to.uid() != service;
    let parents: Vec<&Path> = path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()).collect();
    for parent in parents.into_iter().rev() {
        match data.create_dir_with(parent, cap_std::fs::DirBuilder::new().mode(0o700)) {
            // It may be no more than a place to look up names from: then only this call takes it.
            Ok(()) if given => chownat(data.open_dir(parent)?, "", Some(owner), Some(group), AtFlags::EMPTY_PATH)?,
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    absent(data.remove_file(&beside))?;
    let options = &mut cap_std::fs::OpenOptions::new();
    let mut new = data.open_with(&beside, options.write(true).create_new(true).mode(file.mode))?;
    new.write_all(file.content.expose())?;
    if given {
        fchown(&new, Some(owner), Some(group))?;
    }
    new.sync_all()?;
    data.rename(&beside, data, path)
}

/// Gives a folder with all that is in it to this user. The folder itself comes last: where we are cut short, its owner tells.
fn give(folder: &Path, user: u32) -> io::Result<()> {
    let (owner, group) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(user)));
    let parent = Dir::open_ambient_dir(folder.parent().unwrap_or(folder), ambient_authority())?;
    let name = folder.file_name().unwrap_or_default();
    if fs::symlink_metadata(folder)?.is_dir() {
        let top = parent.open_dir(name)?;
        let mut folders = vec![PathBuf::from(".")];
        while let Some(folder) = folders.pop() {
            let here = top.open_dir(&folder)?;
            for entry in here.entries()? {
                let entry = entry?;
                chownat(&here, entry.file_name(), owner, group, AtFlags::SYMLINK_NOFOLLOW)?;
                if entry.file_type()?.is_dir() {
                    folders.push(folder.join(entry.file_name()));
                }
            }
        }
    }
    Ok(chownat(&parent, name, owner, group, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn not_ours(folder: &Path, owner: u32, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error;
    }
    let what =
        format!("{} belongs to uid {owner}; run the service as root, or chown -R it to its user", folder.display());
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// Says in words what the library means where a path leads out of a folder.
fn leads_out(path: &Path, error: io::Error) -> io::Error {
    // Its own refusal, and none of the kernel's.
    if error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none() {
        let what =
            format!("{} leads out of the agent's folder by a link that the agent made; remove it", path.display());
        return io::Error::new(io::ErrorKind::InvalidInput, what);
    }
    error
}

fn inside(path: &str) -> io::Result<&Path> {
    let relative = Path::new(path);
    if relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return Ok(relative);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "a file of an agent must lie in its data folder"))
}

/// The file's content, one byte more than `most` where it is longer, and its mode; `None` where it is gone. What was put in
/// its place by the agent is not followed.
fn read_at_most(entry: &cap_std::fs::DirEntry, most: u64) -> io::Result<Option<(Vec<u8>, u32)>> {
    use cap_std::fs::OpenOptionsExt as _;
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
    let file = match entry.open_with(cap_std::fs::OpenOptions::new().read(true).custom_flags(flags)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_link(&error) => return Ok(None),
        file => file?.into_std(),
    };
    let found = file.metadata()?;
    if !found.is_file() {
        return Ok(None);
    }
    let mut content = Vec::new();
    file.take(most + 1).read_to_end(&mut content)?;
    Ok(Some((content, found.mode() & 0o777)))
}

fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
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

/// What is not there need not be removed.
fn absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
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
    use std::os::unix::fs::PermissionsExt;

    use super::*;

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
    }

    #[test]
    fn staged_files_stay_in_the_data_folder_with_their_mode() {
        let (_root, folder) = folder();
        let file =
            |path: &'static str| StagedFile { path: path.into(), content: Secret::new(b"x".to_vec()), mode: 0o640 };
        folder.stage(&[file(".zeroclaw/config.toml"), file("workspace/deep/a.md")]).unwrap();
        let staged = fs::metadata(folder.data().join(".zeroclaw/config.toml")).unwrap();
        assert_eq!(staged.permissions().mode() & 0o777, 0o640);
        for path in ["../escape", "/etc/escape", "a/../../escape"] {
            assert_eq!(folder.stage(&[file(path)]).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{path}");
        }
        assert_eq!(fs::metadata(&folder.path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_link_that_leads_out_is_followed_neither_to_read_nor_to_write() {
        use std::os::unix::fs::symlink;
        let (root, folder) = folder();
        let outside = root.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("master.key"), "secret").unwrap();
        fs::remove_dir(folder.workspace()).unwrap();
        symlink(&outside, folder.workspace()).unwrap();
        let error = folder.read_data("workspace", 1000).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains("a link that the agent made"), "{error}");
        let file =
            |path: &'static str| StagedFile { path: path.into(), content: Secret::new(b"x".to_vec()), mode: 0o600 };
        for path in ["workspace/master.key", "workspace/new/deep"] {
            assert_eq!(folder.stage(&[file(path)]).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{path}");
        }
        symlink(outside.join("master.key"), folder.data().join("key")).unwrap();
        folder.stage(&[file("key")]).unwrap();
        assert_eq!(fs::read_to_string(outside.join("master.key")).unwrap(), "secret", "the link itself was replaced");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        // One that stays inside is the agent's own matter.
        fs::remove_file(folder.workspace()).unwrap();
        fs::create_dir(folder.data().join("elsewhere")).unwrap();
        symlink("elsewhere", folder.workspace()).unwrap();
        folder.stage(&[file("workspace/a.md")]).unwrap();
        assert_eq!(folder.read_data("workspace", 1000).unwrap().unwrap()[0].path, "workspace/a.md");
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
