//! Memory of an instance and of all that it starts, limited together by a control group of its own.
//!
//! Version 1 lets anybody who may write there make groups below the own one. Version 2 has no processes in groups that have
//! groups below them, so the service must be in a group of a subtree that was delegated to it (systemd: `Delegate=memory`
//! and `DelegateSubgroup=`); it is not its business to rearrange others' groups. Where neither is so there is no such wall.
//!
//! ```text
//! version 1   <the service's group>/zeroone-<installation>-<agent>-<start of the run>
//! version 2   <the delegated group>/zeroone-<installation>-<agent>-<start of the run>      beside the service's own
//! ```
//!
//! The next service may be in another group, e.g. of another login. So groups of runs that it did not begin are found by their
//! names, anywhere below the mount.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Access, access, getxattr};

use crate::domain::{AgentId, InstallationId, Timestamp};

/// For a group to be empty whose processes were killed.
const EMPTY_WITHIN: Duration = Duration::from_secs(2);
const EMPTY_LOOK: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Where groups are made.
#[derive(Debug)]
pub(super) struct Cgroups {
    version: Version,
    /// The top of what can be seen of all groups.
    mount: PathBuf,
    parent: PathBuf,
    prefix: String,
}

/// The group of one run. It has processes of that run alone, and the next run has another: this one's end may still be cleared
/// away when that begins.
#[derive(Debug, Clone)]
pub(super) struct Cgroup {
    version: Version,
    path: PathBuf,
}

impl Cgroups {
    /// # Errors
    /// Why there is no group to write to, in words.
    pub(super) fn find(installation: InstallationId) -> Result<Self, String> {
        let Place { version, mount, group } =
            Place::of("self").ok_or("no control groups for memory are mounted here")?;
        let parent = match version {
            Version::One => group,
            Version::Two => delegated(&group)?,
        };
        if access(&parent, Access::WRITE_OK).is_err() {
            return Err(format!("{} cannot be written", parent.display()));
        }
        let groups = Self { version, mount, parent, prefix: format!("zeroone-{installation}-") };
        groups.try_out().map_err(|error| format!("no group can be made in {}: {error}", groups.parent.display()))?;
        Ok(groups)
    }

    /// A group that is made and removed again: permissions do not tell all.
    fn try_out(&self) -> io::Result<()> {
        let trial = self.at(self.parent.join(format!("{}trial-{}", self.prefix, std::process::id())));
        trial.remove();
        trial.make(64)?;
        trial.remove();
        Ok(())
    }

    /// For the run that began then.
    pub(super) fn of(&self, agent: AgentId, started: Timestamp) -> Cgroup {
        self.at(self.parent.join(self.name(agent, started)))
    }

    /// The one that a process of the run that began then is in, whichever service put it there.
    pub(super) fn around(&self, pid: i32, agent: AgentId, started: Timestamp) -> Option<Cgroup> {
        let group = Place::of(&pid.to_string())?.group;
        group.ends_with(self.name(agent, started)).then(|| self.at(group))
    }

    /// Those of all runs that began here.
    pub(super) fn here(&self) -> Vec<Cgroup> {
        self.children(&self.parent).0
    }

    /// Those of all runs, also of services that were in other groups.
    pub(super) fn everywhere(&self) -> Vec<Cgroup> {
        let (mut found, mut folders) = (Vec::new(), vec![self.mount.clone()]);
        while let Some(folder) = folders.pop() {
            let (ours, others) = self.children(&folder);
            found.extend(ours);
            folders.extend(others);
        }
        found
    }

    /// The groups in a group: ours, and all others.
    fn children(&self, folder: &Path) -> (Vec<Cgroup>, Vec<PathBuf>) {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let ours =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&self.prefix));
        let (ours, others): (Vec<_>, Vec<_>) = groups.map(|entry| entry.path()).partition(ours);
        (ours.into_iter().map(|path| self.at(path)).collect(), others)
    }

    fn name(&self, agent: AgentId, started: Timestamp) -> String {
        format!("{}{agent}-{}", self.prefix, started.as_nanosecond())
    }

    fn at(&self, path: PathBuf) -> Cgroup {
        Cgroup { version: self.version, path }
    }
}

