//! `[channels_config]`: ZeroClaw's keys, and where each platform is, so that tests and self-hosted servers can be used.
//!
//! A channel that cannot be used does not take the gateway down with it: [`Channel`] keeps the reason instead.

mod lists;
mod platforms;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use self::platforms::Settings;
pub(in crate::gateway) use self::platforms::{Discord, Github, NextcloudTalk, Slack, Telegram, Webhook, WhatsApp};
use super::delivery::ChannelError;
use crate::gateway::encrypted::is_encrypted;
use crate::gateway::recipients::{self, Recipient};

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(in crate::gateway) struct Channels {
    /// The terminal. Kept for ZeroClaw's files; a gateway has none.
    #[serde(rename = "cli")]
    pub(in crate::gateway) _cli: bool,
    pub(in crate::gateway) webhook: Option<Webhook>,
    pub(in crate::gateway) telegram: Channel<Telegram>,
    pub(in crate::gateway) discord: Channel<Discord>,
    pub(in crate::gateway) slack: Channel<Slack>,
    pub(in crate::gateway) whatsapp: Channel<WhatsApp>,
    pub(in crate::gateway) github: Channel<Github>,
    pub(in crate::gateway) nextcloud_talk: Channel<NextcloudTalk>,
}

/// A platform's table: not there, usable, or switched off for a reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::gateway) enum Channel<T> {
    #[default]
    Absent,
    On {
        settings: T,
        /// Keys that mean nothing here.
        unknown: Vec<String>,
    },
    /// Names the key and the remedy, never a value.
    Off(String),
}

impl<T> Channel<T> {
    pub(in crate::gateway) const fn as_ref(&self) -> Option<&T> {
        match self {
            Self::On { settings, .. } => Some(settings),
            Self::Absent | Self::Off(_) => None,
        }
    }

    pub(in crate::gateway) const fn is_some(&self) -> bool {
        matches!(self, Self::On { .. })
    }

    fn usable(&self) -> Result<&T, ChannelError> {
        self.as_ref().ok_or(ChannelError::NotConfigured)
    }

    const fn off(&self) -> Option<&String> {
        match self {
            Self::Off(reason) => Some(reason),
            Self::Absent | Self::On { .. } => None,
        }
    }

    fn unknown(&self) -> &[String] {
        match self {
            Self::On { unknown, .. } => unknown,
            Self::Absent | Self::Off(_) => &[],
        }
    }
}

impl<'de, T: Settings> Deserialize<'de> for Channel<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(read(Value::deserialize(deserializer)?))
    }
}

/// Reads a table. The parser's own words may repeat a token: only key names are taken from them.
fn read<T: Settings>(table: Value) -> Channel<T> {
    if table["enabled"] == false || table.is_null() {
        return Channel::Absent;
    }
    let web_mode = table.get("session_path").is_some() || table.get("pair_phone").is_some();
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let mut ignored = |path: serde_ignored::Path<'_>| unknown.push(path.to_string());
    let tracked = serde_path_to_error::Deserializer::new(table, &mut track);
    let settings = match T::deserialize(serde_ignored::Deserializer::new(tracked, &mut ignored)) {
        Ok(settings) => settings,
        Err(error) => {
            let (path, words) = (track.path().to_string(), error.to_string());
            let missing = words.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
            return Channel::Off(match missing {
                Some(key) if web_mode => format!(
                    "{key} is missing; session_path is for ZeroClaw's Web mode, which this gateway does not have: \
                     give the Cloud API's keys, or remove the table"
                ),
                Some(key) => format!("{key} is missing; add it, or remove the table"),
                None if path == "." => "it must be a table".to_owned(),
                None => format!("the value of {path} cannot be used"),
            });
        }
    };
    for (key, secret) in settings.secrets() {
        if secret.expose().trim().is_empty() {
            return Channel::Off(format!("{key} is empty"));
        }
        if is_encrypted(secret) {
            return Channel::Off(format!("{key} was encrypted by ZeroClaw and cannot be read; write it in clear text"));
        }
    }
    let (key, base) = settings.base();
    if !(base.starts_with("https://") || base.starts_with("http://")) {
        return Channel::Off(format!("{key} must begin with https:// or http://"));
    }
    unknown.retain(|key| key != "enabled");
    Channel::On { settings, unknown }
}

