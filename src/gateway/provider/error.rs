//! Why a model gave no answer, in a form that every endpoint passes on: a status and a code for programs, a sentence
//! with the remedy for people.
//!
//! What the provider wrote is quoted, since it is the best hint there is, but bounded and without what looks like a key.

mod told;

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use self::told::Told;
use super::redact::redact;
use super::words;
use crate::gateway::outbound::OutboundError;
use crate::gateway::pause;

/// As much of the provider's words as is passed on, in characters.
const QUOTE: usize = 300;

/// What went wrong, as far as the remedy depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Reason {
    /// The host's name has no address.
    Dns,
    /// No connection: refused, no route, or no answer in time.
    Unreachable,
    /// The connection is not trusted, or is not TLS at all.
    Tls,
    /// The proxy on the way refused.
    Proxy,
    /// The connection broke while the answer was under way.
    Broken,
    /// The server refused, by its status or by an error in place of an answer.
    Refused,
    /// A web page in place of an answer.
    WebPage,
    /// Neither a refusal nor an answer that can be read.
    Unreadable,
    /// An answer without text and without a call.
    Empty,
    /// The provider's filter removed the answer.
    Filtered,
    /// A parameter that this provider has no equivalent for.
    Unsupported,
    /// The settings name no provider that can be used.
    NotConfigured,
}

/// A failed call of the model.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::gateway) struct ModelError {
    pub(in crate::gateway) reason: Reason,
    /// The status of the refusal; one inside a 200 counts as well.
    pub(in crate::gateway) status: Option<u16>,
    /// The provider's code, or ours where there is none.
    pub(in crate::gateway) code: Option<Box<str>>,
    /// The provider's `type`.
    pub(in crate::gateway) kind: Option<Box<str>>,
    /// The parameter that was refused.
    pub(in crate::gateway) param: Option<Box<str>>,
    /// Who was asked, with the port where it is not the usual one.
    pub(in crate::gateway) host: Option<Box<str>>,
    /// When to come again, as far as the provider says.
    pub(in crate::gateway) retry_after: Option<Duration>,
    /// The provider's words or ours, redacted.
    detail: String,
}

