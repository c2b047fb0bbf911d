//! The sections as types, and what the parts of the service take of them.

mod unused;

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;

use super::{Config, proxies};
use crate::actor::{AccountSettings, JobLimits, Orphans, Registration, Settings};
use crate::backoff::RestartPolicy;
#[cfg(feature = "docker")]
use crate::domain::InstallationId;
use crate::domain::{PortRange, Secret};
use crate::http::{Network, ProviderUrls};
use crate::lifecycle::Timing;
use crate::proxy::ProxyOptions;
use crate::zeroclaw::outward::Proxies;

/// What runs agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeChoice {
    /// What an earlier start chose. At the first start: Kubernetes in a Pod of a cluster, Docker where an engine answers,
    /// processes elsewhere.
    Auto,
    /// Containers of a Docker engine.
    Docker,
    /// Pods of a Kubernetes cluster.
    Kubernetes,
    /// Processes of this machine.
    Process,
}

/// The bounds of the API's listener, and who may call it from where.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Whether [`Config::bind`] may be an address that other machines can reach.
    pub public_bind: bool,
    /// Connections that may be open; more wait in the system's queue.
    pub max_connections: usize,
    /// Of these, how many one address may have. 0: half of them.
    pub connections_per_address: usize,
    /// How long an agent may take to answer a message.
    pub answer_secs: u64,
    /// How long requests under way may take to end when the service is stopped.
    pub drain_secs: u64,
    /// Event streams and waits that one user may have open.
    pub streams_per_user: usize,
    /// Origins whose pages may call the API from a browser; empty for none.
    pub cors_origins: Vec<String>,
    /// Proxies whose `X-Forwarded-For` is believed, beside those on this machine.
    pub trusted_proxies: Vec<String>,
    /// Host names of the service, beside `localhost`, addresses, and those below the domain of agents.
    pub hosts: Vec<String>,
}

/// How people get accounts, and how long they stay signed in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accounts {
    registration: Registration,
    session_idle_hours: u64,
    session_days: u64,
}

impl Accounts {
    fn settings(&self) -> AccountSettings {
        AccountSettings {
            registration: self.registration,
            session_idle: secs(self.session_idle_hours * 60 * 60),
            session_end: secs(self.session_days * 24 * 60 * 60),
        }
    }
}

/// Where agents may be sent, and on which way.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agents {
    provider_urls: UrlPolicy,
    provider_url_list: Vec<String>,
    /// Empty: none. May hold a password.
    https_proxy: Secret<String>,
    http_proxy: Secret<String>,
    no_proxy: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum UrlPolicy {
    Any,
    Public,
    List,
}

/// How many requests an API key may make; a user may make twice as many.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests in a second, in the long run. 0: no limit.
    pub per_second: u32,
    /// Requests at once, after a time without any.
    pub burst: u32,
}

/// When a failed agent is restarted, and when it is left at rest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// Restarts allowed within the window; one more, and the agent rests in ERROR.
    pub max_restarts: u32,
    /// The time in which restarts are counted together.
    pub window_secs: u64,
    /// Starts that fail in a row before the agent ran; after so many it rests.
    pub max_failed_starts: u32,
    /// Wait before the second restart in a row; doubles from there. The first one is immediate.
    pub base_delay_ms: u64,
    /// The longest wait between two restarts.
    pub max_delay_secs: u64,
    /// A run this long makes the next death a first one again.
    pub stable_after_secs: u64,
    /// The first rest; doubles from there.
    pub rest_secs: u64,
    /// The longest rest.
    pub max_rest_secs: u64,
}

/// How running agents are checked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Between two checks of a healthy agent.
    pub interval_secs: u64,
    /// From a missed check to the next one.
    pub retry_secs: u64,
    /// Misses in a row after which a gateway counts as hung and is restarted.
    pub misses: u8,
    /// How long a gateway may take to answer a check.
    pub timeout_ms: u64,
    /// How often a healthy gateway is also asked whether it would answer a message.
    pub usability_interval_secs: u64,
}

