//! Counts of what goes wrong with actors, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters since the control plane began.
#[derive(Debug, Default)]
pub struct Counters {
    panicked: AtomicU64,
    failed: AtomicU64,
    killed: AtomicU64,
    task_panics: AtomicU64,
    commands: AtomicU64,
    waited_us: AtomicU64,
    longest_us: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ActorCounts {
    /// Actors that panicked.
    pub panicked: u64,
    /// Actors that ended because the outcome of a commit was unknown.
    pub failed: u64,
    /// Actors that were killed or cancelled.
    pub killed: u64,
    /// Jobs, observations and health checks that panicked.
    pub task_panics: u64,
    /// Commands that agents' actors have taken from their mailboxes.
    pub commands: u64,
    /// How long these commands waited in the mailbox, all together.
    pub waited: Duration,
    /// The longest that one of them waited.
    pub longest_wait: Duration,
}

impl Counters {
    pub(super) fn actor_panicked(&self) {
        self.panicked.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn actor_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn actor_killed(&self) {
        self.killed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn task_panicked(&self) {
        self.task_panics.fetch_add(1, Ordering::Relaxed);
    }

    /// A command was taken from a mailbox after this time.
    pub(super) fn waited(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.commands.fetch_add(1, Ordering::Relaxed);
        self.waited_us.fetch_add(micros, Ordering::Relaxed);
        self.longest_us.fetch_max(micros, Ordering::Relaxed);
    }

    pub fn now(&self) -> ActorCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ActorCounts {
            panicked: read(&self.panicked),
            failed: read(&self.failed),
            killed: read(&self.killed),
            task_panics: read(&self.task_panics),
            commands: read(&self.commands),
            waited: Duration::from_micros(read(&self.waited_us)),
            longest_wait: Duration::from_micros(read(&self.longest_us)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_trouble_has_its_own_count() {
        let counters = Counters::default();
        assert_eq!(counters.now(), ActorCounts::default());
        counters.actor_panicked();
        (0..2).for_each(|_| counters.actor_failed());
        (0..3).for_each(|_| counters.actor_killed());
        (0..4).for_each(|_| counters.task_panicked());
        for millis in [20, 70, 10] {
            counters.waited(Duration::from_millis(millis));
        }
        let wanted = ActorCounts {
            panicked: 1,
            failed: 2,
            killed: 3,
            task_panics: 4,
            commands: 3,
            waited: Duration::from_millis(100),
            longest_wait: Duration::from_millis(70),
        };
        assert_eq!(counters.now(), wanted);
    }
}
