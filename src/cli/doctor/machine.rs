//! What a service finds on its machine: folder, keys, room, limits, clock, ports.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::process::{Resource, getrlimit};

use super::Finding;
use crate::config::Loaded;
use crate::vault::{MasterKey, MasterKeySource};

/// Less room than this and the next large log or memory fills the disk.
const ROOM_WARN: u64 = 1 << 30;
/// Less, and the store itself may not grow.
const ROOM_FAIL: u64 = 64 << 20;
/// Open files: some for each connection and each agent.
const FILES: u64 = 4096;
/// Processes and threads of one user: an agent takes a handful.
const PROCESSES: u64 = 1024;
/// Ports of agents, one in so many is tried.
const PORTS: std::ops::RangeInclusive<u16> = 40_000..=50_000;
const PORT_STEP: usize = 100;
/// How far the clock may be behind what it said before.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

#[expect(clippy::disallowed_methods, reason = "it is the machine's clock that is looked at")]
pub(super) fn look(loaded: &Loaded) -> Vec<Finding> {
    let data = &loaded.config.data;
    vec![
        folder(data),
        master_key(loaded),
        room(data),
        clock(newest(data), SystemTime::now()),
        limit("limit of open files", Resource::Nofile, FILES, "LimitNOFILE= of the unit, or ulimit -n"),
        limit("limit of processes", Resource::Nproc, PROCESSES, "LimitNPROC= of the unit, or ulimit -u"),
        ports(),
    ]
}

fn folder(data: &Path) -> Finding {
    const CHECK: &str = "data folder";
    let shown = data.display();
    let metadata = match fs::metadata(data) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Finding::ok(CHECK, format!("{shown} is not there yet; the first start makes it"));
        }
        Err(error) => return Finding::fail(CHECK, format!("{shown} cannot be read: {error}; run as its owner")),
        Ok(metadata) => metadata,
    };
    if !metadata.is_dir() {
        return Finding::fail(CHECK, format!("{shown} is no folder; name another by --data"));
    }
    let own = metadata.uid() == rustix::process::geteuid().as_raw();
    if rustix::fs::access(data, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_err() {
        return Finding::fail(CHECK, format!("{shown} cannot be written by this user; run as its owner, or chown it"));
    }
    match metadata.mode() & 0o777 {
        // That others get through it is meant where agents are users of their own.
        mode if mode & 0o066 != 0 => {
            Finding::warn(CHECK, format!("{shown} can be read by others (mode {mode:03o}); run: chmod 700 {shown}"))
        }
        _ if !own => Finding::warn(CHECK, format!("{shown} belongs to another user; run the service as its owner")),
        _ => Finding::ok(CHECK, format!("{shown}, its owner's alone")),
    }
}

fn master_key(loaded: &Loaded) -> Finding {
    const CHECK: &str = "master key";
    let store = loaded.config.data.join("zeroone.redb").exists();
    match loaded.master_key(store) {
        // Not loaded: that would make it.
        MasterKeySource::FileOrNew(path) if !path.exists() => Finding::ok(CHECK, "the first start makes one"),
        source => match MasterKey::load(source) {
            Ok(_) => Finding::ok(CHECK, "it can be read; keep a copy of it elsewhere"),
            Err(error) => Finding::fail(CHECK, format!("{:#}", anyhow::Error::new(error))),
        },
    }
}

fn room(data: &Path) -> Finding {
    const CHECK: &str = "room on the disk";
    let there = data.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    match rustix::fs::statvfs(there) {
        Ok(disk) => room_of(CHECK, disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_files, disk.f_favail),
        Err(error) => Finding::warn(CHECK, format!("cannot be told: {error}")),
    }
}

/// `files` is 0 on file systems that have no such bound.
fn room_of(check: &str, free: u64, files: u64, free_files: u64) -> Finding {
    let mib = free >> 20;
    if free < ROOM_FAIL || (files > 0 && free_files < 1000) {
        let detail = format!("{mib} MiB and {free_files} files are free; remove something or move the data folder");
        return Finding::fail(check, detail);
    }
    if free < ROOM_WARN {
        return Finding::warn(check, format!("{mib} MiB are free; make room before it is full"));
    }
    Finding::ok(check, format!("{} GiB are free", free >> 30))
}

