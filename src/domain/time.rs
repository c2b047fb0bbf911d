//! Arithmetic on a wall clock that people may set back or forth.

use std::time::Duration;

use super::Timestamp;

/// Time since then; none where the clock was set back.
pub(crate) fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// The time after this delay, or the end of time.
pub(crate) fn later(now: Timestamp, delay: Duration) -> Timestamp {
    now.checked_add(delay).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_set_back_shows_no_time() {
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(elapsed(later(now, Duration::from_secs(1)), now), Duration::ZERO);
        assert_eq!(elapsed(now, later(now, Duration::from_secs(1))), Duration::from_secs(1));
        assert_eq!(elapsed(Timestamp::MAX, Timestamp::MIN), Duration::ZERO);
    }

    #[test]
    fn time_ends_without_a_panic() {
        assert_eq!(later(Timestamp::MAX, Duration::from_secs(1)), Timestamp::MAX);
        assert_eq!(later(Timestamp::UNIX_EPOCH, Duration::MAX), Timestamp::MAX);
    }
}
