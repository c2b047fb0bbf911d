//! The tables of a gateway's settings with their defaults. Plain data; the rules that hold between them are
//! [`Config`](super::Config)'s.

use std::collections::BTreeMap;

use serde::Deserialize;
use url::Url;

use crate::domain::{MemoryBackend, Secret};
use crate::forwarded::Network;

#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(in crate::gateway) struct Memory {
    pub(in crate::gateway) backend: MemoryBackend,
    /// Whether messages are remembered without being asked to.
    pub(in crate::gateway) auto_save: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(in crate::gateway) struct Gateway {
    pub(in crate::gateway) port: u16,
    pub(in crate::gateway) host: String,
    pub(in crate::gateway) require_pairing: bool,
    pub(in crate::gateway) allow_public_bind: bool,
    /// SHA-256 of each token in hex. A token in clear text, as old files have it, is understood too.
    pub(in crate::gateway) paired_tokens: Vec<Secret<String>>,
    /// Attempts per minute and client address; 0 is no limit.
    pub(in crate::gateway) pair_rate_limit_per_minute: u32,
    pub(in crate::gateway) webhook_rate_limit_per_minute: u32,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub(in crate::gateway) trusted_proxies: Vec<Network>,
    /// Believes the `X-Forwarded-For` of every peer.
    pub(in crate::gateway) trust_forwarded_headers: bool,
    /// Pages in a browser that may call this gateway: origins such as `https://chat.example.org`, or `*`.
    pub(in crate::gateway) cors_origins: Vec<String>,
    /// Names under which this gateway is reached, beside those of this machine; `.example.org` means all below it.
    pub(in crate::gateway) allowed_hosts: Vec<String>,
    /// How many client addresses the limits remember.
    pub(in crate::gateway) rate_limit_max_keys: usize,
    /// Longest time for an answer without tools; then 408.
    pub(in crate::gateway) request_timeout_secs: u64,
    /// Whether sessions survive a restart, and after how many hours without a message they are forgotten; 0 is never.
    pub(in crate::gateway) session_persistence: bool,
    pub(in crate::gateway) session_ttl_hours: u32,
    /// What answers under way are given at the end. Less than who stops the gateway waits before it kills.
    pub(in crate::gateway) shutdown_grace_secs: u64,
    /// How long the answer to an `X-Idempotency-Key` is kept, and how many are.
    pub(in crate::gateway) idempotency_ttl_secs: u64,
    pub(in crate::gateway) idempotency_max_keys: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(in crate::gateway) struct Pairing {
    pub(in crate::gateway) code_format: CodeFormat,
    /// Wrong codes from one address until it is locked out.
    pub(in crate::gateway) max_failures: u32,
    pub(in crate::gateway) lockout_secs: u64,
}

/// How a one-time code looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::gateway) enum CodeFormat {
    /// `622406`
    Numeric6,
    /// `ABCD-1234`
    Alnum8,
}

/// The loop in which the model calls tools.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(in crate::gateway) struct Agent {
    /// Rounds of tool calls until the model must answer; 0 is the default, as in ZeroClaw.
    pub(in crate::gateway) max_tool_iterations: u32,
    /// Longest time for one answer with all its rounds.
    pub(in crate::gateway) timeout_secs: u64,
    /// Longest conversation that is put to the model, in tokens (estimated).
    pub(in crate::gateway) max_context_tokens: usize,
    /// Messages of a conversation that are put to the model; 0 is no limit but that in tokens.
    pub(in crate::gateway) max_history_messages: usize,
    /// The only tools that may be used, where there are some.
    pub(in crate::gateway) allowed_tools: Vec<String>,
    /// Tools for the people of a channel that is open to everybody (`*`).
    pub(in crate::gateway) channel_tools: Vec<String>,
}

/// What the agent may do by itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(in crate::gateway) struct Autonomy {
    pub(in crate::gateway) level: Level,
    /// Dollar cents a day, beside `[cost]`; 0 is no limit.
    pub(in crate::gateway) max_cost_per_day_cents: u64,
    /// Runs of tools in any hour; 0 is no limit.
    pub(in crate::gateway) max_actions_per_hour: usize,
    /// The only tools that may be used, where there are some.
    pub(in crate::gateway) allowed_tools: Vec<String>,
    /// Tools that may not be used. Those that somebody would have to be asked for are among them: nobody can be.
    pub(in crate::gateway) excluded_tools: Vec<String>,
    pub(in crate::gateway) always_ask: Vec<String>,
    pub(in crate::gateway) deny_all_tools: bool,
    /// Paths that no file tool may reach. Those outside of the workspace are out of reach anyway.
    pub(in crate::gateway) forbidden_paths: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::gateway) enum Level {
    /// No tool that changes something.
    #[serde(alias = "read_only", alias = "read-only")]
    ReadOnly,
    #[default]
    Supervised,
    Full,
}

/// Jobs that run by the clock.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(in crate::gateway) struct Schedule {
    pub(in crate::gateway) enabled: bool,
    /// Whether a run that was due while the gateway was down is made up for.
    pub(in crate::gateway) catch_up_on_startup: bool,
    /// Least time between two runs of one job.
    pub(in crate::gateway) min_interval_secs: u32,
    /// Runs of all jobs in one day (UTC).
    pub(in crate::gateway) max_runs_per_day: u32,
}

