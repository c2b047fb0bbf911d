//! The settings of a gateway: ZeroClaw 0.1.7's `config.toml` as far as we use it, plus a few keys of our own.
//!
//! Plain data with defaults and the rules that hold between keys. Reading and writing the file is
//! [`config_file`](super::config_file)'s job.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use super::channels::Channels;
use super::client::Network;
use super::options::Overrides;
use super::provider::Route;
use crate::domain::{MemoryBackend, Secret};

#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    pub(super) api_key: Option<Secret<String>>,
    /// Replaces the provider's own base URL.
    pub(super) api_url: Option<String>,
    pub(super) default_provider: Option<String>,
    pub(super) default_model: String,
    pub(super) default_temperature: f64,
    pub(super) memory: Memory,
    pub(super) gateway: Gateway,
    pub(super) pairing: Pairing,
    pub(super) agent: Agent,
    pub(super) http_request: HttpRequest,
    pub(super) cost: Cost,
    pub(super) reliability: Reliability,
    pub(super) tunnel: Tunnel,
    pub(super) channels_config: Channels,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct Memory {
    pub(super) backend: MemoryBackend,
    /// Whether messages are remembered without being asked to.
    pub(super) auto_save: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Gateway {
    pub(super) port: u16,
    pub(super) host: String,
    pub(super) require_pairing: bool,
    pub(super) allow_public_bind: bool,
    /// SHA-256 of each token in hex. A token in clear text, as old files have it, is understood too.
    pub(super) paired_tokens: Vec<Secret<String>>,
    /// Attempts per minute and client address; 0 is no limit.
    pub(super) pair_rate_limit_per_minute: u32,
    pub(super) webhook_rate_limit_per_minute: u32,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub(super) trusted_proxies: Vec<Network>,
    /// Believes the `X-Forwarded-For` of every peer.
    pub(super) trust_forwarded_headers: bool,
    /// How many client addresses the limits remember.
    pub(super) rate_limit_max_keys: usize,
    /// Longest time for an answer without tools; then 408.
    pub(super) request_timeout_secs: u64,
    /// How long the answer to an `X-Idempotency-Key` is kept, and how many are.
    pub(super) idempotency_ttl_secs: u64,
    pub(super) idempotency_max_keys: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Pairing {
    pub(super) code_format: CodeFormat,
    /// Wrong codes from one address until it is locked out.
    pub(super) max_failures: u32,
    pub(super) lockout_secs: u64,
}

/// How a one-time code looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CodeFormat {
    /// `622406`
    Numeric6,
    /// `ABCD-1234`
    Alnum8,
}

/// The loop in which the model calls tools.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct Agent {
    /// Rounds of tool calls until the model must answer.
    pub(super) max_tool_iterations: u32,
    /// Longest time for one answer with all its rounds.
    pub(super) timeout_secs: u64,
}

/// The tool that fetches web pages.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct HttpRequest {
    pub(super) enabled: bool,
    /// Hosts that may be fetched from, each with its subdomains; `*` allows all that are public.
    pub(super) allowed_domains: Vec<String>,
    /// Hosts that may be fetched from although their address is not public.
    pub(super) allowed_private_hosts: Vec<String>,
    /// Longest answer that is read, in bytes.
    pub(super) max_response_size: usize,
    pub(super) timeout_secs: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Cost {
    /// By model, or by `provider/model`.
    pub(super) prices: BTreeMap<String, Price>,
}

/// Dollars per million tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Price {
    pub(super) input: f64,
    pub(super) output: f64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct Reliability {
    /// How often a model call that may succeed on another try is sent again.
    pub(super) provider_retries: u32,
    /// First pause between two tries; it doubles each time.
    pub(super) provider_backoff_ms: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct Tunnel {
    /// `none`, or what brings the outside in; a gateway behind a tunnel may listen on any address.
    pub(super) provider: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            api_key: None,
            api_url: None,
            default_provider: None,
            default_model: "anthropic/claude-sonnet-4.6".into(),
            default_temperature: 0.7,
            memory: Memory::default(),
            gateway: Gateway::default(),
            pairing: Pairing::default(),
            agent: Agent::default(),
            http_request: HttpRequest::default(),
            cost: Cost::default(),
            reliability: Reliability::default(),
            tunnel: Tunnel::default(),
            channels_config: Channels::default(),
        }
    }
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
            rate_limit_max_keys: 10_000,
            request_timeout_secs: 30,
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
        Self { max_tool_iterations: 10, timeout_secs: 300 }
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
        Self { provider_retries: 2, provider_backoff_ms: 500 }
    }
}