/// How long the parts of a start and of a stop may take.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Network and image; a large image on a slow line takes minutes.
    pub prepare_secs: u64,
    /// One call of the engine, e.g. the creation of a container.
    pub engine_call_secs: u64,
    /// How long an engine may be busy with a start, e.g. until a cluster has found a node for it.
    pub engine_start_secs: u64,
    /// From the start of an instance to its first healthy answer.
    pub start_secs: u64,
    /// From there to a token that works.
    pub pairing_secs: u64,
    /// How long a stopped instance may take to end by itself before it is killed.
    pub stop_grace_secs: u64,
    /// How long a start waits for an engine that is away before the agent shows as ERROR. It is tried again.
    pub engine_patience_secs: u64,
    /// The same for stops and deletions that the engine does not carry out.
    pub stop_patience_secs: u64,
}

/// What is done where instances and records differ.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reconcile {
    /// What happens to instances of this installation that belong to no agent.
    pub orphans: Orphans,
}

/// The data path to agents' own gateways, and the host names of agents.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    domain: String,
    open_per_agent: usize,
    open_per_user: usize,
    idle_secs: u64,
    max_body_mb: u64,
    /// 0: as fast as its reader takes it.
    stream_kb_per_sec: u32,
}

/// Where the master key is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultSection {
    /// Empty: `master.key` in the data folder.
    pub master_key_file: String,
}

/// The service's own log lines.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Filters as `tracing` writes them.
    pub level: String,
    /// Text for people, or JSON for programs.
    pub format: LogFormat,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// A line of text for each event.
    Text,
    /// A JSON object on a line for each event.
    Json,
}

impl Config {
    /// How the actors behave.
    pub fn settings(&self) -> Settings {
        Settings {
            restart: self.restart.policy(),
            timing: Timing {
                health_interval: secs(self.health.interval_secs),
                health_retry: secs(self.health.retry_secs),
                health_misses: self.health.misses,
                engine_patience: secs(self.start.engine_patience_secs),
                stop_patience: secs(self.start.stop_patience_secs),
            },
            limits: JobLimits {
                prepare: secs(self.start.prepare_secs),
                engine_call: secs(self.start.engine_call_secs),
                engine_start: secs(self.start.engine_start_secs),
                start: secs(self.start.start_secs),
                pairing: secs(self.start.pairing_secs),
                health: Duration::from_millis(self.health.timeout_ms),
                stop_grace: secs(self.start.stop_grace_secs),
                usability_interval: secs(self.health.usability_interval_secs),
                answer: secs(self.server.answer_secs),
            },
            domain: self.proxy.domain().map(str::to_owned),
            cell: self.cell.number(),
            orphans: self.reconcile.orphans,
            ports: PortRange::default(),
            accounts: self.accounts.settings(),
            proxies: self.agents.proxies(),
            record_usage: true,
        }
    }

    /// What the types let through and makes no sense: key and problem.
    pub(super) fn sections_check(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let mut check = |key, outcome: Result<(), String>| {
            if let Err(problem) = outcome {
                problems.push((key, problem));
            }
        };
        check("process.profile", self.process.profile().map(drop));
        check("process.uids", self.process.uids().map(drop));
        check("docker.profile", self.docker.profile().map(drop));
        check("kubernetes.profile", self.kubernetes.profile().map(drop));
        check("kubernetes.namespace", not_empty(&self.kubernetes.namespace));
        check("kubernetes.image", not_empty(&self.kubernetes.image));
        check("kubernetes.stage_image", not_empty(&self.kubernetes.stage_image));
        check("docker.image", not_empty(&self.docker.image));
        check("docker.network", not_empty(&self.docker.network));
        check("server.cors_origins", self.server.check_origins());
        check("agents.provider_url_list", self.agents.check());
        check("agents.https_proxy", proxy(&self.agents.https_proxy));
        check("agents.http_proxy", proxy(&self.agents.http_proxy));
        check("proxy.domain", self.proxy.check());
        self.cell.check().into_iter().for_each(|(key, outcome)| check(key, outcome));
        self.router.check().into_iter().for_each(|(key, outcome)| check(key, outcome));
        self.oidc.check().into_iter().for_each(|(key, outcome)| check(key, outcome));
        check("log.level", crate::telemetry::filter(&self.log.level).map(drop));
        check("restart.max_delay_secs", self.restart.check());
        check("server.hosts", self.server.check_hosts());
        check("server.trusted_proxies", self.server.trusted_proxies().map(drop));
        unused::check(self).into_iter().for_each(|(key, outcome)| check(key, outcome));
        #[cfg(feature = "docker")]
        check("docker.subnets", self.docker.options(InstallationId::new()).map(drop));
        problems
    }
}

