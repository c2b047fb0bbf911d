//! What a gateway's refusal of a message says about the model behind it.
//!
//! The embedded gateway tells the reason (502 with a member `model`). ZeroClaw says only that the model failed (500,
//! `LLM request failed`); its log has more.

use serde_json::{Value, json};

use super::WebhookAnswer;

/// As much of a gateway's words as is passed on, in characters.
const LONGEST: usize = 600;
const NO_REASON: &str = "the model failed";
/// The codes of the embedded gateway for what has no status.
const OWN_CODES: [&str; 12] = [
    "dns",
    "unreachable",
    "tls",
    "proxy",
    "connection_broken",
    "web_page",
    "unreadable_answer",
    "empty_answer",
    "content_filter",
    "unsupported_parameter",
    "not_configured",
    "timeout",
];

/// The model gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelFailure {
    /// What the model's server answered, where it answered.
    pub status: Option<u16>,
    /// The word that the model's server or the gateway has for the reason.
    pub code: Option<String>,
    /// A sentence with the remedy; the gateway has taken keys out of it.
    pub message: String,
    /// Seconds until a retry makes sense.
    pub retry_after: Option<u64>,
    /// Whether the same message may be answered later.
    pub retryable: bool,
}

impl ModelFailure {
    /// `None` for an answer that does not tell of the model.
    pub fn read(answer: &WebhookAnswer) -> Option<Self> {
        if !matches!(answer.status, 408 | 500 | 502) {
            return None;
        }
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        match answer.status {
            500 | 502 if body["model"].is_object() => Some(Self::told(&body["model"])),
            500 if body["error"].as_str().is_some_and(|error| error.starts_with("LLM request failed")) => Some(
                Self::unexplained(None, "the model failed; this version of the gateway does not say why, its log may"),
            ),
            408 if body["error"].is_null() => {
                Some(Self::unexplained(Some("timeout"), "the model did not answer within the gateway's limit"))
            }
            _ => None,
        }
    }

    fn unexplained(code: Option<&str>, message: &str) -> Self {
        let code = code.map(str::to_owned);
        Self { status: None, code, message: message.into(), retry_after: None, retryable: true }
    }

    /// Whether the gateway said no more than that it failed.
    pub fn is_unexplained(&self) -> bool {
        self.status.is_none() && self.code.is_none()
    }