impl Cgroup {
    /// Makes it.
    pub(super) fn make(&self, memory_mb: u32) -> io::Result<()> {
        fs::create_dir(&self.path)?;
        let bytes = (u64::from(memory_mb) * 1024 * 1024).to_string();
        let (limit, swap, swap_bytes) = match self.version {
            Version::One => ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", bytes.as_str()),
            Version::Two => ("memory.max", "memory.swap.max", "0"),
        };
        fs::write(self.path.join(limit), &bytes)?;
        // Second, for it is the sum of both in version 1. Not there where the kernel does not account for swap.
        let _ = fs::write(self.path.join(swap), swap_bytes);
        Ok(())
    }

    /// Whether it is of a run of this agent.
    pub(super) fn is_of(&self, agent: AgentId) -> bool {
        self.path.file_name().is_some_and(|name| name.to_string_lossy().contains(&agent.to_string()))
    }

    /// A process that writes `0` there has joined.
    pub(super) fn door(&self) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.path.join("cgroup.procs"))
    }

    pub(super) fn members(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|pid| pid.parse().ok()).collect()
    }

    pub(super) fn has(&self, pid: i32) -> bool {
        self.members().contains(&pid)
    }

    /// Whether the kernel ended a process of it because it had no more memory.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = fs::read_to_string(self.path.join(file)).unwrap_or_default();
        killed(&text) > 0
    }

    /// Refused by the kernel as long as it has processes; then the next service does it.
    pub(super) fn remove(&self) {
        let _ = fs::remove_dir(&self.path);
    }

    /// The same for one whose processes were killed a moment ago: on a busy machine the kernel needs a while to take back what
    /// they had.
    pub(super) fn remove_soon(&self) {
        let patience = Instant::now() + EMPTY_WITHIN;
        while let Err(error) = fs::remove_dir(&self.path) {
            if error.kind() != io::ErrorKind::ResourceBusy || Instant::now() >= patience {
                return;
            }
            std::thread::sleep(EMPTY_LOOK);
        }
    }
}

/// How many processes were ended for want of memory, from the kernel's list of events.
fn killed(text: &str) -> u64 {
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    count.unwrap_or(0)
}

/// The group for memory that a process is in.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    version: Version,
    mount: PathBuf,
    group: PathBuf,
}

impl Place {
    /// `process` is as in `/proc`.
    fn of(process: &str) -> Option<Self> {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        Self::read(&read(&format!("/proc/{process}/cgroup")), &read("/proc/self/mountinfo"))
    }

    /// From a process's `cgroup` and our own `mountinfo`.
    fn read(groups: &str, mounts: &str) -> Option<Self> {
        let lines = groups.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?, parts.next()?))
        });
        let lines: Vec<(&str, &str)> = lines.collect();
        let one = lines.iter().find(|(controllers, _)| controllers.split(',').any(|name| name == "memory"));
        let (version, path) = match one {
            Some((_, path)) => (Version::One, path),
            None => (Version::Two, &lines.iter().find(|(controllers, _)| controllers.is_empty())?.1),
        };
        mounts.lines().find_map(|line| {
            let (mount, engine) = line.split_once(" - ")?;
            let (root, at) = {
                let mut fields = mount.split(' ').skip(3);
                (fields.next()?, fields.next()?)
            };
            let mut engine = engine.split(' ');
            let (kind, options) = (engine.next()?, engine.nth(1)?);
            let right = match version {
                Version::One => kind == "cgroup" && options.split(',').any(|name| name == "memory"),
                Version::Two => kind == "cgroup2",
            };
            let below = Path::new(path).strip_prefix(root).ok()?;
            right.then(|| Self { version, mount: at.into(), group: Path::new(at).join(below) })
        })
    }
}

