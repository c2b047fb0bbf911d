//! Failed attempts in a row make the next one wait, twice as long each time.
//!
//! An attempt counts as failed from its beginning, until it is known to have succeeded: so a thousand attempts at the same
//! moment are one attempt and 999 that have to wait. In memory alone: nobody who guesses can restart the service.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::{Timestamp, elapsed, later};

/// The first wait.
const BASE: Duration = Duration::from_secs(1);
/// Failures are forgotten when there was none for this long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Keys that are remembered. Beyond, the one that has waited longest goes: whoever fills this has to make an attempt for
/// each, and each is slow.
const MAX_KEYS: usize = 100_000;

/// Slows down attempts by `K`.
pub struct Slowdown<K> {
    /// Failures in a row that cost nothing: people mistype.
    free: u32,
    longest: Duration,
    failed: Mutex<HashMap<K, Failed>>,
}

#[derive(Clone, Copy)]
struct Failed {
    times: u32,
    at: Timestamp,
    next: Timestamp,
}

impl<K: Clone + Hash + Eq> Slowdown<K> {
    /// The first `free` failures cost no wait; from then on waits grow up to `longest`.
    pub fn new(free: u32, longest: Duration) -> Self {
        Self { free, longest, failed: Mutex::default() }
    }

    /// Begins an attempt, which counts as failed until [`Slowdown::succeeded`].
    ///
    /// # Errors
    /// How long to wait. Nothing is counted then.
    pub fn begin(&self, key: &K, now: Timestamp) -> Result<(), Duration> {
        let mut failed = self.lock();
        let before = failed.get(key).copied().filter(|it| elapsed(it.at, now) < FORGOTTEN_AFTER);
        if let Some(before) = before
            && before.next > now
        {
            return Err(elapsed(now, before.next));
        }
        let times = before.map_or(0, |it| it.times).saturating_add(1);
        if failed.len() >= MAX_KEYS && !failed.contains_key(key) {
            forget_some(&mut failed, now);
        }
        failed.insert(key.clone(), Failed { times, at: now, next: later(now, self.wait_after(times)) });
        Ok(())
    }

    /// The attempt was none to be slowed down: it succeeded, or was not made.
    pub fn succeeded(&self, key: &K) {
        self.lock().remove(key);
    }

    /// The attempt succeeded for one of many who share the key: their failures still count.
    pub fn took_back(&self, key: &K) {
        if let Some(failed) = self.lock().get_mut(key) {
            failed.times = failed.times.saturating_sub(1);
            if failed.times <= self.free {
                failed.next = failed.at;
            }
        }
    }

    fn wait_after(&self, times: u32) -> Duration {
        match times.checked_sub(self.free + 1) {
            None => Duration::ZERO,
            Some(doublings) => BASE.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(self.longest),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Failed>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget_some<K: Clone + Hash + Eq>(failed: &mut HashMap<K, Failed>, now: Timestamp) {
    failed.retain(|_, it| elapsed(it.at, now) < FORGOTTEN_AFTER);
    if failed.len() >= MAX_KEYS
        && let Some(oldest) = failed.iter().min_by_key(|(_, it)| it.at).map(|(key, _)| key.clone())
    {
        failed.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::UNIX_EPOCH;

    fn at(secs: u64) -> Timestamp {
        later(START, Duration::from_secs(secs))
    }

    #[test]
    fn each_failure_after_the_free_ones_doubles_the_wait_up_to_a_bound() {
        let slow = Slowdown::new(2, Duration::from_secs(10));
        let mut now = START;
        for expected in [0, 0, 1, 2, 4, 8, 10, 10] {
            slow.begin(&"ada", now).unwrap();
            match slow.begin(&"ada", now) {
                Err(wait) => assert_eq!(wait, Duration::from_secs(expected)),
                // Free ones may come at the same moment; this one counts too.
                Ok(()) => {
                    assert_eq!(expected, 0);
                    slow.took_back(&"ada");
                }
            }
            assert!(slow.begin(&"bob", now).is_ok());
            slow.succeeded(&"bob");
            now = later(now, Duration::from_secs(expected));
        }
    }

    #[test]
    fn a_hundred_thousand_guesses_in_a_day_are_a_hundred() {
        let slow = Slowdown::new(5, Duration::from_secs(15 * 60));
        let tried = (0..100_000_u64).filter(|n| slow.begin(&"ada", at(n * 86_000 / 100_000)).is_ok()).count();
        assert!((90..120).contains(&tried), "{tried}");
        assert!(slow.begin(&"ada", at(86_000)).is_err());
        slow.succeeded(&"ada");
        assert!(slow.begin(&"ada", at(86_000)).is_ok());
    }

    #[test]
    fn a_day_without_a_failure_forgets_them() {
        let slow = Slowdown::new(0, Duration::from_secs(1));
        slow.begin(&1, START).unwrap();
        assert_eq!(slow.lock().get(&1).map(|it| it.times), Some(1));
        slow.begin(&1, at(FORGOTTEN_AFTER.as_secs())).unwrap();
        assert_eq!(slow.lock().get(&1).map(|it| it.times), Some(1));
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_nobody_out_for_longer_than_it_was_set_back_by() {
        let slow = Slowdown::new(0, Duration::from_secs(60));
        slow.begin(&1, at(1000)).unwrap();
        assert_eq!(slow.begin(&1, at(0)), Err(Duration::from_secs(1001)));
        assert_eq!(slow.begin(&1, at(1001)), Ok(()));
    }
}
