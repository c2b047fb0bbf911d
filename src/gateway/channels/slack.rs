//! Slack: messages out, by its Web API.

use serde_json::{Value, json};

use super::config::Slack;
use super::delivery::{ChannelError, json as read_json, request};
use super::permit;
use super::place::Place;
use crate::domain::Secret;
use crate::gateway::outbound::HttpClients;

/// The agent may write to the configured channel, and to users on the list.
pub(super) fn permit_recipient(slack: &Slack, to: &str) -> Result<(), ChannelError> {
    if slack.channel_id.as_deref() == Some(to) { Ok(()) } else { permit(&slack.allowed_users, &[to]) }
}

pub(super) async fn send(http: &HttpClients, slack: &Slack, place: &Place, piece: &str) -> Result<(), ChannelError> {
    let mut body = json!({ "channel": place.chat, "text": escape(piece) });
    if let Some(thread) = &place.thread {
        body["thread_ts"] = thread.as_str().into();
    }
    call(http, slack, &slack.bot_token, "chat.postMessage", &body).await?;
    Ok(())
}

/// Calls a method. Slack says 200 to everything and what it means in the body.
///
/// # Errors
/// See [`ChannelError`].
pub(in crate::gateway) async fn call(
    http: &HttpClients,
    slack: &Slack,
    token: &Secret<String>,
    method: &str,
    body: &Value,
) -> Result<Value, ChannelError> {
    let url = format!("{}/{method}", slack.api_base.trim_end_matches('/'));
    let response = request(http.client(&url)?.post(&url).bearer_auth(token.expose()).json(body)).await?;
    let answer = read_json(response).await?;
    if answer["ok"] == true {
        return Ok(answer);
    }
    let reason = answer["error"].as_str().unwrap_or_default().to_owned();
    Err(ChannelError::NotAccepted { reason })
}

/// Slack's three control characters: unescaped, a model's `<!channel>` would notify everybody.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_notified_by_what_a_model_writes() {
        assert_eq!(escape("<!channel> a & b"), "&lt;!channel&gt; a &amp; b");
    }
}
