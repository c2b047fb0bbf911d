//! How many requests a key, a user or an address may make.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter as Governor};

/// How many requests one key, user or address may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// In a second, in the long run.
    pub per_second: NonZeroU32,
    /// At once, after a time without any.
    pub burst: NonZeroU32,
}

impl Default for RateLimit {
    /// Far above what a client needs, far below what would hurt the others.
    fn default() -> Self {
        Self {
            per_second: NonZeroU32::new(100).unwrap_or(NonZeroU32::MIN),
            burst: NonZeroU32::new(2000).unwrap_or(NonZeroU32::MIN),
        }
    }
}

impl RateLimit {
    /// Twice as many.
    pub fn twice(self) -> Self {
        let twice = |number: NonZeroU32| number.saturating_mul(NonZeroU32::MIN.saturating_add(1));
        Self { per_second: twice(self.per_second), burst: twice(self.burst) }
    }
}

type Keyed<K> = Governor<K, DefaultKeyedStateStore<K>, DefaultClock, StateInformationMiddleware>;

/// Requests between two clearings of keys that have been quiet for long: they cannot pile up then.
const CLEAR_EVERY: u32 = 10_000;

/// Counts requests by `K`.
pub struct RateLimiter<K: Clone + Hash + Eq> {
    limit: RateLimit,
    keyed: Keyed<K>,
    clock: DefaultClock,
    seen: AtomicU32,
}

/// What is left for a key.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    limit: u32,
    remaining: u32,
    /// Until nothing is used up any more.
    reset: Duration,
}

impl<K: Clone + Hash + Eq> RateLimiter<K> {
    pub fn new(limit: RateLimit) -> Self {
        let quota = Quota::per_second(limit.per_second).allow_burst(limit.burst);
        let clock = DefaultClock::default();
        let keyed = Governor::dashmap_with_clock(quota, clock.clone()).with_middleware();
        Self { limit, keyed, clock, seen: AtomicU32::new(0) }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// One too many: how long to wait, and what is left.
    pub fn count(&self, key: K) -> Result<Allowance, (Duration, Allowance)> {
        if self.seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(CLEAR_EVERY) {
            self.keyed.retain_recent();
        }
        match self.keyed.check_key(&key) {
            Ok(snapshot) => Ok(self.allowance(snapshot.remaining_burst_capacity())),
            Err(refused) => Err((refused.wait_time_from(self.clock.now()), self.allowance(0))),
        }
    }

    fn allowance(&self, remaining: u32) -> Allowance {
        let used = self.limit.burst.get().saturating_sub(remaining);
        let reset = Duration::from_secs(u64::from(used.div_ceil(self.limit.per_second.get())));
        Allowance { limit: self.limit.burst.get(), remaining, reset }
    }
}

impl Allowance {
    pub fn write(self, headers: &mut HeaderMap) {
        for (name, value) in [
            ("ratelimit-limit", u64::from(self.limit)),
            ("ratelimit-remaining", u64::from(self.remaining)),
            ("ratelimit-reset", self.reset.as_secs()),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::KeyId;

    #[test]
    fn each_key_has_its_own_allowance() {
        let two = NonZeroU32::new(2).unwrap();
        let limiter = RateLimiter::new(RateLimit { per_second: NonZeroU32::MIN, burst: two });
        let (busy, other) = (KeyId::new(), KeyId::new());
        assert_eq!(limiter.count(busy).unwrap().remaining, 1);
        assert_eq!(limiter.count(busy).unwrap().remaining, 0);
        let (wait, left) = limiter.count(busy).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!((left.limit, left.remaining), (2, 0));
        assert!(limiter.count(other).is_ok());
    }
}
