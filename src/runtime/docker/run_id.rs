//! Runs of a container, told apart by time.
//!
//! The engine notes the time of a start when the process already runs, which on a busy machine may have said a lot by
//! then; a pairing code among it would be lost to whoever reads from that time on. So a run's output counts from the end
//! of the run before. The engine forgets that end when the run itself ends; so it is remembered here.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::SignedDuration;

use crate::domain::{AgentId, Timestamp};
use crate::runtime::RunId;

/// How far back a run's output is looked for where the end of the run before is not known.
const REACH_BACK: SignedDuration = SignedDuration::from_millis(900);

/// One run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Boot {
    /// By the engine's word.
    pub(super) started_at: Timestamp,
    /// No line of this run is older, and none of an earlier run is younger.
    pub(super) from: Timestamp,
}

impl Boot {
    /// A run that goes on. `finished_at` is the end of the run before it, if there was one.
    pub(super) fn of_running(created_at: Timestamp, started_at: Timestamp, finished_at: Option<Timestamp>) -> Self {
        match finished_at {
            None => Self { started_at, from: created_at.min(started_at) },
            Some(finished_at) if finished_at <= started_at => Self { started_at, from: finished_at },
            Some(_) => Self::of_ended(created_at, started_at),
        }
    }

    /// A run that was first seen after its end.
    pub(super) fn of_ended(created_at: Timestamp, started_at: Timestamp) -> Self {
        Self { started_at, from: (started_at - REACH_BACK).max(created_at.min(started_at)) }
    }

    /// A time near the start that no line of this run is older than.
    pub(super) fn near_start(self) -> Timestamp {
        self.from.max(self.started_at - REACH_BACK)
    }

    pub(super) fn id(self, container: &str) -> RunId {
        RunId(format!("{container}@{}@{}", self.started_at.as_nanosecond(), self.from.as_nanosecond()).into())
    }

    /// The container and the run that an id names; `None` where another runtime made it.
    pub(super) fn parse(id: &RunId) -> Option<(&str, Self)> {
        let mut parts = id.0.split('@');
        let container = parts.next()?;
        let mut time = || Timestamp::from_nanosecond(parts.next()?.parse().ok()?).ok();
        Some((container, Self { started_at: time()?, from: time()? }))
    }
}

/// The last run that was seen of each container, and whose the container is.
#[derive(Default)]
pub(super) struct Boots(Mutex<HashMap<String, Known>>);

#[derive(Default)]
struct Known {
    run: Option<Boot>,
    agent: Option<AgentId>,
}

impl Boots {
    pub(super) fn remember(&self, container: &str, run_id: Boot) {
        self.lock().entry(container.to_owned()).or_default().run = Some(run_id);
    }

    pub(super) fn belongs(&self, container: &str, agent: AgentId) {
        self.lock().entry(container.to_owned()).or_default().agent = Some(agent);
    }

    /// Whose a container is that was seen before.
    pub(super) fn agent(&self, container: &str) -> Option<AgentId> {
        self.lock().get(container)?.agent
    }

    /// What is remembered of the run that began at this time.
    pub(super) fn recall(&self, container: &str, started_at: Timestamp) -> Option<Boot> {
        self.lock().get(container)?.run.filter(|run_id| run_id.started_at == started_at)
    }

    /// Forgets all containers but these.
    pub(super) fn keep(&self, containers: &HashSet<&str>) {
        self.lock().retain(|container, _| containers.contains(container.as_str()));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        // Nothing can panic between two halves of a change here.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millisecond: i64) -> Timestamp {
        Timestamp::from_millisecond(1_000_000_000_000 + millisecond).unwrap()
    }

    #[test]
    fn a_run_counts_from_the_end_of_the_one_before() {
        let first = Boot::of_running(at(0), at(5_000), None);
        assert_eq!((first.from, first.near_start()), (at(0), at(4_100)), "all that the container said");
        let second = Boot::of_running(at(0), at(9_000), Some(at(8_700)));
        assert_eq!((second.from, second.near_start()), (at(8_700), at(8_700)));
        assert_eq!(Boot::of_running(at(0), at(9_000), Some(at(9_500))).from, at(8_100), "an end that cannot be");
        assert_eq!(Boot::of_ended(at(0), at(9_000)).from, at(8_100));
        assert_eq!(Boot::of_ended(at(0), at(100)).from, at(0));
    }

    #[test]
    fn an_id_names_container_and_run() {
        let run_id = Boot::of_running(at(0), at(9_000), Some(at(8_700)));
        assert_eq!(Boot::parse(&run_id.id("abc")), Some(("abc", run_id)));
        for other in ["", "abc", "abc@1", "abc@x@1", "4242:17"] {
            assert_eq!(Boot::parse(&RunId(other.into())), None, "{other}");
        }
    }

    #[test]
    fn only_the_same_run_is_recalled() {
        let boots = Boots::default();
        let run_id = Boot::of_running(at(0), at(9_000), None);
        boots.remember("abc", run_id);
        assert_eq!((boots.recall("abc", at(9_000)), boots.recall("abc", at(9_001))), (Some(run_id), None));
        boots.keep(&HashSet::from(["other"]));
        assert_eq!(boots.recall("abc", at(9_000)), None);
    }
}
