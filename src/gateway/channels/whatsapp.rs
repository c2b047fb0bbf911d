//! WhatsApp by Meta's Cloud API: a verification by GET, signed messages by POST, answers through the Graph API.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

use super::config::WhatsApp;
use super::inbox::{Incoming, ReplyTo};
use super::{ChannelError, deliver, permit, pieces, signature};
use crate::gateway::agent::Source;
use crate::gateway::body::Limited;
use crate::gateway::memory::Owner;
use crate::gateway::reply::Refusal;
use crate::gateway::shared::App;

/// Meta's limit for one message, in characters.
const MESSAGE: usize = 4_096;
const BODY_LIMIT: usize = 256 << 10;

#[derive(Deserialize)]
pub(in crate::gateway) struct Verification {
    #[serde(rename = "hub.mode")]
    mode: Option<String>,
    #[serde(rename = "hub.verify_token")]
    token: Option<String>,
    #[serde(rename = "hub.challenge")]
    challenge: Option<String>,
}

/// `GET /whatsapp`: Meta asks whether the owner of this address wants its messages.
pub(in crate::gateway) async fn verify(State(app): State<App>, Query(asked): Query<Verification>) -> Response {
    let config = app.config();
    let Some(whatsapp) = &config.channels_config.whatsapp else {
        return (StatusCode::NOT_FOUND, "WhatsApp not configured").into_response();
    };
    let token = asked.token.unwrap_or_default();
    let right: bool = whatsapp.verify_token.expose().as_bytes().ct_eq(token.as_bytes()).into();
    match asked.challenge {
        Some(challenge) if right && asked.mode.as_deref() == Some("subscribe") => challenge.into_response(),
        None if right => (StatusCode::BAD_REQUEST, "Missing hub.challenge").into_response(),
        _ => (StatusCode::FORBIDDEN, "Forbidden").into_response(),
    }
}

#[derive(Deserialize)]
struct Payload {
    #[serde(default)]
    entry: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    changes: Vec<Change>,
}

#[derive(Deserialize)]
struct Change {
    value: ChangeValue,
}

#[derive(Deserialize)]
struct ChangeValue {
    #[serde(default)]
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    from: String,
    id: String,
    text: Option<Text>,
}

#[derive(Deserialize)]
struct Text {
    body: String,
}

/// `POST /whatsapp`: messages, and news about messages of ours, which are none.
pub(in crate::gateway) async fn webhook(
    State(app): State<App>,
    body: Limited<BODY_LIMIT>,
) -> Result<Json<Value>, Refusal> {
    let config = app.config();
    let whatsapp = config.channels_config.whatsapp.as_ref().ok_or(Refusal::NotConfigured("WhatsApp"))?;
    let signed = body.header("x-hub-signature-256").strip_prefix("sha256=").unwrap_or_default();
    let secret = whatsapp.app_secret.as_ref().ok_or(Refusal::BadSignature)?;
    if !signature::verify(secret, &[&body.bytes], signed) {
        tracing::warn!("a WhatsApp webhook with a wrong signature was refused");
        return Err(Refusal::BadSignature);
    }
    let payload: Payload = serde_json::from_slice(&body.bytes).map_err(|_| Refusal::BadBody("Invalid JSON payload"))?;
    let changes = payload.entry.into_iter().flat_map(|entry| entry.changes);
    for message in changes.flat_map(|change| change.value.messages) {
        let Some(text) = message.text.map(|text| text.body).filter(|text| !text.trim().is_empty()) else { continue };
        if permit(&whatsapp.allowed_numbers, &[&message.from]).is_err() {
            tracing::warn!("a WhatsApp message from a number that is not allowed was dropped");
            continue;
        }
        let owner = Owner::person("whatsapp", &message.from);
        let reply_to = ReplyTo::WhatsApp { number: message.from };
        let incoming = Incoming { source: Source::WhatsApp, owner, id: message.id, text, reply_to };
        app.inbox.take(&app, incoming).map_err(|_| Refusal::Busy)?;
    }
    Ok(Json(json!({ "status": "ok" })))
}

pub(super) async fn send(app: &App, whatsapp: &WhatsApp, number: &str, text: &str) -> Result<(), ChannelError> {
    let url = format!("{}/{}/messages", whatsapp.api_base.trim_end_matches('/'), whatsapp.phone_number_id);
    let client = app.http.client(&url)?;
    for piece in pieces(text, MESSAGE) {
        let body = json!({
            "messaging_product": "whatsapp", "recipient_type": "individual", "to": number.trim_start_matches('+'),
            "type": "text", "text": { "preview_url": false, "body": piece },
        });
        deliver(client.post(&url).bearer_auth(whatsapp.access_token.expose()).json(&body)).await?;
    }
    Ok(())
}
