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

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, getxattr};

use crate::domain::{AgentId, InstallationId, Timestamp};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Where groups are made.
#[derive(Debug)]
pub(super) struct Cgroups {
    version: Version,
    parent: PathBuf,
    prefix: String,
}

/// The group of one run. It has processes of that run alone, and the next run has another: this one's end may still be cleared
/// away when that begins.
#[derive(Debug)]
pub(super) struct Cgroup {
    version: Version,
    path: PathBuf,
}

impl Cgroups {
    /// # Errors
    /// Why there is no group to write to, in words.
    pub(super) fn find(installation: InstallationId) -> Result<Self, String> {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let found = locate(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
        let (version, own) = found.ok_or("no control groups for memory are mounted here")?;
        let parent = match version {
            Version::One => own,
            Version::Two => delegated(&own)?,
        };
        if access(&parent, Access::WRITE_OK).is_err() {
            return Err(format!("{} cannot be written", parent.display()));
        }
        let groups = Self { version, parent, prefix: format!("zeroone-{installation}-") };
        groups.try_out().map_err(|error| format!("no group can be made in {}: {error}", groups.parent.display()))?;
        Ok(groups)
    }

    /// A group that is made and removed again: permissions do not tell all.
    fn try_out(&self) -> io::Result<()> {
        let trial = self.named(&format!("{}trial-{}", self.prefix, std::process::id()));
        trial.remove();
        trial.make(64)?;
        trial.remove();
        Ok(())
    }

    /// For the run that began then.
    pub(super) fn of(&self, agent: AgentId, started: Timestamp) -> Cgroup {
        self.named(&format!("{}{agent}-{}", self.prefix, started.as_nanosecond()))
    }

    /// The same, if it is there.
    pub(super) fn existing(&self, agent: AgentId, started: Timestamp) -> Option<Cgroup> {
        Some(self.of(agent, started)).filter(|group| group.path.is_dir())
    }

    /// Those of all of an agent's runs.
    pub(super) fn all_of(&self, agent: AgentId) -> Vec<Cgroup> {
        let prefix = format!("{}{agent}-", self.prefix);
        let names = fs::read_dir(&self.parent).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let names = names.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with(&prefix));
        names.map(|name| self.named(&name)).collect()
    }

    fn named(&self, name: &str) -> Cgroup {
        Cgroup { version: self.version, path: self.parent.join(name) }
    }

    /// Removes groups of this installation that have no processes any more.
    pub(super) fn sweep(&self) {
        let groups = fs::read_dir(&self.parent).into_iter().flatten().flatten();
        for group in groups.filter(|group| group.file_name().to_string_lossy().starts_with(&self.prefix)) {
            // The kernel refuses it for one that is in use.
            let _ = fs::remove_dir(group.path());
        }
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

    /// Refused by the kernel as long as it has processes; then the next start, or the next service, does it.
    pub(super) fn remove(&self) {
        let _ = fs::remove_dir(&self.path);
    }
}

/// How many processes were ended for want of memory, from the kernel's list of events.
fn killed(text: &str) -> u64 {
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    count.unwrap_or(0)
}

/// The service's own group for memory, from `/proc/self/cgroup` and `/proc/self/mountinfo`.
fn locate(own: &str, mounts: &str) -> Option<(Version, PathBuf)> {
    let lines = own.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        Some((parts.next()?, parts.next()?))
    });
    let lines: Vec<(&str, &str)> = lines.collect();
    let one = lines.iter().find(|(controllers, _)| controllers.split(',').any(|name| name == "memory"));
    let (version, path) = match one {
        Some((_, path)) => (Version::One, path),
        None => (Version::Two, &lines.iter().find(|(controllers, _)| controllers.is_empty())?.1),
    };
    let place = mounts.lines().find_map(|line| {
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
        right.then(|| Path::new(at).join(below))
    })?;
    Some((version, place))
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
        let found = |own, mounts| locate(own, mounts);
        assert_eq!(
            found("4:memory:/system.slice/a.service\n0::/x\n", mounts),
            Some((Version::One, "/sys/fs/cgroup/memory/system.slice/a.service".into()))
        );
        assert_eq!(
            found("2:cpu,cpuacct:/\n0::/a.slice/b\n", mounts),
            Some((Version::Two, "/sys/fs/cgroup/unified/a.slice/b".into()))
        );
        // In a container without a namespace of its own the mount shows a part of the tree.
        let part = "40 31 0:32 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        assert_eq!(found("4:memory:/docker/abc\n", part), Some((Version::One, "/sys/fs/cgroup/memory".into())));
        assert_eq!(found("4:memory:/elsewhere\n", part), None);
        assert_eq!(found("0::/a\n", "broken\n"), None);
        assert_eq!(found("", mounts), None);
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
