//! Slack: messages out, by its Web API.

use serde::Deserialize;
use serde_json::json;

use super::config::Slack;
use super::{ChannelError, deliver, permit, pieces};
use crate::gateway::shared::App;

/// Slack cuts longer messages, in characters.
const MESSAGE: usize = 4_000;

/// Slack says 200 to everything and what it means in the body.
#[derive(Deserialize)]
struct Answer {
    ok: bool,
}

/// Writes to the configured channel, or to somebody on the list.
pub(super) async fn send(app: &App, slack: &Slack, to: &str, text: &str) -> Result<(), ChannelError> {
    if slack.channel_id.as_deref() != Some(to) {
        permit(&slack.allowed_users, &[to])?;
    }
    let url = format!("{}/chat.postMessage", slack.api_base.trim_end_matches('/'));
    let client = app.http.client(&url)?;
    for piece in pieces(text, MESSAGE) {
        let request = client.post(&url).bearer_auth(slack.bot_token.expose());
        let response = deliver(request.json(&json!({ "channel": to, "text": piece }))).await?;
        let answer: Answer = response.json().await.map_err(|error| ChannelError::Unreachable(error.without_url()))?;
        if !answer.ok {
            return Err(ChannelError::NotAccepted);
        }
    }
    Ok(())
}