/// The group above the service's own, if it was delegated, has no processes itself and can limit memory.
fn delegated(own: &Path) -> Result<PathBuf, String> {
    const REMEDY: &str = "run the service as a unit with Delegate=memory and DelegateSubgroup=service";
    let parent = own.parent().ok_or(REMEDY)?;
    let marked = ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0; 1];
        getxattr(parent, *name, &mut value[..]).is_ok_and(|length| length == 1 && value == *b"1")
    });
    let read = |file| fs::read_to_string(parent.join(file)).unwrap_or_default();
    if !marked || !read("cgroup.procs").trim().is_empty() {
        return Err(format!("the service's control group was not delegated to it; {REMEDY}"));
    }
    if !read("cgroup.controllers").split_whitespace().any(|name| name == "memory") {
        return Err(format!("{} cannot limit memory; {REMEDY}", parent.display()));
    }
    fs::write(parent.join("cgroup.subtree_control"), "+memory")
        .map_err(|error| format!("{} does not pass on memory limits: {error}", parent.display()))?;
    Ok(parent.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_in_either_version() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
                      33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found = |groups, mounts| Place::read(groups, mounts);
        let place = |version, mount: &str, group: &str| {
            Some(Place { version, mount: mount.into(), group: Path::new(mount).join(group) })
        };
        assert_eq!(
            found("4:memory:/system.slice/a.service\n0::/x\n", mounts),
            place(Version::One, "/sys/fs/cgroup/memory", "system.slice/a.service")
        );
        assert_eq!(
            found("2:cpu,cpuacct:/\n0::/a.slice/b\n", mounts),
            place(Version::Two, "/sys/fs/cgroup/unified", "a.slice/b")
        );
        // In a container without a namespace of its own the mount shows a part of the tree.
        let part = "40 31 0:32 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        assert_eq!(found("4:memory:/docker/abc\n", part), place(Version::One, "/sys/fs/cgroup/memory", ""));
        assert_eq!(found("4:memory:/elsewhere\n", part), None);
        assert_eq!(found("0::/a\n", "broken\n"), None);
        assert_eq!(found("", mounts), None);
    }

    #[test]
    fn groups_of_an_installation_are_found_wherever_its_services_were() {
        let folder = tempfile::tempdir().unwrap();
        let (mount, installation) = (folder.path().to_owned(), InstallationId::new());
        let parent = mount.join("system.slice/zeroone.service");
        let (version, prefix) = (Version::One, format!("zeroone-{installation}-"));
        let groups = Cgroups { version, mount: mount.clone(), parent: parent.clone(), prefix };
        let (agent, started) = (AgentId::new(), Timestamp::now());
        let here = groups.of(agent, started).path;
        let before = mount.join("user.slice/session-1.scope").join(here.file_name().unwrap());
        let other = parent.join(format!("zeroone-{}-{agent}-1", InstallationId::new()));
        for path in [&here, &before, &other] {
            fs::create_dir_all(path).unwrap();
        }
        let paths = |groups: Vec<Cgroup>| {
            let mut paths: Vec<PathBuf> = groups.into_iter().map(|group| group.path).collect();
            paths.sort();
            paths
        };
        assert_eq!(paths(groups.here()), std::slice::from_ref(&here));
        assert_eq!(paths(groups.everywhere()), [here, before]);
        assert!(groups.here()[0].is_of(agent) && !groups.here()[0].is_of(AgentId::new()));
    }

    #[test]
    fn ended_processes_are_counted_in_either_version() {
        assert_eq!(killed("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        assert_eq!(killed("low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 0\n"), 1);
        assert_eq!(killed("oom_kill_disable 0\nunder_oom 0\n"), 0);
    }

    #[test]
    fn a_group_that_nobody_delegated_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("session.scope");
        fs::create_dir(&own).unwrap();
        assert!(delegated(&own).unwrap_err().contains("Delegate=memory"));
        assert!(!folder.path().join("cgroup.subtree_control").exists());
    }
}
