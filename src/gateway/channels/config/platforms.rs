//! The tables of the platforms, one type for each.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::lists;
use crate::domain::Secret;

/// What the types of a channel's settings do not check.
pub(super) trait Settings: DeserializeOwned {
    /// The secrets that must be there and readable.
    fn secrets(&self) -> Vec<(&'static str, &Secret<String>)>;

    fn base(&self) -> (&'static str, &str);
}

/// A second secret for `POST /webhook`: the header `X-Webhook-Secret`.
#[derive(Debug, Clone, Deserialize)]
pub(in crate::gateway) struct Webhook {
    pub(in crate::gateway) secret: Option<Secret<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(in crate::gateway) struct Telegram {
    pub(in crate::gateway) bot_token: Secret<String>,
    /// User names and numeric ids.
    #[serde(default, deserialize_with = "lists::entries")]
    pub(in crate::gateway) allowed_users: Vec<String>,
    /// In groups, answers only what mentions the bot or replies to it.
    #[serde(default)]
    pub(in crate::gateway) mention_only: bool,
    #[serde(default = "Telegram::api_base")]
    pub(in crate::gateway) api_base: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(in crate::gateway) struct Discord {
    pub(in crate::gateway) bot_token: Secret<String>,
    /// The one server whose channels are read and may be written to.
    #[serde(default, deserialize_with = "lists::id")]
    pub(in crate::gateway) guild_id: Option<String>,
    /// User names and numeric ids.
    #[serde(default, deserialize_with = "lists::entries")]
    pub(in crate::gateway) allowed_users: Vec<String>,
    /// On servers, answers only what mentions the bot or replies to it.
    #[serde(default)]
    pub(in crate::gateway) mention_only: bool,
    #[serde(default = "Discord::api_base")]
    pub(in crate::gateway) api_base: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(in crate::gateway) struct Slack {
    pub(in crate::gateway) bot_token: Secret<String>,
    /// `xapp-…`, for Socket Mode.
    pub(in crate::gateway) app_token: Option<Secret<String>>,
    /// What Slack signs its requests to `POST /slack` with.
    pub(in crate::gateway) signing_secret: Option<Secret<String>>,
    /// The one channel that is read and may be written to. Direct messages are read all the same.
    #[serde(default, deserialize_with = "lists::id")]
    pub(in crate::gateway) channel_id: Option<String>,
    /// User ids.
    #[serde(default, deserialize_with = "lists::entries")]
    pub(in crate::gateway) allowed_users: Vec<String>,
    /// In channels, answers only what mentions the bot.
    #[serde(default)]
    pub(in crate::gateway) mention_only: bool,
    #[serde(default = "Slack::api_base")]
    pub(in crate::gateway) api_base: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(in crate::gateway) struct WhatsApp {
    pub(in crate::gateway) access_token: Secret<String>,
    #[serde(deserialize_with = "lists::required_id")]
    pub(in crate::gateway) phone_number_id: String,
    /// What Meta must say to prove that it was sent here by the owner.
    pub(in crate::gateway) verify_token: Secret<String>,
    /// What Meta signs with. Without it no message can be trusted, and none is taken.
    pub(in crate::gateway) app_secret: Option<Secret<String>>,
    #[serde(default, deserialize_with = "lists::entries")]
    pub(in crate::gateway) allowed_numbers: Vec<String>,
    #[serde(default = "WhatsApp::api_base")]
    pub(in crate::gateway) api_base: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(in crate::gateway) struct Github {
    pub(in crate::gateway) access_token: Secret<String>,
    /// What GitHub signs with. Without it no event is taken.
    pub(in crate::gateway) webhook_secret: Option<Secret<String>>,
    /// `owner/repository`, or `owner/*`.
    #[serde(default, deserialize_with = "lists::entries")]
    pub(in crate::gateway) allowed_repos: Vec<String>,
    #[serde(default, deserialize_with = "lists::entries")]
    pub(in crate::gateway) allowed_users: Vec<String>,
    /// Only texts with this are answered, e.g. `@ada`.
    pub(in crate::gateway) mention: Option<String>,
    #[serde(default = "Github::api_base", alias = "api_base_url")]
    pub(in crate::gateway) api_base: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(in crate::gateway) struct NextcloudTalk {
    /// The Nextcloud server.
    pub(in crate::gateway) base_url: String,
    /// The bot's secret: both sides sign with it.
    pub(in crate::gateway) webhook_secret: Option<Secret<String>>,
    /// ZeroClaw's key for another way to answer, which needs a user's password.
    #[serde(rename = "app_token")]
    _app_token: Option<Secret<String>>,
    #[serde(default, deserialize_with = "lists::entries")]
    pub(in crate::gateway) allowed_users: Vec<String>,
    /// The bot's name, without `@`.
    pub(in crate::gateway) bot_name: Option<String>,
    /// Answers only what has `@` and the bot's name in it.
    #[serde(default)]
    pub(in crate::gateway) mention_only: bool,
}

impl Settings for Telegram {
    fn secrets(&self) -> Vec<(&'static str, &Secret<String>)> {
        vec![("bot_token", &self.bot_token)]
    }

    fn base(&self) -> (&'static str, &str) {
        ("api_base", &self.api_base)
    }
}

impl Settings for Discord {
    fn secrets(&self) -> Vec<(&'static str, &Secret<String>)> {
        vec![("bot_token", &self.bot_token)]
    }

    fn base(&self) -> (&'static str, &str) {
        ("api_base", &self.api_base)
    }
}

impl Settings for Slack {
    fn secrets(&self) -> Vec<(&'static str, &Secret<String>)> {
        let optional =
            [some("app_token", self.app_token.as_ref()), some("signing_secret", self.signing_secret.as_ref())];
        [("bot_token", &self.bot_token)].into_iter().chain(optional.into_iter().flatten()).collect()
    }

    fn base(&self) -> (&'static str, &str) {
        ("api_base", &self.api_base)
    }
}

impl Settings for WhatsApp {
    fn secrets(&self) -> Vec<(&'static str, &Secret<String>)> {
        let needed = [("access_token", &self.access_token), ("verify_token", &self.verify_token)];
        needed.into_iter().chain(some("app_secret", self.app_secret.as_ref())).collect()
    }

    fn base(&self) -> (&'static str, &str) {
        ("api_base", &self.api_base)
    }
}

impl Settings for Github {
    fn secrets(&self) -> Vec<(&'static str, &Secret<String>)> {
        let needed = [("access_token", &self.access_token)];
        needed.into_iter().chain(some("webhook_secret", self.webhook_secret.as_ref())).collect()
    }

    fn base(&self) -> (&'static str, &str) {
        ("api_base", &self.api_base)
    }
}

impl Settings for NextcloudTalk {
    fn secrets(&self) -> Vec<(&'static str, &Secret<String>)> {
        some("webhook_secret", self.webhook_secret.as_ref()).into_iter().collect()
    }

    fn base(&self) -> (&'static str, &str) {
        ("base_url", &self.base_url)
    }
}

impl Telegram {
    pub(super) fn api_base() -> String {
        "https://api.telegram.org".into()
    }

    /// The bot's own id: the part of the token that is no secret.
    pub(in crate::gateway) fn bot_id(&self) -> &str {
        self.bot_token.expose().split(':').next().unwrap_or_default()
    }
}

impl Discord {
    pub(super) fn api_base() -> String {
        "https://discord.com/api/v10".into()
    }
}

impl Slack {
    pub(super) fn api_base() -> String {
        "https://slack.com/api".into()
    }
}

impl WhatsApp {
    pub(super) fn api_base() -> String {
        "https://graph.facebook.com/v21.0".into()
    }
}

impl Github {
    pub(super) fn api_base() -> String {
        "https://api.github.com".into()
    }
}

fn some<'a>(key: &'static str, secret: Option<&'a Secret<String>>) -> Option<(&'static str, &'a Secret<String>)> {
    secret.map(|secret| (key, secret))
}
