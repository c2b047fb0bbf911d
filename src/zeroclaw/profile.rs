//! What differs between ZeroClaw's versions, in one place: command, environment, persona path, form of the code.
//!
//! A profile stands for a family of versions that behave alike from outside. What is the same in all of them, such as
//! the pairing calls or the config file's older keys, is not here but in [`workspace`](super::workspace) and
//! [`client`](super::client).

use super::family::ModelFamily;
pub use crate::domain::Profile;
use crate::domain::{AgentSpec, Channels, Credentials, Provider, Secret};

/// The port that every gateway listens on inside its instance; a runtime without a network of its own for each instance
/// sets another one.
pub const GATEWAY_PORT: u16 = 42_617;

/// Where an instance keeps its data, as its own paths have it.
pub const DATA_DIR: &str = "/zeroclaw-data";

impl Profile {
    /// Whether `/webhook` gives its answer in pieces to those who ask for that.
    pub const fn streams(self) -> bool {
        matches!(self, Self::V08 | Self::Embedded)
    }

    /// Whether a conversation that is named goes on over the WebSocket alone: `/webhook` knows its name and not what was said.
    pub const fn converses_by_socket(self) -> bool {
        matches!(self, Self::V06 | Self::V08)
    }

    /// Whether the gateway lists the conversations that it keeps.
    pub const fn lists_sessions(self) -> bool {
        !matches!(self, Self::V01)
    }

    /// The program's arguments. Mind that ZeroClaw's `gateway` runs no channels: only its `daemon` does, beside the same
    /// gateway.
    pub fn command(self, credentials: &Credentials) -> Vec<String> {
        let daemon = self != Self::Embedded && !credentials.channels.is_empty();
        vec![if daemon { "daemon" } else { "gateway" }.to_owned()]
    }

    /// The environment, always in the same order: it is part of what tells two instances apart. `answer_secs` is how long
    /// the gateway may take for one message.
    pub fn env(
        self,
        spec: &AgentSpec,
        credentials: &Credentials,
        host: &str,
        answer_secs: u64,
    ) -> Vec<(String, Secret<String>)> {
        let provider = provider(spec);
        let port = GATEWAY_PORT.to_string();
        let mut env = Vec::new();
        let mut set = |name: &str, value: &str| env.push((name.to_owned(), Secret::from(value)));
        if let Some(key) = &credentials.api_key {
            match self {
                Self::V01 | Self::V06 | Self::Embedded => set("API_KEY", key.expose()),
                Self::V08 => set(&ModelFamily::of(spec, host).key_variable(), key.expose()),
            }
        }
        set("PROVIDER", &provider);
        set("ZEROCLAW_MODEL", &spec.model);
        set("ZEROCLAW_ALLOW_PUBLIC_BIND", "true");
        set("ZEROCLAW_GATEWAY_PORT", &port);
        set("HOME", DATA_DIR);
        set("ZEROCLAW_WORKSPACE", "/zeroclaw-data/workspace");
        match self {
            Self::V01 | Self::V06 => {
                // PROVIDER is ignored once the config names a provider of its own, which the first pairing writes into it.
                set("ZEROCLAW_PROVIDER", &provider);
                set("ZEROCLAW_GATEWAY_HOST", GATEWAY_HOST);
                set("ZEROCLAW_GATEWAY_TIMEOUT_SECS", &answer_secs.to_string());
            }
            Self::Embedded => {
                set("ZEROCLAW_PROVIDER", &provider);
                set("ZEROCLAW_GATEWAY_HOST", GATEWAY_HOST);
            }
            Self::V08 => {
                set(CONFIG_DIR_VARIABLE, "/zeroclaw-data/.zeroclaw");
                channel_secrets(&credentials.channels, &mut set);
            }
        }
        env
    }

