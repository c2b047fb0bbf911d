//! `POST /webhook`: one message, one answer, no tools; with `X-Session-Id` the history of that session. The answer comes in
//! pieces for those who ask for that, see [`super::webhook_stream`].

use std::time::Instant;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

use super::webhook_stream;
use crate::domain::SessionName;
use crate::gateway::agent::{self, AgentError, Answer, Ask, Source, Tools};
use crate::gateway::auth::Paired;
use crate::gateway::body::Limited;
use crate::gateway::client::Client;
use crate::gateway::conversation;
use crate::gateway::encrypted::is_encrypted;
use crate::gateway::memory::Owner;
use crate::gateway::reply::Refusal;
use crate::gateway::shared::App;

const EXPECTED: &str = "Invalid JSON body. Expected: {\"message\": \"...\"}";
/// As curl sends it with `-d` alone.
const UNDECLARED: &str =
    "Invalid JSON body. Expected: {\"message\": \"...\"}, with the header Content-Type: application/json";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prompt {
    message: String,
    /// `null` is what SDKs write for a field that is left out.
    stream: Option<bool>,
}

/// Proof that the client does not come too often. Counted before anything else, so that a stranger cannot make us hash
/// tokens and read bodies all day.
pub(super) struct Admitted;

impl FromRequestParts<App> for Admitted {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let Ok(client) = Client::from_request_parts(parts, app).await;
        app.webhook_limit.admit(client.key(), Instant::now()).map_err(Refusal::TooManyMessages)?;
        Ok(Self)
    }
}

pub(super) async fn webhook(
    State(app): State<App>,
    _: Admitted,
    _: Paired,
    body: Limited,
) -> Result<Response, Refusal> {
    check_secret(&app, body.header("x-webhook-secret"))?;
    // ZeroClaw answers 400 to a missing content type here, and 415 elsewhere.
    let prompt: Prompt = body.json(EXPECTED).map_err(|refusal| match refusal {
        Refusal::NotJson => Refusal::BadBody(UNDECLARED),
        other => other,
    })?;
    not_blank(&prompt.message)?;
    let session = session(&body.headers).map(str::to_owned);
    // An answer that is kept for a retry is given whole.
    if prompt.stream == Some(true) && wants_events(&body.headers) && body.header("x-idempotency-key").is_empty() {
        return webhook_stream::respond(app, session, question(&prompt.message)).await;
    }
    let work = answer(app.clone(), session, prompt.message);
    let answered = app.idempotency.answer("/webhook", &body.headers, &body.bytes, work).await?;
    Ok(answered.into_response())
}

/// Refuses a message without a word: providers refuse it as well, or answer to nothing and are paid for it.
pub(super) fn not_blank(message: &str) -> Result<(), Refusal> {
    if message.trim().is_empty() { Err(Refusal::BadBody("message must not be blank")) } else { Ok(()) }
}

/// The conversation that a request belongs to. As in ZeroClaw, a name that is none counts as none.
pub(super) fn session(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-session-id")?.to_str().ok().filter(|name| names_a_session(name))
}

pub(super) fn names_a_session(name: &str) -> bool {
    SessionName::parse(name).is_ok()
}

async fn answer(app: App, session: Option<String>, message: String) -> Result<Value, Refusal> {
    let answer = in_session(&app, session.as_deref(), question(&message)).await?;
    Ok(json!({ "model": answer.model, "response": answer.text }))
}

fn question(message: &str) -> Ask {
    Ask { tools: Tools::None, ..Ask::new(Source::Webhook, message) }
}

/// The answer in a conversation, where one is named.
pub(super) async fn in_session(app: &App, session: Option<&str>, ask: Ask) -> Result<Answer, AgentError> {
    match session {
        Some(id) => conversation::answer(app, id, Ask { owner: Owner::session(id), ..ask }).await,
        None => agent::answer(app, ask).await,
    }
}

fn wants_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| range.trim().starts_with("text/event-stream"))
}

/// A second lock, where one is configured.
fn check_secret(app: &App, given: &str) -> Result<(), Refusal> {
    let config = app.config();
    let secret = config.channels_config.webhook.as_ref().and_then(|webhook| webhook.secret.as_ref());
    match secret {
        Some(secret) if is_encrypted(secret) => Err(Refusal::WrongSecret),
        Some(secret) if !bool::from(secret.expose().as_bytes().ct_eq(given.trim().as_bytes())) => {
            Err(Refusal::WrongSecret)
        }
        _ => Ok(()),
    }
}
