//! A question to the agent: where it came from, and what the model may use for the answer.

use tokio::sync::mpsc;

use super::answer::Progress;
use crate::gateway::memory::Owner;
use crate::gateway::provider::{Message, ToolSpec, Tuning};

/// Where a message came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Source {
    Webhook,
    Chat,
    OpenAi,
    WebSocket,
    Cron,
    WhatsApp,
    Github,
    NextcloudTalk,
    Telegram,
    Slack,
    Discord,
}

impl Source {
    pub(in crate::gateway) const fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Chat => "chat",
            Self::OpenAi => "openai",
            Self::WebSocket => "websocket",
            Self::Cron => "cron",
            Self::WhatsApp => "whatsapp",
            Self::Github => "github",
            Self::NextcloudTalk => "nextcloud_talk",
            Self::Telegram => "telegram",
            Self::Slack => "slack",
            Self::Discord => "discord",
        }
    }
}

/// Which tools the model may call.
pub(in crate::gateway) enum Tools {
    None,
    /// Ours, run here.
    Own,
    /// The caller's: its calls are the answer.
    Callers(Vec<ToolSpec>),
}

/// A question to the agent.
pub(in crate::gateway) struct Ask {
    pub(in crate::gateway) source: Source,
    /// Whose memories the answer may use, and whose the message becomes.
    pub(in crate::gateway) owner: Owner,
    /// Earlier messages and, last, the one to answer.
    pub(in crate::gateway) conversation: Vec<Message>,
    pub(in crate::gateway) tools: Tools,
    /// What the caller wants different from the settings.
    pub(in crate::gateway) tuning: Tuning,
    /// Where to tell what happens on the way; the answer is streamed then.
    pub(in crate::gateway) progress: Option<mpsc::Sender<Progress>>,
}

impl Ask {
    /// A single message with our tools.
    pub(in crate::gateway) fn new(source: Source, message: &str) -> Self {
        Self {
            source,
            owner: Owner::client(),
            conversation: vec![Message::user(message)],
            tools: Tools::Own,
            tuning: Tuning::default(),
            progress: None,
        }
    }
}
