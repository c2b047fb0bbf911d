//! Answers in the gateway's own form: JSON, errors as `{"error": …}`. The texts are ZeroClaw's, clients match on them.

use std::time::Duration;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::agent::AgentError;
use super::provider;

const UNAUTHORIZED: &str = "Unauthorized — pair first via POST /pair, then send Authorization: Bearer <token>";

/// When a platform should try again that found the inbox full, in seconds.
const BUSY_SECS: u64 = 30;

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
    /// A spending limit is reached, with the words for it.
    OverBudget(String),
    /// The body is not declared as JSON.
    NotJson,
    /// The model gave no usable answer: the sentence for people, and the reason for programs.
    ModelFailed {
        message: String,
        model: Box<Value>,
        retry_after: Option<u64>,
    },
    /// The model took longer than an answer may.
    TookTooLong {
        message: String,
        model: Box<Value>,
    },
    /// A request whose body did not come in time.
    SlowBody,
    /// The body ended before it was whole, or is not framed as HTTP wants it.
    BrokenBody,
    /// The header `X-Webhook-Secret` is missing or wrong.
    WrongSecret,
    /// A webhook that its platform did not sign.
    BadSignature,
    /// A platform that is not in the configuration.
    NotConfigured(&'static str),
    /// Nothing of that name is there.
    NotFound,
    /// An idempotency key that belongs to another request.
    KeyReused,
    /// Too many messages wait to be answered.
    Busy,
    /// The request is understood and cannot be done, with the reason.
    Unusable(String),
    /// The file of the settings cannot be read or written, with the reason: only its owner can do something about it.
    SettingsFile(String),
    /// Our own fault, or the disk's; what it is is in the log.
    Failed(&'static str),
}

impl Refusal {
    /// What the caller is told.
    pub(super) fn message(&self) -> String {
        match self {
            Self::Unauthorized => UNAUTHORIZED.into(),
            Self::WrongCode => "Invalid pairing code".into(),
            Self::LockedOut(wait) => format!("Too many failed attempts. Try again in {}s.", whole_seconds(*wait)),
            Self::TooManyPairings(_) => "Too many pairing requests. Please retry later.".into(),
            Self::TooManyMessages(_) => "Too many webhook requests. Please retry later.".into(),
            Self::TooLarge => "Request body too large".into(),
            Self::BadBody(expected) => (*expected).into(),
            Self::NotJson => "Expected Content-Type: application/json".into(),
            Self::ModelFailed { message, .. } => format!("LLM request failed: {message}"),
            Self::TookTooLong { message, .. } => message.clone(),
            Self::SlowBody => "The request's body did not come in time".into(),
            Self::BrokenBody => "The request's body ended before it was whole".into(),
            Self::WrongSecret => "Unauthorized — invalid or missing X-Webhook-Secret header".into(),
            Self::BadSignature => "Invalid signature".into(),
            Self::NotConfigured(platform) => format!("{platform} not configured"),
            Self::NotFound => "Not found".into(),
            Self::KeyReused => "X-Idempotency-Key was used for another request".into(),
            Self::Busy => "Too many messages are waiting".into(),
            Self::Unusable(reason) | Self::OverBudget(reason) | Self::SettingsFile(reason) => reason.clone(),
            Self::Failed(what) => (*what).into(),
        }
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized | Self::WrongSecret | Self::BadSignature => StatusCode::UNAUTHORIZED,
            Self::WrongCode => StatusCode::FORBIDDEN,
            Self::LockedOut(_) | Self::TooManyPairings(_) | Self::TooManyMessages(_) | Self::OverBudget(_) => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BadBody(_) | Self::Unusable(_) | Self::BrokenBody => StatusCode::BAD_REQUEST,
            Self::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::ModelFailed { .. } => StatusCode::BAD_GATEWAY,
            Self::SettingsFile(_) | Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::TookTooLong { .. } | Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::NotConfigured(_) | Self::NotFound => StatusCode::NOT_FOUND,
            Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// When the caller may come again, in seconds.
    const fn retry_after(&self) -> Option<u64> {
        match self {
            Self::LockedOut(wait) | Self::TooManyPairings(wait) | Self::TooManyMessages(wait) => {
                Some(whole_seconds(*wait))
            }
            Self::Busy => Some(BUSY_SECS),
            Self::ModelFailed { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = json!({ "error": self.message() });
        let (status, retry_after) = (self.status(), self.retry_after());
        if let Self::ModelFailed { model, .. } | Self::TookTooLong { model, .. } = self {
            body["model"] = *model;
        } else if let Some(secs) = retry_after {
            body["retry_after"] = secs.into();
        }
        let mut response = (status, Json(body)).into_response();
        if let Some(secs) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, secs.into());
        }
        response
    }
}

impl From<AgentError> for Refusal {
    fn from(error: AgentError) -> Self {
        let (message, model) = (error.to_string(), Box::new(error.model_json()));
        match error {
            AgentError::TookTooLong { .. } => Self::TookTooLong { message, model },
            AgentError::Interrupted => Self::Failed("The work was interrupted"),
            AgentError::Model(error) => {
                Self::ModelFailed { message, model, retry_after: error.retry_after.map(provider::whole_seconds) }
            }
            AgentError::Limit(limit) => Self::OverBudget(limit.to_string()),
        }
    }
}

/// Rounded up: a client that waits as told must not come too early.
const fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + (wait.subsec_nanos() > 0) as u64
}
