//! The figures that every process has for Prometheus, by their usual names, read from /proc.

use std::fs;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// What /proc says of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Figures {
    cpu_secs: f64,
    /// Seconds after the machine's start.
    started: f64,
    threads: i64,
    resident_bytes: i64,
    virtual_bytes: i64,
}

/// A registry of its own, for these names have no prefix. What cannot be read is left out.
pub fn registry() -> Registry {
    let mut registry = Registry::with_prefix("process");
    let (ticks, page) = (rustix::param::clock_ticks_per_second(), rustix::param::page_size());
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    if let Some(figures) = parse(&stat, ticks, page) {
        let cpu = Counter::<f64, AtomicU64>::default();
        cpu.inc_by(figures.cpu_secs);
        registry.register_with_unit("cpu", "Processor time of the service", Unit::Seconds, cpu);
        registry.register("threads", "Threads of the service", gauge(figures.threads));
        registry.register_with_unit("resident_memory", "Memory in use", Unit::Bytes, gauge(figures.resident_bytes));
        registry.register_with_unit(
            "virtual_memory",
            "Address space in use",
            Unit::Bytes,
            gauge(figures.virtual_bytes),
        );
        if let Some(booted) = fs::read_to_string("/proc/stat").ok().and_then(|stat| boot_time(&stat)) {
            let start = Gauge::<f64, AtomicU64>::default();
            start.set(booted + figures.started);
            registry.register_with_unit("start_time", "When the service was started, since 1970", Unit::Seconds, start);
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        let open = i64::try_from(open.count()).unwrap_or(i64::MAX);
        registry.register("open_fds", "Open files and connections", gauge(open));
    }
    if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        registry.register("max_fds", "How many may be open", gauge(i64::try_from(limit).unwrap_or(i64::MAX)));
    }
    registry
}

fn gauge(value: i64) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(value);
    gauge
}

/// Reads the fields of proc(5) that are wanted; the name in brackets may have anything in it.
fn parse(stat: &str, ticks_per_sec: u64, page_size: usize) -> Option<Figures> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // The first one after the name is field 3.
    let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
    let secs = |ticks: i64| ticks as f64 / ticks_per_sec as f64;
    Some(Figures {
        cpu_secs: secs(field(14)? + field(15)?),
        threads: field(20)?,
        started: secs(field(22)?),
        virtual_bytes: field(23)?,
        resident_bytes: field(24)?.saturating_mul(i64::try_from(page_size).ok()?),
    })
}

fn boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_proc_are_read_whatever_the_name_is() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 9 0 12345 1000000 300 18446744073709551615";
        let expected = Figures {
            cpu_secs: 2.0,
            started: 123.45,
            threads: 9,
            resident_bytes: 300 * 4096,
            virtual_bytes: 1_000_000,
        };
        assert_eq!(parse(stat, 100, 4096), Some(expected));
        assert_eq!(parse("7 (a) S 1", 100, 4096), None);
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000.0));
    }
}
