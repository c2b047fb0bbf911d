//! The kernel's process table, read from `/proc`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::time::Duration;

use super::marker::Marker;
use super::pidfd::Process;
use crate::domain::{AgentId, InstallationId};

/// What `/proc/<pid>/stat` says that we want to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// `R` running, `S` sleeping, `T` stopped, `Z` zombie, …
    pub(super) state: char,
    pub(super) session: i32,
    /// Clock ticks since the kernel's boot. With the pid it names one process for ever.
    pub(super) started_ticks: u64,
    /// Own and waited-for children's, user and system.
    pub(super) cpu_ticks: u64,
    pub(super) threads: u64,
    /// Bytes; none at all for a thread of the kernel. `None` while it executes a program: it has left its old environment
    /// and not got its new one.
    pub(super) environment: Option<u64>,
}

impl Stat {
    pub(super) fn of(pid: i32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::parse(&text).ok_or_else(|| io::Error::other(format!("cannot read /proc/{pid}/stat")))
    }

    /// The second field is the program's name in parentheses and may hold anything, so the fields are counted from behind it.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields = rest.split_whitespace().collect::<Vec<_>>();
        // proc(5) counts from 1, and two fields are cut off.
        let number = |field: usize| fields.get(field - 3)?.parse::<i64>().ok();
        let count = |field: usize| u64::try_from(number(field)?).ok();
        // Addresses may be beyond what a signed number holds.
        let address = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let (memory, code, from, to) = (address(23)?, address(26)?, address(50)?, address(51)?);
        Some(Self {
            state: fields.first()?.chars().next()?,
            session: number(6)?.try_into().ok()?,
            started_ticks: count(22)?,
            cpu_ticks: count(14)? + count(15)? + count(16)? + count(17)?,
            threads: count(20)?,
            // The address of its code is what a new program gets last.
            environment: (code != 0 || memory == 0).then(|| to.saturating_sub(from)),
        })
    }

    /// A zombie has an entry, and is nobody any more.
    pub(super) const fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x')
    }

    pub(super) const fn is_stopped(&self) -> bool {
        matches!(self.state, 'T' | 't')
    }
}

/// A living process of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marked {
    pub(super) pid: i32,
    pub(super) stat: Stat,
    pub(super) marker: Marker,
}

impl Marked {
    /// Reads one process; `None` if it is gone, a zombie, not ours to read, or no instance's.
    ///
    /// One that executes a program meanwhile shows no environment, or breaks off in the middle of its old one. It is read
    /// again, or it would look like a stranger for that moment.
    pub(super) fn read(pid: i32) -> Option<Self> {
        for _ in 0..EXEC_LOOKS {
            let stat = Stat::of(pid).ok().filter(|stat| stat.is_alive() && stat.environment != Some(0))?;
            let mut environment = Vec::new();
            let file = File::open(format!("/proc/{pid}/environ")).ok()?;
            file.take(ENVIRONMENT_LIMIT).read_to_end(&mut environment).ok()?;
            if stat.environment == Some(environment.len() as u64) {
                return Some(Self { pid, stat, marker: Marker::find(&environment)? });
            }
            std::thread::sleep(EXEC_PAUSE);
        }
        None
    }

    pub(super) const fn leads_session(&self) -> bool {
        self.pid == self.stat.session
    }
}

/// The kernel allows arguments and environment of 2 MiB by default; ours have a few kilobytes.
const ENVIRONMENT_LIMIT: u64 = 2 * 1024 * 1024;
/// Looks at a process that executes a program. That takes microseconds, or as long as the disk or a busy machine takes.
const EXEC_LOOKS: usize = 200;
const EXEC_PAUSE: Duration = Duration::from_millis(1);

/// All living processes that carry this installation's marker.
///
/// # Errors
/// `/proc` cannot be listed.
pub(super) fn marked(installation: InstallationId) -> io::Result<Vec<Marked>> {
    Ok(pids()?.filter_map(Marked::read).filter(|found| found.marker.installation == installation).collect())
}

