//! When to try again, and when to give up for a while: pure arithmetic on a history of restarts.
//!
//! The first restart is immediate, because most deaths are single events and every millisecond down is a message held.
//! Restarts that follow wait exponentially longer, and too many of them within a window end the series: then the agent
//! rests for minutes, and the rests grow too. A run that stays up for a stable time forgets the waits, not the window.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::{Timestamp, elapsed};

/// How patient to be. All of it is configuration (`[restart]`).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RestartPolicy {
    /// Restarts allowed within `window`; one more ends the series.
    pub max_restarts: u32,
    /// The time in which restarts are counted together.
    pub window: Duration,
    /// Failed starts in a row that end the series; at least one.
    pub max_failed_starts: u32,
    /// Wait before the second restart in a row; doubles from there.
    pub base_delay: Duration,
    /// The longest wait between two restarts.
    pub max_delay: Duration,
    /// A run this long makes the next death a first one again.
    pub stable_after: Duration,
    /// Rest after the first series that was given up; doubles from there.
    pub rest: Duration,
    /// The longest rest.
    pub max_rest: Duration,
}

impl RestartPolicy {
    setters! {
        with_max_restarts(max_restarts: u32);
        with_window(window: Duration);
        with_max_failed_starts(max_failed_starts: u32);
        with_base_delay(base_delay: Duration);
        with_max_delay(max_delay: Duration);
        with_stable_after(stable_after: Duration);
        with_rest(rest: Duration);
        with_max_rest(max_rest: Duration);
    }
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            max_restarts: 10,
            window: Duration::from_secs(300),
            max_failed_starts: 5,
            base_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(30),
            stable_after: Duration::from_secs(30),
            rest: Duration::from_secs(60),
            max_rest: Duration::from_secs(3600),
        }
    }
}

/// What has happened so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts {
    /// Restarts within the window, oldest first; never more than the policy allows.
    recent: Vec<Timestamp>,
    /// Restarts since the last stable run.
    in_a_row: u32,
    /// Starts since the last one that reached RUNNING.
    failed_starts: u32,
    /// Series given up since the last stable run.
    given_up: u32,
    running_since: Option<Timestamp>,
}

/// What to do after a death or a failed start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Start again after this delay; zero for at once.
    Again(Duration),
    /// The budget is spent: rest this long first.
    GiveUp(Duration),
}

impl Restarts {
    /// The agent reached RUNNING.
    pub fn running(&mut self, now: Timestamp) {
        self.failed_starts = 0;
        self.running_since = Some(now);
    }

    /// A user wants it to run: the past is forgiven.
    pub fn forgive(&mut self) {
        *self = Self::default();
    }

    /// A rest is over: a new series begins. What was given up is remembered, so that rests grow.
    pub fn rested(&mut self) {
        *self = Self { given_up: self.given_up, ..Self::default() };
    }

    /// A run ended that was not asked to.
    pub fn died(&mut self, now: Timestamp, policy: &RestartPolicy, seed: u64) -> Decision {
        if self.running_since.take().is_some_and(|since| elapsed(since, now) >= policy.stable_after) {
            self.in_a_row = 0;
            self.given_up = 0;
        }
        self.again(now, policy, seed)
    }

    /// A start failed before the agent ran.
    pub fn failed_to_start(&mut self, now: Timestamp, policy: &RestartPolicy, seed: u64) -> Decision {
        self.failed_starts += 1;
        if self.failed_starts >= policy.max_failed_starts.max(1) {
            return self.give_up(policy, seed);
        }
        self.again(now, policy, seed)
    }

    fn again(&mut self, now: Timestamp, policy: &RestartPolicy, seed: u64) -> Decision {
        self.recent.retain_mut(|then| {
            // A clock that was set back must not keep them for longer than the window.
            *then = (*then).min(now);
            elapsed(*then, now) < policy.window
        });
        if self.recent.len() >= policy.max_restarts as usize {
            return self.give_up(policy, seed);
        }
        self.recent.push(now);
        let delay = match self.in_a_row {
            0 => Duration::ZERO,
            n => jittered(doubled(policy.base_delay, n - 1, policy.max_delay), seed, n),
        };
        self.in_a_row += 1;
        Decision::Again(delay)
    }

    fn give_up(&mut self, policy: &RestartPolicy, seed: u64) -> Decision {
        let rest = doubled(policy.rest, self.given_up, policy.max_rest);
        self.given_up += 1;
        Decision::GiveUp(jittered(rest, seed, self.given_up))
    }
}

fn doubled(base: Duration, times: u32, cap: Duration) -> Duration {
    base.saturating_mul(2_u32.saturating_pow(times)).min(cap)
}

