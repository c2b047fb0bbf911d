//! Messaging channels of an agent. Their tokens are secrets, the shapes are the API's.

use serde::{Deserialize, Serialize};

use super::field::{Problems, opaque, text};
use super::secret::Secret;

/// The channels that an agent listens on. An empty `allowed_users` allows everyone, as users of the API expect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Channels {
    /// A Telegram bot.
    pub telegram: Option<Telegram>,
    /// A Discord bot.
    pub discord: Option<Discord>,
    /// A Slack app.
    pub slack: Option<Slack>,
}

impl Channels {
    setters! {
        with_telegram(telegram: impl Into<Option<Telegram>> => telegram.into());
        with_discord(discord: impl Into<Option<Discord>> => discord.into());
        with_slack(slack: impl Into<Option<Slack>> => slack.into());
    }
}

/// A bot of Telegram, made with its @BotFather.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Telegram {
    /// What Telegram knows the bot by.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub bot_token: Secret<String>,
    /// User names or ids that it listens to; empty for everyone.
    #[serde(default)]
    pub allowed_users: Vec<String>,
}

impl Telegram {
    /// A bot that listens to everyone.
    pub fn new(bot_token: impl Into<Secret<String>>) -> Self {
        Self { bot_token: bot_token.into(), allowed_users: Vec::new() }
    }

    setters! {
        with_allowed_users(allowed_users: Vec<String>);
    }
}

/// A bot of Discord.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Discord {
    /// What Discord knows the bot by.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub bot_token: Secret<String>,
    /// The one server that it listens on; all that it was invited to where it is absent.
    pub guild_id: Option<String>,
    /// User ids that it listens to; empty for everyone.
    #[serde(default)]
    pub allowed_users: Vec<String>,
}

impl Discord {
    /// A bot that listens to everyone on every server that it was invited to.
    pub fn new(bot_token: impl Into<Secret<String>>) -> Self {
        Self { bot_token: bot_token.into(), guild_id: None, allowed_users: Vec::new() }
    }

    setters! {
        with_guild_id(guild_id: impl Into<String> => Some(guild_id.into()));
        with_allowed_users(allowed_users: Vec<String>);
    }
}

/// An app of Slack.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Slack {
    /// The app's `xoxb-…` token, to write with.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub bot_token: Secret<String>,
    /// The `xapp-…` token of Socket Mode, to listen with.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub app_token: Option<Secret<String>>,
    /// The one channel that it listens on; all that it is in where it is absent.
    pub channel_id: Option<String>,
}

impl Slack {
    /// An app that writes; with its app token it listens, too.
    pub fn new(bot_token: impl Into<Secret<String>>) -> Self {
        Self { bot_token: bot_token.into(), app_token: None, channel_id: None }
    }

    setters! {
        with_app_token(app_token: impl Into<Secret<String>> => Some(app_token.into()));
        with_channel_id(channel_id: impl Into<String> => Some(channel_id.into()));
    }
}

/// Which channel, without its secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ChannelKind {
    /// A Telegram bot.
    Telegram,
    /// A Discord bot.
    Discord,
    /// A Slack app.
    Slack,
}

impl ChannelKind {
    /// Its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Telegram => "telegram",
            Self::Discord => "discord",
            Self::Slack => "slack",
        }
    }
}

/// Longest list of allowed users, and longest entry, that a channel takes.
const ALLOWED_USERS: usize = 200;
const TOKEN_LENGTH: usize = 512;
const ID_LENGTH: usize = 128;

impl Channels {
    /// Those that are configured.
    pub fn kinds(&self) -> Vec<ChannelKind> {
        let present = [
            self.telegram.as_ref().map(|_| ChannelKind::Telegram),
            self.discord.as_ref().map(|_| ChannelKind::Discord),
            self.slack.as_ref().map(|_| ChannelKind::Slack),
        ];
        present.into_iter().flatten().collect()
    }

    /// Whether none is configured.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Notes every field that no channel could use.
    pub fn check(&self, problems: &mut Problems) {
        if let Some(telegram) = &self.telegram {
            token(problems, "/channels/telegram/botToken", &telegram.bot_token);
            users(problems, "/channels/telegram/allowedUsers", &telegram.allowed_users);
        }
        if let Some(discord) = &self.discord {
            token(problems, "/channels/discord/botToken", &discord.bot_token);
            id(problems, "/channels/discord/guildId", discord.guild_id.as_deref());
            users(problems, "/channels/discord/allowedUsers", &discord.allowed_users);
        }
        if let Some(slack) = &self.slack {
            token(problems, "/channels/slack/botToken", &slack.bot_token);
            if let Some(app) = &slack.app_token {
                token(problems, "/channels/slack/appToken", app);
            }
            id(problems, "/channels/slack/channelId", slack.channel_id.as_deref());
        }
    }

    /// The channels as JSON with their secrets in clear text, for sealing and for their owner.
    pub fn expose_json(&self) -> serde_json::Value {
        let mut channels = serde_json::Map::new();
        if let Some(t) = &self.telegram {
            channels.insert(
                "telegram".into(),
                serde_json::json!({"botToken": t.bot_token.expose(), "allowedUsers": t.allowed_users}),
            );
        }
        if let Some(d) = &self.discord {
            channels.insert(
                "discord".into(),
                serde_json::json!({
                    "botToken": d.bot_token.expose(), "guildId": d.guild_id, "allowedUsers": d.allowed_users
                }),
            );
        }
        if let Some(s) = &self.slack {
            channels.insert(
                "slack".into(),
                serde_json::json!({
                    "botToken": s.bot_token.expose(),
                    "appToken": s.app_token.as_ref().map(Secret::expose),
                    "channelId": s.channel_id
                }),
            );
        }
        serde_json::Value::Object(channels)
    }
}

fn token(problems: &mut Problems, pointer: &str, token: &Secret<String>) {
    problems.keep(pointer, opaque(token.expose(), TOKEN_LENGTH));
}

fn id(problems: &mut Problems, pointer: &str, id: Option<&str>) {
    if let Some(id) = id {
        problems.keep(pointer, text(id, 1, ID_LENGTH));
    }
}

fn users(problems: &mut Problems, pointer: &str, users: &[String]) {
    if users.len() > ALLOWED_USERS {
        problems.push(pointer, format!("must have at most {ALLOWED_USERS} entries"));
    }
    for (index, user) in users.iter().enumerate().take(ALLOWED_USERS) {
        let pointer = format!("{pointer}/{index}");
        problems.keep(&pointer, text(user, 1, ID_LENGTH));
        if user.contains([',', ';']) {
            problems.push(&pointer, "must be one user name or id; make each an entry of its own");
        }
    }
}
