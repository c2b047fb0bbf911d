//! `config.toml`: its shape as ZeroClaw reads it, filled from an agent's specification. 0.8 has a schema of its own
//! ([`schema_v3`]); what all older versions and our own gateway read is here.

mod schema_v3;

use serde::Serialize;

use super::Staging;
use crate::domain::{
    AgentSpec, Channels, Credentials, DEFAULT_TEMPERATURE, Discord, Provider, Secret, Slack, Telegram,
};
use crate::zeroclaw::family::OLLAMA_PORT;
use crate::zeroclaw::profile::{self, GATEWAY_HOST, GATEWAY_PORT, Profile};

/// ZeroClaw counts calls by client address, and to a gateway the whole control plane is one client. Its own defaults, 60
/// messages and 10 pairings a minute, would be shared by everyone who talks to the agent. Not unlimited: the counter
/// remembers every call of the last minute.
const WEBHOOKS_PER_MINUTE: u32 = 60_000;
const PAIRINGS_PER_MINUTE: u32 = 60;

#[derive(Serialize)]
struct Config<'a> {
    workspace_dir: &'static str,
    config_path: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_url: Option<String>,
    default_provider: &'a str,
    default_model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_temperature: Option<f64>,
    /// Known since 0.6, and to our own gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_max_tokens: Option<u32>,
    memory: Memory,
    gateway: Gateway<'a>,
    channels_config: ChannelsConfig<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heartbeat: Option<Heartbeat>,
}

/// 0.6 asks the model every half hour unless it is told not to. 0.1 does not, and wants more keys in this table.
#[derive(Serialize)]
struct Heartbeat {
    enabled: bool,
}

#[derive(Serialize)]
struct Memory {
    backend: &'static str,
    auto_save: bool,
}

#[derive(Serialize)]
struct Gateway<'a> {
    port: u16,
    host: &'static str,
    allow_public_bind: bool,
    require_pairing: bool,
    /// Present even when empty: leaving it out would mean the same to ZeroClaw, but not to someone who reads the file.
    paired_tokens: Vec<&'a str>,
    pair_rate_limit_per_minute: u32,
    webhook_rate_limit_per_minute: u32,
    /// Our own gateway obeys it; 0.6 has a variable for it, and 0.1.7 always takes 30.
    request_timeout_secs: u64,
}

#[derive(Serialize)]
struct ChannelsConfig<'a> {
    cli: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    telegram: Option<TelegramConfig<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    discord: Option<DiscordConfig<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slack: Option<SlackConfig<'a>>,
}

#[derive(Serialize)]
struct TelegramConfig<'a> {
    bot_token: &'a str,
    allowed_users: Vec<&'a str>,
}

#[derive(Serialize)]
struct DiscordConfig<'a> {
    bot_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    guild_id: Option<&'a str>,
    allowed_users: Vec<&'a str>,
}

#[derive(Serialize)]
struct SlackConfig<'a> {
    bot_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel_id: Option<&'a str>,
    allowed_users: Vec<&'a str>,
}

/// The whole file.
pub(super) fn render(
    profile: Profile,
    spec: &AgentSpec,
    credentials: &Credentials,
    staging: &Staging<'_>,
) -> Secret<Vec<u8>> {
    let text = match profile {
        Profile::V08 => schema_v3::render(spec, &credentials.channels, staging),
        Profile::V01 | Profile::V06 | Profile::Embedded => older(profile, spec, &credentials.channels, staging),
    };
    Secret::new(text.into_bytes())
}

