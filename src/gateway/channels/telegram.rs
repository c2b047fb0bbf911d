//! Telegram by long polling. An update is confirmed only after it was answered: what a crash interrupts comes again.

use std::time::Duration;

use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::json;

use super::config::Telegram;
use super::inbox::{Incoming, ReplyTo};
use super::{ChannelError, deliver, permit, pieces};
use crate::gateway::agent::Source;
use crate::gateway::memory::Owner;
use crate::gateway::shared::App;

/// Telegram's limit for one message, in characters; it counts some of them twice.
const MESSAGE: usize = 2_048;
/// How long Telegram may keep a request open that has nothing to say, in seconds: less than [`super::TIMEOUT`].
const LONG_POLL_SECS: u64 = 25;
/// Updates that are answered side by side.
const BATCH: u32 = 20;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Updates {
    result: Vec<Update>,
}

#[derive(Deserialize)]
struct Update {
    update_id: i64,
    message: Option<Message>,
}

#[derive(Deserialize)]
struct Message {
    message_id: i64,
    from: Option<User>,
    chat: Chat,
    text: Option<String>,
}

#[derive(Deserialize)]
struct User {
    id: i64,
    username: Option<String>,
    #[serde(default)]
    is_bot: bool,
}

#[derive(Deserialize)]
struct Chat {
    id: i64,
}

/// Asks for messages and answers them until dropped.
pub(super) async fn poll(app: App, telegram: Telegram) {
    let mut offset = 0;
    let mut pause = FIRST_PAUSE;
    loop {
        match updates(&app, &telegram, offset).await {
            Ok(updates) => {
                app.health.ok("telegram");
                pause = FIRST_PAUSE;
                if let Some(last) = updates.iter().map(|update| update.update_id).max() {
                    let incoming = updates.into_iter().filter_map(|update| read(&telegram, update));
                    join_all(incoming.map(|incoming| app.inbox.answer_now(&app, incoming))).await;
                    offset = last + 1;
                }
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, ?pause, "cannot ask Telegram for messages");
                app.health.error("telegram", &error.to_string());
                app.health.restarted("telegram");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

async fn updates(app: &App, telegram: &Telegram, offset: i64) -> Result<Vec<Update>, ChannelError> {
    let url = method(telegram, "getUpdates");
    let body = json!({
        "offset": offset, "timeout": LONG_POLL_SECS, "limit": BATCH, "allowed_updates": ["message"]
    });
    let response = deliver(app.http.client(&url)?.post(&url).json(&body)).await?;
    let updates: Updates = response.json().await.map_err(|error| ChannelError::Unreachable(error.without_url()))?;
    Ok(updates.result)
}

fn read(telegram: &Telegram, update: Update) -> Option<Incoming> {
    let message = update.message?;
    let from = message.from.filter(|from| !from.is_bot)?;
    let id = from.id.to_string();
    if permit(&telegram.allowed_users, &[&id, from.username.as_deref().unwrap_or_default()]).is_err() {
        tracing::warn!(user = id, "a Telegram message from a user who is not allowed was dropped");
        return None;
    }
    let text = message.text.filter(|text| !text.trim().is_empty())?;
    let chat = message.chat.id;
    let owner = Owner::person("telegram", &id);
    let id = format!("{chat}/{}", message.message_id);
    Some(Incoming { source: Source::Telegram, owner, id, text, reply_to: ReplyTo::Telegram { chat } })
}

pub(super) async fn send(app: &App, telegram: &Telegram, chat: &str, text: &str) -> Result<(), ChannelError> {
    let url = method(telegram, "sendMessage");
    let client = app.http.client(&url)?;
    for piece in pieces(text, MESSAGE) {
        deliver(client.post(&url).json(&json!({ "chat_id": chat, "text": piece }))).await?;
    }
    Ok(())
}

/// The token is a part of the URL: nobody may print it.
fn method(telegram: &Telegram, name: &str) -> String {
    format!("{}/bot{}/{name}", telegram.api_base.trim_end_matches('/'), telegram.bot_token.expose())
}
