//! Nextcloud Talk by its bot webhooks, signed with the bot's secret over a random text and the body.
//!
//! | Event | |
//! |---|---|
//! | `Create` of a message | text, its placeholders filled in |
//! | `Create` of a shared file or voice message without words | "I can only read text" |
//! | `Activity` (system messages), `Create` of one, `Like`, `Undo`, `Join`, `Leave`, what bots write | ignored |
//!
//! The answer quotes the question, which keeps it in its thread. A bot cannot be mentioned in Talk; with `mention_only`
//! its `bot_name` after an `@` counts, and replies to it.

use axum::Json;
use axum::extract::State;
use serde_json::Value;

use super::message::{Batch, Content, Event, Incoming, mentions, with_quote};
use super::webhook::{accept, id, ignored, payload, text};
use crate::gateway::body::Limited;
use crate::gateway::channels::{NextcloudTalk, Place, Platform, permit, signature};
use crate::gateway::reply::Refusal;
use crate::gateway::shared::App;

const BODY_LIMIT: usize = 1 << 20;

/// `POST /nextcloud-talk`.
pub(in crate::gateway) async fn webhook(
    State(app): State<App>,
    body: Limited<BODY_LIMIT>,
) -> Result<Json<Value>, Refusal> {
    let config = app.config();
    let talk = config.channels_config.nextcloud().map_err(|_| Refusal::NotConfigured("Nextcloud Talk"))?;
    let secret = talk.webhook_secret.as_ref().ok_or(Refusal::BadSignature)?;
    let random = body.header("x-nextcloud-talk-random");
    let signed = body.header("x-nextcloud-talk-signature");
    if random.is_empty() || !signature::verify(secret, &[random.as_bytes(), &body.bytes], signed) {
        tracing::warn!("a Nextcloud Talk webhook with a wrong signature was refused");
        return Err(Refusal::BadSignature);
    }
    match read(talk, &payload(body.header("content-type"), &body.bytes)) {
        Some(incoming) => accept(&app, Batch { events: vec![Event::Message(incoming)], marks: vec![] }).await,
        None => Ok(ignored("event")),
    }
}

/// The message in a payload, if it is one for us.
fn read(talk: &NextcloudTalk, payload: &Value) -> Option<Incoming> {
    let room = text(payload, "/target/id");
    let (kind, name) = (text(payload, "/type"), text(payload, "/object/name"));
    // The name of a system message is what happened; that of messages with files was empty in older servers.
    if kind != "Create" || !matches!(name, "" | "message") || !is_room(room) || is_bot(payload) {
        return None;
    }
    let sender = text(payload, "/actor/id");
    let bare = sender.strip_prefix("users/").or_else(|| sender.strip_prefix("federated_users/"));
    // Display names are not looked at: everybody chooses one's own.
    if permit(&talk.allowed_users, &[sender, bare.unwrap_or_default()]).is_err() {
        tracing::warn!("a Nextcloud Talk message from a user who is not allowed was dropped");
        return None;
    }
    let (words, file) = words(&payload["object"]);
    let answers = &payload["object"]["inReplyTo"];
    if talk.mention_only && !is_bot(answers) && !mentions(&words, &format!("@{}", talk.bot_name.as_deref()?)) {
        return None;
    }
    let mut content = Content::new(&words, file.then_some("a file"))?;
    if let (Content::Text(words), false) = (&mut content, is_bot(answers)) {
        *words = with_quote(words, &self::words(&answers["object"]).0);
    }
    let number = id(payload, "/object/id")?;
    let thread = id(payload, "/object/threadId");
    let place = Place { platform: Platform::NextcloudTalk, chat: room.to_owned(), thread };
    Some(Incoming { id: format!("{room}/{number}"), place, quoted: Some(number), sender: sender.to_owned(), content })
}

fn is_bot(message: &Value) -> bool {
    text(message, "/actor/type") == "Application" || text(message, "/actor/id").starts_with("bots/")
}

/// What a message says, its placeholders filled in, and whether a file came with it.
fn words(object: &Value) -> (String, bool) {
    let content = text(object, "/content");
    let Ok(Value::Object(rich)) = serde_json::from_str(content) else { return (content.to_owned(), false) };
    let message = rich.get("message").and_then(Value::as_str).unwrap_or_default();
    let parameters = rich.get("parameters").and_then(Value::as_object);
    let kind = |name: &str| parameters.and_then(|all| all.get(name)).map(|it| text(it, "/type")).unwrap_or_default();
    let mut filled = String::new();
    let mut file = false;
    let mut rest = message;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let placeholder = after.split_once('}').and_then(|(name, after)| Some((name, after, parameters?.get(name)?)));
        let Some((name, after, value)) = placeholder else {
            filled.push('{');
            rest = after;
            continue;
        };
        let label = text(value, "/name");
        match kind(name) {
            // The name of a file alone says nothing.
            "file" if message.trim() == format!("{{{name}}}") => file = true,
            "file" => (file, filled) = (true, filled + &format!("[file {label}]")),
            "user" | "guest" | "call" | "user-group" | "circle" | "federated_user" => filled += &format!("@{label}"),
            "geo-location" => {
                filled += &format!("[Location: {label}, {}, {}]", text(value, "/latitude"), text(value, "/longitude"))
            }
            _ => filled += label,
        }
        rest = after;
    }
    filled.push_str(rest);
    // With a caption the file is a parameter that the text does not name.
    let unnamed = parameters.is_some_and(|all| all.iter().any(|(name, _)| kind(name) == "file"));
    (filled, file || unnamed)
}