impl ModelError {
    pub(super) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            status: None,
            code: None,
            kind: None,
            param: None,
            host: None,
            retry_after: None,
            detail: detail.into(),
        }
    }

    pub(super) fn unreadable(detail: &str) -> Self {
        Self::new(Reason::Unreadable, detail)
    }

    /// A parameter that cannot be honoured by this provider.
    pub(super) fn unsupported(param: &str) -> Self {
        let detail = format!("{param} is not supported by this provider; leave it out");
        Self { param: Some(param.into()), ..Self::new(Reason::Unsupported, detail) }
    }

    /// The model called tools where it had to answer.
    pub(in crate::gateway) fn only_calls(host: &str) -> Self {
        let detail = "the model called tools again and again, and gave no text";
        Self { host: Some(host.into()), ..Self::new(Reason::Empty, detail) }
    }

    /// Our own side of the connection could not be made.
    pub(super) fn no_client(error: &OutboundError) -> Self {
        let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        Self::new(Reason::Tls, format!("{error}{source}"))
    }

    /// Packed in a form that is none.
    pub(super) fn undecodable() -> Self {
        Self::new(Reason::Unreadable, "its content encoding cannot be decoded")
    }

    /// Reads a failed request. The error has lost its URL already, which may hold a password.
    pub(super) fn from_transport(error: &reqwest::Error) -> Self {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            text = format!("{text}: {inner}");
            source = inner.source();
        }
        let lower = text.to_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
        let (reason, detail) =
            if has(&["dns error", "failed to lookup", "name resolution", "name or service not known"]) {
                (Reason::Dns, "its name has no address")
            } else if has(&["tunnel", "proxy"]) {
                (Reason::Proxy, "the proxy on the way refused the connection")
            } else if has(&[
                "certificate",
                "handshake",
                "invalidcontenttype",
                "corrupt message",
                "received fatal alert",
            ]) {
                (Reason::Tls, "the TLS connection failed")
            } else if error.is_connect() && has(&["refused"]) {
                (Reason::Unreachable, "the connection was refused")
            } else if error.is_connect() || error.is_timeout() {
                (Reason::Unreachable, "no connection in time")
            } else if error.is_decode() || has(&["decompress", "gzip", "zstd", "brotli", "deflate"]) {
                return Self::undecodable();
            } else {
                (Reason::Broken, "the connection broke before the answer was complete")
            };
        Self::new(reason, detail)
    }

    /// Reads the error in an answer, if it holds one. `status` is that of the answer, or 0 for an event of a stream.
    pub(super) fn from_body(status: u16, body: &Value) -> Option<Self> {
        let told = Told::read(body)?;
        // A status inside a 200 is what the provider behind a router answered.
        let status = if status >= 400 { status } else { told.status() };
        let mut error = Self::refused(status, told.message.as_deref().unwrap_or("no reason given"));
        error.code = told.code.map(Into::into).or(error.code);
        error.kind = told.kind.map(Into::into);
        error.param = told.param.map(Into::into);
        let in_words = || matches!(status, 429 | 503).then(|| pause::in_words(&error.detail)).flatten();
        error.retry_after = told.retry_after.or_else(in_words);
        Some(error)
    }

    /// A refusal by status.
    pub(super) fn refused(status: u16, detail: &str) -> Self {
        Self { status: Some(status), ..Self::new(Reason::Refused, detail) }
    }

    /// Names the server, and takes out of its words what is secret.
    pub(super) fn at(mut self, host: &str, key: Option<&str>) -> Self {
        let quote: String = redact(&self.detail, key).chars().take(QUOTE).collect();
        self.detail = quote;
        for text in [&mut self.code, &mut self.kind, &mut self.param].into_iter().flatten() {
            *text = redact(text, key).chars().take(64).collect();
        }
        self.host.get_or_insert_with(|| host.into());
        self
    }

    /// Whether the same call may succeed later.
    pub(in crate::gateway) fn is_retryable(&self) -> bool {
        match self.reason {
            Reason::Refused => {
                !self.is_out_of_credit() && self.status.is_some_and(worth_retrying) || self.is_bad_call()
            }
            Reason::Dns | Reason::Unreachable | Reason::Proxy | Reason::Broken | Reason::Empty => true,
            Reason::Tls
            | Reason::WebPage
            | Reason::Unreadable
            | Reason::Filtered
            | Reason::Unsupported
            | Reason::NotConfigured => false,
        }
    }

    /// Whether the call may be sent again at once. A connection that broke may have cost tokens already.
    pub(super) fn is_worth_another_try(&self) -> bool {
        self.is_retryable() && !matches!(self.reason, Reason::Empty)
    }

    /// The prompt has more tokens than the model takes.
    pub(in crate::gateway) fn is_too_long(&self) -> bool {
        let refused = self.reason == Reason::Refused && matches!(self.status, Some(400 | 413 | 422 | 500));
        refused
            && (self.has_code("context_length") || self.has_code("tokens_limit") || words::is_too_long(&self.detail))
    }

    /// The provider says that nothing was left to pay with. A retry cannot help.
    fn is_out_of_credit(&self) -> bool {
        let codes = ["insufficient_quota", "exceeded_current_quota", "billing", "credit"];
        self.status == Some(402)
            || codes.iter().any(|word| self.has_code(word))
            || words::is_out_of_credit(&self.detail)
    }

    /// The key is not taken, whatever the status.
    fn is_bad_key(&self) -> bool {
        matches!(self.status, Some(401 | 403)) || self.status == Some(400) && words::is_bad_key(&self.detail)
    }

    fn is_filtered(&self) -> bool {
        [&self.code, &self.kind].into_iter().flatten().any(|text| words::is_filtered(text))
    }

    /// The model wrote a call that the provider could not read; the next one may be right.
    fn is_bad_call(&self) -> bool {
        self.has_code("tool_use_failed")
    }

    fn has_code(&self, part: &str) -> bool {
        [&self.code, &self.kind].into_iter().flatten().any(|text| text.to_ascii_lowercase().contains(part))
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// Our own name for the failure, for what has no code of the provider.
    pub(in crate::gateway) fn own_code(&self) -> &'static str {
        match self.reason {
            Reason::Dns => "dns",
            Reason::Unreachable => "unreachable",
            Reason::Tls => "tls",
            Reason::Proxy => "proxy",
            Reason::Broken => "connection_broken",
            Reason::WebPage => "web_page",
            Reason::Unreadable => "unreadable_answer",
            Reason::Empty => "empty_answer",
            Reason::Filtered => "content_filter",
            Reason::Unsupported => "unsupported_parameter",
            Reason::NotConfigured => "not_configured",
            Reason::Refused if self.is_bad_key() => "invalid_api_key",
            Reason::Refused => match self.status {
                Some(402) => "insufficient_quota",
                Some(404) => "not_found",
                Some(429) => "rate_limited",
                Some(500..) => "server_error",
                _ => "invalid_request",
            },
        }
    }

    /// The member `model` of an answer that failed.
    pub(in crate::gateway) fn to_json(&self) -> Value {
        json!({
            "status": self.status,
            "code": self.code.as_deref().unwrap_or(self.own_code()),
            "type": self.kind,
            "param": self.param,
            "message": self.to_string(),
            "host": self.host,
            "retryAfter": self.retry_after.map(whole_seconds),
            "retryable": self.is_retryable(),
        })
    }

    fn remedy(&self) -> &'static str {
        match self.reason {
            Reason::Dns => "Check the provider's address and this machine's DNS.",
            Reason::Unreachable if self.host.as_deref().is_some_and(is_loopback) => {
                "Check that the model's server runs. In a container the loopback is the container itself: the host is \
                 host.docker.internal there."
            }
            Reason::Unreachable => "Check the provider's address and that its server runs.",
            Reason::Tls => "Check the provider's address (http or https) and its certificate.",
            Reason::Proxy => "Check HTTPS_PROXY and NO_PROXY.",
            Reason::Broken => "Try again.",
            Reason::WebPage => {
                "Check the provider's address: it should be the API's base, for example https://host/v1."
            }
            Reason::Unreadable => "Check that the provider's address is that of a compatible API.",
            Reason::Empty => "Try again, allow more tokens, or choose another model.",
            Reason::Filtered => "Change the message, or choose another model.",
            Reason::Unsupported => "",
            Reason::NotConfigured => "Set default_provider in config.toml.",
            Reason::Refused if self.is_too_long() => "Send less, or choose a model with a longer context.",
            Reason::Refused if self.is_out_of_credit() => "Add credit at the provider, or choose another model.",
            Reason::Refused if self.is_bad_key() => "Check the API key, and set a new one where it is wrong.",
            Reason::Refused if self.is_filtered() => "Change the message, or choose another model.",
            Reason::Refused => match self.status {
                Some(404 | 405) => "Check the model's name and the provider's address.",
                Some(408 | 409 | 425 | 429 | 500..) => "Try again later.",
                _ => "Check the model's name and its settings.",
            },
        }
    }
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.as_deref().unwrap_or("the model's server");
        // A sentence of ours follows.
        let detail = self.detail.trim_end_matches('.');
        match (self.reason, self.status) {
            (Reason::Refused, Some(status)) => {
                write!(f, "{host} answered {status}")?;
                if let Some(code) = &self.code {
                    write!(f, " ({code})")?;
                }
                write!(f, ": {detail}")?;
            }
            (Reason::Dns | Reason::Unreachable | Reason::Tls | Reason::Proxy, _) => {
                write!(f, "{host} cannot be reached: {detail}")?;
            }
            (Reason::Unsupported | Reason::NotConfigured, _) => f.write_str(&self.detail)?,
            (Reason::Broken, _) => write!(f, "{host}: {detail}")?,
            _ => write!(f, "the answer of {host} cannot be used: {detail}")?,
        }
        if let Some(wait) = self.retry_after {
            write!(f, ". It asks to wait {} s", whole_seconds(wait))?;
        }
        let remedy = self.remedy();
        if remedy.is_empty() { Ok(()) } else { write!(f, ". {remedy}") }
    }
}

