//! WhatsApp: messages out, through Meta's Graph API.

use serde_json::json;

use super::config::WhatsApp;
use super::delivery::{ChannelError, request};
use super::place::Place;
use crate::gateway::outbound::HttpClients;

/// Writes to a number, or to a group where the thread says `group`.
pub(super) async fn send(
    http: &HttpClients,
    whatsapp: &WhatsApp,
    place: &Place,
    piece: &str,
) -> Result<(), ChannelError> {
    let url = format!("{}/{}/messages", whatsapp.api_base.trim_end_matches('/'), whatsapp.phone_number_id);
    let kind = if place.thread.as_deref() == Some("group") { "group" } else { "individual" };
    let body = json!({
        "messaging_product": "whatsapp", "recipient_type": kind, "to": place.chat.trim_start_matches('+'),
        "type": "text", "text": { "preview_url": false, "body": piece },
    });
    request(http.client(&url)?.post(&url).bearer_auth(whatsapp.access_token.expose()).json(&body)).await?;
    Ok(())
}