fn is_room(token: &str) -> bool {
    !token.is_empty() && token.len() <= 64 && token.bytes().all(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn talk(more: Value) -> NextcloudTalk {
        let mut table = json!({ "base_url": "http://n", "allowed_users": ["ada"] });
        table.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(table).unwrap()
    }

    fn said(message: &str, parameters: Value) -> Value {
        json!({
            "type": "Create", "actor": { "type": "Person", "id": "users/ada", "name": "Ada" },
            "object": { "type": "Note", "id": "15", "name": "message", "content": json!({ "message": message, "parameters": parameters }).to_string() },
            "target": { "type": "Collection", "id": "room1" }
        })
    }

    fn content(event: &Value) -> Option<Content> {
        read(&talk(json!({})), event).map(|incoming| incoming.content)
    }

    #[test]
    fn placeholders_are_filled_in() {
        let parameters = json!({
            "mention-call1": { "type": "call", "name": "world" }, "mention-user1": { "type": "user", "name": "Bob" },
            "file": { "type": "file", "name": "plan.pdf" }, "object": { "type": "geo-location", "name": "Inn", "latitude": "1", "longitude": "2" }
        });
        let text = |message: &str, parameters: &Value| words(&said(message, parameters.clone())["object"]);
        assert_eq!(
            text(
                "hi {mention-call1} and {mention-user1}!",
                &json!({ "mention-call1": parameters["mention-call1"], "mention-user1": parameters["mention-user1"] })
            ),
            ("hi @world and @Bob!".into(), false)
        );
        assert_eq!(text("{object}", &json!({ "object": parameters["object"] })).0, "[Location: Inn, 1, 2]");
        assert_eq!(text("see {file}", &json!({ "file": parameters["file"] })), ("see [file plan.pdf]".into(), true));
        assert_eq!(text("what is this?", &json!({ "file": parameters["file"] })), ("what is this?".into(), true));
        for odd in ["a { b", "{unknown}", "}{", "{", "json {\"a\": 1}"] {
            assert_eq!(text(odd, &json!([])).0, odd);
        }
    }

    #[test]
    fn files_without_words_are_unreadable_and_everything_else_is_nothing() {
        let file = json!({ "file": { "type": "file", "name": "voice.mp3" } });
        assert_eq!(content(&said("{file}", file)), Some(Content::Unreadable));
        assert_eq!(content(&said("hello", json!([]))), Some(Content::Text("hello".into())));
        for kind in ["Activity", "Like", "Undo", "Join", "Leave", "Update"] {
            let mut event = said("hello", json!([]));
            event["type"] = json!(kind);
            assert_eq!(content(&event), None, "{kind}");
        }
        for (pointer, value) in [
            ("/object/name", json!("call_started")),
            ("/actor/type", json!("Application")),
            ("/actor/id", json!("bots/x")),
            ("/actor/id", json!("guests/ada")),
            ("/target/id", json!("../x")),
        ] {
            let mut event = said("hello", json!([]));
            *event.pointer_mut(pointer).unwrap() = value;
            assert_eq!(content(&event), None, "{pointer}");
        }
        for junk in [
            json!(null),
            json!([]),
            json!({ "type": "Join", "object": { "id": "room1" } }),
            json!({ "type": "Create" }),
        ] {
            assert_eq!(content(&junk), None, "{junk}");
        }
    }

    #[test]
    fn display_names_open_no_door() {
        let mut event = said("hello", json!([]));
        event["actor"] = json!({ "type": "Person", "id": "users/eve", "name": "ada" });
        assert_eq!(content(&event), None);
    }

    #[test]
    fn with_mention_only_its_name_or_a_reply_counts() {
        let talk = talk(json!({ "mention_only": true, "bot_name": "Zed" }));
        assert!(read(&talk, &said("hello", json!([]))).is_none());
        assert!(read(&talk, &said("hello @zed", json!([]))).is_some());
        let mut reply = said("and?", json!([]));
        reply["object"]["inReplyTo"] = json!({ "actor": { "type": "Application", "id": "bots/z" }, "object": { "content": "{\"message\":\"I said\"}" } });
        assert_eq!(read(&talk, &reply).unwrap().content, Content::Text("and?".into()));
    }
}