fn older(profile: Profile, spec: &AgentSpec, configured: &Channels, staging: &Staging<'_>) -> String {
    let provider = profile::provider(spec);
    let own_ollama = profile != Profile::Embedded && spec.provider == Provider::Ollama && spec.provider_url.is_none();
    let config = Config {
        workspace_dir: "/zeroclaw-data/workspace",
        config_path: "/zeroclaw-data/.zeroclaw/config.toml",
        api_url: own_ollama.then(|| format!("http://{}:{OLLAMA_PORT}", staging.host)),
        default_provider: &provider,
        default_model: &spec.model,
        // ZeroClaw itself does not start without one; our own gateway sends the model only what somebody has set.
        default_temperature: match profile {
            Profile::Embedded => spec.temperature,
            Profile::V01 | Profile::V06 | Profile::V08 => spec.temperature.or(Some(DEFAULT_TEMPERATURE)),
        },
        provider_max_tokens: spec.max_tokens.filter(|_| profile != Profile::V01),
        memory: Memory { backend: spec.memory_backend.as_str(), auto_save: spec.auto_save },
        gateway: Gateway {
            port: GATEWAY_PORT,
            host: GATEWAY_HOST,
            allow_public_bind: true,
            require_pairing: true,
            paired_tokens: staging.token_hash.into_iter().collect(),
            pair_rate_limit_per_minute: PAIRINGS_PER_MINUTE,
            webhook_rate_limit_per_minute: WEBHOOKS_PER_MINUTE,
            request_timeout_secs: staging.answer_secs,
        },
        channels_config: channels(configured),
        heartbeat: (profile == Profile::V06).then_some(Heartbeat { enabled: false }),
    };
    toml::to_string(&config).expect("plain structs of texts, numbers and lists always have a TOML form")
}

fn channels(channels: &Channels) -> ChannelsConfig<'_> {
    ChannelsConfig {
        cli: true,
        telegram: channels.telegram.as_ref().map(|Telegram { bot_token, allowed_users }| TelegramConfig {
            bot_token: bot_token.expose(),
            allowed_users: allowed(allowed_users),
        }),
        discord: channels.discord.as_ref().map(|Discord { bot_token, guild_id, allowed_users }| DiscordConfig {
            bot_token: bot_token.expose(),
            guild_id: guild_id.as_deref(),
            allowed_users: allowed(allowed_users),
        }),
        slack: channels.slack.as_ref().map(|Slack { bot_token, app_token, channel_id }| SlackConfig {
            bot_token: bot_token.expose(),
            app_token: app_token.as_ref().map(|token| token.expose().as_str()),
            channel_id: channel_id.as_deref(),
            allowed_users: allowed(&[]),
        }),
    }
}