/// What lives of a run besides its leader: all with its marker, and its session's members, marked or not.
///
/// The kernel gives no process the number of a session that still has members. So where another process has the
/// leader's pid, the session is gone and another may have its number.
pub(super) fn strays(marker: &Marker, leader: i32, started_ticks: u64) -> io::Result<Vec<Process>> {
    let gone = Stat::of(leader).is_ok_and(|stat| stat.started_ticks != started_ticks);
    let stray = |pid: i32| {
        if pid == leader {
            return None;
        }
        // What the leader started is younger, and most processes of a machine are not.
        let stat = Stat::of(pid).ok().filter(|stat| stat.is_alive() && stat.started_ticks >= started_ticks)?;
        if stat.session == leader && !gone {
            return Process::member(pid, leader);
        }
        Marked::read(pid).filter(|found| found.marker == *marker).and_then(|found| Process::found(&found))
    };
    Ok(pids()?.filter_map(stray).collect())
}

/// All of a session. Only for a session that is known to live: the number of one that is gone may be another's.
pub(super) fn session(leader: i32) -> io::Result<Vec<Process>> {
    Ok(pids()?.filter_map(|pid| Process::member(pid, leader)).collect())
}

/// The real uid of a process, whoever owns its files in `/proc`.
pub(super) fn user_of(pid: i32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?.parse().ok()
}

/// All of an agent's user. Somebody else may use the same uid against all advice: what carries another agent's marker is left.
pub(super) fn of_user(user: u32, installation: InstallationId, agent: AgentId) -> io::Result<Vec<Process>> {
    let is_its = |pid| {
        let marked = |found: Marked| (found.marker.installation, found.marker.agent);
        user_of(pid) == Some(user) && Marked::read(pid).map(marked).is_none_or(|found| found == (installation, agent))
    };
    let own = pids()?.filter(|pid| user_of(*pid) == Some(user));
    Ok(own.filter_map(|pid| Process::checked(pid, || is_its(pid))).collect())
}

/// The process and all that descend from it, by the kernel's lists of children. A child whose parent ended has moved to
/// another parent and is not found.
pub(super) fn family(pid: i32) -> Vec<(i32, Stat)> {
    let (mut stats, mut queue) = (Vec::new(), vec![pid]);
    while let Some(pid) = queue.pop() {
        let Ok(stat) = Stat::of(pid) else { continue };
        stats.push((pid, stat));
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for thread in threads {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            queue.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
    }
    stats
}

/// Memory that a process has in RAM; 0 for one that is gone. From `statm`: what `stat` says lags behind for small processes.
pub(super) fn resident_pages(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0)
}

/// Differs from one start of the machine to the next.
pub(super) fn kernel_boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn pids() -> io::Result<impl Iterator<Item = i32>> {
    Ok(fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_cannot_forge_fields() {
        let tail = "1 10 10 0 -1 4194304 100 0 0 0 7 5 2 1 20 0 4 0 123456 1000000 250 18446744073709551615";
        let text = |code: u64, environment: &str| {
            format!("10 (a) Z 9 9 (b c) S {tail} {code} {}{environment} 0", "1 ".repeat(23))
        };
        let stat = Stat::parse(&text(300, "500 900")).unwrap();
        let expected =
            Stat { state: 'S', session: 10, started_ticks: 123_456, cpu_ticks: 15, threads: 4, environment: Some(400) };
        assert_eq!(stat, expected);
        let environment = |code, environment| Stat::parse(&text(code, environment)).unwrap().environment;
        assert_eq!(environment(300, "500 500"), Some(0));
        for unfinished in ["0 0", "500 500", "500 900"] {
            assert_eq!(environment(0, unfinished), None, "it executes a program");
        }
        assert_eq!(Stat::parse("10 (a) S 1 10"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn this_process_is_in_the_table() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let stat = Stat::of(pid).unwrap();
        assert!(stat.is_alive() && !stat.is_stopped());
        assert!(stat.threads > 0 && resident_pages(pid) > 0);
        assert!(family(pid).iter().any(|(_, member)| member.started_ticks == stat.started_ticks));
        assert_eq!(kernel_boot().unwrap().len(), 36);
    }

    #[test]
    fn a_process_is_known_from_its_first_moment_and_while_it_executes_another_program() {
        let marker = Marker::example();
        for round in 0..50 {
            let mut child = std::process::Command::new("/bin/sh")
                .args(["-c", "exec sh -c 'exec sleep 100'"])
                .env(Marker::VARIABLE, marker.value())
                .spawn()
                .unwrap();
            let pid = i32::try_from(child.id()).unwrap();
            let unknown = (0..20).filter(|_| Marked::read(pid).is_none_or(|found| found.marker != marker)).count();
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(unknown, 0, "round {round}");
        }
    }
}
