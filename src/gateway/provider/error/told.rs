//! What the body of a refusal says.

use std::time::Duration;

use serde_json::Value;

use crate::gateway::pause;
use crate::gateway::provider::words;

/// What an error says, whatever its shape: OpenAI's object, a plain text, FastAPI's `detail`, Google's list.
#[derive(Default)]
pub(super) struct Told {
    pub(super) code: Option<String>,
    number: Option<u16>,
    pub(super) kind: Option<String>,
    pub(super) param: Option<String>,
    pub(super) message: Option<String>,
    pub(super) retry_after: Option<Duration>,
}

impl Told {
    pub(super) fn read(body: &Value) -> Option<Self> {
        let body = body.as_array().and_then(|list| list.first()).unwrap_or(body);
        let is_error = body["object"] == "error" || body["type"] == "error";
        // MiniMax tells every answer's outcome in a place of its own.
        let outcome = &body["base_resp"];
        if outcome["status_code"].as_i64().is_some_and(|code| code != 0) && body["choices"].is_null() {
            return Some(Self::of(outcome));
        }
        match &body["error"] {
            Value::Object(_) => {
                let told = Self::of(&body["error"]);
                Some(Self { retry_after: told.retry_after.or_else(|| pause_of(body)), ..told })
            }
            Value::String(text) => Some(Self { message: Some(text.clone()), ..Self::of(body) }),
            Value::Null | Value::Bool(false) if is_error || body["choices"].is_null() => {
                Self::detail(&body["detail"]).or_else(|| (is_error || is_bare(body)).then(|| Self::of(body)))
            }
            Value::Bool(true) => Some(Self::of(body)),
            _ => None,
        }
    }

    fn of(error: &Value) -> Self {
        let text = |key: &str| error[key].as_str().map(str::to_owned);
        let number = |key: &str| {
            let value = &error[key];
            value.as_u64().or_else(|| value.as_str()?.parse().ok()).and_then(|number| u16::try_from(number).ok())
        };
        // A router puts the words of the provider behind it beside its own.
        let raw = error["metadata"]["raw"].as_str().map(str::to_owned);
        let message = ["message", "error", "msg", "status_msg"].into_iter().find_map(|name| words(&error[name]));
        let details = error["details"].as_array().into_iter().flatten();
        let delay = details.filter_map(|detail| pause::alone(detail["retryDelay"].as_str()?)).next();
        Self {
            code: text("code").filter(|code| code.parse::<u16>().is_err()).or_else(|| text("status")),
            number: number("code").or_else(|| number("status")).or_else(|| number("http_status")),
            kind: text("type").filter(|kind| kind != "error"),
            param: text("param"),
            message: match (message, raw) {
                (Some(message), Some(raw)) => Some(format!("{message}: {raw}")),
                (message, raw) => message.or(raw),
            },
            retry_after: delay.or_else(|| pause_of(error)).or_else(|| pause_of(&error["metadata"])),
        }
    }

    /// FastAPI's: a text, or a list of what is wrong with its place.
    fn detail(detail: &Value) -> Option<Self> {
        match detail {
            Value::String(text) => Some(Self { message: Some(text.clone()), ..Self::default() }),
            Value::Array(list) => {
                let first = list.first()?;
                let place = first["loc"].as_array().and_then(|loc| loc.last()?.as_str()).map(str::to_owned);
                let words = first["msg"].as_str().unwrap_or("the request is invalid");
                let message = place.as_ref().map_or(words.to_owned(), |place| format!("'{place}': {words}"));
                let code = first["type"].as_str().map(str::to_owned);
                Some(Self { code, param: place, message: Some(message), ..Self::default() })
            }
            Value::Object(_) => Some(Self::of(detail)),
            _ => None,
        }
    }

    /// The status that stands for an error inside a 200.
    pub(super) fn status(&self) -> u16 {
        if let Some(number) = self.number.filter(|number| (400..600).contains(number)) {
            return number;
        }
        let text = format!("{} {}", self.code.as_deref().unwrap_or_default(), self.kind.as_deref().unwrap_or_default());
        let text = text.to_ascii_lowercase();
        let words = self.message.as_deref().unwrap_or_default();
        if words::is_bad_key(words) {
            return 401;
        }
        if words::is_out_of_credit(words) {
            return 402;
        }
        let known = [
            ("quota", 429),
            ("rate", 429),
            ("exhausted", 429),
            ("overloaded", 529),
            ("authentication", 401),
            ("api_key", 401),
            ("unauthenticated", 401),
            ("permission", 403),
            ("billing", 402),
            ("not_found", 404),
            ("timeout", 504),
            ("unavailable", 503),
            ("server", 500),
            ("api_error", 500),
            ("internal", 500),
            ("invalid", 400),
        ];
        known.iter().find(|(part, _)| text.contains(part)).map_or(502, |(_, status)| *status)
    }
}

/// An error that is the whole body, without a wrapper: a message and nothing of an answer.
fn is_bare(body: &Value) -> bool {
    let tells = body["message"].is_string() || (body["msg"].is_string() && !body["code"].is_null());
    tells && body["content"].is_null() && body["candidates"].is_null()
}

/// A text, or what is in an object where others have a text.
fn words(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(_) => words(&value["message"]).or_else(|| Some(value.to_string())),
        _ => None,
    }
}

/// The member that some put beside their words, as a number or as text.
fn pause_of(object: &Value) -> Option<Duration> {
    ["retry_after", "retry_after_seconds", "retryAfter"].into_iter().find_map(|name| pause::in_json(&object[name]))
}