/// When the store was last written.
fn newest(data: &Path) -> Option<SystemTime> {
    fs::metadata(data.join("zeroone.redb")).and_then(|metadata| metadata.modified()).ok()
}

fn clock(newest: Option<SystemTime>, now: SystemTime) -> Finding {
    const CHECK: &str = "clock";
    match newest.and_then(|newest| newest.duration_since(now).ok()).filter(|ahead| *ahead > CLOCK_SLACK) {
        Some(ahead) => {
            let secs = ahead.as_secs();
            Finding::warn(
                CHECK,
                format!("it was set back: the store was written {secs} s from now; check time synchronisation"),
            )
        }
        None => Finding::ok(CHECK, "it has not been set back since the store was written"),
    }
}

fn limit(check: &str, resource: Resource, enough: u64, remedy: &str) -> Finding {
    // The service raises the soft limit itself.
    match getrlimit(resource).maximum {
        Some(limit) if limit < enough => {
            Finding::warn(check, format!("{limit}, which is enough for few agents; raise it: {remedy}"))
        }
        Some(limit) => Finding::ok(check, limit.to_string()),
        None => Finding::ok(check, "none"),
    }
}

/// A sample of the range, for trying all of it would be in the way of others.
fn ports() -> Finding {
    let sample: Vec<u16> = PORTS.step_by(PORT_STEP).collect();
    let free = sample.iter().filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, **port)).is_ok()).count();
    ports_of(free, sample.len())
}

fn ports_of(free: usize, tried: usize) -> Finding {
    const CHECK: &str = "ports of agents";
    let detail = format!("{free} of {tried} that were tried between 40000 and 50000 are free");
    match free {
        0 => Finding::fail(CHECK, format!("{detail}; end the programs that hold them (ss -ltnp)")),
        free if free * 2 < tried => Finding::warn(CHECK, format!("{detail}; other programs hold many (ss -ltnp)")),
        _ => Finding::ok(CHECK, detail),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn little_room_warns_and_less_fails() {
        for (free, files, free_files, verdict) in [
            (10 << 30, 0, 0, Verdict::Ok),
            (10 << 30, 1_000_000, 500_000, Verdict::Ok),
            (10 << 30, 1_000_000, 10, Verdict::Fail),
            (500 << 20, 0, 0, Verdict::Warn),
            (1 << 20, 0, 0, Verdict::Fail),
        ] {
            assert_eq!(room_of("room", free, files, free_files).verdict, verdict, "{free} {free_files}");
        }
    }

    #[test]
    fn a_clock_that_was_set_back_is_noticed() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(clock(None, now).verdict, Verdict::Ok);
        assert_eq!(clock(Some(now - Duration::from_secs(9)), now).verdict, Verdict::Ok);
        assert_eq!(clock(Some(now + Duration::from_secs(9)), now).verdict, Verdict::Ok, "a small step is no matter");
        assert_eq!(clock(Some(now + Duration::from_secs(3600)), now).verdict, Verdict::Warn);
    }

    #[test]
    fn ports_that_others_hold_are_told() {
        assert_eq!(ports_of(101, 101).verdict, Verdict::Ok);
        assert_eq!(ports_of(20, 101).verdict, Verdict::Warn);
        assert_eq!(ports_of(0, 101).verdict, Verdict::Fail);
    }

    #[test]
    fn a_folder_that_others_can_read_is_told_with_the_remedy() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        let finding = super::folder(path);
        assert_eq!(finding.verdict, Verdict::Warn);
        assert!(finding.detail.contains("chmod 700"), "{}", finding.detail);
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(super::folder(path).verdict, Verdict::Ok);
        assert_eq!(super::folder(&path.join("none")).verdict, Verdict::Ok);
        fs::write(path.join("file"), "").unwrap();
        assert_eq!(super::folder(&path.join("file")).verdict, Verdict::Fail);
    }
}
