//! The settings of a gateway: ZeroClaw 0.1.7's `config.toml` as far as we use it, plus a few keys of our own.
//!
//! Plain data with defaults and the rules that hold between keys. Reading and writing the file is
//! [`config_file`](super::config_file)'s job.

mod sections;
mod zone;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde::Deserialize;

use super::channels::Channels;
use super::cost;
use super::options::Overrides;
use super::provider::Route;
use crate::domain::{Provider, Secret};

pub(super) use sections::{
    Agent, Autonomy, CodeFormat, Cost, Gateway, HttpRequest, Level, Memory, Pairing, Price, Reliability, Schedule,
    Tunnel,
};

/// Bounds of what may be set: an answer that takes a day, or a model that calls a tool for ever, helps nobody.
const LONGEST_ANSWER: u64 = 86_400;
const MOST_ROUNDS: u32 = 1_000;
const LEAST_CONTEXT: usize = 500;

#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    pub(super) api_key: Option<Secret<String>>,
    /// Replaces the provider's own base URL.
    pub(super) api_url: Option<String>,
    pub(super) default_provider: Option<String>,
    pub(super) default_model: String,
    /// Sent only where it is set: newer models refuse it.
    pub(super) default_temperature: Option<f64>,
    /// Longest answer in tokens, where a caller does not say; the provider's own limit if left out.
    pub(super) provider_max_tokens: Option<u32>,
    pub(super) memory: Memory,
    pub(super) gateway: Gateway,
    pub(super) pairing: Pairing,
    pub(super) agent: Agent,
    pub(super) http_request: HttpRequest,
    pub(super) cost: Cost,
    pub(super) reliability: Reliability,
    pub(super) tunnel: Tunnel,
    pub(super) channels_config: Channels,
    pub(super) autonomy: Autonomy,
    pub(super) cron: Schedule,
    /// The agent's IANA time zone. Without one it is that of `TZ`, of `USER.md`, or UTC.
    pub(super) timezone: Option<String>,
    /// Keys of single providers, from the environment: those that stand in have keys of their own.
    #[serde(skip)]
    pub(super) provider_keys: BTreeMap<Provider, Secret<String>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            api_key: None,
            api_url: None,
            default_provider: None,
            default_model: "anthropic/claude-sonnet-4.6".into(),
            default_temperature: None,
            provider_max_tokens: None,
            memory: Memory::default(),
            gateway: Gateway::default(),
            pairing: Pairing::default(),
            agent: Agent::default(),
            http_request: HttpRequest::default(),
            cost: Cost::default(),
            reliability: Reliability::default(),
            tunnel: Tunnel::default(),
            channels_config: Channels::default(),
            autonomy: Autonomy::default(),
            cron: Schedule::default(),
            timezone: None,
            provider_keys: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Whose model, after the environment had its say.
    pub(super) fn provider(&self) -> &str {
        self.default_provider.as_deref().unwrap_or("openrouter")
    }

    /// The provider as others may see it: an address of the user's own stays here.
    pub(super) fn provider_name(&self) -> &str {
        self.provider().split_once(':').map_or(self.provider(), |(kind, _)| kind)
    }

    /// Puts the environment and the command line over the file.
    ///
    /// # Errors
    /// A variable that cannot be applied.
    pub(super) fn apply(&mut self, overrides: &Overrides) -> Result<(), String> {
        if self.agent.max_tool_iterations == 0 {
            self.agent.max_tool_iterations = Agent::default().max_tool_iterations;
        }
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
        self.provider_keys.clone_from(&overrides.provider_keys);
        if let Some(model) = &overrides.model {
            self.default_model.clone_from(model);
        }
        if let Some(temperature) = overrides.temperature {
            self.default_temperature = Some(temperature);
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
        if let Some(required) = overrides.require_pairing {
            self.gateway.require_pairing = required;
        }
        if let Some(secs) = overrides.request_timeout_secs {
            self.gateway.request_timeout_secs = secs;
        }
        if self.timezone.is_none() {
            self.timezone = overrides.timezone.as_deref().and_then(zone::name);
        }
        if let Some(url) = &overrides.provider_url {
            self.apply_url(url)?;
        }
        Ok(())
    }

    /// `ZEROCLAW_PROVIDER_URL` moves the provider, whichever it is.
    fn apply_url(&mut self, url: &str) -> Result<(), String> {
        let moved = match self.provider().split_once(':').map_or("", |(kind, _)| kind) {
            kind @ ("custom" | "anthropic-custom") => Some(format!("{kind}:{url}")),
            _ => None,
        };
        match moved {
            Some(moved) => self.default_provider = Some(moved),
            None => self.api_url = Some(url.to_owned()),
        }
        Route::parse(self.provider(), self.api_url.as_deref())
            .map(drop)
            .map_err(|reason| format!("ZEROCLAW_PROVIDER_URL cannot be used: {reason}"))
    }

    /// Checks what the types do not.
    ///
    /// # Errors
    /// A sentence that names the key and the remedy, never the value.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.default_temperature.is_some_and(|temperature| !(0.0..=2.0).contains(&temperature)) {
            return Err("default_temperature must be 0 to 2".into());
        }
        if self.default_model.trim().is_empty() {
            return Err("default_model must not be empty".into());
        }
        if self.gateway.request_timeout_secs == 0 || self.agent.timeout_secs == 0 {
            return Err("gateway.request_timeout_secs and agent.timeout_secs must be at least 1".into());
        }
        if self.agent.timeout_secs > LONGEST_ANSWER || self.gateway.request_timeout_secs > LONGEST_ANSWER {
            return Err(format!(
                "agent.timeout_secs and gateway.request_timeout_secs must be at most {LONGEST_ANSWER}"
            ));
        }
        if self.agent.max_tool_iterations > MOST_ROUNDS {
            return Err(format!("agent.max_tool_iterations must be at most {MOST_ROUNDS}"));
        }
        if self.agent.max_context_tokens < LEAST_CONTEXT {
            return Err(format!("agent.max_context_tokens must be at least {LEAST_CONTEXT}"));
        }
        if self.timezone.as_deref().is_some_and(|zone| TimeZone::get(zone).is_err()) {
            return Err("timezone must be an IANA name such as UTC or Europe/Zurich".into());
        }
        if self.cron.min_interval_secs == 0 || self.cron.max_runs_per_day == 0 {
            return Err("cron.min_interval_secs and cron.max_runs_per_day must be at least 1; cron.enabled = false stops all jobs".into());
        }
        let amounts = [self.cost.daily_limit_usd, self.cost.monthly_limit_usd, self.cost.warn_at_percent];
        if amounts.into_iter().flatten().any(|amount| !amount.is_finite() || amount < 0.0) {
            return Err(
                "cost.daily_limit_usd, cost.monthly_limit_usd and cost.warn_at_percent must be 0 or more".into()
            );
        }
        let priced = self
            .cost
            .prices
            .values()
            .all(|price| [price.input, price.output].iter().all(|p| p.is_finite() && *p >= 0.0));
        if !priced {
            return Err("cost.prices must be 0 or more".into());
        }
        for fallback in &self.reliability.fallback_providers {
            Route::parse(fallback, None)
                .map_err(|reason| format!("reliability.fallback_providers cannot be used: {reason}"))?;
        }
        Route::parse(self.provider(), self.api_url.as_deref())
            .map(drop)
            .map_err(|reason| format!("default_provider or api_url cannot be used: {reason}"))
    }

    /// What is set and cannot hold, each with its remedy.
    pub(super) fn cannot_hold(&self) -> Vec<String> {
        let limited = self.spending_limits() != (None, None);
        let unpriced = cost::price(self, &self.default_model) == Price::default();
        let mut cannot = Vec::new();
        if limited && unpriced {
            cannot.push(format!(
                "the spending limit cannot hold: there is no price for the model; add [cost.prices.\"{}\"] with input and \
                 output in dollars per million tokens",
                self.default_model
            ));
        }
        cannot.extend(self.gateway.impossible_origins().map(|number| {
            format!(
                "gateway.cors_origins has an entry that can never match: number {number} in the list; write an origin as \
                 browsers send it, with its scheme and without a path, such as https://chat.example.org, or \"*\" for all"
            )
        }));
        if self.tunnel.provider != "none" {
            cannot.push("tunnel is not honoured: no tunnel is opened here; run it beside the gateway".to_owned());
        }
        cannot
    }

    /// What to tell of a `TZ` that sets no zone although nothing else does.
    pub(super) fn zone_not_known(&self, overrides: &Overrides) -> Option<String> {
        (self.timezone.is_none() && overrides.timezone.is_some()).then(|| {
            "TZ names no time zone that is known here, so USER.md or UTC decides; set TZ or timezone to an IANA name such as \
             Europe/Zurich"
                .to_owned()
        })
    }

    /// Dollars that may be spent in one day and in one month.
    pub(super) fn spending_limits(&self) -> (Option<f64>, Option<f64>) {
        /// ZeroClaw's own limits, for a file that only says that there are some.
        const DAY: f64 = 10.0;
        const MONTH: f64 = 100.0;
        let cost = &self.cost;
        let limit = |set: Option<f64>, default: f64| match (cost.enabled, set) {
            (Some(false), _) | (None, None) => None,
            (_, Some(set)) => (set > 0.0).then_some(set),
            (Some(true), None) => Some(default),
        };
        let cents = self.autonomy.max_cost_per_day_cents;
        let of_autonomy = (cents > 0).then_some(cents as f64 / 100.0);
        let day = match (limit(cost.daily_limit_usd, DAY), of_autonomy) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        (day, limit(cost.monthly_limit_usd, MONTH))
    }

    /// The providers to ask, each with its key. A key is sent to no other host than its own.
    pub(super) fn providers(&self) -> Vec<(Route, Option<Secret<String>>)> {
        let own_key = |name: &str| {
            let provider = Provider::parse(&name.trim().to_ascii_lowercase()).ok()?;
            self.provider_keys.get(&provider).cloned()
        };
        let Ok(first) = Route::parse(self.provider(), self.api_url.as_deref()) else { return vec![] };
        let first_key = self.api_key.clone().or_else(|| own_key(self.provider()));
        let fallbacks = self.reliability.fallback_providers.iter().filter_map(|name| {
            let route = Route::parse(name, None).ok()?;
            let same_host = route.host() == first.host();
            let key = if same_host { first_key.clone() } else { own_key(name) };
            Some((route, key))
        });
        let fallbacks: Vec<_> = fallbacks.collect();
        std::iter::once((first, first_key)).chain(fallbacks).collect()
    }

    /// The longest time for an answer, and the setting that it comes from. Tools take more than one call.
    pub(super) fn answer_limit(&self, with_tools: bool) -> (Duration, &'static str) {
        let (secs, setting) = match with_tools {
            true => (self.agent.timeout_secs, "[agent] timeout_secs"),
            false => (self.gateway.request_timeout_secs, "[gateway] request_timeout_secs"),
        };
        (Duration::from_secs(secs), setting)
    }

    /// A model as metrics and costs name it: callers may make names up, and those must not become labels.
    pub(super) fn model_label(&self, model: &str) -> String {
        let configured = model == self.default_model
            || self.reliability.model_fallbacks.values().flatten().any(|fallback| fallback == model)
            || cost::price(self, model) != Price::default();
        if configured { model.to_owned() } else { "other".to_owned() }
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
            ("channels_config.slack", self.channels_config.slack != new.channels_config.slack),
            ("channels_config.discord", self.channels_config.discord != new.channels_config.discord),
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
        config.apply(&overrides).unwrap();
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

    #[test]
    fn a_provider_is_moved_by_its_variable() {
        let url = || Overrides { provider_url: Some("http://h:1/v1".into()), ..Overrides::default() };
        let moved = |provider: &str, overrides: &Overrides| {
            let mut config = Config { default_provider: Some(provider.into()), ..Config::default() };
            config.apply(overrides).map(|()| (config.provider().to_owned(), config.api_url))
        };
        assert_eq!(moved("ollama", &url()), Ok(("ollama".into(), Some("http://h:1/v1".into()))));
        assert_eq!(moved("custom:http://old", &url()), Ok(("custom:http://h:1/v1".into(), None)));
        let bad = Overrides { provider_url: Some("planted".into()), ..Overrides::default() };
        let error = moved("ollama", &bad).unwrap_err();
        assert!(error.contains("ZEROCLAW_PROVIDER_URL") && !error.contains("planted"), "{error}");
    }

    #[test]
    fn limits_hold_where_they_are_set_and_not_switched_off() {
        let limits = |enabled, day, month, cents| {
            let cost = Cost { enabled, daily_limit_usd: day, monthly_limit_usd: month, ..Cost::default() };
            let autonomy = Autonomy { max_cost_per_day_cents: cents, ..Autonomy::default() };
            Config { cost, autonomy, ..Config::default() }.spending_limits()
        };
        assert_eq!(limits(None, None, None, 0), (None, None));
        assert_eq!(limits(Some(true), None, None, 0), (Some(10.0), Some(100.0)));
        assert_eq!(limits(None, Some(2.0), None, 0), (Some(2.0), None));
        assert_eq!(limits(Some(false), Some(2.0), Some(3.0), 0), (None, None));
        assert_eq!(limits(Some(true), Some(0.0), Some(0.0), 150), (Some(1.5), None));
        assert_eq!(limits(Some(true), Some(1.0), Some(5.0), 150), (Some(1.0), Some(5.0)));
    }

    #[test]
    fn origins_that_no_browser_sends_are_told_by_their_number() {
        let told = |entries: &[&str]| {
            let mut config = Config::default();
            config.gateway.cors_origins = entries.iter().map(|entry| (*entry).to_owned()).collect();
            config.cannot_hold()
        };
        for good in [
            "*",
            "null",
            "https://chat.example.org",
            "https://chat.example.org/",
            "HTTPS://Chat.Example.org",
            "http://localhost:3000",
            "http://192.168.1.4:8080",
            "http://[::1]:3000",
            "tauri://localhost",
            "app://obsidian.md",
            "chrome-extension://abcdef",
        ] {
            assert_eq!(told(&[good]), Vec::<String>::new(), "{good}");
        }
        for bad in [
            "",
            "chat.example.org",
            "localhost:3000",
            "https://*.example.org",
            "https://chat.example.org/app",
            "https://chat.example.org:443",
            " https://chat.example.org",
            "https://a.example, https://b.example",
            "https://bücher.example",
            "https://",
            "app://obsidian.md/x",
            "tauri://*",
        ] {
            assert_eq!(told(&[bad]).len(), 1, "{bad}");
        }
        let told = told(&["https://chat.example.org", "planted.example"]);
        assert!(told[0].contains("number 2") && !told[0].contains("planted"), "{told:?}");
    }

    #[test]
    fn a_limit_without_a_price_is_told() {
        let mut config = Config::default();
        config.cost.daily_limit_usd = Some(1.0);
        assert!(config.cannot_hold()[0].contains("cost.prices"));
        config.cost.prices.insert(config.default_model.clone(), Price { input: 1.0, output: 1.0 });
        assert!(config.cannot_hold().is_empty());
    }
}
