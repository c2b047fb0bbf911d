//! Counters for Prometheus.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::provider::Usage;

/// Model calls take from a fraction of a second to minutes.
const SECONDS: [f64; 9] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    /// The route, not the path: a stranger must not be able to make labels.
    route: String,
    method: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelCall {
    model: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tokens {
    model: String,
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ToolCall {
    tool: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failure {
    reason: &'static str,
}

pub(super) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    model_calls: Family<ModelCall, Counter>,
    model_seconds: Histogram,
    tokens: Family<Tokens, Counter>,
    tool_calls: Family<ToolCall, Counter>,
    answers_failed: Family<Failure, Counter>,
    uptime: Gauge<u64, AtomicU64>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("zeroone_gateway");
        let requests = Family::default();
        registry.register("http_requests", "Requests answered", requests.clone());
        let model_calls = Family::default();
        registry.register("model_calls", "Calls of the model", model_calls.clone());
        let model_seconds = Histogram::new(SECONDS);
        registry.register_with_unit("model_call", "Time of a call of the model", Unit::Seconds, model_seconds.clone());
        let tokens = Family::default();
        registry.register("tokens", "Tokens as the provider counted them", tokens.clone());
        let tool_calls = Family::default();
        registry.register("tool_calls", "Tools run for the model", tool_calls.clone());
        let answers_failed = Family::default();
        registry.register("answers_failed", "Questions without an answer", answers_failed.clone());
        let uptime = Gauge::default();
        registry.register_with_unit("uptime", "Time since the start", Unit::Seconds, uptime.clone());
        Self { registry, requests, model_calls, model_seconds, tokens, tool_calls, answers_failed, uptime }
    }

    pub(super) fn request(&self, route: Option<&str>, method: &'static str, status: u16) {
        let route = route.unwrap_or("other").to_owned();
        self.requests.get_or_create(&Request { route, method, status }).inc();
    }

    /// A call with its usage, or without where it failed.
    pub(super) fn model_call(&self, model: &str, usage: Option<Usage>, took: Duration) {
        let outcome = if usage.is_some() { "ok" } else { "error" };
        let model = model.to_owned();
        self.model_calls.get_or_create(&ModelCall { model: model.clone(), outcome }).inc();
        self.model_seconds.observe(took.as_secs_f64());
        if let Some(usage) = usage {
            let input = Tokens { model: model.clone(), direction: "input" };
            self.tokens.get_or_create(&input).inc_by(usage.input_tokens);
            self.tokens.get_or_create(&Tokens { model, direction: "output" }).inc_by(usage.output_tokens);
        }
    }

    /// A tool's run. The model may make names up, and those must not become labels.
    pub(super) fn tool_call(&self, tool: &str, success: bool) {
        let tool = if super::tools::exists(tool) { tool } else { "unknown" }.to_owned();
        let outcome = if success { "ok" } else { "error" };
        self.tool_calls.get_or_create(&ToolCall { tool, outcome }).inc();
    }

    /// A question that got no answer, by the reason's fixed name.
    pub(super) fn answer_failed(&self, reason: &'static str) {
        self.answers_failed.get_or_create(&Failure { reason }).inc();
    }

    pub(super) fn render(&self, uptime_seconds: u64) -> String {
        self.uptime.set(uptime_seconds);
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
