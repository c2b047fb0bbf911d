//! Slack's events, and what each is to us.
//!
//! | Event | |
//! |---|---|
//! | `message` without subtype, `thread_broadcast`, `me_message`, `app_mention` | text, or the words of its blocks |
//! | a message that was passed on, with or without words of one's own | text, marked as such |
//! | `message` with files and no words | "I can only read text" |
//! | `message_changed` | an edit |
//! | `message_deleted`, and a change that leaves nothing but the place of a deleted one | a deletion |
//! | pressed buttons and choices (`block_actions`), forms (`view_submission`), slash commands | text |
//! | a message that somebody hands over by its menu (`message_action`) | its text |
//! | other subtypes, what bots and Slack itself write, all other events | ignored |
//!
//! A thread is a conversation of its own, and its answers stay in it. `app_mention` and `message` tell of the same
//! message twice, under the same name.

use serde_json::Value;

use super::markup::{self, plain, said};
use crate::domain::Timestamp;
use crate::gateway::channels::{Place, Platform, Slack, permit};
use crate::gateway::incoming::message::{Content, Event, Incoming};
use crate::gateway::incoming::webhook::text;

/// The user in whose name Slack itself writes: reminders, hints.
const SLACK_ITSELF: &str = "USLACKBOT";

/// Reads an `event_callback` or the payload of an interaction.
pub(super) fn read(slack: &Slack, payload: &Value) -> Option<Event> {
    let Some(event) = payload.get("event") else { return read_interaction(slack, payload).map(Event::Message) };
    let (kind, subtype) = (text(event, "/type"), text(event, "/subtype"));
    let channel = text(event, "/channel");
    let team = text(payload, "/team_id");
    let name = |ts: &str| format!("{team}/{channel}/{ts}");
    match (kind, subtype) {
        ("app_mention", _) | ("message", "" | "file_share" | "thread_broadcast" | "me_message") => {
            let mut incoming = read_message(slack, payload, event, event)?;
            incoming.id = name(text(event, "/ts"));
            Some(Event::Message(incoming))
        }
        ("message", "message_changed") => {
            let message = &event["message"];
            if text(message, "/subtype") == "tombstone" {
                return Some(Event::Delete { platform: Platform::Slack, of: name(text(message, "/ts")) });
            }
            // Slack changes messages by itself, to add a preview of a link.
            if said(message) == said(&event["previous_message"]) {
                return None;
            }
            let mut incoming = read_message(slack, payload, event, message)?;
            let of = name(text(message, "/ts"));
            incoming.id = format!("{of}/edit-{}", text(message, "/edited/ts"));
            Some(Event::Edit { of, message: incoming })
        }
        ("message", "message_deleted") => {
            Some(Event::Delete { platform: Platform::Slack, of: name(text(event, "/deleted_ts")) })
        }
        _ => None,
    }
}

/// A slash command: the words after it.
pub(super) fn read_command(slack: &Slack, form: &Value) -> Option<Event> {
    let words = text(form, "/text");
    let words = if words.trim().is_empty() { text(form, "/command") } else { words };
    let (user, channel) = (text(form, "/user_id"), text(form, "/channel_id"));
    let content = Content::new(&plain(words), None)?;
    let id = format!("command/{}", text(form, "/trigger_id"));
    incoming(slack, user, channel, None, id, content).map(Event::Message)
}

fn read_message(slack: &Slack, payload: &Value, event: &Value, message: &Value) -> Option<Incoming> {
    let user = text(message, "/user");
    if message.get("bot_id").is_some() || user.is_empty() || user == SLACK_ITSELF {
        return None;
    }
    let direct = text(event, "/channel_type") == "im";
    let own = payload["authorizations"].as_array().into_iter().flatten().map(|it| text(it, "/user_id"));
    let is_own = |id: &str| !id.is_empty() && own.clone().any(|own| own == id);
    let words = said(message);
    let mentioned = text(event, "/type") == "app_mention"
        || words
            .match_indices("<@")
            .any(|(at, _)| is_own(words[at + 2..].split(['>', '|']).next().unwrap_or_default()));
    if slack.mention_only && !direct && !mentioned && !is_own(text(message, "/parent_user_id")) {
        return None;
    }
    let content = content(message)?;
    let thread = Some(text(message, "/thread_ts")).filter(|thread| !thread.is_empty());
    incoming(slack, user, text(event, "/channel"), thread, String::new(), content)
}

