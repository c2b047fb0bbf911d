//! `config.toml`: its shape as ZeroClaw reads it, filled from an agent's specification.

use serde::Serialize;

use crate::domain::{AgentSpec, Channels, Credentials, Discord, Provider, Secret, Slack, Telegram};
use crate::zeroclaw::profile::{self, GATEWAY_HOST, GATEWAY_PORT, Profile};

/// ZeroClaw counts calls by client address, and to a gateway the whole control plane is one client. Its own defaults, 60
/// messages and 10 pairings a minute, would be shared by everyone who talks to the agent. Not unlimited: the counter
/// remembers every call of the last minute.
const WEBHOOKS_PER_MINUTE: u32 = 60_000;
const PAIRINGS_PER_MINUTE: u32 = 60;

/// Where an Ollama on the machine listens. ZeroClaw looks for it on the loopback, where inside a container nobody is.
const OLLAMA_PORT: u16 = 11_434;

#[derive(Serialize)]
struct Config<'a> {
    workspace_dir: &'static str,
    config_path: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_url: Option<String>,
    default_provider: &'a str,
    default_model: &'a str,
    default_temperature: f64,
    memory: Memory,
    gateway: Gateway<'a>,
    channels_config: ChannelsConfig<'a>,
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
    host: &str,
    token_hash: Option<&str>,
) -> Secret<Vec<u8>> {
    let provider = profile::provider(spec);
    let key = credentials.api_key.as_ref().filter(|_| !profile.reads_key_from_env());
    let home_ollama = profile != Profile::Embedded && spec.provider == Provider::Ollama && spec.provider_url.is_none();
    let config = Config {
        workspace_dir: "/zeroclaw-data/workspace",
        config_path: "/zeroclaw-data/.zeroclaw/config.toml",
        api_key: key.map(|key| key.expose().as_str()),
        api_url: home_ollama.then(|| format!("http://{host}:{OLLAMA_PORT}")),
        default_provider: &provider,
        default_model: &spec.model,
        default_temperature: spec.temperature,
        memory: Memory { backend: spec.memory_backend.as_str(), auto_save: spec.auto_save },
        gateway: Gateway {
            port: GATEWAY_PORT,
            host: GATEWAY_HOST,
            allow_public_bind: true,
            require_pairing: true,
            paired_tokens: token_hash.into_iter().collect(),
            pair_rate_limit_per_minute: PAIRINGS_PER_MINUTE,
            webhook_rate_limit_per_minute: WEBHOOKS_PER_MINUTE,
        },
        channels_config: channels(&credentials.channels),
    };
    let text = toml::to_string(&config).expect("plain structs of texts, numbers and lists always have a TOML form");
    Secret::new(text.into_bytes())
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
            name: text.into(),
            agent_name: text.into(),
            user_name: Some(text.into()),
            timezone: "UTC".into(),
            communication_style: Some(text.into()),
            provider: Provider::Openai,
            model: text.into(),
            provider_url: Some(text.into()),
            temperature: 0.7,
            memory_backend: MemoryBackend::Sqlite,
            auto_save: true,
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
        let bytes = render(profile, spec, credentials, "host.test", hash);
        assert_eq!(bytes, render(profile, spec, credentials, "host.test", hash), "the same input gives the same bytes");
        toml::from_str(str::from_utf8(bytes.expose()).unwrap()).unwrap()
    }

    /// The whole file as it must read for the given text, written down apart from the code under test.
    fn expected(text: &str) -> toml::Table {
        let tree = serde_json::json!({
            "workspace_dir": "/zeroclaw-data/workspace",
            "config_path": "/zeroclaw-data/.zeroclaw/config.toml",
            "api_key": text,
            "default_provider": format!("custom:{text}"),
            "default_model": text,
            "default_temperature": 0.7,
            "memory": {"backend": "sqlite", "auto_save": true},
            "gateway": {
                "port": 42617, "host": "0.0.0.0", "allow_public_bind": true, "require_pairing": true,
                "paired_tokens": [text], "pair_rate_limit_per_minute": 60, "webhook_rate_limit_per_minute": 60000,
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
            let config = parsed(Profile::V08, &spec(&text), &credentials(&text), Some(&text));
            prop_assert_eq!(config, expected(&text));
        }
    }

    #[test]
    fn without_channels_key_or_token_nothing_of_them_is_written() {
        let config = parsed(Profile::V01, &spec("m"), &Credentials::default(), None);
        let mut expected = expected("m");
        expected.remove("api_key");
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
