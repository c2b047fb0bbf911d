//! Telegram: messages out, by the Bot API.

use serde_json::json;

use super::config::Telegram;
use super::delivery::{ChannelError, request};
use super::place::Place;
use crate::gateway::outbound::HttpClients;

pub(super) async fn send(
    http: &HttpClients,
    telegram: &Telegram,
    place: &Place,
    quoted: Option<&str>,
    piece: &str,
) -> Result<(), ChannelError> {
    let url = method(telegram, "sendMessage");
    let mut body = json!({ "chat_id": place.chat, "text": piece });
    if let Some(topic) = place.thread.as_deref().and_then(|topic| topic.parse::<i64>().ok()) {
        body["message_thread_id"] = topic.into();
    }
    if let Some(message) = quoted.and_then(|message| message.parse::<i64>().ok()) {
        body["reply_parameters"] = json!({ "message_id": message, "allow_sending_without_reply": true });
    }
    request(http.client(&url)?.post(&url).json(&body)).await?;
    Ok(())
}

/// The URL of a method. The token is a part of it: it must not be printed.
pub(in crate::gateway) fn method(telegram: &Telegram, name: &str) -> String {
    format!("{}/bot{}/{name}", telegram.api_base.trim_end_matches('/'), telegram.bot_token.expose())
}