impl Default for Tunnel {
    fn default() -> Self {
        Self { provider: "none".into() }
    }
}

impl Gateway {
    /// The host as the resolver wants it: `[::]` is written with brackets in ZeroClaw's files.
    pub(super) fn bind_host(&self) -> &str {
        self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&self.host)
    }
}

impl Config {
    /// Whose model, after the environment had its say.
    pub(super) fn provider(&self) -> &str {
        self.default_provider.as_deref().unwrap_or("openrouter")
    }

    /// Puts the environment and the command line over the file.
    pub(super) fn apply(&mut self, overrides: &Overrides) {
        let file_decides = self.default_provider.as_deref().is_some_and(|set| !set.eq_ignore_ascii_case("openrouter"));
        let provider = match &overrides.default_provider {
            Some(provider) if !file_decides => Some(provider),
            _ => None,
        };
        if let Some(provider) = overrides.provider.as_ref().or(provider) {
            self.default_provider = Some(provider.clone());
        }
        if let Some(key) = &overrides.api_key {
            self.api_key = Some(key.clone());
        }
        if let Some(model) = &overrides.model {
            self.default_model.clone_from(model);
        }
        if let Some(temperature) = overrides.temperature {
            self.default_temperature = temperature;
        }
        if let Some(port) = overrides.port {
            self.gateway.port = port;
        }
        if let Some(host) = &overrides.host {
            self.gateway.host.clone_from(host);
        }
        if let Some(allow) = overrides.allow_public_bind {
            self.gateway.allow_public_bind = allow;
        }
    }

    /// Checks what the types do not.
    ///
    /// # Errors
    /// A sentence that names the key and the remedy, never the value.
    pub(super) fn check(&self) -> Result<(), String> {
        if !(0.0..=2.0).contains(&self.default_temperature) {
            return Err("default_temperature must be 0 to 2".into());
        }
        if self.default_model.trim().is_empty() {
            return Err("default_model must not be empty".into());
        }
        if self.gateway.request_timeout_secs == 0 || self.agent.timeout_secs == 0 {
            return Err("gateway.request_timeout_secs and agent.timeout_secs must be at least 1".into());
        }
        Route::parse(self.provider(), self.api_url.as_deref()).map(drop)
    }

    /// What of `new` is seen only by the next start.
    pub(super) fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        // The tokens change with every pairing, and the running gateway knows them.
        let gateway = |config: &Self| Gateway { paired_tokens: vec![], ..config.gateway.clone() };
        let changed = [
            ("gateway", gateway(self) != gateway(new)),
            ("pairing", self.pairing != new.pairing),
            ("memory.backend", self.memory.backend != new.memory.backend),
            ("channels_config.telegram", self.channels_config.telegram != new.channels_config.telegram),
        ];
        changed.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
    }

    /// Whether the configured address may be listened on: this machine's own always, any other only when asked for.
    pub(super) fn may_bind(&self) -> bool {
        let host = self.gateway.bind_host();
        let loopback = host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        loopback || self.gateway.allow_public_bind || self.tunnel.provider != "none"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(provider: Option<&str>, overrides: Overrides) -> String {
        let mut config = Config { default_provider: provider.map(Into::into), ..Config::default() };
        config.apply(&overrides);
        config.provider().to_owned()
    }

    #[test]
    fn provider_yields_to_the_file_and_zeroclaw_provider_does_not() {
        let soft = Overrides { default_provider: Some("groq".into()), ..Overrides::default() };
        let hard = Overrides { provider: Some("mistral".into()), ..soft.clone() };
        assert_eq!(with(None, Overrides::default()), "openrouter");
        assert_eq!(with(None, soft.clone()), "groq");
        assert_eq!(with(Some("openrouter"), soft.clone()), "groq");
        assert_eq!(with(Some("openai"), soft), "openai");
        assert_eq!(with(Some("openai"), hard), "mistral");
    }

    #[test]
    fn only_this_machine_may_be_bound_unless_asked_for() {
        let bindable = |host: &str, allow, tunnel: &str| {
            let mut config = Config::default();
            config.gateway.host = host.into();
            config.gateway.allow_public_bind = allow;
            config.tunnel.provider = tunnel.into();
            config.may_bind()
        };
        for host in ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"] {
            assert!(bindable(host, false, "none"), "{host}");
        }
        for host in ["0.0.0.0", "[::]", "192.168.1.4", "example.org"] {
            assert!(!bindable(host, false, "none"), "{host}");
            assert!(bindable(host, true, "none"), "{host}");
            assert!(bindable(host, false, "ngrok"), "{host}");
        }
    }
}