/// A message with what it passes on.
fn content(message: &Value) -> Option<Content> {
    let (passed_on, passed_files) = passed_on(message);
    let words = [plain(&said(message)), passed_on].map(|words| words.trim().to_owned());
    let words: Vec<String> = words.into_iter().filter(|words| !words.is_empty()).collect();
    let files = message["files"].as_array().is_some_and(|files| !files.is_empty()) || passed_files;
    Content::new(&words.join("\n\n"), files.then_some("a file"))
}

/// The messages that somebody passes on, in words, and whether files came with them. Previews of links look alike but for
/// `is_share`.
fn passed_on(message: &Value) -> (String, bool) {
    let shares = message["attachments"].as_array().into_iter().flatten().filter(|it| it["is_share"] == true);
    let mut said = Vec::new();
    let mut files = false;
    for share in shares {
        let words = [text(share, "/text"), text(share, "/fallback")].into_iter().find(|words| !words.trim().is_empty());
        let author = Some(text(share, "/author_name")).filter(|name| !name.is_empty());
        let by = author.map_or_else(String::new, |author| format!(" from {author}"));
        said.extend(words.map(|words| format!("[Forwarded{by}] {}", plain(words))));
        files |= ["files", "image_url"].iter().any(|key| share.get(*key).is_some());
    }
    (said.join("\n\n"), files)
}

/// Buttons, choices, forms, and what is done with a message by its menu.
fn read_interaction(slack: &Slack, payload: &Value) -> Option<Incoming> {
    let user = text(payload, "/user/id");
    let words = |words: &str| Content::new(&plain(words), None);
    let (content, at) = match text(payload, "/type") {
        "block_actions" | "interactive_message" => {
            let action = payload["actions"].as_array()?.first()?;
            (words(&answer(action))?, text(action, "/action_ts"))
        }
        "view_submission" => {
            let blocks = payload["view"]["state"]["values"].as_object()?;
            let fields = blocks.values().filter_map(Value::as_object).flatten();
            let lines: Vec<String> = fields.map(|(name, field)| format!("{name}: {}", answer(field))).collect();
            (words(&lines.join("\n"))?, text(payload, "/view/id"))
        }
        "message_action" => {
            let at = [text(payload, "/action_ts"), text(payload, "/trigger_id")];
            (content(&payload["message"])?, at.into_iter().find(|at| !at.is_empty())?)
        }
        _ => return None,
    };
    // A form belongs to no channel: its answer is a direct message.
    let channel = [text(payload, "/channel/id"), text(payload, "/container/channel_id"), user];
    let channel = channel.into_iter().find(|id| !id.is_empty())?;
    let threads = [text(payload, "/message/thread_ts"), text(payload, "/container/thread_ts")];
    let thread = threads.into_iter().find(|thread| !thread.is_empty());
    incoming(slack, user, channel, thread, format!("action/{user}/{at}"), content)
}

/// What a person chose or wrote in an element, in Slack's markup. What was chosen is in a field of each kind of element:
/// `selected_option`, `selected_users`, `selected_date` and so on.
fn answer(element: &Value) -> String {
    let fields = element.as_object().into_iter().flatten();
    let chosen = fields.filter(|(key, _)| key.starts_with("selected_")).map(|(_, value)| choice(value));
    let written = ["/text/text", "/value"].map(|pointer| text(element, pointer).to_owned());
    let rich = [markup::of_block(&element["rich_text_value"]), choice(&element["files"])];
    chosen.chain(written).chain(rich).find(|words| !words.is_empty()).unwrap_or_default()
}

