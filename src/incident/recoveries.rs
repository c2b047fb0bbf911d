//! How long recoveries take, counted as they end: for operators, over all agents.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;

use super::{Kind, Reading, State};
use crate::domain::{AgentId, elapsed};
use crate::store::LogEntry;

/// Upper bounds of the buckets in seconds: an agent's start takes a twentieth of a second as a process and one as a
/// container, a back-off up to five minutes; what is longer waited for somebody.
pub const BOUNDS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// The recoveries from one kind of incident, from detected to RUNNING.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct Recovery {
    /// How many there were.
    pub count: u64,
    /// How long they took together.
    pub sum: Duration,
    buckets: [u64; BOUNDS.len()],
}

/// Reads all agents' timelines as they are written. Agents that are well cost nothing. An incident during which the
/// service was restarted is in its agent's timeline, but is not counted here: the counters begin with the service.
#[derive(Debug, Default)]
pub struct Recoveries {
    readings: DashMap<AgentId, Reading>,
    counted: Mutex<[Recovery; Kind::ALL.len()]>,
}

impl Recoveries {
    /// Takes the next entry of an agent's timeline.
    pub fn note(&self, agent: AgentId, entry: &LogEntry) {
        let mut reading = self.readings.get(&agent).map(|reading| reading.clone()).unwrap_or_default();
        let ended = reading.take(entry);
        if reading.is_blank() {
            self.readings.remove(&agent);
        } else {
            self.readings.insert(agent, reading);
        }
        if let Some(incident) = ended.filter(|incident| incident.state == State::Recovered) {
            let took = elapsed(incident.detected_at, incident.ended_at.unwrap_or(incident.detected_at));
            let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
            counted[incident.kind as usize].add(took);
        }
    }

    /// Forgets an agent that is gone.
    pub fn forget(&self, agent: AgentId) {
        self.readings.remove(&agent);
    }

    /// What was counted so far, one line for each kind.
    pub fn counted(&self) -> Vec<(Kind, Recovery)> {
        let counted = *self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        Kind::ALL.iter().map(|kind| (*kind, counted[*kind as usize])).collect()
    }
}

impl Recovery {
    /// How many took no longer than each of [`BOUNDS`] and longer than the one before it.
    pub fn buckets(&self) -> &[u64] {
        &self.buckets
    }

    fn add(&mut self, took: Duration) {
        self.count += 1;
        self.sum += took;
        if let Some(bucket) = BOUNDS.iter().position(|bound| took.as_secs_f64() <= *bound) {
            self.buckets[bucket] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Status, Timestamp};

    fn entry(millis: i64, to: Status, cause: &str) -> LogEntry {
        LogEntry {
            seq: 1,
            time: Timestamp::from_millisecond(millis).unwrap(),
            from: Status::Starting,
            to,
            cause: cause.into(),
            attempt: 1,
            detail: None,
            root: None,
            exit_code: None,
        }
    }

    #[test]
    fn a_recovery_is_counted_by_its_kind_and_in_one_bucket() {
        let (recoveries, agent) = (Recoveries::default(), AgentId::new());
        for took in [50, 51, 400_000] {
            recoveries.note(agent, &entry(0, Status::Starting, "exited"));
            recoveries.note(agent, &entry(took, Status::Running, "token-valid"));
        }
        let counted = recoveries.counted();
        let exits = counted.iter().find(|(kind, _)| *kind == Kind::Exit).unwrap().1;
        assert_eq!((exits.count, exits.sum), (3, Duration::from_millis(400_101)));
        assert_eq!((exits.buckets[..2].to_vec(), exits.buckets.iter().sum::<u64>()), (vec![1, 1], 2));
        assert!(counted.iter().all(|(kind, other)| *kind == Kind::Exit || other.count == 0));
        assert!(recoveries.readings.is_empty(), "nothing is kept of agents that are well");
    }

    #[test]
    fn what_was_abandoned_or_belongs_to_another_agent_is_not_counted() {
        let (recoveries, agent) = (Recoveries::default(), AgentId::new());
        recoveries.note(agent, &entry(0, Status::Starting, "exited"));
        recoveries.note(AgentId::new(), &entry(5, Status::Running, "paired"));
        recoveries.note(agent, &entry(9, Status::Stopping, "stop-requested"));
        recoveries.note(agent, &entry(20, Status::Running, "paired"));
        assert!(recoveries.counted().iter().all(|(_, recovery)| recovery.count == 0));
        recoveries.note(agent, &entry(30, Status::Starting, "exited"));
        recoveries.forget(agent);
        assert!(recoveries.readings.is_empty());
    }
}
