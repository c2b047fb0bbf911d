//! What a gateway's answer to a message that is no success means: what failed, and whether another try can help.

use serde_json::Value;

use super::{ModelFailure, WebhookAnswer};

/// As much of a gateway's words as is passed on, in characters.
const LONGEST: usize = 200;

/// What did not do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failed {
    /// The model, or the way to it.
    Model,
    /// The gateway itself.
    Gateway,
    /// Somebody has to change how the agent is configured.
    Configuration,
}

impl Failed {
    /// Its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Gateway => "gateway",
            Self::Configuration => "configuration",
        }
    }
}

/// A message that was not answered.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Refusal {
    /// The model gave up or was given up.
    Model(ModelFailure),
    /// The gateway has no model that it could ask, as its own words say.
    NotConfigured(String),
    /// The gateway is about to be there again.
    Restarting,
    /// The gateway takes no more messages for now.
    TooMany {
        /// Seconds until it does, where it says so.
        retry_after: Option<u64>,
    },
    /// The message is longer than the gateway takes.
    TooLarge,
    /// Anything else.
    Gateway {
        /// The HTTP status.
        status: u16,
        /// The gateway's own words, cut to 200 characters.
        said: Option<String>,
    },
}

impl Refusal {
    /// What an answer means that is no success.
    pub fn read(answer: &WebhookAnswer) -> Self {
        if let Some(failure) = ModelFailure::read(answer) {
            return Self::Model(failure);
        }
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let said: Option<String> =
            body["error"].as_str().map(|said| said.chars().filter(|c| !c.is_control()).take(LONGEST).collect());
        match (answer.status, said) {
            (503, Some(said)) if said.starts_with("needs_quickstart") => Self::NotConfigured(said),
            (503, Some(said)) if said.starts_with("gateway_restarting") => Self::Restarting,
            (429, _) => Self::TooMany { retry_after: body["retry_after"].as_u64().or(answer.retry_after) },
            (413, _) => Self::TooLarge,
            (status, said) => Self::Gateway { status, said },
        }
    }

    /// What did not do its work.
    pub fn failed(&self) -> Failed {
        match self {
            Self::Model(failure) if failure.is_of_configuration() => Failed::Configuration,
            Self::Model(_) => Failed::Model,
            Self::NotConfigured(_) => Failed::Configuration,
            Self::Restarting | Self::TooMany { .. } | Self::TooLarge | Self::Gateway { .. } => Failed::Gateway,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_failed_is_told_apart() {
        let read = |status, body: &Value| {
            let body = if body.is_null() { String::new() } else { body.to_string() };
            Refusal::read(&WebhookAnswer::new(status, body))
        };
        let table = [
            (500, json!({ "error": "LLM request failed" }), Failed::Model),
            (502, json!({ "model": { "status": 503 } }), Failed::Model),
            (502, json!({ "model": { "status": 401 } }), Failed::Configuration),
            (408, Value::Null, Failed::Model),
            (503, json!({ "error": "needs_quickstart", "url": "/quickstart" }), Failed::Configuration),
            (503, json!({ "error": "gateway_restarting" }), Failed::Gateway),
            (500, json!({ "error": "disk full" }), Failed::Gateway),
            (404, Value::Null, Failed::Gateway),
            (429, json!({ "retry_after": 7 }), Failed::Gateway),
        ];
        for (status, body, failed) in table {
            assert_eq!(read(status, &body).failed(), failed, "{status} {body}");
        }
        assert_eq!(read(429, &json!({ "retry_after": 7 })), Refusal::TooMany { retry_after: Some(7) });
        let by_header = WebhookAnswer::new(429, "slow down").with_retry_after(9);
        assert_eq!(Refusal::read(&by_header), Refusal::TooMany { retry_after: Some(9) });
        let words = read(500, &json!({ "error": "disk\u{1b} full" }));
        assert_eq!(words, Refusal::Gateway { status: 500, said: Some("disk full".into()) });
    }
}
