//! Slack, by Socket Mode (`app_token`) or by signed requests to `POST /slack` (`signing_secret`). Both bring the same
//! events, which [`event`] reads; either may be used, and both at once do no harm.

mod event;
mod markup;

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::backoff::Backoff;
use super::message::Batch;
use super::webhook::{accept, payload, text};
use super::websocket::{Socket, SocketError};
use crate::domain::Timestamp;
use crate::gateway::body::Limited;
use crate::gateway::channels::{ChannelError, Slack, signature, slack_call};
use crate::gateway::reply::Refusal;
use crate::gateway::shared::App;

const BODY_LIMIT: usize = 1 << 20;
/// A signed request that is older was recorded and is sent by somebody else, in seconds.
const AGE: i64 = 300;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// `POST /slack`: events, interactivity and slash commands.
pub(in crate::gateway) async fn webhook(
    State(app): State<App>,
    body: Limited<BODY_LIMIT>,
) -> Result<Response, Refusal> {
    let config = app.config();
    let slack = config.channels_config.slack().map_err(|_| Refusal::NotConfigured("Slack"))?;
    let secret = slack.signing_secret.as_ref().ok_or(Refusal::BadSignature)?;
    let (time, signed) = (body.header("x-slack-request-timestamp"), body.header("x-slack-signature"));
    let fresh = time.parse::<i64>().is_ok_and(|time| (Timestamp::now().as_second() - time).abs() <= AGE);
    let signed = signed.strip_prefix("v0=").unwrap_or_default();
    if !fresh || !signature::verify(secret, &[b"v0:", time.as_bytes(), b":", &body.bytes], signed) {
        tracing::warn!("a Slack request with a wrong or old signature was refused");
        return Err(Refusal::BadSignature);
    }
    let sent = payload(body.header("content-type"), &body.bytes);
    if text(&sent, "/type") == "url_verification" {
        return Ok(Json(json!({ "challenge": sent["challenge"] })).into_response());
    }
    let event = match sent.is_null() {
        true => event::read_command(slack, &form(&body.bytes)),
        false => event::read(slack, &sent),
    };
    let _ = accept(&app, Batch { events: event.into_iter().collect(), marks: vec![] }).await?;
    // Slack shows the answer to a command, and takes that to a form for an instruction: an empty one always means "taken".
    Ok(().into_response())
}

/// A form as an object of texts.
fn form(body: &[u8]) -> Value {
    form_urlencoded::parse(body).map(|(name, value)| (name.into_owned(), Value::from(value.into_owned()))).collect()
}

/// Socket Mode, until dropped.
pub(super) async fn listen(app: App, slack: Slack) {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        let error = match session(&app, &slack, &mut backoff).await {
            // Slack renews connections every few hours and says so.
            Ok(()) => continue,
            Err(error) => error,
        };
        let pause = backoff.pause();
        let words = explain(&error);
        tracing::warn!(error = &error as &dyn std::error::Error, ?pause, "cannot receive messages of Slack: {words}");
        app.health.error("slack", &words);
        app.health.restarted("slack");
        tokio::time::sleep(pause).await;
    }
}

#[derive(Debug, thiserror::Error)]
enum ListenError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error(transparent)]
    Socket(#[from] SocketError),
}

/// One connection, to its orderly end.
async fn session(app: &App, slack: &Slack, backoff: &mut Backoff) -> Result<(), ListenError> {
    let token = slack.app_token.as_ref().ok_or(ChannelError::NotConfigured)?;
    let opened = slack_call(&app.http, slack, token, "apps.connections.open", &json!({})).await?;
    let mut socket = Socket::connect(&app.http, text(&opened, "/url")).await?;
    loop {
        let envelope = socket.next().await?;
        let event = match text(&envelope, "/type") {
            "hello" => {
                app.health.ok("slack");
                backoff.reset();
                continue;
            }
            "disconnect" => return Ok(()),
            "slash_commands" => event::read_command(slack, &envelope["payload"]),
            _ => event::read(slack, &envelope["payload"]),
        };
        let Some(id) = envelope["envelope_id"].as_str() else { continue };
        // Without an acknowledgement Slack sends it again.
        match app.incoming.take(app, Batch { events: event.into_iter().collect(), marks: vec![] }).await {
            Ok(()) => socket.send(&json!({ "envelope_id": id })).await?,
            Err(error) => super::complain(app, &error),
        }
    }
}

fn explain(error: &ListenError) -> String {
    match error {
        ListenError::Channel(ChannelError::NotAccepted { reason })
            if ["invalid_auth", "not_authed", "not_allowed_token_type", "token_revoked", "account_inactive"]
                .contains(&reason.as_str()) =>
        {
            format!("Slack refused app_token ({reason}); set an app-level token (xapp-…) with connections:write")
        }
        other => other.to_string(),
    }
}
