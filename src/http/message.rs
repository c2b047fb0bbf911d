//! `POST /api/agents/{id}/message`: a message to an agent, its answer back.

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::agents::OwnedAgent;
use super::body::JsonBody;
use super::error::gateway_refusal;
use super::problem::{Code, FieldError, Problem};
use super::request::Trace;
use super::state::Api;
use crate::control::Message;
use crate::zeroclaw::client::ModelFailure;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// How long a message is held while the agent comes up.
const DEFAULT_HOLD_SECS: u64 = 30;
const MAX_HOLD_SECS: u64 = 120;
const MAX_CHARS: usize = 32_000;
/// What ZeroClaw's gateway takes at most.
const MAX_WEBHOOK: usize = 65_536;
/// JSON may escape a character with up to six bytes that the gateway then does not see.
const MAX_MESSAGE_BODY: usize = 6 * MAX_WEBHOOK;

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MessageBody {
    #[schema(required = true, min_length = 1, max_length = 32000)]
    message: Option<String>,
}

/// Sends a message and gives the gateway's answer. While the agent comes up the message is held, in order.
#[utoipa::path(
    post, path = "/api/agents/{id}/message", tag = "agents",
    params(
        ("id" = uuid::Uuid, Path),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: hold it up to N seconds, 30 by default, at most 120"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key gets the stored answer")
    ),
    request_body = MessageBody,
    responses((status = 200, body = serde_json::Value, description = "The answer of the agent's gateway, as it is"))
)]
pub async fn message(
    state: State<Api>,
    own: OwnedAgent,
    trace: Extension<Trace>,
    headers: HeaderMap,
    body: JsonBody<MessageBody, MAX_MESSAGE_BODY>,
) -> Result<Response, Problem> {
    let body = body.0.check()?;
    let hold = hold_secs(&headers);
    let message = Message {
        body: body.into(),
        request_id: Some(trace.0.request_id),
        traceparent: trace.0.traceparent,
        hold: Duration::from_secs(hold),
        answer_within: state.options.answer_within,
    };
    let answer = own.handle.deliver(message).await?;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    if !status.is_success() {
        if let Some(failure) = ModelFailure::read(&answer) {
            state.metrics.model_failed(failure.class());
        }
        return Err(gateway_refusal(&answer));
    }
    let kind = answer.content_type.as_deref().unwrap_or("application/json");
    let mut response = (status, answer.body).into_response();
    if let Ok(kind) = HeaderValue::try_from(kind) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    if headers.contains_key(PREFER)
        && let Ok(applied) = HeaderValue::try_from(format!("wait={hold}"))
    {
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
    Ok(response)
}

impl MessageBody {
    /// The body for the gateway.
    fn check(self) -> Result<String, Problem> {
        let invalid = |detail: String| Problem::invalid(vec![FieldError::at("/message", detail)]);
        let text = self.message.ok_or_else(|| invalid("is required".into()))?;
        if text.trim().is_empty() {
            return Err(invalid("must not be empty".into()));
        }
        if text.chars().count() > MAX_CHARS {
            return Err(invalid(format!("must have at most {MAX_CHARS} characters")));
        }
        let body = json!({"message": text}).to_string();
        if body.len() > MAX_WEBHOOK {
            return Err(Problem::new(Code::TooLarge, format!("The message may have at most {MAX_WEBHOOK} bytes.")));
        }
        Ok(body)
    }
}

/// `Prefer: wait=N`. A preference that is none is left alone, as RFC 7240 wants it.
pub fn hold_secs(headers: &HeaderMap) -> u64 {
    let preferences = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let wait = preferences.flat_map(|value| value.split([',', ';'])).find_map(|preference| {
        let (name, value) = preference.split_once('=')?;
        let named = name.trim().eq_ignore_ascii_case("wait");
        if named { value.trim().trim_matches('"').parse::<u64>().ok() } else { None }
    });
    wait.map_or(DEFAULT_HOLD_SECS, |secs| secs.min(MAX_HOLD_SECS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences_are_taken_as_far_as_they_go() {
        for (value, secs) in [
            ("wait=5", 5),
            ("respond-async, WAIT = 7", 7),
            ("wait=100000", 120),
            ("wait=0", 0),
            ("wait=soon", 30),
            ("return=minimal", 30),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(PREFER, HeaderValue::from_static(value));
            assert_eq!(hold_secs(&headers), secs, "{value}");
        }
        assert_eq!(hold_secs(&HeaderMap::new()), 30);
    }

    #[test]
    fn messages_fit_the_gateway() {
        let check = |text: &str| MessageBody { message: Some(text.into()) }.check().map_err(|problem| problem.code());
        assert_eq!(check("say \"hi\"").unwrap(), r#"{"message":"say \"hi\""}"#);
        assert_eq!(check(" \n"), Err(Code::Invalid));
        assert_eq!(check(&"a".repeat(32_001)), Err(Code::Invalid));
        assert_eq!(check(&"🦀".repeat(20_000)), Err(Code::TooLarge));
    }
}
