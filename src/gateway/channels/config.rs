//! `[channels_config]`: ZeroClaw's keys, and where each platform is, so that tests and self-hosted servers can be used.

use serde::Deserialize;

use crate::domain::Secret;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(in crate::gateway) struct Channels {
    /// The terminal. Kept for ZeroClaw's files; a gateway has none.
    #[serde(rename = "cli")]
    pub(in crate::gateway) _cli: bool,
    pub(in crate::gateway) webhook: Option<Webhook>,
    pub(in crate::gateway) telegram: Option<Telegram>,
    pub(in crate::gateway) discord: Option<Discord>,
    pub(in crate::gateway) slack: Option<Slack>,
    pub(in crate::gateway) whatsapp: Option<WhatsApp>,
    pub(in crate::gateway) github: Option<Github>,
    pub(in crate::gateway) nextcloud_talk: Option<NextcloudTalk>,
}

/// A second lock on `POST /webhook`: the header `X-Webhook-Secret`.
#[derive(Debug, Clone, Deserialize)]
pub(in crate::gateway) struct Webhook {
    pub(in crate::gateway) secret: Option<Secret<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(in crate::gateway) struct Telegram {
    pub(super) bot_token: Secret<String>,
    /// User names and numeric ids.
    #[serde(default)]
    pub(in crate::gateway) allowed_users: Vec<String>,
    #[serde(default = "Telegram::api_base")]
    pub(super) api_base: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(in crate::gateway) struct Discord {
    pub(super) bot_token: Secret<String>,
    /// The one server whose channels may be written to.
    pub(super) guild_id: Option<String>,
    #[serde(default)]
    pub(in crate::gateway) allowed_users: Vec<String>,
    #[serde(default = "Discord::api_base")]
    pub(super) api_base: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(in crate::gateway) struct Slack {
    pub(super) bot_token: Secret<String>,
    /// For Socket Mode, which the gateway does not speak.
    #[serde(rename = "app_token")]
    pub(super) _app_token: Option<Secret<String>>,
    /// The channel that may be written to.
    pub(super) channel_id: Option<String>,
    #[serde(default)]
    pub(in crate::gateway) allowed_users: Vec<String>,
    #[serde(default = "Slack::api_base")]
    pub(super) api_base: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(in crate::gateway) struct WhatsApp {
    pub(super) access_token: Secret<String>,
    pub(super) phone_number_id: String,
    /// What Meta must say to prove that it was sent here by the owner.
    pub(super) verify_token: Secret<String>,
    /// What Meta signs with. Without it no message can be believed, and none is.
    pub(super) app_secret: Option<Secret<String>>,
    #[serde(default)]
    pub(in crate::gateway) allowed_numbers: Vec<String>,
    #[serde(default = "WhatsApp::api_base")]
    pub(super) api_base: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(in crate::gateway) struct Github {
    pub(super) access_token: Secret<String>,
    /// What GitHub signs with. Without it nothing is believed.
    pub(super) webhook_secret: Option<Secret<String>>,
    /// `owner/repository`.
    #[serde(default)]
    pub(super) allowed_repos: Vec<String>,
    #[serde(default)]
    pub(in crate::gateway) allowed_users: Vec<String>,
    /// Only comments with this text are answered, e.g. `@ada`.
    pub(super) mention: Option<String>,
    #[serde(default = "Github::api_base", alias = "api_base_url")]
    pub(super) api_base: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(in crate::gateway) struct NextcloudTalk {
    /// The Nextcloud server.
    pub(super) base_url: String,
    /// The bot's secret: it signs both ways.
    pub(super) webhook_secret: Option<Secret<String>>,
    /// ZeroClaw's key for another way to answer, which needs a user's password.
    #[serde(rename = "app_token")]
    pub(super) _app_token: Option<Secret<String>>,
    #[serde(default)]
    pub(in crate::gateway) allowed_users: Vec<String>,
}

impl Telegram {
    fn api_base() -> String {
        "https://api.telegram.org".into()
    }
}

impl Discord {
    fn api_base() -> String {
        "https://discord.com/api/v10".into()
    }
}

impl Slack {
    fn api_base() -> String {
        "https://slack.com/api".into()
    }
}

impl WhatsApp {
    fn api_base() -> String {
        "https://graph.facebook.com/v21.0".into()
    }
}

impl Github {
    fn api_base() -> String {
        "https://api.github.com".into()
    }
}

impl Channels {
    /// Which platforms are configured, by ZeroClaw's names.
    pub(in crate::gateway) fn present(&self) -> [(&'static str, bool); 6] {
        [
            ("telegram", self.telegram.is_some()),
            ("discord", self.discord.is_some()),
            ("slack", self.slack.is_some()),
            ("whatsapp", self.whatsapp.is_some()),
            ("github", self.github.is_some()),
            ("nextcloud_talk", self.nextcloud_talk.is_some()),
        ]
    }

    /// The platforms whose webhooks must be signed, and whether the secret for it is missing.
    pub(in crate::gateway) fn unsigned(&self) -> [(&'static str, bool); 3] {
        [
            ("whatsapp", self.whatsapp.as_ref().is_some_and(|whatsapp| whatsapp.app_secret.is_none())),
            ("github", self.github.as_ref().is_some_and(|github| github.webhook_secret.is_none())),
            ("nextcloud_talk", self.nextcloud_talk.as_ref().is_some_and(|talk| talk.webhook_secret.is_none())),
        ]
    }

    /// The platforms with an empty allow-list.
    pub(in crate::gateway) fn heard_by_nobody(&self) -> Vec<&'static str> {
        let lists = [
            ("telegram", self.telegram.as_ref().map(|telegram| &telegram.allowed_users)),
            ("whatsapp", self.whatsapp.as_ref().map(|whatsapp| &whatsapp.allowed_numbers)),
            ("github", self.github.as_ref().map(|github| &github.allowed_users)),
            ("nextcloud_talk", self.nextcloud_talk.as_ref().map(|talk| &talk.allowed_users)),
        ];
        lists.into_iter().filter(|(_, list)| list.is_some_and(Vec::is_empty)).map(|(name, _)| name).collect()
    }
}
