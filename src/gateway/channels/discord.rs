//! Discord: messages out, by its REST API.

use serde::Deserialize;
use serde_json::json;

use super::config::Discord;
use super::{ChannelError, deliver, permit, pieces};
use crate::gateway::shared::App;

/// Discord's limit for one message, in characters.
const MESSAGE: usize = 2_000;

#[derive(Deserialize)]
struct Channel {
    guild_id: Option<String>,
}

/// Writes to a channel of the configured server, or to one on the list.
pub(super) async fn send(app: &App, discord: &Discord, to: &str, text: &str) -> Result<(), ChannelError> {
    if to.is_empty() || !to.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ChannelError::NotAllowed);
    }
    let channel = format!("{}/channels/{to}", discord.api_base.trim_end_matches('/'));
    let client = app.http.client(&channel)?;
    let authorization = format!("Bot {}", discord.bot_token.expose());
    match &discord.guild_id {
        Some(guild) => {
            let response = deliver(client.get(&channel).header("authorization", &authorization)).await?;
            let found: Channel =
                response.json().await.map_err(|error| ChannelError::Unreachable(error.without_url()))?;
            if found.guild_id.as_ref() != Some(guild) {
                return Err(ChannelError::NotAllowed);
            }
        }
        None => permit(&discord.allowed_users, &[to])?,
    }
    for piece in pieces(text, MESSAGE) {
        // Nobody is pinged because a model wrote an @.
        let body = json!({ "content": piece, "allowed_mentions": { "parse": [] } });
        let request = client.post(format!("{channel}/messages")).header("authorization", &authorization);
        deliver(request.json(&body)).await?;
    }
    Ok(())
}
