//! Discord: messages out, by its REST API.

use serde_json::{Value, json};

use super::config::Discord;
use super::delivery::{ChannelError, json as read_json, request};
use super::permit;
use super::place::Place;
use crate::gateway::outbound::HttpClients;

/// The agent may write to a channel of the configured server; where none is configured, to a channel on the list.
pub(super) async fn permit_recipient(http: &HttpClients, discord: &Discord, to: &str) -> Result<(), ChannelError> {
    if !is_id(to) {
        return Err(ChannelError::NotAllowed);
    }
    match &discord.guild_id {
        Some(guild) => {
            let found = get(http, discord, &format!("channels/{to}")).await?;
            if found["guild_id"] == guild.as_str() { Ok(()) } else { Err(ChannelError::NotAllowed) }
        }
        None => permit(&discord.allowed_users, &[to]),
    }
}

pub(super) async fn send(
    http: &HttpClients,
    discord: &Discord,
    place: &Place,
    quoted: Option<&str>,
    piece: &str,
) -> Result<(), ChannelError> {
    if !is_id(&place.chat) {
        return Err(ChannelError::NotAllowed);
    }
    // Nobody is notified because a model wrote an @.
    let mut body = json!({ "content": piece, "allowed_mentions": { "parse": [] } });
    if let Some(message) = quoted {
        body["message_reference"] = json!({ "message_id": message, "fail_if_not_exists": false });
    }
    let url = format!("{}/channels/{}/messages", discord.api_base.trim_end_matches('/'), place.chat);
    request(http.client(&url)?.post(&url).header("authorization", authorization(discord)).json(&body)).await?;
    Ok(())
}

/// Asks for a resource.
///
/// # Errors
/// See [`ChannelError`].
pub(in crate::gateway) async fn get(http: &HttpClients, discord: &Discord, path: &str) -> Result<Value, ChannelError> {
    let url = format!("{}/{path}", discord.api_base.trim_end_matches('/'));
    let response = request(http.client(&url)?.get(&url).header("authorization", authorization(discord))).await?;
    read_json(response).await
}

fn authorization(discord: &Discord) -> String {
    format!("Bot {}", discord.bot_token.expose())
}

/// A number, and nothing that would change the meaning of a URL.
fn is_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit())
}
