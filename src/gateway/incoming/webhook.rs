//! What the webhooks of all platforms have in common: tolerant reading, and the answer that a platform understands.

use axum::Json;
use serde_json::{Value, json};

use super::inbox::InboxError;
use super::message::Batch;
use crate::gateway::reply::Refusal;
use crate::gateway::shared::App;

/// Takes a batch and says so to the platform.
///
/// # Errors
/// 503 when the platform should send it again: the inbox is full, or the disk fails.
pub(super) async fn accept(app: &App, batch: Batch) -> Result<Json<Value>, Refusal> {
    match app.incoming.take(app, batch).await {
        Ok(()) => Ok(Json(json!({ "status": "ok" }))),
        Err(InboxError::Full) => Err(Refusal::Busy),
        Err(error) => {
            super::complain(app, &error);
            Err(Refusal::Busy)
        }
    }
}

/// What is said to an event that is nothing for us.
pub(super) fn ignored(reason: &str) -> Json<Value> {
    Json(json!({ "status": "ignored", "reason": reason }))
}

/// JSON as it is or in the field `payload` of a form; `null` if it is neither. Platforms offer both.
pub(super) fn payload(content_type: &str, body: &[u8]) -> Value {
    let is_form = content_type.trim_start().to_ascii_lowercase().starts_with("application/x-www-form-urlencoded");
    let in_form = || {
        let (_, payload) = form_urlencoded::parse(body).find(|(name, _)| name == "payload")?;
        serde_json::from_str(&payload).ok()
    };
    if is_form { in_form() } else { serde_json::from_slice(body).ok().or_else(in_form) }.unwrap_or_default()
}

/// A text in an event, empty if there is none.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// An id in an event, which some platforms write as a number and some as a text.
pub(super) fn id(value: &Value, pointer: &str) -> Option<String> {
    match value.pointer(pointer)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_read_as_json_and_from_forms() {
        let expected = json!({ "a": 1 });
        assert_eq!(payload("application/json", b"{\"a\":1}"), expected);
        assert_eq!(
            payload("application/x-www-form-urlencoded; charset=utf-8", b"x=y&payload=%7B%22a%22%3A1%7D"),
            expected
        );
        assert_eq!(payload("text/plain", b"{\"a\":1}"), expected);
        assert_eq!(payload("", b"payload=%7B%22a%22%3A1%7D"), expected);
        assert_eq!(payload("application/json", b"{"), Value::Null);
        assert_eq!(payload("application/x-www-form-urlencoded", b"payload=x"), Value::Null);
    }

    #[test]
    fn ids_are_texts_or_numbers() {
        let event = json!({ "a": 7, "b": "x", "c": "", "d": [] });
        assert_eq!(
            ["/a", "/b", "/c", "/d", "/e"].map(|at| id(&event, at)),
            [Some("7".into()), Some("x".into()), None, None, None]
        );
    }
}
