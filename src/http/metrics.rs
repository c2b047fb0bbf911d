//! Numbers for Prometheus. Each control plane has its own: nothing is global.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use futures_util::future::BoxFuture;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::process_figures;
use crate::by_id::ById;
use crate::control::{ActorCounts, ControlPlane};
use crate::incident::{BOUNDS, Kind, Recovery};
use crate::proxy::{Bound, Proxy};
use crate::store::StoreStats;

/// Upper bounds in seconds: reads take less than a millisecond, messages as long as a model thinks.
const BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 30.0, 120.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Requested {
    method: &'static str,
    route: Cow<'static, str>,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Timed {
    method: &'static str,
    route: Cow<'static, str>,
    class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Table {
    table: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct By {
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    how: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelFailed {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Met {
    bound: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Sent {
    outcome: &'static str,
}

/// What is counted at each request. Found by one look-up of a cheap hash, where the families take two of a dear one.
#[derive(Clone)]
struct OfRoute {
    requests: Counter,
    durations: Histogram,
}

impl OfRoute {
    fn count(&self, took: Duration) {
        self.requests.inc();
        self.durations.observe(took.as_secs_f64());
    }
}

type Histograms = Family<Timed, Histogram, fn() -> Histogram>;

/// The figures of one router and its control plane. Clones share them.
///
/// By default each router has its own and shows them at `/metrics`. An embedder with a registry makes them itself, hands a clone
/// over in [`HttpOptions::metrics`](super::HttpOptions), calls [`Metrics::register`] once and [`Metrics::refresh`] before each
/// time that the registry is encoded.
#[derive(Clone)]
pub struct Metrics {
    requests: Family<Requested, Counter>,
    durations: Histograms,
    /// The same figures again, for those who count.
    of_routes: Arc<ById<Requested, OfRoute>>,
    messages: Family<Sent, Counter>,
    models_failed: Family<ModelFailed, Counter>,
    agents: Family<Of, Gauge>,
    restarts: Gauge,
    orphans: Gauge,
    recoveries: Recoveries,
    rows: Family<Table, Gauge>,
    store_bytes: Gauge<i64>,
    store_queued: Gauge<i64>,
    cpu: Gauge<f64, AtomicU64>,
    actor_ends: Family<Ended, Counter>,
    task_panics: Counter,
    commands: Counter,
    commands_waited: Counter<f64, AtomicU64>,
    proxy_open: Gauge,
    proxy_bounded: Family<Met, Counter>,
    look: Arc<OnceLock<Look>>,
}

/// Looks at what counts nothing by itself, such as the number of agents.
type Look = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            of_routes: Arc::default(),
            messages: Family::default(),
            models_failed: Family::default(),
            agents: Family::default(),
            restarts: Gauge::default(),
            orphans: Gauge::default(),
            recoveries: Recoveries::default(),
            rows: Family::default(),
            store_bytes: Gauge::default(),
            store_queued: Gauge::default(),
            cpu: Gauge::default(),
            actor_ends: Family::default(),
            task_panics: Counter::default(),
            commands: Counter::default(),
            commands_waited: Counter::default(),
            proxy_open: Gauge::default(),
            proxy_bounded: Family::default(),
            look: Arc::default(),
        }
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Adds them to a registry, under names that begin with `zeroone_`. Figures of the process are not among them.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("zeroone");
        registry.register("http_requests", "Answered requests", self.requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time to the head of the answer",
            Unit::Seconds,
            self.durations.clone(),
        );
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Which zeroone this is", build);
        registry.register(
            "messages",
            "Messages to agents, by what the caller got: answered, or the code of the problem",
            self.messages.clone(),
        );
        registry.register("model_errors", "Messages whose model failed", self.models_failed.clone());
        registry.register("agents", "Agents in each status", self.agents.clone());
        registry.register(
            "agent_restarts",
            "Restarts nobody asked for, of the agents there are",
            self.restarts.clone(),
        );
        registry.register("orphan_instances", "Instances that belong to no agent", self.orphans.clone());
        registry.register_collector(Box::new(self.recoveries.clone()));
        registry.register("store_rows", "Rows of each table", self.rows.clone());
        registry.register_with_unit("store_size", "Size of the store", Unit::Bytes, self.store_bytes.clone());
        registry.register("store_queued", "Batches that wait to be written", self.store_queued.clone());
        registry.register("agents_cpu_percent", "Processor use of all agents, percent of one core", self.cpu.clone());
        registry.register(
            "actor_crashes",
            "Actors that were rebuilt from the store, by how they ended",
            self.actor_ends.clone(),
        );
        registry.register(
            "task_panics",
            "Jobs, observations and health checks that panicked",
            self.task_panics.clone(),
        );
        registry.register("commands", "Commands that agents' actors took up", self.commands.clone());
        registry.register_with_unit(
            "commands_waited",
            "How long commands waited in the mailboxes, all together",
            Unit::Seconds,
            self.commands_waited.clone(),
        );
        registry.register(
            "proxy_open",
            "Requests and streams that are open to agents' gateways",
            self.proxy_open.clone(),
        );
        registry.register(
            "proxy_bounded",
            "Requests and streams to gateways that were refused, held up or ended, by the bound that they met",
            self.proxy_bounded.clone(),
        );
    }

    /// Brings up to date what is not counted as it happens: agents, recoveries, the store. Waits for the store's thread, as long as
    /// a commit takes. Without a router, or when it is gone, nothing changes.
    pub async fn refresh(&self) {
        if let Some(look) = self.look.get() {
            look().await;
        }
    }

    /// Where [`Metrics::refresh`] looks. The first router that has these figures is the one that counts.
    pub(super) fn follow(&self, look: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) {
        let _ = self.look.set(Box::new(look));
    }
}

impl Metrics {
    pub(super) fn count(&self, method: &Method, route: Cow<'static, str>, status: StatusCode, took: Duration) {
        // Methods are free text in HTTP; those that nobody knows share a name.
        let known = KNOWN.iter().find(|(known, _)| known == method);
        let method = known.map_or("other", |(_, name)| *name);
        let requested = Requested { method, route, status: status.as_u16() };
        if let Some(of_route) = self.of_routes.get(&requested) {
            return of_route.count(took);
        }
        let timed = Timed { method, route: requested.route.clone(), class: class(status) };
        let of_route = OfRoute {
            requests: self.requests.get_or_create_owned(&requested),
            durations: self.durations.get_or_create_owned(&timed),
        };
        of_route.count(took);
        self.of_routes.insert(requested, of_route);
    }

    /// A message, by a problem's code or `answered`.
    pub(super) fn message(&self, outcome: &'static str) {
        self.messages.get_or_create(&Sent { outcome }).inc();
    }

    /// A message without an answer because its model failed, by a reason of a fixed set.
    pub(super) fn model_failed(&self, reason: &'static str) {
        self.models_failed.get_or_create(&ModelFailed { reason }).inc();
    }

    /// Takes over what the actors have counted themselves.
    fn count_actors(&self, counts: &ActorCounts) {
        for (how, count) in [("panic", counts.panicked), ("failed", counts.failed), ("killed", counts.killed)] {
            self.actor_ends.get_or_create(&Ended { how }).inner().store(count, Ordering::Relaxed);
        }
        self.task_panics.inner().store(counts.task_panics, Ordering::Relaxed);
        self.commands.inner().store(counts.commands, Ordering::Relaxed);
        self.commands_waited.inner().store(counts.waited.as_secs_f64().to_bits(), Ordering::Relaxed);
    }

    /// Takes over what is known of agents, proxy and store at this moment.
    pub(super) fn observe(&self, plane: &ControlPlane, proxy: &Proxy, stats: Option<&StoreStats>) {
        self.count_actors(&plane.actor_counts());
        self.proxy_open.set(number(proxy.open() as u64));
        for &bound in Bound::ALL {
            let met = self.proxy_bounded.get_or_create(&Met { bound: bound.as_str() });
            met.inner().store(proxy.met(bound), Ordering::Relaxed);
        }
        for (status, count) in plane.count_by_status() {
            self.agents.get_or_create(&Of { status: status.as_str() }).set(number(count as u64));
        }
        let agents = plane.agents(None, None, usize::MAX, &[]).agents;
        self.restarts.set(number(agents.iter().map(|agent| agent.record.state.restart_count).sum()));
        self.orphans.set(number(plane.orphans()));
        self.recoveries.set(plane.recoveries());
        let usages = agents.iter().filter_map(|agent| plane.agent(agent.record.id)?.vitals().usage);
        // A sum of nothing is -0.0, which nobody wants to read.
        self.cpu.set(usages.map(|usage| usage.cpu_percent).fold(0.0, |sum, cpu| sum + cpu));
        if let Some(stats) = stats {
            for &(table, rows) in &stats.rows {
                self.rows.get_or_create(&Table { table }).set(number(rows));
            }
            self.store_bytes.set(number(stats.bytes));
            self.store_queued.set(number(stats.queued as u64));
        }
    }

    /// Everything as text, as it was when it was last refreshed.
    pub(super) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::default();
        self.register(&mut registry);
        let mut text = String::new();
        encode_registry(&mut text, &registry)?;
        encode_registry(&mut text, &process_figures::registry())?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

/// Recoveries as the control plane counted them when it was last asked.
#[derive(Debug, Clone, Default)]
struct Recoveries(Arc<Mutex<Vec<(Kind, Recovery)>>>);

impl Recoveries {
    fn set(&self, counted: impl IntoIterator<Item = (Kind, Recovery)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = counted.into_iter().collect();
    }
}

impl Collector for Recoveries {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "From the first sign of an incident to RUNNING, by cause";
        let mut family = encoder.encode_descriptor("recovery", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (kind, recovery) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let within: u64 = recovery.buckets().iter().sum();
            let longer = (f64::INFINITY, recovery.count.saturating_sub(within));
            let buckets: Vec<_> =
                BOUNDS.iter().copied().zip(recovery.buckets().iter().copied()).chain([longer]).collect();
            let labels = By { cause: kind.as_str() };
            let sum = recovery.sum.as_secs_f64();
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, recovery.count, &buckets, None)?;
        }
        Ok(())
    }
}

static KNOWN: [(Method, &str); 7] = [
    (Method::GET, "GET"),
    (Method::HEAD, "HEAD"),
    (Method::POST, "POST"),
    (Method::PATCH, "PATCH"),
    (Method::PUT, "PUT"),
    (Method::DELETE, "DELETE"),
    (Method::OPTIONS, "OPTIONS"),
];

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
/// For metrics: 2xx, 4xx and so on.
const fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

/// OpenMetrics text in the older format of Prometheus (0.0.4): there a counter's metadata carries the name of its samples, and
/// there are no units and no end.
pub fn text_format(open_metrics: &str) -> String {
    let mut counters = Vec::new();
    for line in open_metrics.lines() {
        if let Some((name, "counter")) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            counters.push(name);
        }
    }
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words.as_slice() {
            ["#", kind @ ("HELP" | "TYPE"), name, rest] if counters.contains(name) => {
                text.push_str(&format!("# {kind} {name}_total {rest}\n"));
            }
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::text_format;

    #[test]
    fn the_older_format_names_counters_as_their_samples() {
        let open = "# HELP a_b Things.\n# TYPE a_b counter\na_b_total{x=\"y\"} 1\n# TYPE c_seconds histogram\n# UNIT c_seconds seconds\n# EOF\n";
        let text =
            "# HELP a_b_total Things.\n# TYPE a_b_total counter\na_b_total{x=\"y\"} 1\n# TYPE c_seconds histogram\n";
        assert_eq!(text_format(open), text);
    }
}
