//! One request to a platform, and what is known about it afterwards: delivered, not delivered, or unknown.

use std::time::Duration;

use reqwest::{RequestBuilder, Response};
use serde_json::Value;

use crate::gateway::outbound::OutboundError;
use crate::gateway::persona::head;

/// A platform that takes longer is out of order.
const TIMEOUT: Duration = Duration::from_secs(30);
/// What is shown of a platform's own words, in bytes.
const REASON: usize = 200;

#[derive(Debug, thiserror::Error)]
pub(in crate::gateway) enum ChannelError {
    #[error("that channel is not configured")]
    NotConfigured,
    #[error("that recipient is not among the allowed ones")]
    NotAllowed,
    #[error(transparent)]
    NoClient(#[from] OutboundError),
    /// Without its URL, which holds a token on some platforms.
    #[error("the platform cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("the platform answered {status}{}", in_brackets(.reason))]
    Refused { status: u16, reason: String, pause: Option<Duration> },
    /// A platform that says 200 to everything says in the body that it did not do it.
    #[error("the platform refused{}", in_brackets(.reason))]
    NotAccepted { reason: String },
    #[error("the platform's answer cannot be read")]
    Unreadable,
}

/// What is known about a message after its request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Outcome {
    /// It did not arrive, and another try may succeed, after the pause that the platform asked for.
    NotDelivered { pause: Option<Duration> },
    /// It did not arrive and will not.
    Refused,
    /// It may have arrived.
    Unknown,
}

impl ChannelError {
    pub(in crate::gateway) fn outcome(&self) -> Outcome {
        match self {
            Self::NoClient(_) => Outcome::NotDelivered { pause: None },
            Self::Unreachable(error) if error.is_connect() => Outcome::NotDelivered { pause: None },
            Self::Unreachable(_) | Self::Unreadable => Outcome::Unknown,
            Self::Refused { status: 429 | 500..=503, pause, .. } => Outcome::NotDelivered { pause: *pause },
            Self::Refused { status: 504.., .. } => Outcome::Unknown,
            Self::NotAccepted { reason } if reason == "ratelimited" || reason == "rate_limited" => {
                Outcome::NotDelivered { pause: None }
            }
            Self::NotConfigured | Self::NotAllowed | Self::Refused { .. } | Self::NotAccepted { .. } => {
                Outcome::Refused
            }
        }
    }
}

/// Sends a request once.
///
/// # Errors
/// See [`ChannelError`].
pub(in crate::gateway) async fn request(request: RequestBuilder) -> Result<Response, ChannelError> {
    request_within(request, TIMEOUT).await
}

/// As [`request`], for a request that a platform keeps open.
///
/// # Errors
/// See [`ChannelError`].
pub(in crate::gateway) async fn request_within(
    request: RequestBuilder,
    limit: Duration,
) -> Result<Response, ChannelError> {
    let unreachable = |error: reqwest::Error| ChannelError::Unreachable(error.without_url());
    let response = request.timeout(limit).send().await.map_err(unreachable)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let asked = response.headers().get(reqwest::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let asked = asked.and_then(|value| value.trim().parse::<f64>().ok());
    let body: Value = response.json().await.unwrap_or_default();
    Err(ChannelError::Refused { status: status.as_u16(), reason: reason(&body), pause: pause(asked, &body) })
}

/// Reads the JSON of an answer.
///
/// # Errors
/// [`ChannelError::Unreadable`].
pub(in crate::gateway) async fn json(response: Response) -> Result<Value, ChannelError> {
    response.json().await.map_err(|_| ChannelError::Unreadable)
}

/// The pause that a platform asks for: in the header, or in the body as Telegram and Discord have it.
fn pause(header: Option<f64>, body: &Value) -> Option<Duration> {
    let in_body = body["parameters"]["retry_after"].as_f64().or_else(|| body["retry_after"].as_f64());
    let seconds = header
        .into_iter()
        .chain(in_body)
        .fold(None, |most: Option<f64>, next| Some(most.map_or(next, |most| most.max(next))))?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// A platform's own words for an error. They describe the request's form, never its credentials.
fn reason(body: &Value) -> String {
    let words = [&body["description"], &body["error"]["message"], &body["message"], &body["error"]];
    let words = words.into_iter().find_map(Value::as_str).unwrap_or_default();
    head(words, REASON).to_owned()
}

fn in_brackets(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(status: u16) -> Outcome {
        ChannelError::Refused { status, reason: String::new(), pause: None }.outcome()
    }

    #[test]
    fn only_failures_that_surely_delivered_nothing_are_tried_again() {
        let again = Outcome::NotDelivered { pause: None };
        assert_eq!([429, 500, 502, 503].map(refused), [again; 4]);
        assert_eq!([504, 524].map(refused), [Outcome::Unknown; 2]);
        assert_eq!([400, 401, 403, 404].map(refused), [Outcome::Refused; 4]);
        assert_eq!(ChannelError::Unreadable.outcome(), Outcome::Unknown);
    }

    #[test]
    fn asked_pauses_are_read_from_header_and_body_and_the_longest_counts() {
        assert_eq!(pause(None, &json!({ "parameters": { "retry_after": 7 } })), Some(Duration::from_secs(7)));
        assert_eq!(pause(Some(1.0), &json!({ "retry_after": 1.5 })), Some(Duration::from_millis(1500)));
        assert_eq!(pause(Some(f64::NAN), &json!({})), None);
        assert_eq!(pause(Some(-1.0), &json!({})), None);
    }

    #[test]
    fn a_platforms_own_words_are_kept_short() {
        assert_eq!(
            reason(&json!({ "ok": false, "description": "Forbidden: bot was blocked" })),
            "Forbidden: bot was blocked"
        );
        assert_eq!(reason(&json!({ "error": { "message": "x".repeat(999) } })).len(), REASON);
        assert_eq!(reason(&json!([])), "");
    }
}
