//! Messages from platforms, answered in the background.
//!
//! A platform wants its webhook answered in seconds and repeats what it thinks was lost; an answer may take minutes. So a
//! message is taken at once, known ones are dropped, and of one conversation the messages are answered one after the
//! other, with what was said before. When too many wait, the platform is told to come again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::{ChannelError, github, nextcloud, telegram, whatsapp};
use crate::gateway::agent::{self, Ask, Source};
use crate::gateway::memory::Owner;
use crate::gateway::provider::Message;
use crate::gateway::shared::App;

/// Messages that wait or are being answered.
const WAITING: usize = 64;
/// Messages that are known again when they come twice.
const KNOWN: usize = 2_000;
/// Conversations that are remembered, and messages of each.
const CONVERSATIONS: usize = 200;
const HISTORY: usize = 20;
/// What people are told when there is no answer; why is in the log.
const SORRY: &str = "Sorry, I could not answer that. Please try again later.";

/// A message from somebody who is allowed to write.
pub(super) struct Incoming {
    pub(super) source: Source,
    /// The person who wrote it, by the name that the platform has for it.
    pub(super) owner: Owner,
    /// The platform's own name for it.
    pub(super) id: String,
    pub(super) text: String,
    pub(super) reply_to: ReplyTo,
}

/// Where the answer goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum ReplyTo {
    WhatsApp { number: String },
    Github { repository: String, issue: u64 },
    NextcloudTalk { room: String },
    Telegram { chat: i64 },
}

/// Too many messages wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

type History = Arc<tokio::sync::Mutex<VecDeque<Message>>>;

pub(in crate::gateway) struct Inbox {
    slots: Arc<Semaphore>,
    known: Mutex<VecDeque<(Source, String)>>,
    conversations: Mutex<HashMap<ReplyTo, History>>,
}

impl Inbox {
    pub(in crate::gateway) fn new() -> Self {
        Self { slots: Arc::new(Semaphore::new(WAITING)), known: Mutex::default(), conversations: Mutex::default() }
    }

    /// Takes a message, to be answered later. One that was taken before is dropped.
    pub(super) fn take(&self, app: &App, incoming: Incoming) -> Result<(), Full> {
        let slot = self.slots.clone().try_acquire_owned().map_err(|_| Full)?;
        if !self.is_new(&incoming) {
            return Ok(());
        }
        let app = app.clone();
        tokio::spawn(async move {
            app.inbox.answer(&app, incoming).await;
            drop(slot);
        });
        Ok(())
    }

    /// Takes and answers a message.
    pub(super) async fn answer_now(&self, app: &App, incoming: Incoming) {
        if self.is_new(&incoming) {
            self.answer(app, incoming).await;
        }
    }

    async fn answer(&self, app: &App, incoming: Incoming) {
        let history = self.conversation(&incoming.reply_to);
        // Those who wait here are let in in the order in which they came.
        let mut history = history.lock().await;
        let mut conversation: Vec<Message> = history.iter().cloned().collect();
        conversation.push(Message::User(incoming.text.clone()));
        let ask = Ask { owner: incoming.owner, conversation, ..Ask::new(incoming.source, "") };
        let text = match agent::answer(app, ask).await {
            Ok(answer) if !answer.text.trim().is_empty() => {
                history.push_back(Message::User(incoming.text));
                history.push_back(Message::Assistant { text: answer.text.clone(), tool_calls: vec![] });
                while history.len() > HISTORY {
                    history.pop_front();
                }
                answer.text
            }
            _ => SORRY.to_owned(),
        };
        drop(history);
        let name = incoming.source.as_str();
        match reply(app, &incoming.reply_to, &text).await {
            Ok(()) => app.health.ok(name),
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    channel = name,
                    "an answer was not delivered"
                );
                app.events.error(name, &error.to_string());
                app.health.error(name, &error.to_string());
            }
        }
    }

    fn is_new(&self, incoming: &Incoming) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (incoming.source, incoming.id.clone());
        if known.contains(&name) {
            return false;
        }
        if known.len() == KNOWN {
            known.pop_front();
        }
        known.push_back(name);
        true
    }

    fn conversation(&self, with: &ReplyTo) -> History {
        let mut conversations = self.conversations.lock().unwrap_or_else(PoisonError::into_inner);
        if conversations.len() >= CONVERSATIONS && !conversations.contains_key(with) {
            // Nobody holds an idle one but this map; which of them goes does not matter much.
            let idle = conversations.iter().find(|(_, history)| Arc::strong_count(history) == 1);
            let idle = idle.map(|(with, _)| with.clone());
            idle.map(|with| conversations.remove(&with));
        }
        conversations.entry(with.clone()).or_default().clone()
    }
}

async fn reply(app: &App, to: &ReplyTo, text: &str) -> Result<(), ChannelError> {
    let config = app.config();
    let channels = &config.channels_config;
    match to {
        ReplyTo::WhatsApp { number } => {
            whatsapp::send(app, channels.whatsapp.as_ref().ok_or(ChannelError::NotConfigured)?, number, text).await
        }
        ReplyTo::Github { repository, issue } => {
            let github = channels.github.as_ref().ok_or(ChannelError::NotConfigured)?;
            github::comment(app, github, repository, *issue, text).await
        }
        ReplyTo::NextcloudTalk { room } => {
            let nextcloud = channels.nextcloud_talk.as_ref().ok_or(ChannelError::NotConfigured)?;
            nextcloud::send(app, nextcloud, room, text).await
        }
        ReplyTo::Telegram { chat } => {
            let telegram = channels.telegram.as_ref().ok_or(ChannelError::NotConfigured)?;
            telegram::send(app, telegram, &chat.to_string(), text).await
        }
    }
}
