//! WhatsApp by Meta's Cloud API: a verification by GET, signed messages by POST.
//!
//! | Message | |
//! |---|---|
//! | `text`, `button`, `interactive` (buttons, lists, forms), `location`, `contacts`, `order` | text |
//! | `image`, `video`, `document` with a caption | text |
//! | the same without, `audio`, `sticker`, `unsupported` and kinds that we do not know | "I can only read text" |
//! | `edit` | an edit |
//! | `revoke` | a deletion |
//! | `reaction`, `system`, `request_welcome`, events of other fields or numbers | ignored |
//! | a status `failed` of a message of ours | told in log, events and `/health`: Meta takes a message first and refuses it later |
//! | other statuses | ignored |

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::Value;
use subtle::ConstantTimeEq as _;

use super::message::{Batch, Content, Event, Incoming};
use super::webhook::{accept, id, payload, text};
use crate::gateway::body::Limited;
use crate::gateway::channels::{Place, Platform, WhatsApp, permit, signature};
use crate::gateway::reply::Refusal;
use crate::gateway::shared::App;

/// Meta sends up to 3 MB.
const BODY_LIMIT: usize = 3 << 20;

/// Characters of a reason that are told.
const REASON: usize = 300;

#[derive(Deserialize)]
pub(in crate::gateway) struct Verification {
    #[serde(rename = "hub.mode")]
    mode: Option<String>,
    #[serde(rename = "hub.verify_token")]
    token: Option<String>,
    #[serde(rename = "hub.challenge")]
    challenge: Option<String>,
}

/// `GET /whatsapp`: Meta asks whether the owner of this address wants its messages.
pub(in crate::gateway) async fn verify(State(app): State<App>, Query(asked): Query<Verification>) -> Response {
    let config = app.config();
    let Ok(whatsapp) = config.channels_config.whatsapp() else {
        return (StatusCode::NOT_FOUND, "WhatsApp not configured").into_response();
    };
    let token = asked.token.unwrap_or_default();
    let right: bool = whatsapp.verify_token.expose().as_bytes().ct_eq(token.as_bytes()).into();
    match asked.challenge {
        Some(challenge) if right && asked.mode.as_deref() == Some("subscribe") => challenge.into_response(),
        None if right => (StatusCode::BAD_REQUEST, "Missing hub.challenge").into_response(),
        _ => (StatusCode::FORBIDDEN, "Forbidden").into_response(),
    }
}

/// `POST /whatsapp`: messages, and news about messages of ours.
pub(in crate::gateway) async fn webhook(
    State(app): State<App>,
    body: Limited<BODY_LIMIT>,
) -> Result<Json<Value>, Refusal> {
    let config = app.config();
    let whatsapp = config.channels_config.whatsapp().map_err(|_| Refusal::NotConfigured("WhatsApp"))?;
    let signed = body.header("x-hub-signature-256").strip_prefix("sha256=").unwrap_or_default();
    let secret = whatsapp.app_secret.as_ref().ok_or(Refusal::BadSignature)?;
    if !signature::verify(secret, &[&body.bytes], signed) {
        tracing::warn!("a WhatsApp webhook with a wrong signature was refused");
        return Err(Refusal::BadSignature);
    }
    let payload = payload(body.header("content-type"), &body.bytes);
    if payload.is_null() {
        tracing::warn!("a WhatsApp webhook is not JSON and was ignored");
    }
    for why in undelivered(whatsapp, &payload) {
        tracing::error!(%why, channel = "whatsapp", "an answer was not delivered");
        app.events.error("whatsapp", &why);
        app.health.error("whatsapp", &why);
    }
    accept(&app, Batch { events: read_all(whatsapp, &payload), marks: vec![] }).await
}

fn list(value: &Value, name: &str) -> Vec<Value> {
    value[name].as_array().cloned().unwrap_or_default()
}