/// The tool that fetches web pages.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(in crate::gateway) struct HttpRequest {
    pub(in crate::gateway) enabled: bool,
    /// Hosts that may be fetched from, each with its subdomains; `*` allows all that are public.
    pub(in crate::gateway) allowed_domains: Vec<String>,
    /// Hosts that may be fetched from although their address is not public.
    pub(in crate::gateway) allowed_private_hosts: Vec<String>,
    /// Longest answer that is read, in bytes.
    pub(in crate::gateway) max_response_size: usize,
    pub(in crate::gateway) timeout_secs: u64,
}

/// Prices, and what may be spent.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(in crate::gateway) struct Cost {
    /// Whether the limits hold. Without the key they do where one is set.
    pub(in crate::gateway) enabled: Option<bool>,
    /// Dollars in one day and in one month (UTC); 0 is no limit.
    pub(in crate::gateway) daily_limit_usd: Option<f64>,
    pub(in crate::gateway) monthly_limit_usd: Option<f64>,
    /// Share of a limit at which a warning is written.
    pub(in crate::gateway) warn_at_percent: Option<f64>,
    /// By model, or by `provider/model`.
    pub(in crate::gateway) prices: BTreeMap<String, Price>,
}

/// Dollars per million tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(in crate::gateway) struct Price {
    pub(in crate::gateway) input: f64,
    pub(in crate::gateway) output: f64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(in crate::gateway) struct Reliability {
    /// How often a model call that may succeed on another try is sent again.
    pub(in crate::gateway) provider_retries: u32,
    /// First pause between two tries; it doubles each time.
    pub(in crate::gateway) provider_backoff_ms: u64,
    /// Providers that are asked, in order, where the configured one fails.
    pub(in crate::gateway) fallback_providers: Vec<String>,
    /// By model, those that are asked in its place.
    pub(in crate::gateway) model_fallbacks: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(in crate::gateway) struct Tunnel {
    /// `none`, or what brings the outside in; a gateway behind a tunnel may listen on any address.
    pub(in crate::gateway) provider: String,
}

impl Default for Memory {
    fn default() -> Self {
        Self { backend: MemoryBackend::Sqlite, auto_save: true }
    }
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            port: 42617,
            host: "127.0.0.1".into(),
            require_pairing: true,
            allow_public_bind: false,
            paired_tokens: Vec::new(),
            pair_rate_limit_per_minute: 10,
            webhook_rate_limit_per_minute: 60,
            trusted_proxies: Vec::new(),
            trust_forwarded_headers: false,
            cors_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            rate_limit_max_keys: 10_000,
            request_timeout_secs: 120,
            session_persistence: true,
            session_ttl_hours: 0,
            shutdown_grace_secs: 4,
            idempotency_ttl_secs: 300,
            idempotency_max_keys: 1_000,
        }
    }
}

impl Default for Pairing {
    fn default() -> Self {
        Self { code_format: CodeFormat::Numeric6, max_failures: 3, lockout_secs: 300 }
    }
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            max_tool_iterations: 10,
            timeout_secs: 300,
            max_context_tokens: 32_000,
            max_history_messages: 0,
            allowed_tools: vec![],
            channel_tools: vec![],
        }
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Self { enabled: true, catch_up_on_startup: true, min_interval_secs: 60, max_runs_per_day: 1_000 }
    }
}

impl Default for HttpRequest {
    fn default() -> Self {
        Self {
            enabled: false,
            allowed_domains: Vec::new(),
            allowed_private_hosts: Vec::new(),
            max_response_size: 1_000_000,
            timeout_secs: 30,
        }
    }
}

impl Default for Reliability {
    fn default() -> Self {
        Self {
            provider_retries: 2,
            provider_backoff_ms: 500,
            fallback_providers: Vec::new(),
            model_fallbacks: BTreeMap::new(),
        }
    }
}

impl Default for Tunnel {
    fn default() -> Self {
        Self { provider: "none".into() }
    }
}

impl Gateway {
    /// The host as the resolver wants it: `[::]` is written with brackets in ZeroClaw's files.
    pub(in crate::gateway) fn bind_host(&self) -> &str {
        self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&self.host)
    }

    /// The entries of `cors_origins` that no browser sends, by their number in the list, from 1.
    pub(in crate::gateway) fn impossible_origins(&self) -> impl Iterator<Item = usize> {
        let impossible = self.cors_origins.iter().zip(1..).filter(|(entry, _)| !is_origin(entry));
        impossible.map(|(_, number)| number)
    }
}

/// Whether a browser may send this as the origin of a page: scheme, host, and a port that is not the scheme's own.
fn is_origin(entry: &str) -> bool {
    let entry = entry.trim_end_matches('/');
    if entry == "*" || entry.eq_ignore_ascii_case("null") {
        return true;
    }
    let Ok(url) = Url::parse(entry) else { return false };
    let origin = url.origin();
    if origin.is_tuple() {
        return !entry.contains('*') && origin.ascii_serialization().eq_ignore_ascii_case(entry);
    }
    // Pages of programs have schemes of their own, of which nothing but the form is known.
    let host = entry.split_once("://").map_or("", |(_, host)| host);
    !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'))
}