/// One choice or several in words: the title rather than the value that is meant for programs.
fn choice(value: &Value) -> String {
    match value {
        Value::String(words) => words.clone(),
        // The only number among them is a moment.
        Value::Number(seconds) => {
            let at = seconds.as_i64().and_then(|seconds| Timestamp::from_second(seconds).ok());
            at.map_or_else(String::new, |at| at.to_string())
        }
        Value::Array(several) => several.iter().map(choice).collect::<Vec<_>>().join(", "),
        Value::Object(_) => {
            let names = ["/text/text", "/value", "/name"].map(|pointer| text(value, pointer));
            names.into_iter().find(|name| !name.is_empty()).unwrap_or_default().to_owned()
        }
        Value::Null | Value::Bool(_) => String::new(),
    }
}

fn incoming(
    slack: &Slack,
    user: &str,
    channel: &str,
    thread: Option<&str>,
    id: String,
    content: Content,
) -> Option<Incoming> {
    let direct = channel.starts_with('D') || channel == user;
    if !direct && slack.channel_id.as_deref().is_some_and(|only| only != channel) {
        return None;
    }
    if permit(&slack.allowed_users, &[user]).is_err() {
        tracing::warn!(user, "a Slack message from a user who is not allowed was dropped");
        return None;
    }
    let place = Place { platform: Platform::Slack, chat: channel.to_owned(), thread: thread.map(str::to_owned) };
    Some(Incoming { id, place, quoted: None, sender: user.to_owned(), content })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slack(more: Value) -> Slack {
        let mut table = json!({ "bot_token": "t", "allowed_users": ["*"] });
        table.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(table).unwrap()
    }

    fn event(more: Value) -> Value {
        let mut event = json!({ "type": "message", "user": "U1", "channel": "C1", "channel_type": "channel", "ts": "1.1", "text": "hi" });
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "type": "event_callback", "team_id": "T", "event": event, "authorizations": [{ "user_id": "UBOT" }] })
    }

    fn message(slack: &Slack, payload: &Value) -> Option<Incoming> {
        match read(slack, payload) {
            Some(Event::Message(incoming)) => Some(incoming),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn messages_are_text_in_their_thread_and_files_alone_are_unreadable() {
        let any = slack(json!({}));
        let said =
            message(&any, &event(json!({ "thread_ts": "0.9", "text": "see <http://x|this> &amp; <#C2|general>" })))
                .unwrap();
        assert_eq!(said.content, Content::Text("see this (http://x) & #general".into()));
        assert_eq!(said.place.thread.as_deref(), Some("0.9"));
        let file = json!({ "subtype": "file_share", "text": "", "files": [{}] });
        assert_eq!(message(&any, &event(file)).unwrap().content, Content::Unreadable);
        let mention = message(&any, &event(json!({ "type": "app_mention" }))).unwrap();
        assert_eq!(mention.id, message(&any, &event(json!({}))).unwrap().id, "the same message, told twice");
    }

    #[test]
    fn messages_that_are_passed_on_are_read_and_previews_of_links_are_not() {
        let any = slack(json!({}));
        let content = |more| message(&any, &event(more)).map(|incoming| incoming.content);
        let text = |text: &str| Some(Content::Text(text.into()));
        let share = json!({ "is_share": true, "is_msg_unfurl": true, "author_name": "Ada", "text": "the build <http://x|broke>" });
        assert_eq!(
            content(json!({ "text": "", "attachments": [share] })),
            text("[Forwarded from Ada] the build broke (http://x)")
        );
        assert_eq!(
            content(json!({ "text": "why?", "attachments": [{ "is_share": true, "fallback": "it broke" }] })),
            text("why?\n\n[Forwarded] it broke")
        );
        let picture = json!({ "text": "", "attachments": [{ "is_share": true, "image_url": "http://x/1.png" }] });
        assert_eq!(content(picture), Some(Content::Unreadable));
        let preview = json!({ "text": "see", "attachments": [{ "is_msg_unfurl": true, "text": "a page" }] });
        assert_eq!(content(preview), text("see"));
        assert_eq!(content(json!({ "text": "", "attachments": [{ "text": "a page" }] })), None);
    }

    #[test]
    fn what_bots_write_and_what_is_no_message_is_nothing() {
        let any = slack(json!({}));
        for more in [
            json!({ "bot_id": "B1" }),
            json!({ "subtype": "bot_message" }),
            json!({ "subtype": "channel_join" }),
            json!({ "subtype": "channel_topic" }),
            json!({ "type": "reaction_added" }),
            json!({ "type": "assistant_thread_started" }),
            json!({ "user": null }),
            json!({ "user": "USLACKBOT", "text": "Reminder: tea" }),
        ] {
            assert_eq!(read(&any, &event(more.clone())), None, "{more}");
        }
        for junk in [
            json!(null),
            json!({}),
            json!({ "event": 5 }),
            json!({ "type": "view_closed" }),
            json!({ "type": "block_actions" }),
        ] {
            assert_eq!(read(&any, &junk), None, "{junk}");
        }
    }

    #[test]
    fn edits_and_deletions_name_their_message() {
        let any = slack(json!({}));
        let changed = |before: &str| {
            json!({ "subtype": "message_changed", "user": null, "previous_message": { "text": before },
            "message": { "user": "U1", "ts": "1.1", "text": "new", "edited": { "ts": "2.0" } } })
        };
        let Some(Event::Edit { of, message }) = read(&any, &event(changed("old"))) else { panic!() };
        assert_eq!((of.as_str(), message.id.as_str()), ("T/C1/1.1", "T/C1/1.1/edit-2.0"));
        assert_eq!(read(&any, &event(changed("new"))), None, "only a preview was added");
        let grave = json!({ "subtype": "message_changed", "previous_message": { "text": "hi" }, "message": {
            "subtype": "tombstone", "user": "USLACKBOT", "text": "This message was deleted.", "ts": "1.1" } });
        assert!(matches!(read(&any, &event(grave)), Some(Event::Delete { of, .. }) if of == "T/C1/1.1"));
        let deleted = event(json!({ "subtype": "message_deleted", "deleted_ts": "1.1" }));
        assert!(matches!(read(&any, &deleted), Some(Event::Delete { of, .. }) if of == "T/C1/1.1"));
    }

    #[test]
    fn buttons_forms_and_commands_are_text() {
        let any = slack(json!({}));
        let button = json!({ "type": "block_actions", "user": { "id": "U1" }, "channel": { "id": "C1" }, "message": { "thread_ts": "0.9" },
            "actions": [{ "text": { "text": "Yes please" }, "value": "y", "action_ts": "3.1" }] });
        let pressed = message(&any, &button).unwrap();
        assert_eq!(
            (pressed.content, pressed.place.thread.as_deref()),
            (Content::Text("Yes please".into()), Some("0.9"))
        );
        let form = json!({ "type": "view_submission", "user": { "id": "U1" }, "view": { "id": "V1", "state": { "values": {
            "b1": { "name": { "type": "plain_text_input", "value": "Ada" } }, "b2": { "day": { "selected_option": { "text": { "text": "Monday" } } } } } } } });
        let sent = message(&any, &form).unwrap();
        assert_eq!((sent.content, sent.place.chat.as_str()), (Content::Text("name: Ada\nday: Monday".into()), "U1"));
        let command =
            json!({ "command": "/ask", "text": "why?", "user_id": "U1", "channel_id": "C1", "trigger_id": "9" });
        assert!(
            matches!(read_command(&any, &command), Some(Event::Message(it)) if it.content == Content::Text("why?".into()))
        );
    }

    #[test]
    fn words_that_are_only_in_blocks_count() {
        let blocks = |words: &str| {
            let elements = json!([{ "type": "user", "user_id": "UBOT" }, { "type": "text", "text": words }]);
            json!([{ "type": "rich_text", "elements": [{ "type": "rich_text_section", "elements": elements }] }])
        };
        let only = slack(json!({ "mention_only": true }));
        let heard = message(&only, &event(json!({ "text": "", "blocks": blocks(" look") }))).unwrap();
        assert_eq!(heard.content, Content::Text("@UBOT look".into()));
        let changed = |before: &str| {
            json!({ "subtype": "message_changed", "user": null, "previous_message": { "blocks": blocks(before) },
                "message": { "user": "U1", "ts": "1.1", "text": "", "blocks": blocks("new"), "edited": { "ts": "2.0" } } })
        };
        assert!(matches!(read(&only, &event(changed("old"))), Some(Event::Edit { .. })));
        assert_eq!(read(&only, &event(changed("new"))), None);
    }

    #[test]
    fn a_message_is_handed_over_by_its_menu() {
        let only = slack(json!({ "mention_only": true, "allowed_users": ["U1"] }));
        let shortcut = |user: &str, said: Value| {
            message(
                &only,
                &json!({ "type": "message_action", "callback_id": "ask", "action_ts": "9.1", "user": { "id": user },
                    "channel": { "id": "C1" }, "message": said }),
            )
        };
        let said =
            json!({ "user": "U2", "ts": "8.1", "thread_ts": "7.1", "text": "is it <http://x|this> &amp; that?" });
        let handed = shortcut("U1", said.clone()).unwrap();
        assert_eq!(handed.content, Content::Text("is it this (http://x) & that?".into()));
        assert_eq!((handed.place.chat.as_str(), handed.place.thread.as_deref()), ("C1", Some("7.1")));
        assert_eq!((handed.sender.as_str(), handed.id.as_str()), ("U1", "action/U1/9.1"));
        assert_eq!(shortcut("U2", said), None, "who asks must be allowed");
        let section = json!({ "type": "section", "text": { "type": "mrkdwn", "text": "5 failed" } });
        let of_bot = json!({ "bot_id": "B1", "text": "", "blocks": [section] });
        assert_eq!(shortcut("U1", of_bot).unwrap().content, Content::Text("5 failed".into()));
        assert_eq!(shortcut("U1", json!({ "text": "", "files": [{}] })).unwrap().content, Content::Unreadable);
        assert_eq!(shortcut("U1", json!({ "text": "" })), None);
    }

    #[test]
    fn every_kind_of_choice_is_read() {
        for (element, words) in [
            (json!({ "type": "static_select", "selected_option": { "text": { "text": "Tea" }, "value": "t" } }), "Tea"),
            (json!({ "type": "users_select", "selected_user": "U7" }), "U7"),
            (json!({ "type": "multi_users_select", "selected_users": ["U7", "U8"] }), "U7, U8"),
            (json!({ "type": "conversations_select", "selected_conversation": "G1" }), "G1"),
            (json!({ "type": "multi_channels_select", "selected_channels": ["C1"] }), "C1"),
            (json!({ "type": "datepicker", "selected_date": "2026-12-24" }), "2026-12-24"),
            (json!({ "type": "timepicker", "selected_time": "18:00" }), "18:00"),
            (json!({ "type": "datetimepicker", "selected_date_time": 1_798_135_200 }), "2026-12-24T18:00:00Z"),
            (json!({ "type": "select", "selected_options": [{ "value": "a" }, { "value": "b" }] }), "a, b"),
            (json!({ "type": "email_text_input", "value": "ada@example.org" }), "ada@example.org"),
            (json!({ "type": "file_input", "files": [{ "name": "plan.pdf" }] }), "plan.pdf"),
            (
                json!({ "type": "rich_text_input", "rich_text_value": { "type": "rich_text", "elements": [
                { "type": "rich_text_section", "elements": [{ "type": "text", "text": "deep" }] }] } }),
                "deep",
            ),
            (json!({ "type": "users_select", "selected_user": null }), ""),
            (json!(5), ""),
        ] {
            assert_eq!(answer(&element), words, "{element}");
        }
    }

    #[test]
    fn channel_list_and_mention_decide_who_is_heard() {
        let only = slack(json!({ "channel_id": "C1", "allowed_users": ["U1"], "mention_only": true }));
        let heard = |more| message(&only, &event(more)).is_some();
        assert!(heard(json!({ "text": "<@UBOT> hi" })) && heard(json!({ "text": "<@UBOT|zed> hi" })));
        assert!(heard(json!({ "type": "app_mention" })));
        assert!(heard(json!({ "channel": "D9", "channel_type": "im" })));
        assert!(heard(json!({ "parent_user_id": "UBOT", "thread_ts": "0.1" })));
        assert!(!heard(json!({})) && !heard(json!({ "text": "<@U2> hi" })));
        assert!(!heard(json!({ "text": "<@UBOT> hi", "channel": "C2" })));
        assert!(!heard(json!({ "text": "<@UBOT> hi", "user": "U2" })));
    }
}
