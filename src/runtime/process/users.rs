//! A user for each agent: where the service is root, every agent runs under a uid of its own, so that the kernel's oldest rule
//! keeps agents from each other's files and processes and from the service's.
//!
//! Who an agent is, its folder says: the owner of its data. So there is no table that could be lost, and a restored or moved
//! folder is given to its agent again. An agent that has none gets one that follows from its id, or the next free one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, capabilities};

use crate::domain::AgentId;

/// Uids (and gids) that nobody else on the machine uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uids {
    first: u32,
    last: u32,
}

impl Default for Uids {
    /// Above all ranges that systemd, container engines and `useradd` give away.
    fn default() -> Self {
        Self { first: 2_000_000_000, last: 2_000_065_535 }
    }
}

impl Uids {
    /// Uids below are those of the system and of people.
    const LEAST: u32 = 1_000;
    /// The end of what a signed number holds: some programs take uids for that.
    const MOST: u32 = i32::MAX.cast_unsigned();

    /// `FIRST-LAST`.
    ///
    /// # Errors
    /// What the text must be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse::<u32>().ok();
        let range = text.split_once('-').and_then(|(first, last)| Some((number(first)?, number(last)?)));
        match range {
            Some((first, last)) if Self::LEAST <= first && first <= last && last <= Self::MOST => {
                Ok(Self { first, last })
            }
            _ => Err(format!(
                "must be a range of uids such as 2000000000-2000065535, between {} and {}, or empty",
                Self::LEAST,
                Self::MOST
            )),
        }
    }

    pub(super) fn contains(self, uid: u32) -> bool {
        (self.first..=self.last).contains(&uid)
    }

    /// The one that an agent would like, and then all others in turn.
    fn candidates(self, agent: AgentId) -> impl Iterator<Item = u32> {
        let size = u64::from(self.last - self.first) + 1;
        // The end of an id is random.
        let [.., a, b, c, d, e, f] = *agent.as_bytes();
        let wish = u64::from_be_bytes([0, 0, a, b, c, d, e, f]) % size;
        (0..size).filter_map(move |step| u32::try_from(u64::from(self.first) + (wish + step) % size).ok())
    }
}

/// Which agent has which uid.
#[derive(Debug)]
pub(super) struct Users {
    pub(super) range: Uids,
    taken: Mutex<BTreeMap<u32, AgentId>>,
}

impl Users {
    pub(super) const fn new(range: Uids) -> Self {
        Self { range, taken: Mutex::new(BTreeMap::new()) }
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<u32, AgentId>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of whose data `owner` has.
    pub(super) fn learn(&self, agent: AgentId, owner: u32) {
        if self.range.contains(owner) {
            self.taken().entry(owner).or_insert(agent);
        }
    }

    /// The agent's uid; `None` where all are taken. `owner` has its data now.
    pub(super) fn of(&self, agent: AgentId, owner: u32) -> Option<u32> {
        let mut taken = self.taken();
        let uid = choose(self.range, &taken, agent, owner)?;
        taken.insert(uid, agent);
        Some(uid)
    }

    pub(super) fn forget(&self, agent: AgentId) {
        self.taken().retain(|_, owner| *owner != agent);
    }
}

fn choose(range: Uids, taken: &BTreeMap<u32, AgentId>, agent: AgentId, owner: u32) -> Option<u32> {
    let free = |uid: &u32| taken.get(uid).is_none_or(|owner| *owner == agent);
    if range.contains(owner) && free(&owner) {
        return Some(owner);
    }
    let before = taken.iter().find(|(_, owner)| **owner == agent).map(|(uid, _)| *uid);
    before.or_else(|| range.candidates(agent).find(free))
}

/// What the service does for agents that are other users than its own: gives them their files, becomes one of them, reads
/// what they write, looks at their processes and ends them.
const NEEDED: [(CapabilitySet, &str); 7] = [
    (CapabilitySet::CHOWN, "CAP_CHOWN"),
    (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
    (CapabilitySet::FOWNER, "CAP_FOWNER"),
    (CapabilitySet::KILL, "CAP_KILL"),
    (CapabilitySet::SETGID, "CAP_SETGID"),
    (CapabilitySet::SETUID, "CAP_SETUID"),
    (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"),
];

/// Why agents cannot have uids of this range here, in words; `None` where they can.
pub(super) fn hindrance(range: Uids, root: &Path, program: Option<&Path>) -> Option<String> {
    if !geteuid().is_root() {
        return Some("the service does not run as root".into());
    }
    let held = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    if let Some((_, name)) = NEEDED.iter().find(|(capability, _)| !held.contains(*capability)) {
        return Some(format!("the service lacks the capability {name}"));
    }
    let map = |file| fs::read_to_string(file).is_ok_and(|map| is_mapped(range, &map));
    if !map("/proc/self/uid_map") || !map("/proc/self/gid_map") {
        return Some("this user namespace does not have the uids of process.uids; choose others".into());
    }
    if let Some((folder, mode)) = closed(root) {
        return Some(format!(
            "{} is closed to other users (mode {mode:03o}), so that no agent gets to its folder; move the data folder, or \
             run: chmod o+x {0}",
            folder.display()
        ));
    }
    let program = program.and_then(|program| fs::canonicalize(program).ok())?;
    let runs = fs::metadata(&program).is_ok_and(|file| file.mode() & 0o001 != 0);
    (!runs || closed(&program).is_some()).then(|| {
        format!("other users may not run {}; install it where everybody may, such as /usr/local/bin", program.display())
    })
}

/// The uppermost folder above `path` that only its owner gets through. What is not there yet is no hindrance.
fn closed(path: &Path) -> Option<(PathBuf, u32)> {
    let closed = path.ancestors().skip(1).filter_map(|folder| {
        let mode = fs::metadata(folder).ok()?.mode();
        (mode & 0o001 == 0).then(|| (folder.to_owned(), mode & 0o777))
    });
    closed.last()
}

/// Whether a map of user ids, as the kernel shows it, has the whole range.
fn is_mapped(range: Uids, map: &str) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(inside)), Some(Ok(_)), Some(Ok(count))) = (numbers.next(), numbers.next(), numbers.next()) else {
            return false;
        };
        inside <= u64::from(range.first) && u64::from(range.last) < inside + count
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_and_nonsense_is_refused() {
        assert_eq!(Uids::parse("5000-5001"), Ok(Uids { first: 5000, last: 5001 }));
        for text in ["", "5000", "5001-5000", "0-10", "999-2000", "5000-4294967295", "a-b", "-1-5"] {
            assert!(Uids::parse(text).unwrap_err().contains("range of uids"), "{text}");
        }
    }