/// What happened to our number: one account has the same webhook for all of its numbers.
fn values(whatsapp: &WhatsApp, payload: &Value) -> impl Iterator<Item = Value> {
    let changes = list(payload, "entry").into_iter().flat_map(|entry| list(&entry, "changes"));
    changes.map(|mut change| change["value"].take()).filter(|value| {
        let number = id(value, "/metadata/phone_number_id");
        number.is_none_or(|number| number == whatsapp.phone_number_id)
    })
}

fn read_all(whatsapp: &WhatsApp, payload: &Value) -> Vec<Event> {
    let messages = values(whatsapp, payload).flat_map(|value| list(&value, "messages"));
    messages.filter_map(|message| read(whatsapp, &message)).collect()
}

/// Why messages of ours did not arrive, in Meta's words, e.g. because the person wrote more than a day ago.
fn undelivered(whatsapp: &WhatsApp, payload: &Value) -> Vec<String> {
    let statuses = values(whatsapp, payload).flat_map(|value| list(&value, "statuses"));
    let failed = statuses.filter(|status| text(status, "/status") == "failed");
    failed.map(|status| reason(list(&status, "errors").first().unwrap_or(&Value::Null))).collect()
}

fn reason(error: &Value) -> String {
    let title = first(error, &["/title", "/message"]);
    let details = text(error, "/error_data/details");
    let parts = [id(error, "/code").unwrap_or_default(), title.to_owned(), details.to_owned()];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let words = if parts.is_empty() { "WhatsApp gives no reason".to_owned() } else { parts.join(", ") };
    words.chars().filter(|c| !c.is_control()).take(REASON).collect()
}

fn read(whatsapp: &WhatsApp, message: &Value) -> Option<Event> {
    let (kind, sender) = (text(message, "/type"), id(message, "/from")?);
    if permit(&whatsapp.allowed_numbers, &[&sender]).is_err() {
        tracing::warn!("a WhatsApp message from a number that is not allowed was dropped");
        return None;
    }
    if kind == "revoke" {
        return Some(Event::Delete { platform: Platform::WhatsApp, of: id(message, "/revoke/original_message_id")? });
    }
    let group = id(message, "/group_id");
    let thread = group.is_some().then(|| "group".to_owned());
    let place = Place { platform: Platform::WhatsApp, chat: group.unwrap_or_else(|| sender.clone()), thread };
    let incoming = |content| Some(Incoming { id: id(message, "/id")?, place, quoted: None, sender, content });
    if kind == "edit" {
        let edited = &message["edit"]["message"];
        let of = id(message, "/edit/original_message_id")?;
        return Some(Event::Edit { of, message: incoming(content(text(edited, "/type"), edited)?)? });
    }
    Some(Event::Message(incoming(content(kind, message)?)?))
}

fn content(kind: &str, message: &Value) -> Option<Content> {
    match kind {
        "reaction" | "system" | "request_welcome" | "ephemeral" => None,
        "" | "text" => Content::new(text(message, "/text/body"), None),
        "image" | "video" | "document" => {
            let name = format!("a file of the kind {kind}");
            Content::new(text(message, &format!("/{kind}/caption")), Some(&name))
        }
        "button" => Content::new(first(message, &["/button/text", "/button/payload"]), None),
        "interactive" => Content::new(&interactive(&message["interactive"]), None),
        "location" => Content::new(&location(&message["location"]), None),
        "contacts" => Content::new(&contacts(message), None),
        "order" => Content::new(&order(&message["order"]), None),
        _ => Some(Content::Unreadable),
    }
}

fn first<'a>(value: &'a Value, pointers: &[&str]) -> &'a str {
    pointers.iter().map(|pointer| text(value, pointer)).find(|text| !text.is_empty()).unwrap_or_default()
}

