//! `POST /api/agents/{id}/message`: a message to an agent, its answer back, whole or in pieces.
//!
//! ```text
//! whole ───────────────────────────► AgentHandle::deliver: /webhook, in order, X-Session-Id
//! in pieces ───────────────────────► Question::ask: /webhook, streamed where the version streams
//! of a session, ZeroClaw 0.6, 0.8 ─► conversation: its WebSocket, which alone keeps what was said
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::ready;
use futures_util::stream::{self, Stream, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::agents::OwnedAgent;
use super::body::JsonBody;
use super::error::message_refusal;
use super::pieces::{self, Piece, Pieces};
use super::prefer::{applied, hold_secs};
use super::problem::{Code, FieldError, Problem};
use super::question::{MAX_WEBHOOK, Question};
use super::request::{Seen, Trace};
use super::state::Api;
use super::{conversation, sse};
use crate::control::{AgentHandle, Message};
use crate::domain::SessionName;
use crate::zeroclaw::client::ModelFailure;

const MAX_CHARS: usize = 32_000;
/// JSON may escape a character with up to six bytes that the gateway then does not see.
const MAX_MESSAGE_BODY: usize = 6 * MAX_WEBHOOK;

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MessageBody {
    #[schema(required = true, min_length = 1, max_length = 32000)]
    message: Option<String>,
    /// The conversation that it belongs to: the agent's gateway keeps what was said in it.
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._-]+$")]
    session: Option<String>,
}

/// A message that may be sent.
struct Said {
    text: String,
    /// The text as the gateway's `/webhook` takes it.
    body: String,
    session: Option<SessionName>,
}

/// Sends a message and gives the gateway's answer. While the agent comes up the message is held, in order.
///
/// With `Accept: text/event-stream` the answer comes in pieces: `delta` events with `text`, at the end `done` with the whole
/// `response`, or `error` with a problem; a comment every 15 s while nothing comes. ZeroClaw before 0.8 gives one piece,
/// except in a session of 0.6. A client that goes away ends the answer.
#[utoipa::path(
    post, path = "/api/agents/{id}/message", tag = "agents",
    params(
        ("id" = uuid::Uuid, Path),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: hold it up to N seconds, 30 by default, at most 120"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key gets the stored answer")
    ),
    request_body = MessageBody,
    responses((status = 200, description = "The answer of the agent's gateway, as it is",
        content((serde_json::Value = "application/json"), (String = "text/event-stream"))))
)]
pub async fn message(state: State<Api>, own: OwnedAgent, request: Request) -> Result<Response, Problem> {
    let seen = Seen::noted(&state, &request);
    send(state.0, own, seen, request).await
}

/// Sends the message in the request's body.
pub fn send(
    api: Api,
    own: OwnedAgent,
    seen: Arc<Seen>,
    request: Request,
) -> impl Future<Output = Result<Response, Problem>> + Send + 'static {
    // In its parts: as one thing the future would hold it twice.
    let (parts, body) = request.into_parts();
    async move {
        let said = JsonBody::<MessageBody, MAX_MESSAGE_BODY>::read(&parts.headers, body).await?.0.check()?;
        let hold = hold_secs(&parts.headers);
        let converses = said.session.is_some() && own.handle.profile().converses_by_socket();
        let answered = if converses || sse::is_wanted(&parts.headers) {
            in_pieces(&api, &own, &seen, &parts, said, converses).boxed().await
        } else {
            whole(&api, &own.handle, &seen.trace, said, Duration::from_secs(hold)).await
        };
        let mut response = answered?;
        applied(&parts.headers, hold, &mut response);
        Ok(response)
    }
}

/// Asks by the way that streams, or by the one that keeps what was said.
async fn in_pieces(
    api: &Api,
    own: &OwnedAgent,
    seen: &Seen,
    parts: &Parts,
    said: Said,
    converses: bool,
) -> Result<Response, Problem> {
    let trace = &seen.trace;
    let mut question = Question::new(api, &own.caller, own.handle.clone(), trace, &parts.headers, seen.peer);
    question.session = said.session;
    let pieces = match &question.session {
        Some(session) if converses => {
            let began = Instant::now();
            let asked = conversation::ask(&question, session, &said.text).await;
            question.agent.note_message(asked.is_ok(), began.elapsed());
            question.noted(asked?)
        }
        _ => question.ask(&said.text, true).await?,
    };
    if sse::is_wanted(&parts.headers) {
        return sse::answer(api, &own.caller, events(pieces, parts.uri.path(), trace));
    }
    let model = &own.view.record.spec.model;
    Ok(Json(json!({ "model": model, "response": pieces::collect(pieces).await? })).into_response())
}

