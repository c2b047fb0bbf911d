//! What numbers make sense.

use super::layers::Layers;

/// Smallest and largest value of every number. The upper ends are no recommendation: they keep sums within their types
/// and tell a slipped digit from a wish.
const RANGES: &[(&str, i64, i64)] = &[
    ("server.max_connections", 1, 1_000_000),
    ("server.connections_per_address", 0, 1_000_000),
    ("server.answer_secs", 1, 3_600),
    ("server.drain_secs", 0, 600),
    ("server.streams_per_user", 1, 1_000_000),
    ("accounts.session_idle_hours", 1, 24 * 365),
    ("accounts.session_days", 1, 365),
    ("ratelimit.per_second", 0, 1_000_000),
    ("ratelimit.burst", 1, 1_000_000),
    ("restart.max_restarts", 0, 10_000),
    ("restart.window_secs", 1, DAY),
    ("restart.max_failed_starts", 1, 1_000),
    ("restart.base_delay_ms", 1, 3_600_000),
    ("restart.max_delay_secs", 1, DAY),
    ("restart.stable_after_secs", 0, DAY),
    ("restart.rest_secs", 1, DAY),
    ("restart.max_rest_secs", 1, 30 * DAY),
    ("health.interval_secs", 1, 3_600),
    ("health.retry_secs", 1, 3_600),
    ("health.misses", 1, 100),
    ("health.timeout_ms", 10, 60_000),
    ("health.usability_interval_secs", 1, DAY),
    ("start.prepare_secs", 1, DAY),
    ("start.engine_call_secs", 1, 3_600),
    ("start.engine_start_secs", 1, 86_400),
    ("start.start_secs", 1, 3_600),
    ("start.pairing_secs", 1, 3_600),
    ("start.stop_grace_secs", 0, 600),
    ("start.engine_patience_secs", 1, DAY),
    ("start.stop_patience_secs", 1, DAY),
    ("process.log_limit_mb", 1, 1_024),
    ("docker.start_throttle", 1, 64),
    ("docker.pull_deadline_secs", 1, DAY),
    ("docker.log_files", 1, 100),
    ("proxy.open_per_agent", 1, 100_000),
    ("proxy.open_per_user", 1, 1_000_000),
    ("proxy.idle_secs", 1, DAY),
    ("proxy.max_body_mb", 1, 10_240),
    ("proxy.stream_kb_per_sec", 0, 1_000_000),
];

const DAY: i64 = 86_400;

pub(super) fn check(layers: &Layers, problems: &mut Vec<String>) {
    for &(key, least, most) in RANGES {
        let value = layers.get(key).and_then(toml::Value::as_integer);
        if value.is_some_and(|value| !(least..=most).contains(&value)) {
            problems.push(format!("{key}{} must be {least} to {most}", layers.from(key)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_range_and_every_range_a_number() {
        let layers = Layers::defaults();
        let mut numbers: Vec<&str> =
            layers.iter().filter(|(_, value, _)| value.is_integer()).map(|(key, ..)| key).collect();
        let mut ranges: Vec<&str> = RANGES.iter().map(|(key, ..)| *key).collect();
        numbers.sort_unstable();
        ranges.sort_unstable();
        assert_eq!(numbers, ranges);
    }
}
