//! Telegram by long polling. How far it was read is kept in the inbox together with what was read, so that neither a
//! crash nor a restart loses a message or takes one twice.

mod event;

use std::time::Duration;

use serde_json::{Value, json};

use super::backoff::Backoff;
use super::inbox::InboxError;
use super::message::Batch;
use crate::gateway::channels::{ChannelError, Telegram, request, telegram_method};
use crate::gateway::shared::App;

pub(super) use event::Bot;

/// How long Telegram may keep a request open that has nothing to say, in seconds: less than a request may take.
const LONG_POLL_SECS: u64 = 25;
/// Updates that are taken at once.
const BATCH: u32 = 100;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What we have a use for; Telegram keeps the rest to itself.
const KINDS: [&str; 3] = ["message", "edited_message", "callback_query"];

#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error(transparent)]
    Inbox(#[from] InboxError),
}

/// Asks for messages until dropped.
pub(super) async fn poll(app: App, telegram: Telegram) {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut bot = None;
    loop {
        match round(&app, &telegram, &mut bot).await {
            Ok(()) => {
                app.health.ok("telegram");
                backoff.reset();
            }
            Err(error) => {
                let pause = backoff.pause();
                let words = explain(&error);
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    ?pause,
                    "cannot ask Telegram for messages: {words}"
                );
                app.health.error("telegram", &words);
                app.health.restarted("telegram");
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// One question for updates, and what follows from it.
async fn round(app: &App, telegram: &Telegram, known: &mut Option<Bot>) -> Result<(), PollError> {
    let bot = match known {
        Some(bot) => bot.clone(),
        None => match who_am_i(app, telegram).await {
            Ok(bot) => known.insert(bot).clone(),
            // Without its name the bot cannot tell what is meant for it.
            Err(error) if telegram.mention_only => return Err(error.into()),
            Err(_) => Bot::default(),
        },
    };
    let key = format!("telegram/{}/offset", telegram.bot_id());
    let kept = key.clone();
    let offset: i64 =
        app.incoming.on_disk(move |inbox| inbox.mark(&kept)).await?.and_then(|n| n.parse().ok()).unwrap_or(0);
    let updates = match updates(app, telegram, offset).await {
        Err(error) if webhook_in_the_way(&error) => {
            tracing::warn!("the Telegram bot has a webhook, with which it cannot be polled: the webhook is removed");
            call(app, telegram, "deleteWebhook", &json!({ "drop_pending_updates": false })).await?;
            return Ok(());
        }
        updates => updates?,
    };
    let Some(last) = updates.iter().filter_map(|update| update["update_id"].as_i64()).max() else { return Ok(()) };
    for pressed in updates.iter().filter_map(|update| update["callback_query"]["id"].as_str()) {
        // Ends the button's waiting sign; nothing depends on it.
        let _ = call(app, telegram, "answerCallbackQuery", &json!({ "callback_query_id": pressed })).await;
    }
    let batch = Batch { events: event::read_all(telegram, &bot, &updates), marks: vec![(key, (last + 1).to_string())] };
    Ok(app.incoming.take(app, batch).await?)
}

async fn updates(app: &App, telegram: &Telegram, offset: i64) -> Result<Vec<Value>, ChannelError> {
    let body = json!({ "offset": offset, "timeout": LONG_POLL_SECS, "limit": BATCH, "allowed_updates": KINDS });
    match call(app, telegram, "getUpdates", &body).await? {
        Value::Array(updates) => Ok(updates),
        _ => Err(ChannelError::Unreadable),
    }
}

async fn who_am_i(app: &App, telegram: &Telegram) -> Result<Bot, ChannelError> {
    let me = call(app, telegram, "getMe", &json!({})).await?;
    let id = me["id"].as_i64().ok_or(ChannelError::Unreadable)?;
    Ok(Bot { id, username: me["username"].as_str().unwrap_or_default().to_owned() })
}

/// Calls a method; what it gives.
async fn call(app: &App, telegram: &Telegram, name: &str, body: &Value) -> Result<Value, ChannelError> {
    let url = telegram_method(telegram, name);
    let response = request(app.http.client(&url)?.post(&url).json(body)).await?;
    let mut answer: Value = response.json().await.map_err(|_| ChannelError::Unreadable)?;
    Ok(answer["result"].take())
}

fn webhook_in_the_way(error: &ChannelError) -> bool {
    matches!(error, ChannelError::Refused { status: 409, reason, .. } if reason.contains("webhook"))
}

/// The cause in words that name the remedy.
fn explain(error: &PollError) -> String {
    match error {
        PollError::Channel(ChannelError::Refused { status: 401 | 404, .. }) => {
            "Telegram does not know the bot token; set bot_token to the one that @BotFather gave".to_owned()
        }
        PollError::Channel(ChannelError::Refused { status: 409, .. }) => {
            "another program polls the same bot; stop it, or give this agent a bot of its own".to_owned()
        }
        other => other.to_string(),
    }
}