impl Server {
    fn check_origins(&self) -> Result<(), String> {
        self.cors_origins.iter().try_for_each(|text| origin(text))
    }

    /// The networks of [`Self::trusted_proxies`].
    pub fn trusted_proxies(&self) -> Result<Vec<Network>, String> {
        let network = |text: &String| text.parse().map_err(|remedy| format!("{remedy}: {text:?}"));
        self.trusted_proxies.iter().map(network).collect()
    }

    fn check_hosts(&self) -> Result<(), String> {
        let named = |host: &String| !host.is_empty() && !host.contains([':', '/', '@', '*', ' ']);
        let wrong = || "must have host names such as zeroone.example.com, without https://, port and *".to_owned();
        self.hosts.iter().all(named).then_some(()).ok_or_else(wrong)
    }
}

impl Agents {
    /// Where agents may be sent for their models.
    pub fn provider_urls(&self) -> ProviderUrls {
        match self.provider_urls {
            UrlPolicy::Any => ProviderUrls::Any,
            UrlPolicy::Public => ProviderUrls::Public,
            UrlPolicy::List => ProviderUrls::List(self.provider_url_list.clone()),
        }
    }

    /// What agents' environments have.
    fn proxies(&self) -> Proxies {
        let set = |url: &Secret<String>| (!url.expose().is_empty()).then(|| url.clone());
        Proxies { https: set(&self.https_proxy), http: set(&self.http_proxy), except: self.no_proxy.join(",") }
    }

    fn check(&self) -> Result<(), String> {
        self.provider_url_list.iter().try_for_each(|text| origin(text))
    }
}

fn proxy(url: &Secret<String>) -> Result<(), String> {
    if url.expose().is_empty() || proxies::is_proxy(url.expose()) {
        return Ok(());
    }
    Err("must be the URL of a proxy such as http://proxy.example.com:3128, or empty".into())
}

pub(super) fn origin(text: &str) -> Result<(), String> {
    let parsed = url::Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    match parsed {
        Some(url) if url.origin().ascii_serialization() == text => Ok(()),
        _ => Err("must have origins such as https://chat.example.com, without a path".into()),
    }
}

impl Restart {
    /// The section, as the actors take it.
    pub fn policy(&self) -> RestartPolicy {
        RestartPolicy {
            max_restarts: self.max_restarts,
            window: secs(self.window_secs),
            max_failed_starts: self.max_failed_starts,
            base_delay: Duration::from_millis(self.base_delay_ms),
            max_delay: secs(self.max_delay_secs),
            stable_after: secs(self.stable_after_secs),
            rest: secs(self.rest_secs),
            max_rest: secs(self.max_rest_secs),
        }
    }

    fn check(&self) -> Result<(), String> {
        if Duration::from_millis(self.base_delay_ms) > secs(self.max_delay_secs) {
            return Err("must not be shorter than restart.base_delay_ms".into());
        }
        Ok(())
    }
}

impl Proxy {
    /// Agents' host names are below it; `None` where they have none.
    pub fn domain(&self) -> Option<&str> {
        (!self.domain.is_empty()).then_some(self.domain.as_str())
    }

    /// How the data path to agents' gateways behaves.
    pub fn options(&self) -> ProxyOptions {
        ProxyOptions {
            per_agent: self.open_per_agent,
            per_user: self.open_per_user,
            idle: secs(self.idle_secs),
            max_body: self.max_body_mb * 1024 * 1024,
            bytes_per_sec: NonZeroU32::new(self.stream_kb_per_sec.saturating_mul(1024)),
            ..ProxyOptions::default()
        }
    }

    fn check(&self) -> Result<(), String> {
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        match self.domain() {
            Some(domain) if domain.len() > 200 || !domain.split('.').all(label) => {
                Err("must be a host name in lower case such as agents.example.com".into())
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn not_empty(value: &str) -> Result<(), String> {
    if value.trim().is_empty() { Err("must not be empty".into()) } else { Ok(()) }
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}
