//! What a container uses: one sample of the engine's at a time, and the CPU by the difference between two of ours.
//!
//! The engine can measure the difference itself, but takes a second for it; a single sample takes a few milliseconds.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use super::answers::{MemoryStats, Stats};
use super::engine::Engine;
use super::observe;
use super::wire::segment;
use crate::domain::Timestamp;
use crate::runtime::{RuntimeError, RuntimeResult, Usage};

const MIB: f64 = 1024.0 * 1024.0;

/// The last sample of each container that was asked about.
#[derive(Default)]
pub(super) struct Samples(Mutex<HashMap<String, Sample>>);

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Timestamp,
    /// CPU time since the run began.
    cpu_ns: u64,
}

impl Samples {
    pub(super) async fn take(&self, engine: &Engine, container: &str) -> RuntimeResult<Usage> {
        let path = format!("/containers/{}/stats?stream=false&one-shot=true", segment(container));
        let stats: Stats = engine.get("reading a container's usage", &path).await?;
        let missing = || RuntimeError::Failed("the engine sent an incomplete sample".into());
        let at = stats.read.as_deref().and_then(observe::time).ok_or_else(missing)?;
        let sample = Sample { at, cpu_ns: stats.cpu_stats.cpu_usage.total_usage.ok_or_else(missing)? };
        let before = self.lock().insert(container.to_owned(), sample);
        Ok(usage(&stats, before, sample))
    }

    /// Forgets all containers but these.
    pub(super) fn keep(&self, containers: &HashSet<&str>) {
        self.lock().retain(|container, _| containers.contains(container.as_str()));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Sample>> {
        // Nothing can panic between two halves of a change here.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn usage(stats: &Stats, before: Option<Sample>, now: Sample) -> Usage {
    let networks = || stats.networks.values();
    let memory = &stats.memory_stats;
    Usage {
        cpu_percent: before.map_or(0.0, |before| cpu_percent(before, now)),
        memory_mb: memory_bytes(memory) as f64 / MIB,
        memory_limit_mb: memory.limit.map(|limit| limit as f64 / MIB),
        pids: stats.pids_stats.current,
        network_rx_bytes: Some(networks().filter_map(|network| network.rx_bytes).sum()),
        network_tx_bytes: Some(networks().filter_map(|network| network.tx_bytes).sum()),
        at: now.at,
    }
}

/// Percent of one core. A counter that went back belongs to another run: its first sample.
fn cpu_percent(before: Sample, now: Sample) -> f64 {
    let elapsed = now.at.as_nanosecond() - before.at.as_nanosecond();
    match now.cpu_ns.checked_sub(before.cpu_ns) {
        Some(used) if elapsed > 0 => used as f64 / elapsed as f64 * 100.0,
        Some(_) | None => 0.0,
    }
}

/// Memory without the file cache that the kernel would give up first; its counter is called `total_inactive_file` in
/// version 1 of control groups, `inactive_file` in version 2.
fn memory_bytes(memory: &MemoryStats) -> u64 {
    let counter = |name| memory.stats.get(name).copied();
    let cache = counter("total_inactive_file").or_else(|| counter("inactive_file")).unwrap_or(0);
    memory.usage.unwrap_or(0).saturating_sub(cache)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(second: i64, cpu_ns: u64) -> Sample {
        Sample { at: Timestamp::from_second(second).unwrap(), cpu_ns }
    }

    #[test]
    fn cpu_is_measured_between_two_samples_of_one_run() {
        let before = sample(10, 1_000_000_000);
        assert_eq!(cpu_percent(before, sample(12, 2_000_000_000)), 50.0);
        assert_eq!(cpu_percent(before, sample(11, 3_000_000_000)), 200.0, "two cores");
        assert_eq!(cpu_percent(before, sample(12, 5)), 0.0, "another run");
        assert_eq!(cpu_percent(before, before), 0.0, "the same moment");
    }

    #[test]
    fn both_versions_of_control_groups_are_understood() {
        let stats = |cache: &str| -> Stats {
            serde_json::from_value(serde_json::json!({
                "memory_stats": {"usage": 30 << 20, "limit": 128 << 20, "stats": {cache: 10 << 20, "rss": 1}},
                "pids_stats": {"current": 4},
                "networks": {"eth0": {"rx_bytes": 5, "tx_bytes": 7}, "eth1": {"rx_bytes": 1, "tx_bytes": 1}},
            }))
            .unwrap()
        };
        for cache in ["total_inactive_file", "inactive_file"] {
            let usage = usage(&stats(cache), None, sample(1, 1));
            assert_eq!((usage.memory_mb, usage.memory_limit_mb, usage.cpu_percent), (20.0, Some(128.0), 0.0));
            assert_eq!((usage.pids, usage.network_rx_bytes, usage.network_tx_bytes), (Some(4), Some(6), Some(8)));
        }
    }
}