/// A button, an entry of a list, or the answers of a form.
fn interactive(interactive: &Value) -> String {
    let chosen =
        first(interactive, &["/button_reply/title", "/list_reply/title", "/button_reply/id", "/list_reply/id"]);
    if !chosen.is_empty() {
        let more = text(interactive, "/list_reply/description");
        return if more.is_empty() { chosen.to_owned() } else { format!("{chosen} ({more})") };
    }
    let form = &interactive["nfm_reply"];
    let answers: Value = serde_json::from_str(text(form, "/response_json")).unwrap_or_default();
    // The token belongs to the form's program, not to the conversation.
    let fields = answers.as_object().into_iter().flatten().filter(|(name, _)| *name != "flow_token");
    let lines: Vec<String> = fields.map(|(name, value)| format!("{name}: {}", plain(value))).collect();
    if lines.is_empty() { text(form, "/body").to_owned() } else { lines.join("\n") }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

fn location(location: &Value) -> String {
    let named = [text(location, "/name"), text(location, "/address")];
    let named = named.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
    format!("[Location: {}, {} {named}]", location["latitude"], location["longitude"]).replace(" ]", "]")
}

fn contacts(message: &Value) -> String {
    let contacts = message["contacts"].as_array().into_iter().flatten();
    let one = |contact: &Value| {
        let phones = contact["phones"].as_array().into_iter().flatten().map(|phone| text(phone, "/phone"));
        format!("[Contact: {}, {}]", text(contact, "/name/formatted_name"), phones.collect::<Vec<_>>().join(", "))
    };
    contacts.map(one).collect::<Vec<_>>().join("\n")
}

fn order(order: &Value) -> String {
    let items = order["product_items"].as_array().into_iter().flatten().map(|item| {
        let amount = id(item, "/quantity").unwrap_or_default();
        format!(
            "{amount} x {} at {} {}",
            text(item, "/product_retailer_id"),
            plain(&item["item_price"]),
            text(item, "/currency")
        )
    });
    let items = items.collect::<Vec<_>>().join("; ");
    format!("{}\n[Order: {items}]", text(order, "/text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn whatsapp() -> WhatsApp {
        serde_json::from_value(json!({
            "access_token": "a", "phone_number_id": "55", "verify_token": "v", "allowed_numbers": ["*"]
        }))
        .unwrap()
    }

    fn event(message: Value) -> Option<Event> {
        let mut sent = json!({ "from": "41", "id": "w1" });
        sent.as_object_mut().unwrap().extend(message.as_object().unwrap().clone());
        let payload = json!({ "entry": [{ "changes": [{ "field": "messages", "value": { "messages": [sent] } }] }] });
        read_all(&whatsapp(), &payload).pop()
    }

    fn words(message: Value) -> String {
        match event(message) {
            Some(Event::Message(Incoming { content: Content::Text(text), .. })) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn buttons_lists_forms_and_captions_are_text() {
        assert_eq!(words(json!({ "type": "text", "text": { "body": "hi" } })), "hi");
        assert_eq!(words(json!({ "type": "button", "button": { "text": "Go on", "payload": "p" } })), "Go on");
        let list = json!({ "type": "list_reply", "list_reply": { "id": "1", "title": "Tea", "description": "green" } });
        assert_eq!(words(json!({ "type": "interactive", "interactive": list })), "Tea (green)");
        let form = json!({ "type": "nfm_reply", "nfm_reply": { "name": "flow", "body": "Sent",
            "response_json": "{\"flow_token\":\"x\",\"name\":\"Ada\",\"days\":[\"Mo\",\"Tu\"],\"age\":3}" } });
        let answers = words(json!({ "type": "interactive", "interactive": form }));
        assert!(answers.contains("name: Ada") && answers.contains("days: Mo, Tu") && !answers.contains("flow_token"));
        assert!(words(json!({ "type": "image", "image": { "caption": "what?" } })).starts_with("what?\n"));
        assert_eq!(
            words(json!({ "type": "location", "location": { "latitude": 1, "longitude": 2.5 } })),
            "[Location: 1, 2.5]"
        );
        let contact = json!([{ "name": { "formatted_name": "Ada" }, "phones": [{ "phone": "+1" }] }]);
        assert_eq!(words(json!({ "type": "contacts", "contacts": contact })), "[Contact: Ada, +1]");
        let order = json!({ "text": "please", "product_items": [{ "product_retailer_id": "T1", "quantity": 2, "item_price": 3, "currency": "CHF" }] });
        assert!(words(json!({ "type": "order", "order": order })).contains("2 x T1 at 3 CHF"));
    }

    #[test]
    fn what_has_no_words_is_unreadable_and_news_are_nothing() {
        let unreadable =
            |message| matches!(event(message), Some(Event::Message(Incoming { content: Content::Unreadable, .. })));
        for kind in ["audio", "sticker", "image", "document", "unsupported", "something_new"] {
            assert!(unreadable(json!({ "type": kind, kind: {} })), "{kind}");
        }
        for kind in ["reaction", "system", "request_welcome"] {
            assert_eq!(event(json!({ "type": kind, kind: {} })), None, "{kind}");
        }
        for junk in [
            json!(null),
            json!([]),
            json!({ "entry": {} }),
            json!({ "entry": [{ "changes": [{ "value": { "messages": [5] } }] }] }),
        ] {
            assert_eq!(read_all(&whatsapp(), &junk), [], "{junk}");
        }
        let other_number = json!({ "metadata": { "phone_number_id": "66" }, "messages": [{ "from": "41", "id": "1", "text": { "body": "x" } }] });
        assert_eq!(read_all(&whatsapp(), &json!({ "entry": [{ "changes": [{ "value": other_number }] }] })), []);
    }

    #[test]
    fn answers_that_meta_took_and_refused_later_are_told() {
        let told = |value: Value| undelivered(&whatsapp(), &json!({ "entry": [{ "changes": [{ "value": value }] }] }));
        let failed = |errors: Value| json!({ "id": "w9", "recipient_id": "41", "status": "failed", "errors": errors });
        let late =
            json!({ "code": 131_047, "title": "Re-engagement message", "error_data": { "details": "24 hours" } });
        let bare = json!({ "code": 131_026, "message": "Message undeliverable\u{1b}[2J" });
        let statuses = json!({ "statuses": [{ "status": "sent" }, failed(json!([late])), { "status": "read" }, failed(json!([bare]))] });
        assert_eq!(told(statuses), ["131047, Re-engagement message, 24 hours", "131026, Message undeliverable[2J"]);
        for errors in [json!(null), json!([]), json!([7]), json!({ "code": 1 })] {
            assert_eq!(told(json!({ "statuses": [failed(errors)] })), ["WhatsApp gives no reason"]);
        }
        let long = json!([{ "title": "x".repeat(5000) }]);
        assert_eq!(told(json!({ "statuses": [failed(long)] }))[0].len(), REASON);
        let other = json!({ "metadata": { "phone_number_id": "66" }, "statuses": [failed(json!(null))] });
        assert_eq!(told(other), Vec::<String>::new());
        assert_eq!(told(json!({ "statuses": 5 })), Vec::<String>::new());
    }

    #[test]
    fn edits_deletions_and_groups_are_told_apart() {
        let edit = json!({ "type": "edit", "id": "w2", "edit": { "original_message_id": "w1", "message": { "type": "text", "text": { "body": "new" } } } });
        assert!(matches!(event(edit), Some(Event::Edit { of, message }) if of == "w1" && message.id == "w2"));
        let revoke = json!({ "type": "revoke", "revoke": { "original_message_id": "w1" } });
        assert!(matches!(event(revoke), Some(Event::Delete { of, .. }) if of == "w1"));
        let Some(Event::Message(message)) = event(json!({ "group_id": "G", "text": { "body": "hi" } })) else {
            panic!()
        };
        assert_eq!((message.place.chat.as_str(), message.place.thread.as_deref()), ("G", Some("group")));
    }
}