impl std::error::Error for ModelError {}

/// Rounded up: a client that waits as asked must not come too early.
pub(in crate::gateway) const fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + (wait.subsec_nanos() > 0) as u64
}

fn is_loopback(host: &str) -> bool {
    super::route::is_loopback_host(host.rsplit_once(':').map_or(host, |(name, _)| name))
}

const fn worth_retrying(status: u16) -> bool {
    matches!(status, 408 | 409 | 425 | 429 | 500 | 502..=504 | 520..=524 | 529)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: Value) -> ModelError {
        ModelError::from_body(status, &body).unwrap().at("api.example", Some("sk-planted-key-1"))
    }

    #[test]
    fn every_shape_of_an_error_is_read() {
        let openai = json!({ "error": { "message": "Bad key", "type": "invalid_request_error", "param": null, "code": "invalid_api_key" } });
        assert_eq!(read(401, openai).code.as_deref(), Some("invalid_api_key"));
        let ollama = read(404, json!({ "error": "model \"m\" not found, try pulling it first" }));
        assert!(ollama.to_string().contains("not found"), "{ollama}");
        let google = json!([{ "error": { "code": 429, "message": "Quota", "status": "RESOURCE_EXHAUSTED",
            "details": [{ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s" }] } }]);
        let google = read(429, google);
        assert_eq!(
            (google.code.as_deref(), google.retry_after),
            (Some("RESOURCE_EXHAUSTED"), Some(Duration::from_millis(34_500)))
        );
        let mistral = json!({ "detail": [{ "type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted" }] });
        assert_eq!(read(422, mistral).param.as_deref(), Some("stream_options"));
        let vllm = json!({ "object": "error", "message": "too long", "type": "BadRequestError", "code": 400 });
        assert_eq!(read(0, vllm).status, Some(400));
        let router = json!({ "error": { "code": 502, "message": "Provider returned error", "metadata": { "raw": "upstream died" } } });
        assert!(read(200, router).to_string().contains("upstream died"));
        let anthropic = json!({ "type": "error", "error": { "type": "overloaded_error", "message": "Overloaded" } });
        assert_eq!(read(200, anthropic).status, Some(529));
        assert!(ModelError::from_body(200, &json!({ "choices": [], "error": null })).is_none());
        assert!(ModelError::from_body(200, &json!({ "content": [], "type": "message" })).is_none());
    }

    #[test]
    fn only_what_may_pass_is_worth_another_try() {
        for status in [408, 429, 500, 502, 503, 504, 522, 529] {
            assert!(ModelError::refused(status, "").is_retryable(), "{status}");
        }
        for status in [400, 401, 402, 403, 404, 405, 413, 422] {
            assert!(!ModelError::refused(status, "").is_retryable(), "{status}");
        }
        let quota = json!({ "error": { "code": "insufficient_quota", "message": "You exceeded your current quota" } });
        assert!(!read(429, quota).is_retryable());
    }

    #[test]
    fn the_words_of_the_provider_are_bounded_and_hold_no_key() {
        let error = json!({ "error": { "message": format!("key sk-planted-key-1 {}", "x ".repeat(5000)) } });
        let text = read(401, error).to_json().to_string();
        assert!(!text.contains("planted") && text.len() < 1000, "{text}");
    }

    #[test]
    fn what_is_told_otherwise_is_understood_alike() {
        let remedy = |status, body| read(status, body).remedy();
        let key = "Check the API key, and set a new one where it is wrong.";
        let credit = "Add credit at the provider, or choose another model.";
        for (status, body, expected) in [
            (
                400,
                json!([{ "error": { "code": 400, "message": "API key not valid. Please pass a valid API key." } }]),
                key,
            ),
            (
                400,
                json!({ "code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***" }),
                key,
            ),
            (200, json!({ "base_resp": { "status_code": 1004, "status_msg": "login fail: invalid api key" } }), key),
            (200, json!({ "code": 401, "msg": "token expired" }), key),
            (400, json!({ "type": "error", "error": { "message": "Your credit balance is too low" } }), credit),
            (
                429,
                json!({ "error": { "code": "1113", "message": "Insufficient balance or no resource package" } }),
                credit,
            ),
            (
                429,
                json!({ "error": { "type": "exceeded_current_quota_error", "message": "Your account is suspended" } }),
                credit,
            ),
            (
                400,
                json!({ "error": { "code": "content_filter", "message": "The response was filtered" } }),
                "Change the message, or choose another model.",
            ),
            (
                413,
                json!({ "error": { "code": "tokens_limit_reached", "message": "Request body too large" } }),
                "Send less, or choose a model with a longer context.",
            ),
        ] {
            assert_eq!(remedy(status, body.clone()), expected, "{body}");
        }
        let nested = json!({ "error": { "error": { "message": "Model is loading" } } });
        assert_eq!(read(503, nested).to_string(), "api.example answered 503: Model is loading. Try again later.");
        let object = json!({ "error": { "message": { "reason": "no" } } });
        assert!(read(400, object).to_string().contains(r#"{"reason":"no"}"#));
    }

    #[test]
    fn a_pause_is_seen_wherever_it_is_told() {
        for body in [
            json!({ "error": { "message": "Rate limit reached. Please try again in 4.2s. Visit the page." } }),
            json!({ "error": { "message": "slow down", "retry_after": 4.2 } }),
            json!({ "error": { "message": "slow down" }, "retry_after": "4.2s" }),
            json!({ "error": { "message": "slow down", "metadata": { "retry_after_seconds": 4.2 } } }),
        ] {
            assert_eq!(read(429, body.clone()).retry_after, Some(Duration::from_millis(4200)), "{body}");
        }
        let elsewhere = json!({ "error": { "message": "Please try again in 4.2s" } });
        assert_eq!(read(400, elsewhere).retry_after, None, "a request that is wrong stays so");
    }

    #[test]
    fn a_prompt_is_too_long_only_where_the_request_was_refused_for_it() {
        assert!(ModelError::refused(400, "prompt is too long").is_too_long());
        assert!(!ModelError::refused(401, "prompt is too long").is_too_long());
        assert!(!ModelError::refused(400, "Unknown model").is_too_long());
    }
}