/// Takes up to a fifth off, by seed and number: the same agent waits the same, different ones spread out.
fn jittered(delay: Duration, seed: u64, n: u32) -> Duration {
    // One round of SplitMix64: spreads neighbouring inputs over all bits.
    let mut x = seed.wrapping_add(u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let permille = (x ^ (x >> 31)) % 201;
    delay - delay.mul_f64(permille as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + secs).unwrap()
    }

    fn policy() -> RestartPolicy {
        RestartPolicy { max_restarts: 4, ..RestartPolicy::default() }
    }

    #[test]
    fn the_first_restart_is_immediate_and_the_next_ones_wait_longer() {
        let mut restarts = Restarts::default();
        let delays: Vec<Duration> = (0..4)
            .map(|n| match restarts.died(at(n), &policy(), 7) {
                Decision::Again(delay) => delay,
                Decision::GiveUp(_) => panic!("gave up at {n}"),
            })
            .collect();
        assert_eq!(delays[0], Duration::ZERO);
        for (n, full) in [(1, 100), (2, 200), (3, 400)] {
            let full = Duration::from_millis(full);
            assert!(delays[n] <= full && delays[n] >= full.mul_f64(0.8), "{n}: {:?}", delays[n]);
        }
    }

    #[test]
    fn what_a_user_starts_has_its_whole_budget_again() {
        let mut restarts = Restarts::default();
        let first: Vec<_> = (0..6).map(|n| restarts.died(at(n), &policy(), 7)).collect();
        assert!(matches!(first[4..], [Decision::GiveUp(_), Decision::GiveUp(_)]));
        restarts.forgive();
        let again: Vec<_> = (0..6).map(|n| restarts.died(at(10 + n), &policy(), 7)).collect();
        assert_eq!(again, first, "and rests are as short as at first");
    }

    #[test]
    fn one_restart_too_many_in_the_window_ends_the_series() {
        let mut restarts = Restarts::default();
        for n in 0..4 {
            assert!(matches!(restarts.died(at(n), &policy(), 7), Decision::Again(_)));
        }
        assert!(matches!(restarts.died(at(4), &policy(), 7), Decision::GiveUp(_)));
        let mut later = Restarts { recent: restarts.recent.clone(), ..Restarts::default() };
        assert!(matches!(later.died(at(400), &policy(), 7), Decision::Again(_)));
    }

    #[test]
    fn a_death_counts_for_less_than_the_whole_window() {
        let policy = RestartPolicy { max_restarts: 1, window: Duration::from_secs(60), ..RestartPolicy::default() };
        let second = |after| {
            let mut restarts = Restarts::default();
            restarts.died(at(0), &policy, 7);
            restarts.died(at(after), &policy, 7)
        };
        assert!(matches!(second(59), Decision::GiveUp(_)));
        assert!(matches!(second(60), Decision::Again(_)));
    }

    /// As SplitMix64 has them: after an update of the program an agent waits as long as before.
    #[test]
    fn what_is_taken_off_a_wait_depends_on_seed_and_number_alone() {
        for (seed, n, left) in [(0, 1, 930), (7, 1, 940), (7, 2, 982), (1 << 40, 3, 988), (u64::MAX, 1, 998)] {
            assert_eq!(jittered(Duration::from_secs(1), seed, n), Duration::from_millis(left), "{seed} {n}");
        }
    }

    #[test]
    fn a_stable_run_makes_the_next_death_a_first_one() {
        let mut restarts = Restarts::default();
        restarts.died(at(0), &policy(), 7);
        restarts.died(at(1), &policy(), 7);
        restarts.running(at(2));
        assert_eq!(restarts.died(at(40), &policy(), 7), Decision::Again(Duration::ZERO));
        restarts.running(at(41));
        assert_ne!(restarts.died(at(42), &policy(), 7), Decision::Again(Duration::ZERO));
    }

    #[test]
    fn starts_that_fail_in_a_row_end_the_series_and_rests_grow() {
        let mut restarts = Restarts::default();
        let mut rests = Vec::new();
        for _ in 0..3 {
            for n in 0.. {
                if let Decision::GiveUp(rest) = restarts.failed_to_start(at(n), &RestartPolicy::default(), 7) {
                    assert_eq!(n, 4);
                    rests.push(rest);
                    restarts.rested();
                    break;
                }
            }
        }
        assert!(rests[0] < rests[1] && rests[1] < rests[2], "{rests:?}");
    }

    #[test]
    fn a_clock_set_back_neither_panics_nor_forgives() {
        let mut restarts = Restarts::default();
        restarts.running(at(1000));
        restarts.died(at(0), &policy(), 7);
        assert_ne!(restarts.died(at(-5000), &policy(), 7), Decision::Again(Duration::ZERO));
    }

    #[test]
    fn a_clock_that_was_ahead_does_not_spend_the_budget_for_ever() {
        let mut restarts = Restarts::default();
        for _ in 0..4 {
            restarts.died(at(1_000_000), &policy(), 7);
        }
        assert!(matches!(restarts.died(at(0), &policy(), 7), Decision::GiveUp(_)), "it just was spent");
        assert!(matches!(restarts.died(at(301), &policy(), 7), Decision::Again(_)), "the window has passed");
    }

    #[test]
    fn agents_that_die_together_do_not_restart_together() {
        let delays: Vec<Duration> = (0..100).map(|seed| jittered(Duration::from_secs(10), seed, 1)).collect();
        assert_eq!(delays, (0..100).map(|seed| jittered(Duration::from_secs(10), seed, 1)).collect::<Vec<_>>());
        assert!(delays.iter().all(|delay| (8.0..=10.0).contains(&delay.as_secs_f64())));
        let early = delays.iter().filter(|delay| delay.as_secs_f64() < 9.0).count();
        assert!((30..=70).contains(&early), "{early} of 100 in the first half");
    }

    proptest! {
        #[test]
        fn never_more_restarts_in_a_window_than_allowed(gaps in prop::collection::vec(0_i64..200, 1..80), seed: u64) {
            let policy = policy();
            let mut restarts = Restarts::default();
            let mut now = 0;
            let mut granted: Vec<i64> = Vec::new();
            for gap in gaps {
                now += gap;
                if let Decision::Again(delay) = restarts.died(at(now), &policy, seed) {
                    prop_assert!(delay <= policy.max_delay);
                    granted.push(now);
                }
                let in_window = granted.iter().filter(|&&then| now - then < 300).count();
                prop_assert!(in_window <= policy.max_restarts as usize);
            }
        }
    }
}
