//! Telegram: messages out, by the Bot API.

use serde_json::{Value, json};

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
    let send = async |body: &Value| request(http.client(&url)?.post(&url).json(body)).await.map(drop);
    match send(&body).await {
        Err(error) => match elsewhere(&body, &error) {
            Some(body) => send(&body).await,
            None => Err(error),
        },
        Ok(()) => Ok(()),
    }
}

/// The message for where its place is now: the group has another id, or the topic was deleted.
fn elsewhere(body: &Value, error: &ChannelError) -> Option<Value> {
    let mut body = body.clone();
    let fields = body.as_object_mut()?;
    match error {
        ChannelError::Moved { chat } => {
            fields.insert("chat_id".to_owned(), chat.to_string().into());
            fields.remove("message_thread_id");
            // Messages are counted from the beginning there: the number would be that of another message.
            fields.remove("reply_parameters");
        }
        ChannelError::Refused { status: 400, reason } if is_without_topic(reason) => {
            fields.remove("message_thread_id")?;
        }
        _ => return None,
    }
    Some(body)
}

fn is_without_topic(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    ["message thread not found", "topic_deleted"].iter().any(|words| reason.contains(words))
}

/// The URL of a method. The token is a part of it: it must not be printed.
pub(in crate::gateway) fn method(telegram: &Telegram, name: &str) -> String {
    format!("{}/bot{}/{name}", telegram.api_base.trim_end_matches('/'), telegram.bot_token.expose())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moved_is_sent_to_its_new_place_and_all_else_is_not_sent_again() {
        let body = json!({ "chat_id": "-5", "text": "hi", "message_thread_id": 7, "reply_parameters": {} });
        let refused = |reason: &str| ChannelError::Refused { status: 400, reason: reason.to_owned() };
        assert_eq!(
            elsewhere(&body, &ChannelError::Moved { chat: -1_006 }),
            Some(json!({ "chat_id": "-1006", "text": "hi" }))
        );
        let gone = refused("Bad Request: message thread not found");
        let without = json!({ "chat_id": "-5", "text": "hi", "reply_parameters": {} });
        assert_eq!(elsewhere(&body, &gone), Some(without.clone()));
        assert_eq!(elsewhere(&without, &gone), None, "there was no topic");
        assert_eq!(elsewhere(&body, &refused("Bad Request: TOPIC_CLOSED")), None, "somebody closed it on purpose");
        assert_eq!(elsewhere(&body, &refused("Bad Request: chat not found")), None);
        assert_eq!(elsewhere(&body, &ChannelError::Unreadable), None);
    }
}