/// `platform`: where the platform itself is, for one that is in one place.
fn recipients_of<T: Settings>(of: &'static str, channel: &Channel<T>, platform: Option<String>) -> Vec<Recipient> {
    let Some(settings) = channel.as_ref() else { return Vec::new() };
    let origin = recipients::origin(settings.base().1);
    let own = platform.is_some_and(|platform| recipients::origin(&platform) == origin);
    let secrets = settings.secrets().into_iter();
    secrets.map(|(_, secret)| Recipient { of, origin: origin.clone(), secret: secret.clone(), own }).collect()
}

impl Channels {
    /// # Errors
    /// [`ChannelError::NotConfigured`]; so for the following.
    pub(in crate::gateway) fn telegram(&self) -> Result<&Telegram, ChannelError> {
        self.telegram.usable()
    }

    pub(in crate::gateway) fn discord(&self) -> Result<&Discord, ChannelError> {
        self.discord.usable()
    }

    pub(in crate::gateway) fn slack(&self) -> Result<&Slack, ChannelError> {
        self.slack.usable()
    }

    pub(in crate::gateway) fn whatsapp(&self) -> Result<&WhatsApp, ChannelError> {
        self.whatsapp.usable()
    }

    pub(in crate::gateway) fn github(&self) -> Result<&Github, ChannelError> {
        self.github.usable()
    }

    pub(in crate::gateway) fn nextcloud(&self) -> Result<&NextcloudTalk, ChannelError> {
        self.nextcloud_talk.usable()
    }

    /// The platforms' servers, each with the secrets that belong to it.
    pub(in crate::gateway) fn recipients(&self) -> Vec<Recipient> {
        let all = [
            recipients_of("channels_config.telegram", &self.telegram, Some(Telegram::api_base())),
            recipients_of("channels_config.discord", &self.discord, Some(Discord::api_base())),
            recipients_of("channels_config.slack", &self.slack, Some(Slack::api_base())),
            recipients_of("channels_config.whatsapp", &self.whatsapp, Some(WhatsApp::api_base())),
            recipients_of("channels_config.github", &self.github, Some(Github::api_base())),
            recipients_of("channels_config.nextcloud_talk", &self.nextcloud_talk, None),
        ];
        all.into_iter().flatten().collect()
    }