    /// From what ZeroClaw before 0.8 writes into its log, the newest line last:
    /// `… error=Custom API error (401 Unauthorized): {"error": {"message": …}}`. It has taken keys out of it by itself.
    pub fn in_log<'a>(lines: impl DoubleEndedIterator<Item = &'a str>) -> Option<Self> {
        lines.rev().find_map(|line| Self::in_line(line).or_else(|| Self::not_reached(line)))
    }

    fn in_line(line: &str) -> Option<Self> {
        let (_, told) = line.split_once(" API error (")?;
        let (status, body) = told.split_once("): ")?;
        let status: u16 = status.split(' ').next()?.parse().ok().filter(|status| (400..600).contains(status))?;
        let body: Value =
            serde_json::Deserializer::from_str(body).into_iter().next().and_then(Result::ok).unwrap_or_default();
        let error = if body["error"].is_object() { &body["error"] } else { &body };
        let model = json!({ "status": status, "code": error["code"], "message": error["message"] });
        let failure = Self::told(&model);
        Some(match failure.message.as_str() {
            NO_REASON => Self { message: format!("its server answered {status}"), ..failure },
            _ => failure,
        })
    }

    /// `… transport error: error sending request for url (http://model:1234/v1/chat/completions) …`, of which the log has no
    /// cause. It may have cut the URL off.
    fn not_reached(line: &str) -> Option<Self> {
        let (_, told) = line.split_once("error sending request for url (")?;
        let (url, _) = told.split_once(')')?;
        let url = url::Url::parse(url).ok()?;
        let host = url.host_str().filter(|host| !host.contains(".."))?;
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        let message = format!(
            "{host}{port} cannot be reached: the connection was refused, or its name has no address. Check the URL, and that the \
             model's server runs and listens on an address that the agent reaches"
        );
        let code = Some("unreachable".to_owned());
        Some(Self { status: None, code, message, retry_after: None, retryable: true })
    }

    /// Whether somebody has to change how the agent is configured: its key, its model, its account.
    pub fn is_of_configuration(&self) -> bool {
        matches!(self.class(), "invalid_api_key" | "insufficient_quota" | "not_found" | "not_configured")
    }

    fn told(model: &Value) -> Self {
        let text = |name: &str| model[name].as_str().map(|text| text.chars().take(LONGEST).collect::<String>());
        let status = model["status"].as_u64().and_then(|status| u16::try_from(status).ok());
        let passes = !matches!(status, Some(400..=407 | 410..=424 | 426..=428));
        Self {
            status,
            code: text("code"),
            message: text("message").unwrap_or_else(|| NO_REASON.into()),
            retry_after: model["retryAfter"].as_u64(),
            retryable: model["retryable"].as_bool().unwrap_or(passes),
        }
    }

    /// The reason in one word of a fixed set, to count by.
    pub fn class(&self) -> &'static str {
        let code = self.code.as_deref().unwrap_or_default();
        if code.contains("quota") {
            return "insufficient_quota";
        }
        match self.status {
            Some(401 | 403) => "invalid_api_key",
            Some(402) => "insufficient_quota",
            Some(404) => "not_found",
            Some(429) => "rate_limited",
            Some(500..) => "server_error",
            Some(_) => "invalid_request",
            None => OWN_CODES.into_iter().find(|own| *own == code).unwrap_or("unknown"),
        }
    }

    /// As the API shows it; whether a retry can help is told beside it.
    pub fn to_json(&self) -> Value {
        json!({
            "status": self.status, "code": self.code, "message": self.message, "retryAfter": self.retry_after,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &Value) -> WebhookAnswer {
        WebhookAnswer::new(status, body.to_string())
    }

    #[test]
    fn the_reason_is_read_with_whether_a_retry_helps() {
        for (model, class, retryable) in [
            (
                json!({ "status": 401, "code": "invalid_api_key", "message": "m", "retryable": false }),
                "invalid_api_key",
                false,
            ),
            (json!({ "status": 429, "code": "rate_limit", "message": "m", "retryAfter": 7 }), "rate_limited", true),
            (json!({ "status": 429, "code": "insufficient_quota", "retryable": false }), "insufficient_quota", false),
            (json!({ "status": 404 }), "not_found", false),
            (json!({ "status": 503 }), "server_error", true),
            (json!({ "status": null, "code": "dns" }), "dns", true),
            (json!({ "status": null, "code": "made up by somebody" }), "unknown", true),
        ] {
            let failure = ModelFailure::read(&answer(502, &json!({ "error": "e", "model": model }))).unwrap();
            assert_eq!((failure.class(), failure.retryable), (class, retryable), "{model}");
        }
    }

    #[test]
    fn reason_is_found_in_the_log_of_older_versions() {
        let line = |status: &str, body: &str| {
            format!(
                "WARN zeroclaw::providers::reliable: Non-retryable error provider=\"custom\" error=Custom API error ({status}): {body}"
            )
        };
        let told = r#"{"error": {"message": "Incorrect API key provided: [REDACTED]", "code": "invalid_api_key"}}"#;
        let lines =
            [line("500 Internal Server Error", "{}"), line("401 Unauthorized", told), "later, something else".into()];
        let failure = ModelFailure::in_log(lines.iter().map(String::as_str)).unwrap();
        assert_eq!(
            (failure.class(), failure.retryable, failure.is_of_configuration()),
            ("invalid_api_key", false, true)
        );
        assert_eq!(failure.message, "Incorrect API key provided: [REDACTED]");
        let bare = line("503 Service Unavailable", "<html>");
        let failure = ModelFailure::in_log([bare.as_str()].into_iter()).unwrap();
        assert_eq!((failure.class(), failure.retryable), ("server_error", true));
        assert_eq!(failure.message, "its server answered 503");
        let cut = "transport error: error sending request for url (http://...";
        let whole = "transport error: error sending request for url (http://host.docker.internal:9/v1/chat/completions) (responses";
        let failure = ModelFailure::in_log([whole, cut, "later"].into_iter()).unwrap();
        assert_eq!((failure.class(), failure.retryable), ("unreachable", true));
        assert!(failure.message.starts_with("host.docker.internal:9 cannot be reached"), "{}", failure.message);
        for none in ["", cut, " API error (", " API error (x): y", " API error (200 OK): {}"] {
            assert_eq!(ModelFailure::in_log([none].into_iter()), None, "{none}");
        }
    }

    #[test]
    fn silent_gateway_that_gave_up_waiting_tells_of_the_model() {
        let empty = WebhookAnswer::new(408, bytes::Bytes::new());
        let failure = ModelFailure::read(&empty).unwrap();
        assert_eq!((failure.class(), failure.retryable, failure.is_unexplained()), ("timeout", true, false));
    }

    #[test]
    fn zeroclaws_own_words_are_known_and_other_answers_are_no_failure_of_the_model() {
        assert!(ModelFailure::read(&answer(500, &json!({ "error": "LLM request failed" }))).unwrap().retryable);
        for (status, body) in [
            (500, json!({ "error": "disk" })),
            (502, json!({})),
            (408, json!({ "error": "e" })),
            (200, json!({ "model": {} })),
        ] {
            assert_eq!(ModelFailure::read(&answer(status, &body)), None);
        }
        let long = json!({ "model": { "message": "x".repeat(9000) } });
        assert!(ModelFailure::read(&answer(502, &long)).unwrap().message.len() <= LONGEST);
    }
}