    /// Where IDENTITY.md, USER.md and SOUL.md are read from, in this order, relative to the data folder.
    pub(super) const fn persona_paths(self) -> [&'static str; 3] {
        match self {
            Self::V01 | Self::V06 | Self::Embedded => {
                ["workspace/IDENTITY.md", "workspace/USER.md", "workspace/SOUL.md"]
            }
            Self::V08 => [
                ".zeroclaw/agents/default/workspace/IDENTITY.md",
                ".zeroclaw/agents/default/workspace/USER.md",
                ".zeroclaw/agents/default/workspace/SOUL.md",
            ],
        }
    }

    /// Whether a text has the form of this version's pairing codes.
    pub fn is_code(self, text: &str) -> bool {
        let digits = text.len() == 6 && text.bytes().all(|b| b.is_ascii_digit());
        let grouped = text.len() == 9
            && text.bytes().enumerate().all(|(at, b)| if at == 4 { b == b'-' } else { b.is_ascii_alphanumeric() });
        let long = (8..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
        match self {
            Self::V01 | Self::V06 => digits,
            Self::V08 => digits || long,
            Self::Embedded => digits || grouped,
        }
    }
}

/// Where 0.8 looks for its config first. Without it the folder follows from the workspace's, by rules that have changed.
pub const CONFIG_DIR_VARIABLE: &str = "ZEROCLAW_CONFIG_DIR";

/// The tokens of channels for 0.8, which would leave them in its config in plain text.
fn channel_secrets(channels: &Channels, set: &mut impl FnMut(&str, &str)) {
    if let Some(telegram) = &channels.telegram {
        set("ZEROCLAW_channels__telegram__default__bot_token", telegram.bot_token.expose());
    }
    if let Some(discord) = &channels.discord {
        set("ZEROCLAW_channels__discord__default__bot_token", discord.bot_token.expose());
    }
    if let Some(slack) = &channels.slack {
        set("ZEROCLAW_channels__slack__default__bot_token", slack.bot_token.expose());
        if let Some(token) = &slack.app_token {
            set("ZEROCLAW_channels__slack__default__app_token", token.expose());
        }
    }
}

/// Without it a gateway listens on the loopback inside its instance, where nobody reaches it. `0.0.0.0` rather than `[::]`:
/// `zeroclaw gateway get-paircode` does not find its own gateway on the latter.
pub(super) const GATEWAY_HOST: &str = "0.0.0.0";

/// The provider in ZeroClaw's grammar: a base URL of one's own is part of the name.
pub(super) fn provider(spec: &AgentSpec) -> String {
    match (&spec.provider_url, spec.provider) {
        (None, provider) => provider.as_str().to_owned(),
        // ZeroClaw puts `/v1/messages` behind this one, and `/chat/completions` behind all others.
        (Some(url), Provider::Anthropic) => format!("anthropic-custom:{}", url.strip_suffix("/v1").unwrap_or(url)),
        (Some(url), _) => format!("custom:{url}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Discord, Slack, Telegram};

    fn spec(provider: &str, url: Option<&str>) -> AgentSpec {
        let provider = Provider::parse(provider).unwrap();
        AgentSpec { provider_url: url.map(Into::into), ..AgentSpec::new("a", provider, "m") }
    }

    fn names(profile: Profile, credentials: &Credentials) -> Vec<String> {
        profile.env(&spec("groq", None), credentials, "host.test", 120).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn only_a_real_zeroclaw_with_channels_needs_its_daemon() {
        let telegram = Telegram { bot_token: "1:t".into(), allowed_users: vec![] };
        let channels = Channels { telegram: Some(telegram), ..Channels::default() };
        let with = Credentials { channels, ..Credentials::default() };
        for profile in [Profile::V01, Profile::V06, Profile::V08] {
            assert_eq!(profile.command(&with), ["daemon"]);
            assert_eq!(profile.command(&Credentials::default()), ["gateway"]);
        }
        assert_eq!(Profile::Embedded.command(&with), ["gateway"]);
    }

    #[test]
    fn the_environment_is_the_missions_list_and_what_the_version_needs() {
        let with_key = Credentials { api_key: Some("sk-1".into()), ..Credentials::default() };
        let mission = [
            "API_KEY",
            "PROVIDER",
            "ZEROCLAW_MODEL",
            "ZEROCLAW_ALLOW_PUBLIC_BIND",
            "ZEROCLAW_GATEWAY_PORT",
            "HOME",
            "ZEROCLAW_WORKSPACE",
        ];
        assert_eq!(names(Profile::V01, &with_key)[..7], mission);
        let limit = "ZEROCLAW_GATEWAY_TIMEOUT_SECS";
        assert_eq!(names(Profile::V06, &with_key)[7..], ["ZEROCLAW_PROVIDER", "ZEROCLAW_GATEWAY_HOST", limit]);
        let native = names(Profile::V08, &with_key);
        assert_eq!(native[0], "ZEROCLAW_providers__models__groq__default__api_key", "API_KEY would only be a leak");
        assert_eq!(native[1..7], mission[1..]);
        assert_eq!(native[7..], ["ZEROCLAW_CONFIG_DIR"]);
        assert_eq!(names(Profile::Embedded, &Credentials::default())[..6], mission[1..]);
    }

    #[test]
    fn channel_secrets_reach_0_8_by_the_environment_alone() {
        let channels = Channels {
            telegram: Some(Telegram { bot_token: "1:t".into(), allowed_users: vec![] }),
            discord: Some(Discord { bot_token: "d".into(), guild_id: None, allowed_users: vec![] }),
            slack: Some(Slack { bot_token: "s".into(), app_token: Some("a".into()), channel_id: None }),
        };
        let with = Credentials { channels, ..Credentials::default() };
        let env = Profile::V08.env(&spec("ollama", None), &with, "host.test", 120);
        let found = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.expose().as_str());
        assert_eq!(found("ZEROCLAW_channels__telegram__default__bot_token"), Some("1:t"));
        assert_eq!(found("ZEROCLAW_channels__discord__default__bot_token"), Some("d"));
        assert_eq!(found("ZEROCLAW_channels__slack__default__bot_token"), Some("s"));
        assert_eq!(found("ZEROCLAW_channels__slack__default__app_token"), Some("a"));
    }

    #[test]
    fn key_of_an_overridden_provider_goes_to_the_family_that_obeys() {
        let with_key = Credentials { api_key: Some("sk-1".into()), ..Credentials::default() };
        for (provider, family) in [("groq", "custom"), ("gemini", "custom"), ("anthropic", "anthropic")] {
            let env = Profile::V08.env(&spec(provider, Some("http://m:1/v1")), &with_key, "host.test", 120);
            assert_eq!(env[0].0, format!("ZEROCLAW_providers__models__{family}__default__api_key"));
        }
    }

    #[test]
    fn a_base_url_becomes_part_of_the_provider() {
        assert_eq!(provider(&spec("openai", None)), "openai");
        assert_eq!(provider(&spec("openai", Some("http://m:1/v1"))), "custom:http://m:1/v1");
        assert_eq!(provider(&spec("anthropic", Some("http://m:1/v1"))), "anthropic-custom:http://m:1");
        assert_eq!(provider(&spec("anthropic", Some("http://m:1"))), "anthropic-custom:http://m:1");
    }

    #[test]
    fn codes_are_told_from_other_words() {
        assert!(Profile::V01.is_code("622406"));
        assert!(!Profile::V01.is_code("ABCD-1234"));
        assert!(Profile::V08.is_code("a8Kd03kdLq92mXc7a8Kd03kdLq92mXc7"));
        assert!(Profile::Embedded.is_code("ABCD-1234"));
        assert!(!Profile::Embedded.is_code("ABCD1234"));
        assert!(!Profile::V08.is_code("423-654"));
    }
}
