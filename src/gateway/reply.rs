//! Answers in the gateway's own form: JSON, errors as `{"error": …}`. The texts are ZeroClaw's, clients match on them.

use std::time::Duration;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

const UNAUTHORIZED: &str = "Unauthorized — pair first via POST /pair, then send Authorization: Bearer <token>";

/// Why a request got no proper answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No token, or one that nobody was given.
    Unauthorized,
    WrongCode,
    LockedOut(Duration),
    TooManyPairings(Duration),
    TooManyMessages(Duration),
    TooLarge,
    /// The body is not what the endpoint takes, with what it takes.
    BadBody(&'static str),
    /// The body is not declared as JSON.
    NotJson,
    /// The model gave no usable answer. Why is in the log, not in the answer: it may name keys and hosts.
    ModelFailed,
    TookTooLong,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let error = |status: StatusCode, text: &str| (status, Json(json!({ "error": text }))).into_response();
        match self {
            Self::Unauthorized => error(StatusCode::UNAUTHORIZED, UNAUTHORIZED),
            Self::WrongCode => error(StatusCode::FORBIDDEN, "Invalid pairing code"),
            Self::LockedOut(wait) => {
                let secs = whole_seconds(wait);
                wait_for(secs, &format!("Too many failed attempts. Try again in {secs}s."))
            }
            Self::TooManyPairings(wait) => {
                wait_for(whole_seconds(wait), "Too many pairing requests. Please retry later.")
            }
            Self::TooManyMessages(wait) => {
                wait_for(whole_seconds(wait), "Too many webhook requests. Please retry later.")
            }
            Self::TooLarge => error(StatusCode::PAYLOAD_TOO_LARGE, "Request body too large"),
            Self::BadBody(expected) => error(StatusCode::BAD_REQUEST, expected),
            Self::NotJson => error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Expected Content-Type: application/json"),
            Self::ModelFailed => error(StatusCode::INTERNAL_SERVER_ERROR, "LLM request failed"),
            Self::TookTooLong => StatusCode::REQUEST_TIMEOUT.into_response(),
        }
    }
}

fn wait_for(secs: u64, text: &str) -> Response {
    let body = Json(json!({ "error": text, "retry_after": secs }));
    (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, secs.to_string())], body).into_response()
}

/// Rounded up: a client that waits as told must not come too early.
const fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + (wait.subsec_nanos() > 0) as u64
}
