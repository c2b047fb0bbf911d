//! Where a conversation is: a platform, a chat and perhaps a thread in it. The answer goes to the place of its question.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::gateway) enum Platform {
    Telegram,
    Discord,
    Slack,
    #[serde(rename = "whatsapp")]
    WhatsApp,
    Github,
    NextcloudTalk,
}

impl Platform {
    /// ZeroClaw's name for it: that of its table in the configuration.
    pub(in crate::gateway) const fn as_str(self) -> &'static str {
        match self {
            Self::Telegram => "telegram",
            Self::Discord => "discord",
            Self::Slack => "slack",
            Self::WhatsApp => "whatsapp",
            Self::Github => "github",
            Self::NextcloudTalk => "nextcloud_talk",
        }
    }

    /// Longest message that it takes, in characters, with a margin where it counts differently than we do.
    pub(in crate::gateway) const fn limit(self) -> usize {
        match self {
            // 4096 UTF-16 units: a character may be two of them.
            Self::Telegram => 2_048,
            Self::Discord => 2_000,
            // Slack cuts at 4000 after "&" and "<" became entities.
            Self::Slack => 3_500,
            Self::WhatsApp => 4_096,
            // 65536 bytes, with room for our mark; a character may have four.
            Self::Github => 16_000,
            Self::NextcloudTalk => 32_000,
        }
    }
}

/// A conversation on a platform.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(in crate::gateway) struct Place {
    pub(in crate::gateway) platform: Platform,
    /// Chat, channel, room, number or repository.
    pub(in crate::gateway) chat: String,
    /// Topic or thread in the chat; on GitHub the issue, review thread or commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::gateway) thread: Option<String>,
}