    /// Which platforms are configured and usable, by ZeroClaw's names.
    pub(in crate::gateway) const fn present(&self) -> [(&'static str, bool); 6] {
        [
            ("telegram", self.telegram.is_some()),
            ("discord", self.discord.is_some()),
            ("slack", self.slack.is_some()),
            ("whatsapp", self.whatsapp.is_some()),
            ("github", self.github.is_some()),
            ("nextcloud_talk", self.nextcloud_talk.is_some()),
        ]
    }

    /// Whether messages of Slack can come in.
    pub(in crate::gateway) fn receives_slack(&self) -> bool {
        self.slack.as_ref().is_some_and(|slack| slack.app_token.is_some() || slack.signing_secret.is_some())
    }

    /// What is configured and cannot work, or not as its owner may think: channel, whether it is off, and the reason
    /// with its remedy.
    pub(in crate::gateway) fn findings(&self) -> Vec<(&'static str, bool, String)> {
        let off = [
            ("telegram", self.telegram.off()),
            ("discord", self.discord.off()),
            ("slack", self.slack.off()),
            ("whatsapp", self.whatsapp.off()),
            ("github", self.github.off()),
            ("nextcloud_talk", self.nextcloud_talk.off()),
        ];
        let off = off.into_iter().filter_map(|(name, reason)| Some((name, true, format!("is off: {}", reason?))));
        let partial = self.unsigned().into_iter().chain(self.deaf()).chain(self.lists()).chain(self.unknown());
        off.chain(partial.map(|(name, words)| (name, false, words))).collect()
    }

    /// The platforms whose webhooks must be signed and that have no secret for it.
    fn unsigned(&self) -> Vec<(&'static str, String)> {
        let lacks = [
            ("whatsapp", "app_secret", self.whatsapp.as_ref().is_some_and(|it| it.app_secret.is_none())),
            ("github", "webhook_secret", self.github.as_ref().is_some_and(|it| it.webhook_secret.is_none())),
            (
                "nextcloud_talk",
                "webhook_secret",
                self.nextcloud_talk.as_ref().is_some_and(|it| it.webhook_secret.is_none()),
            ),
        ];
        let words =
            |key| format!("has no secret to check signatures with, so that its messages are refused; set {key}");
        lacks.into_iter().filter(|(_, _, lacks)| *lacks).map(|(name, key, _)| (name, words(key))).collect()
    }

    /// Keys that mean nothing to a channel.
    fn unknown(&self) -> Vec<(&'static str, String)> {
        let unknown = [
            ("telegram", self.telegram.unknown()),
            ("discord", self.discord.unknown()),
            ("slack", self.slack.unknown()),
            ("whatsapp", self.whatsapp.unknown()),
            ("github", self.github.unknown()),
            ("nextcloud_talk", self.nextcloud_talk.unknown()),
        ];
        let unknown = unknown.into_iter().filter(|(_, keys)| !keys.is_empty());
        unknown.map(|(name, keys)| (name, format!("has keys without a meaning here: {}", keys.join(", ")))).collect()
    }

    /// Slack without a way for its messages to come in.
    fn deaf(&self) -> Option<(&'static str, String)> {
        (self.slack.is_some() && !self.receives_slack()).then(|| {
            let words = "only sends: it cannot receive messages without app_token (Socket Mode) or signing_secret \
                         (Events API, POST /slack)";
            ("slack", words.to_owned())
        })
    }

    /// Allow-lists that let nobody in, and entries that can never match.
    fn lists(&self) -> Vec<(&'static str, String)> {
        let lists = [
            ("telegram", "allowed_users", self.telegram.as_ref().map(|it| &it.allowed_users)),
            ("discord", "allowed_users", self.discord.as_ref().map(|it| &it.allowed_users)),
            ("slack", "allowed_users", self.slack.as_ref().map(|it| &it.allowed_users)),
            ("whatsapp", "allowed_numbers", self.whatsapp.as_ref().map(|it| &it.allowed_numbers)),
            ("github", "allowed_users", self.github.as_ref().map(|it| &it.allowed_users)),
            ("github", "allowed_repos", self.github.as_ref().map(|it| &it.allowed_repos)),
            ("nextcloud_talk", "allowed_users", self.nextcloud_talk.as_ref().map(|it| &it.allowed_users)),
        ];
        let lists = lists.into_iter().filter_map(|(name, key, list)| Some((name, key, list?)));
        lists.flat_map(|(name, key, list)| lists::findings(name, key, list)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn off<T: Settings + std::fmt::Debug>(table: Value) -> String {
        match read::<T>(table) {
            Channel::Off(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn unusable_channels_are_off_with_the_key_and_never_the_value() {
        assert!(off::<Telegram>(json!({})).contains("bot_token is missing"));
        assert!(off::<Telegram>(json!({ "bot_token": " " })).contains("bot_token is empty"));
        for encrypted in ["enc2:aa", "enc:aa"] {
            assert!(off::<Telegram>(json!({ "bot_token": encrypted })).contains("encrypted by ZeroClaw"));
            let github = json!({ "access_token": "t", "webhook_secret": encrypted });
            assert!(off::<Github>(github).contains("webhook_secret was encrypted by ZeroClaw"));
        }
        assert!(off::<Telegram>(json!({ "bot_token": "t", "api_base": "planted" })).contains("api_base must begin"));
        assert!(off::<WhatsApp>(json!({ "session_path": "/x" })).contains("Web mode"));
        assert!(off::<Slack>(json!({ "bot_token": "t", "app_token": "" })).contains("app_token is empty"));
        let wrong = off::<Discord>(json!({ "bot_token": "t", "mention_only": "planted" }));
        assert!(wrong.contains("mention_only") && !wrong.contains("planted"), "{wrong}");
        assert_eq!(off::<Github>(json!("planted")), "it must be a table");
        assert_eq!(read::<Telegram>(json!({ "enabled": false })), Channel::Absent);
    }

    #[test]
    fn what_a_channel_lacks_is_reported_with_the_remedy() {
        let channels: Channels = serde_json::from_value(json!({
            "slack": { "bot_token": "t", "channel_id": 42, "allowed_users": ["*"] },
            "whatsapp": { "access_token": "a", "phone_number_id": 5, "verify_token": "v", "allowed_numbers": [] },
            "github": { "allowed_users": [] },
        }))
        .unwrap();
        let findings = channels.findings();
        let has = |name: &str, words: &str| findings.iter().any(|(n, _, w)| *n == name && w.contains(words));
        assert!(has("slack", "only sends"), "{findings:?}");
        assert!(has("whatsapp", "set app_secret") && has("whatsapp", "allows nobody"), "{findings:?}");
        assert!(has("github", "access_token is missing"), "{findings:?}");
        assert_eq!(channels.slack().unwrap().channel_id.as_deref(), Some("42"));
    }
}
