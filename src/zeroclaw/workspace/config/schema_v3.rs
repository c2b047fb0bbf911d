//! The native `config.toml` of ZeroClaw 0.8, schema 3.
//!
//! 0.8 migrates an older file in memory only, and its next save writes `schema_version = 3` beside the older keys, which
//! the start after that ignores: the gateway is then healthy, and answers every message with 503 for ever. So nothing of
//! the older schema may be in this file. Keys and channel tokens are not in it at all: they come by the environment,
//! because 0.8 would leave them here in plain text.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{PAIRINGS_PER_MINUTE, Staging, WEBHOOKS_PER_MINUTE, allowed};
use crate::domain::{AgentSpec, Channels};
use crate::zeroclaw::family::ModelFamily;
use crate::zeroclaw::profile::{GATEWAY_HOST, GATEWAY_PORT};

const SCHEMA_VERSION: u32 = 3;

/// The one agent, and the name of everything that exists once for it.
const ALIAS: &str = "default";

/// Cron runs and agent-to-agent calls may take this long at least, as ZeroClaw has it by default.
const LONG_RUNNING_SECS: u64 = 600;

type Named<T> = BTreeMap<&'static str, T>;

#[derive(Serialize)]
struct Config<'a> {
    schema_version: u32,
    providers: Providers<'a>,
    agents: Named<Agent<'a>>,
    risk_profiles: Named<RiskProfile>,
    runtime_profiles: Named<Empty>,
    memory: Memory,
    observability: Observability,
    cost: Switch,
    gateway: Gateway<'a>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    channels: Named<Named<Channel<'a>>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    peer_groups: BTreeMap<String, PeerGroup<'a>>,
    heartbeat: Switch,
}

#[derive(Serialize)]
struct Providers<'a> {
    models: Named<Named<Model<'a>>>,
}

#[derive(Serialize)]
struct Model<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    uri: Option<&'a str>,
    model: &'a str,
    /// Not sent to the model where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
}

#[derive(Serialize)]
struct Agent<'a> {
    model_provider: &'a str,
    risk_profile: &'static str,
    runtime_profile: &'static str,
    /// A channel that no agent names runs for nobody.
    channels: Vec<String>,
    memory: AgentMemory,
}

#[derive(Serialize)]
struct AgentMemory {
    backend: &'static str,
}

#[derive(Serialize)]
struct RiskProfile {
    level: &'static str,
    /// The default tools cost 59 KB of prompt for each message, and older versions' messages had none.
    deny_all_tools: bool,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Memory {
    backend: &'static str,
    auto_save: bool,
    /// Needs no embedding model.
    search_mode: &'static str,
}

#[derive(Serialize)]
struct Observability {
    backend: &'static str,
    /// Otherwise every answer stays on the volume.
    log_persistence: &'static str,
}

#[derive(Serialize)]
struct Switch {
    enabled: bool,
}

#[derive(Serialize)]
struct Gateway<'a> {
    host: &'static str,
    port: u16,
    allow_public_bind: bool,
    require_pairing: bool,
    paired_tokens: Vec<&'a str>,
    pair_rate_limit_per_minute: u32,
    webhook_rate_limit_per_minute: u32,
    request_timeout_secs: u64,
    long_running_request_timeout_secs: u64,
    session_persistence: bool,
    trust_forwarded_headers: bool,
    check_updates: bool,
    allow_self_upgrade: bool,
    pairing_code: PairingCode,
}

#[derive(Serialize)]
struct PairingCode {
    length: u8,
    charset: &'static str,
}

#[derive(Serialize)]
struct Channel<'a> {
    /// Off by default.
    enabled: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    guild_ids: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    channel_ids: Vec<&'a str>,
}

/// Who may talk to the agent by a channel.
#[derive(Serialize)]
struct PeerGroup<'a> {
    channel: String,
    agents: [&'static str; 1],
    external_peers: Vec<&'a str>,
}

pub(super) fn render(spec: &AgentSpec, channels: &Channels, staging: &Staging<'_>) -> String {
    let family = ModelFamily::of(spec, staging.host);
    let reference = family.reference();
    let channels = present(channels);
    let model = Model {
        uri: family.uri.as_deref(),
        model: &spec.model,
        temperature: spec.temperature,
        max_tokens: spec.max_tokens,
    };
    let agent = Agent {
        model_provider: &reference,
        risk_profile: ALIAS,
        runtime_profile: ALIAS,
        channels: channels.iter().map(|(kind, ..)| format!("{kind}.{ALIAS}")).collect(),
        memory: AgentMemory { backend: spec.memory_backend.as_str() },
    };
    let groups = channels.iter().map(|(kind, _, peers)| {
        let group = PeerGroup { channel: format!("{kind}.{ALIAS}"), agents: [ALIAS], external_peers: peers.clone() };
        (format!("{kind}_{ALIAS}"), group)
    });
    let config = Config {
        schema_version: SCHEMA_VERSION,
        providers: Providers { models: only(family.name, only(ALIAS, model)) },
        agents: only(ALIAS, agent),
        risk_profiles: only(ALIAS, RiskProfile { level: "supervised", deny_all_tools: true }),
        runtime_profiles: only(ALIAS, Empty {}),
        memory: Memory { backend: spec.memory_backend.as_str(), auto_save: spec.auto_save, search_mode: "bm25" },
        observability: Observability { backend: "none", log_persistence: "none" },
        cost: Switch { enabled: false },
        gateway: gateway(staging),
        peer_groups: groups.collect(),
        channels: channels.into_iter().map(|(kind, channel, _)| (kind, only(ALIAS, channel))).collect(),
        heartbeat: Switch { enabled: false },
    };
    toml::to_string(&config).expect("plain structs of texts, numbers and lists always have a TOML form")
}

fn gateway<'a>(staging: &Staging<'a>) -> Gateway<'a> {
    Gateway {
        host: GATEWAY_HOST,
        port: GATEWAY_PORT,
        allow_public_bind: true,
        require_pairing: true,
        paired_tokens: staging.token_hash.into_iter().collect(),
        pair_rate_limit_per_minute: PAIRINGS_PER_MINUTE,
        webhook_rate_limit_per_minute: WEBHOOKS_PER_MINUTE,
        request_timeout_secs: staging.answer_secs,
        long_running_request_timeout_secs: staging.answer_secs.max(LONG_RUNNING_SECS),
        session_persistence: true,
        trust_forwarded_headers: false,
        check_updates: false,
        allow_self_upgrade: false,
        pairing_code: PairingCode { length: 6, charset: "numeric" },
    }
}

/// The channels that the user configured, with who may use them.
fn present(channels: &Channels) -> Vec<(&'static str, Channel<'_>, Vec<&str>)> {
    let mut present = Vec::new();
    if let Some(telegram) = &channels.telegram {
        let channel = Channel { enabled: true, guild_ids: vec![], channel_ids: vec![] };
        present.push(("telegram", channel, allowed(&telegram.allowed_users)));
    }
    if let Some(discord) = &channels.discord {
        let guild_ids = discord.guild_id.as_deref().into_iter().collect();
        let channel = Channel { enabled: true, guild_ids, channel_ids: vec![] };
        present.push(("discord", channel, allowed(&discord.allowed_users)));
    }
    if let Some(slack) = &channels.slack {
        let channel_ids = slack.channel_id.as_deref().into_iter().collect();
        present.push(("slack", Channel { enabled: true, guild_ids: vec![], channel_ids }, allowed(&[])));
    }
    present
}

fn only<T>(name: &'static str, value: T) -> Named<T> {
    BTreeMap::from([(name, value)])
}
