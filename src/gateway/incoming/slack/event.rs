//! Slack's events, and what each is to us.
//!
//! | Event | |
//! |---|---|
//! | `message` without subtype, `thread_broadcast`, `me_message`, `app_mention` | text |
//! | a message that was passed on, with or without words of one's own | text, marked as such |
//! | `message` with files and no words | "I can only read text" |
//! | `message_changed` | an edit |
//! | `message_deleted`, and a change that leaves nothing but the place of a deleted one | a deletion |
//! | pressed buttons and choices (`block_actions`), forms (`view_submission`), slash commands | text |
//! | other subtypes, what bots and Slack itself write, all other events | ignored |
//!
//! A thread is a conversation of its own, and its answers stay in it. `app_mention` and `message` tell of the same
//! message twice, under the same name.

use serde_json::Value;

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
            if text(message, "/text") == text(event, "/previous_message/text") {
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
    let words = text(message, "/text");
    let mentioned = text(event, "/type") == "app_mention"
        || words
            .match_indices("<@")
            .any(|(at, _)| is_own(words[at + 2..].split(['>', '|']).next().unwrap_or_default()));
    if slack.mention_only && !direct && !mentioned && !is_own(text(message, "/parent_user_id")) {
        return None;
    }
    let (passed_on, passed_files) = passed_on(message);
    let has_files = |of: &Value| of["files"].as_array().is_some_and(|files| !files.is_empty());
    let words = [plain(words), passed_on].map(|words| words.trim().to_owned()).into_iter().filter(|it| !it.is_empty());
    let files = has_files(message) || passed_files;
    let content = Content::new(&words.collect::<Vec<_>>().join("\n\n"), files.then_some("a file"))?;
    let thread = Some(text(message, "/thread_ts")).filter(|thread| !thread.is_empty());
    incoming(slack, user, text(event, "/channel"), thread, String::new(), content)
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

/// Buttons, choices and forms.
fn read_interaction(slack: &Slack, payload: &Value) -> Option<Incoming> {
    let user = text(payload, "/user/id");
    let (words, at) = match text(payload, "/type") {
        "block_actions" | "interactive_message" => {
            let action = payload["actions"].as_array()?.first()?;
            (answer(action), text(action, "/action_ts"))
        }
        "view_submission" => {
            let blocks = payload["view"]["state"]["values"].as_object()?;
            let fields = blocks.values().filter_map(Value::as_object).flatten();
            let lines: Vec<String> = fields.map(|(name, field)| format!("{name}: {}", answer(field))).collect();
            (lines.join("\n"), text(payload, "/view/id"))
        }
        _ => return None,
    };
    let content = Content::new(&plain(&words), None)?;
    // A form belongs to no channel: its answer is a direct message.
    let channel = [text(payload, "/channel/id"), text(payload, "/container/channel_id"), user];
    let channel = channel.into_iter().find(|id| !id.is_empty())?;
    let threads = [text(payload, "/message/thread_ts"), text(payload, "/container/thread_ts")];
    let thread = threads.into_iter().find(|thread| !thread.is_empty());
    incoming(slack, user, channel, thread, format!("action/{user}/{at}"), content)
}

/// What a person chose or wrote in an element: its title rather than the value that is meant for programs.
fn answer(element: &Value) -> String {
    let chosen = [
        "/selected_option/text/text",
        "/text/text",
        "/selected_date",
        "/selected_time",
        "/selected_user",
        "/selected_channel",
        "/value",
    ];
    let many = element["selected_options"].as_array().into_iter().flatten().map(|option| text(option, "/text/text"));
    let many = many.collect::<Vec<_>>().join(", ");
    let one = chosen.iter().map(|pointer| text(element, pointer)).find(|text| !text.is_empty());
    one.map_or(many, str::to_owned)
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

/// Slack's markup as plain text: `<http://x|name>` is a link, `<#C1|general>` a channel, `&lt;` a `<`.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        plain.push_str(before);
        let Some((inside, after)) = after.split_once('>') else {
            plain.push('<');
            rest = after;
            continue;
        };
        let (target, label) = inside.split_once('|').unwrap_or((inside, ""));
        let name = |target: &str, label: &str| if label.is_empty() { target.to_owned() } else { label.to_owned() };
        match target.chars().next() {
            Some('@') => plain += &format!("@{}", name(&target[1..], label)),
            Some('#') => plain += &format!("#{}", name(&target[1..], label)),
            Some('!') => plain += &format!("@{}", name(&target[1..], label)),
            _ if label.is_empty() || label == target => plain.push_str(target),
            _ => plain += &format!("{label} ({target})"),
        }
        rest = after;
    }
    plain.push_str(rest);
    plain.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
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