/// Asks in order, and gives the gateway's answer as it is.
async fn whole(api: &Api, agent: &AgentHandle, trace: &Trace, said: Said, hold: Duration) -> Result<Response, Problem> {
    let message = Message {
        body: said.body.into(),
        request_id: Some(trace.request_id.clone()),
        traceparent: trace.traceparent.clone(),
        session: said.session,
        hold,
        answer_within: api.options.answer_within,
    };
    let began = Instant::now();
    let delivered = agent.deliver(message).await;
    agent.note_message(delivered.as_ref().is_ok_and(|answer| answer.status == 200), began.elapsed());
    let answer = delivered?;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    if !status.is_success() {
        if let Some(failure) = ModelFailure::read(&answer) {
            api.metrics.model_failed(failure.class());
        }
        return Err(message_refusal(&answer, api.options.answer_within));
    }
    let kind = answer.content_type.as_deref().unwrap_or("application/json");
    let mut response = (status, answer.body).into_response();
    if let Ok(kind) = HeaderValue::try_from(kind) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    Ok(response)
}

/// The answer as events: `delta` …, then `done` or `error`.
fn events(pieces: Pieces, path: &str, trace: &Trace) -> impl Stream<Item = Event> + Send + use<> {
    let (path, trace) = (path.to_owned(), trace.clone());
    let mut so_far = Some(String::new());
    pieces.map(Some).chain(stream::once(async { None })).filter_map(move |piece| {
        let event = match (piece, so_far.as_mut()) {
            (Some(Ok(Piece::Text(text))), Some(so_far)) => {
                so_far.push_str(&text);
                Some(sse::event("delta", &json!({ "text": text })))
            }
            (Some(Ok(Piece::Whole(whole))), Some(so_far)) => {
                *so_far = whole;
                None
            }
            (Some(Err(problem)), Some(_)) => {
                so_far = None;
                Some(sse::event("error", &problem.body(&path, &trace.request_id)))
            }
            (None, Some(so_far)) => Some(sse::event("done", &json!({ "response": so_far }))),
            (_, None) => None,
        };
        ready(event)
    })
}

impl MessageBody {
    fn check(self) -> Result<Said, Problem> {
        let mut faults = Vec::new();
        let text = self.message.unwrap_or_default();
        if text.trim().is_empty() {
            faults.push(FieldError::at("/message", "is required and must not be empty"));
        }
        if text.chars().count() > MAX_CHARS {
            faults.push(FieldError::at("/message", format!("must have at most {MAX_CHARS} characters")));
        }
        let session = self.session.map(|name| SessionName::parse(&name)).transpose().unwrap_or_else(|remedy| {
            faults.push(FieldError::at("/session", remedy));
            None
        });
        if !faults.is_empty() {
            return Err(Problem::invalid(faults));
        }
        let body = webhook(&text)?;
        if body.len() > MAX_WEBHOOK {
            return Err(Problem::new(Code::TooLarge, format!("The message may have at most {MAX_WEBHOOK} bytes.")));
        }
        Ok(Said { text, body, session })
    }
}

/// A text as the gateway's `/webhook` takes it. Straight from the text: by way of a JSON value and a formatter it is four times the
/// work.
fn webhook(message: &str) -> Result<String, Problem> {
    #[derive(Serialize)]
    struct Webhook<'a> {
        message: &'a str,
    }
    let written = serde_json::to_string(&Webhook { message });
    written.map_err(|_| Problem::new(Code::Internal, "The message cannot be written."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_fit_the_gateway() {
        let check = |text: &str| {
            let body = MessageBody { message: Some(text.into()), session: None };
            body.check().map(|said| said.body).map_err(|problem| problem.code())
        };
        assert_eq!(check("say \"hi\"").unwrap(), r#"{"message":"say \"hi\""}"#);
        assert_eq!(check(" \n"), Err(Code::Invalid));
        assert_eq!(check(&"a".repeat(32_001)), Err(Code::Invalid));
        assert_eq!(check(&"🦀".repeat(20_000)), Err(Code::TooLarge));
    }
}
