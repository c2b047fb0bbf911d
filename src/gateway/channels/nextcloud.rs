//! Nextcloud Talk by its bot API: both sides sign with the bot's secret, over a random text and the message.

use axum::Json;
use axum::extract::State;
use rand::rngs::OsRng;
use rand::{Rng as _, TryRngCore as _};
use serde::Deserialize;
use serde_json::{Value, json};

use super::config::NextcloudTalk;
use super::inbox::{Incoming, ReplyTo};
use super::{ChannelError, deliver, permit, pieces, signature};
use crate::gateway::agent::Source;
use crate::gateway::body::Limited;
use crate::gateway::memory::Owner;
use crate::gateway::pairing::hex;
use crate::gateway::reply::Refusal;
use crate::gateway::shared::App;

/// Talk's limit for one message, in characters.
const MESSAGE: usize = 32_000;
const RANDOM_BYTES: usize = 32;
const BODY_LIMIT: usize = 256 << 10;

#[derive(Deserialize)]
struct Payload {
    #[serde(rename = "type")]
    kind: String,
    actor: Actor,
    object: Object,
    target: Target,
}

#[derive(Deserialize)]
struct Actor {
    #[serde(rename = "type")]
    kind: String,
    /// `users/ada`
    id: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Object {
    id: Value,
    /// JSON in a text: `{"message": …, "parameters": …}`
    #[serde(default)]
    content: String,
}

#[derive(Deserialize)]
struct Target {
    /// The room's token.
    id: String,
}

#[derive(Deserialize)]
struct Content {
    message: String,
}

/// `POST /nextcloud-talk`.
pub(in crate::gateway) async fn webhook(
    State(app): State<App>,
    body: Limited<BODY_LIMIT>,
) -> Result<Json<Value>, Refusal> {
    let config = app.config();
    let talk = config.channels_config.nextcloud_talk.as_ref().ok_or(Refusal::NotConfigured("Nextcloud Talk"))?;
    let secret = talk.webhook_secret.as_ref().ok_or(Refusal::BadSignature)?;
    let random = body.header("x-nextcloud-talk-random");
    let signed = body.header("x-nextcloud-talk-signature");
    if random.is_empty() || !signature::verify(secret, &[random.as_bytes(), &body.bytes], signed) {
        tracing::warn!("a Nextcloud Talk webhook with a wrong signature was refused");
        return Err(Refusal::BadSignature);
    }
    let payload: Payload = serde_json::from_slice(&body.bytes).map_err(|_| Refusal::BadBody("Invalid JSON payload"))?;
    if let Some(incoming) = read(talk, payload) {
        app.inbox.take(&app, incoming).map_err(|_| Refusal::Busy)?;
    }
    Ok(Json(json!({ "status": "ok" })))
}

/// The message in a payload, if it is one for us. What bots say, ourselves among them, is not.
fn read(talk: &NextcloudTalk, payload: Payload) -> Option<Incoming> {
    let Payload { kind, actor, object, target } = payload;
    if kind != "Create" || actor.kind == "Application" || !is_room(&target.id) {
        return None;
    }
    let bare = actor.id.rsplit('/').next().unwrap_or_default();
    if permit(&talk.allowed_users, &[&actor.id, bare, &actor.name]).is_err() {
        tracing::warn!("a Nextcloud Talk message from a user who is not allowed was dropped");
        return None;
    }
    let text = serde_json::from_str(&object.content).map_or(object.content, |content: Content| content.message);
    let id = format!("{}/{}", target.id, object.id);
    let reply_to = ReplyTo::NextcloudTalk { room: target.id };
    let owner = Owner::person("nextcloud_talk", &actor.id);
    (!text.trim().is_empty()).then_some(Incoming { source: Source::NextcloudTalk, owner, id, text, reply_to })
}

fn is_room(token: &str) -> bool {
    !token.is_empty() && token.len() <= 64 && token.bytes().all(|b| b.is_ascii_alphanumeric())
}

pub(super) async fn send(app: &App, talk: &NextcloudTalk, room: &str, text: &str) -> Result<(), ChannelError> {
    let base = talk.base_url.trim_end_matches('/');
    let url = format!("{base}/ocs/v2.php/apps/spreed/api/v1/bot/{room}/message");
    let secret = talk.webhook_secret.as_ref().ok_or(ChannelError::NotConfigured)?;
    let client = app.http.client(&url)?;
    for piece in pieces(text, MESSAGE) {
        let random = hex(&OsRng.unwrap_err().random::<[u8; RANDOM_BYTES]>());
        let signed = signature::sign(secret, &[random.as_bytes(), piece.as_bytes()]);
        let request = client
            .post(&url)
            .header("OCS-APIRequest", "true")
            .header("X-Nextcloud-Talk-Bot-Random", random)
            .header("X-Nextcloud-Talk-Bot-Signature", signed);
        deliver(request.json(&json!({ "message": piece }))).await?;
    }
    Ok(())
}
