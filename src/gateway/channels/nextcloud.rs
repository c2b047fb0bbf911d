//! Nextcloud Talk: messages out, by its bot API. Each is signed over a random text and the message.

use rand::rngs::OsRng;
use rand::{Rng as _, TryRngCore as _};
use serde_json::json;

use super::config::NextcloudTalk;
use super::delivery::{ChannelError, request};
use super::place::Place;
use super::signature;
use crate::gateway::outbound::HttpClients;
use crate::gateway::pairing::hex;

const RANDOM_BYTES: usize = 32;

pub(super) async fn send(
    http: &HttpClients,
    talk: &NextcloudTalk,
    place: &Place,
    quoted: Option<&str>,
    piece: &str,
) -> Result<(), ChannelError> {
    let base = talk.base_url.trim_end_matches('/');
    let url = format!("{base}/ocs/v2.php/apps/spreed/api/v1/bot/{}/message", place.chat);
    let secret = talk.webhook_secret.as_ref().ok_or(ChannelError::NotConfigured)?;
    let random = hex(&OsRng.unwrap_err().random::<[u8; RANDOM_BYTES]>());
    let signed = signature::sign(secret, &[random.as_bytes(), piece.as_bytes()]);
    let mut body = json!({ "message": piece });
    // A quoted message brings the answer into its thread.
    if let Some(message) = quoted.and_then(|message| message.parse::<u64>().ok()) {
        body["replyTo"] = message.into();
    }
    let call = http
        .client(&url)?
        .post(&url)
        .header("OCS-APIRequest", "true")
        .header("X-Nextcloud-Talk-Bot-Random", random)
        .header("X-Nextcloud-Talk-Bot-Signature", signed);
    request(call.json(&body)).await?;
    Ok(())
}
