//! What a run uses, from the process table.

use std::time::Instant;

use super::live::LiveRun;
use super::table;
use crate::domain::Timestamp;
use crate::runtime::{RunId, Usage};

const MIB: f64 = 1024.0 * 1024.0;

/// CPU time of a run at a moment.
#[derive(Debug, Clone)]
pub(super) struct CpuSample {
    run_id: RunId,
    ticks: u64,
    at: Instant,
}

/// Measures a run and leaves the sample that the next measurement compares with.
///
/// Traffic is not known: instances share the machine's network.
pub(super) fn measure(run: &LiveRun, memory_mb: u32, last: &mut Option<CpuSample>) -> Usage {
    let family = table::family(run.process.pid);
    let sample = CpuSample {
        run_id: run.run_id.clone(),
        ticks: family.iter().map(|(_, stat)| stat.cpu_ticks).sum(),
        at: Instant::now(),
    };
    let pages: u64 = family.iter().map(|(pid, _)| table::resident_pages(*pid)).sum();
    let cpu_percent = last.as_ref().map_or(0.0, |last| percent(last, &sample));
    *last = Some(sample);
    Usage {
        cpu_percent,
        memory_mb: bytes(pages) / MIB,
        memory_limit_mb: Some(f64::from(memory_mb)),
        pids: Some(family.iter().map(|(_, stat)| stat.threads).sum()),
        network_rx_bytes: None,
        network_tx_bytes: None,
        at: Timestamp::now(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn bytes(pages: u64) -> f64 {
    pages as f64 * rustix::param::page_size() as f64
}

/// Of one core, between two samples of the same run; 0 where there is nothing to compare.
#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn percent(last: &CpuSample, now: &CpuSample) -> f64 {
    let elapsed = now.at.duration_since(last.at).as_secs_f64();
    if last.run_id != now.run_id || elapsed <= 0.0 {
        return 0.0;
    }
    let ticks = now.ticks.saturating_sub(last.ticks) as f64;
    100.0 * ticks / rustix::param::clock_ticks_per_second() as f64 / elapsed
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn cpu_is_compared_within_one_run_only() {
        let run_id = |name: &str| RunId(name.into());
        let at = Instant::now();
        let first = CpuSample { run_id: run_id("a"), ticks: 100, at };
        let ticks = 100 + rustix::param::clock_ticks_per_second();
        let later = CpuSample { run_id: run_id("a"), ticks, at: at + Duration::from_secs(2) };
        assert!((percent(&first, &later) - 50.0).abs() < 0.001);
        assert!(percent(&first, &CpuSample { run_id: run_id("b"), ..later.clone() }).abs() < f64::EPSILON);
        assert!(percent(&first, &CpuSample { ticks: 0, ..later.clone() }).abs() < f64::EPSILON);
        assert!(percent(&first, &first).abs() < f64::EPSILON);
    }
}