/// An empty list means everyone to our users and nobody to ZeroClaw, whose everyone is `*`.
fn allowed(users: &[String]) -> Vec<&str> {
    if users.is_empty() { vec!["*"] } else { users.iter().map(String::as_str).collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::MemoryBackend;

    fn spec(text: &str) -> AgentSpec {
        AgentSpec {
            agent_name: text.into(),
            user_name: Some(text.into()),
            communication_style: Some(text.into()),
            provider_url: Some(text.into()),
            temperature: Some(0.7),
            ..AgentSpec::new(text, Provider::Openai, text)
        }
    }

    fn credentials(text: &str) -> Credentials {
        let token = || Secret::from(text);
        Credentials {
            api_key: Some(token()),
            channels: Channels {
                telegram: Some(Telegram { bot_token: token(), allowed_users: vec![text.into()] }),
                discord: Some(Discord { bot_token: token(), guild_id: Some(text.into()), allowed_users: vec![] }),
                slack: Some(Slack { bot_token: token(), app_token: Some(token()), channel_id: Some(text.into()) }),
            },
        }
    }

    fn parsed(profile: Profile, spec: &AgentSpec, credentials: &Credentials, hash: Option<&str>) -> toml::Table {
        let staging = Staging { host: "host.test", token_hash: hash, answer_secs: 120 };
        let bytes = render(profile, spec, credentials, &staging);
        assert_eq!(bytes, render(profile, spec, credentials, &staging), "the same input gives the same bytes");
        toml::from_str(str::from_utf8(bytes.expose()).unwrap()).unwrap()
    }

    /// The whole file as it must read for the given text, written down apart from the code under test.
    fn expected(text: &str) -> toml::Table {
        let tree = serde_json::json!({
            "workspace_dir": "/zeroclaw-data/workspace",
            "config_path": "/zeroclaw-data/.zeroclaw/config.toml",
            "default_provider": format!("custom:{text}"),
            "default_model": text,
            "default_temperature": 0.7,
            "memory": {"backend": "sqlite", "auto_save": true},
            "gateway": {
                "port": 42617, "host": "0.0.0.0", "allow_public_bind": true, "require_pairing": true,
                "paired_tokens": [text], "pair_rate_limit_per_minute": 60, "webhook_rate_limit_per_minute": 60000,
                "request_timeout_secs": 120,
            },
            "channels_config": {
                "cli": true,
                "telegram": {"bot_token": text, "allowed_users": [text]},
                "discord": {"bot_token": text, "guild_id": text, "allowed_users": ["*"]},
                "slack": {"bot_token": text, "app_token": text, "channel_id": text, "allowed_users": ["*"]},
            },
        });
        serde_json::from_value(tree).unwrap()
    }

    /// Text that tries to leave its place: quotes of every kind, line breaks, tables, escapes, and anything else.
    fn hostile() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("\"".to_owned()),
            Just("\"\"\"".to_owned()),
            Just("'''".to_owned()),
            Just("\n[gateway]\nrequire_pairing = false\n".to_owned()),
            Just("\r\n# ".to_owned()),
            Just("\\u0022".to_owned()),
            Just("]]\nallow_public_bind = true".to_owned()),
            Just("\u{0}\u{7f}\u{2028}".to_owned()),
            any::<String>(),
        ];
        proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn whatever_was_typed_stays_a_value(text in hostile()) {
            let config = parsed(Profile::V01, &spec(&text), &credentials(&text), Some(&text));
            prop_assert_eq!(config, expected(&text));
            let config = parsed(Profile::V08, &spec(&text), &credentials(&text), Some(&text));
            prop_assert_eq!(config, expected_v3(&text));
        }
    }

    /// The same for schema 3; the keys and the channels' tokens are in no file.
    fn expected_v3(text: &str) -> toml::Table {
        let tree = serde_json::json!({
            "schema_version": 3,
            "providers": {"models": {"custom": {"default": {
                "uri": text.trim_end_matches('/'), "model": text, "temperature": 0.7,
            }}}},
            "agents": {"default": {
                "model_provider": "custom.default", "risk_profile": "default", "runtime_profile": "default",
                "channels": ["telegram.default", "discord.default", "slack.default"],
                "memory": {"backend": "sqlite"},
            }},
            "risk_profiles": {"default": {"level": "supervised", "deny_all_tools": true}},
            "runtime_profiles": {"default": {}},
            "memory": {"backend": "sqlite", "auto_save": true, "search_mode": "bm25"},
            "observability": {"backend": "none", "log_persistence": "none"},
            "cost": {"enabled": false},
            "heartbeat": {"enabled": false},
            "gateway": {
                "port": 42617, "host": "0.0.0.0", "allow_public_bind": true, "require_pairing": true,
                "paired_tokens": [text], "pair_rate_limit_per_minute": 60, "webhook_rate_limit_per_minute": 60000,
                "request_timeout_secs": 120, "long_running_request_timeout_secs": 600,
                "session_persistence": true, "trust_forwarded_headers": false, "check_updates": false,
                "allow_self_upgrade": false, "pairing_code": {"length": 6, "charset": "numeric"},
            },
            "channels": {
                "telegram": {"default": {"enabled": true}},
                "discord": {"default": {"enabled": true, "guild_ids": [text]}},
                "slack": {"default": {"enabled": true, "channel_ids": [text]}},
            },
            "peer_groups": {
                "telegram_default": {
                    "channel": "telegram.default", "agents": ["default"], "external_peers": [text],
                },
                "discord_default": {"channel": "discord.default", "agents": ["default"], "external_peers": ["*"]},
                "slack_default": {"channel": "slack.default", "agents": ["default"], "external_peers": ["*"]},
            },
        });
        serde_json::from_value(tree).unwrap()
    }

    /// Each setting of an agent changes exactly the keys that it is about, in 0.8.
    #[test]
    fn each_setting_changes_its_own_keys() {
        type Change = fn(&mut AgentSpec, &mut Credentials);
        let base = spec("m");
        let rendered = |change: Change| {
            let (mut spec, mut credentials) = (base.clone(), Credentials::default());
            change(&mut spec, &mut credentials);
            parsed(Profile::V08, &spec, &credentials, None)
        };
        let cases: [(&str, Change, &[&str]); 9] = [
            ("model", |spec, _| spec.model = "x".into(), &["providers"]),
            ("temperature", |spec, _| spec.temperature = Some(0.1), &["providers"]),
            ("maxTokens", |spec, _| spec.max_tokens = Some(100), &["providers"]),
            ("provider", |spec, _| spec.provider = Provider::Ollama, &["agents", "providers"]),
            ("providerUrl", |spec, _| spec.provider_url = Some("http://x/v1".into()), &["providers"]),
            ("memoryBackend", |spec, _| spec.memory_backend = MemoryBackend::Markdown, &["agents", "memory"]),
            ("autoSave", |spec, _| spec.auto_save = false, &["memory"]),
            ("apiKey", |_, credentials| credentials.api_key = Some("k".into()), &[]),
            (
                "channels",
                |_, credentials| {
                    credentials.channels.telegram = Some(Telegram { bot_token: "t".into(), allowed_users: vec![] });
                },
                &["agents", "channels", "peer_groups"],
            ),
        ];
        let before = rendered(|_, _| ());
        for (setting, change, expected) in cases {
            let after = rendered(change);
            let names = before.keys().chain(after.keys()).collect::<std::collections::BTreeSet<_>>();
            let changed: Vec<&str> =
                names.into_iter().filter(|name| before.get(*name) != after.get(*name)).map(String::as_str).collect();
            assert_eq!(changed, expected, "{setting}");
        }
    }

    #[test]
    fn heartbeat_is_turned_off_where_it_is_on_by_default() {
        for (profile, told) in [(Profile::V01, false), (Profile::V06, true), (Profile::Embedded, false)] {
            let config = parsed(profile, &spec("m"), &Credentials::default(), None);
            assert_eq!(config.contains_key("heartbeat"), told, "{profile}");
        }
    }

    #[test]
    fn without_channels_key_or_token_nothing_of_them_is_written() {
        let config = parsed(Profile::V01, &spec("m"), &Credentials::default(), None);
        let mut expected = expected("m");
        expected.insert("channels_config".into(), toml::Value::Table(toml::from_str("cli = true").unwrap()));
        let gateway = expected["gateway"].as_table_mut().unwrap();
        gateway.insert("paired_tokens".into(), toml::Value::Array(vec![]));
        assert_eq!(config, expected);
    }

    #[test]
    fn an_ollama_at_home_is_looked_for_on_the_machine_itself() {
        let home = AgentSpec { provider: Provider::Ollama, provider_url: None, ..spec("m") };
        let url = |profile, spec: &AgentSpec| {
            let config = parsed(profile, spec, &Credentials::default(), None);
            config.get("api_url").map(|url| url.as_str().unwrap().to_owned())
        };
        assert_eq!(url(Profile::V01, &home).as_deref(), Some("http://host.test:11434"));
        assert_eq!(url(Profile::Embedded, &home), None);
        assert_eq!(url(Profile::V01, &AgentSpec { provider_url: Some("http://o:1/v1".into()), ..home }), None);
    }
}