    #[test]
    fn an_agent_keeps_its_uid_and_shares_it_with_no_other() {
        let users = Users::new(Uids { first: 5000, last: 5003 });
        let agents: Vec<AgentId> = (0..5).map(|_| AgentId::new()).collect();
        let uids: Vec<u32> = agents[..4].iter().map(|agent| users.of(*agent, 0).unwrap()).collect();
        let mut different = uids.clone();
        different.sort_unstable();
        assert_eq!(different, [5000, 5001, 5002, 5003]);
        assert_eq!(users.of(agents[4], 0), None, "all are taken");
        assert_eq!(users.of(agents[4], uids[0]), None, "its data has another's owner");
        assert_eq!(users.of(agents[1], 0), Some(uids[1]), "its data was restored by root");
        assert_eq!(users.of(agents[1], uids[1]), Some(uids[1]));
        users.forget(agents[2]);
        assert_eq!(users.of(agents[4], 0), Some(uids[2]));
        // A service that starts again learns from the folders.
        let after = Users::new(users.range);
        after.learn(agents[0], uids[3]);
        after.learn(agents[1], uids[3]);
        after.learn(agents[3], 0);
        assert_eq!(*after.taken(), BTreeMap::from([(uids[3], agents[0])]));
        assert_eq!(after.of(agents[0], uids[3]), Some(uids[3]));
        assert_ne!(after.of(agents[1], uids[3]), Some(uids[3]));
    }

    #[test]
    fn the_wish_follows_from_the_id() {
        let agent = AgentId::new();
        let wish = |agent| Uids::default().candidates(agent).next().unwrap();
        assert_eq!(wish(agent), wish(agent));
        assert!(Uids::default().contains(wish(agent)));
        assert_eq!(Uids { first: 7000, last: 7002 }.candidates(agent).count(), 3);
    }

    #[test]
    fn a_map_of_ids_has_the_range_or_not() {
        let range = Uids { first: 5000, last: 6000 };
        assert!(is_mapped(range, "         0          0 4294967295\n"));
        assert!(is_mapped(range, "0 1000 1\n1 100000 65536\n"));
        assert!(!is_mapped(range, "0 1000 1\n1 100000 5999\n"));
        assert!(!is_mapped(range, ""));
    }

    #[test]
    fn a_folder_that_only_its_owner_gets_through_is_found() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let mode = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
        mode(0o700);
        assert_eq!(closed(&folder.path().join("agents")), Some((folder.path().to_owned(), 0o700)));
        mode(0o711);
        assert_eq!(closed(&folder.path().join("agents")), None);
    }
}
