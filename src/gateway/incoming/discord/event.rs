//! Discord's events, and what each is to us.
//!
//! | Event | |
//! |---|---|
//! | `MESSAGE_CREATE` of a person: words, replies, forwarded messages, polls | text |
//! | the same with files, stickers or a voice message and no words | "I can only read text" |
//! | `MESSAGE_UPDATE` with a time of edition | an edit |
//! | `MESSAGE_DELETE` | a deletion |
//! | system messages (joined, pinned …), what bots and webhooks write, all other events | ignored |
//!
//! A thread is a channel of its own on Discord, and with it a conversation. On servers with `mention_only`, only what
//! mentions the bot or replies to it counts; `@everyone` does not.

use serde_json::Value;

use crate::gateway::channels::{Discord, Place, Platform, permit};
use crate::gateway::incoming::message::{Content, Event, Incoming, with_quote};
use crate::gateway::incoming::webhook::{id, text};

/// Ordinary messages and replies; the other types are what happened on the server.
const WRITTEN: [u64; 2] = [0, 19];
/// The flag of a voice message.
const VOICE: u64 = 1 << 13;

pub(super) fn read(discord: &Discord, bot: &str, kind: &str, data: &Value) -> Option<Event> {
    match kind {
        "MESSAGE_CREATE" => read_message(discord, bot, data).map(Event::Message),
        "MESSAGE_UPDATE" => {
            let mut message = read_message(discord, bot, data)?;
            // Discord itself updates messages too, to add a preview of a link.
            let edited = text(data, "/edited_timestamp");
            let of = message.id.clone();
            message.id = format!("{of}/edit-{edited}");
            (!edited.is_empty()).then_some(Event::Edit { of, message })
        }
        "MESSAGE_DELETE" => Some(Event::Delete { platform: Platform::Discord, of: id(data, "/id")? }),
        _ => None,
    }
}

fn read_message(discord: &Discord, bot: &str, message: &Value) -> Option<Incoming> {
    let author = &message["author"];
    let sender = id(author, "/id")?;
    let written = message["type"].as_u64().is_none_or(|kind| WRITTEN.contains(&kind));
    if author["bot"] == true || message.get("webhook_id").is_some() || !written || sender == bot {
        return None;
    }
    let guild = id(message, "/guild_id");
    if let (Some(guild), Some(only)) = (&guild, &discord.guild_id)
        && guild != only
    {
        return None;
    }
    if guild.is_some() && discord.mention_only && !is_for(bot, message) {
        return None;
    }
    if permit(&discord.allowed_users, &[&sender, text(author, "/username")]).is_err() {
        tracing::warn!(user = sender, "a Discord message from a user who is not allowed was dropped");
        return None;
    }
    let mut content = Content::new(&words(message), attached(message))?;
    let replied_to = &message["referenced_message"];
    if let (Content::Text(words), true) = (&mut content, text(replied_to, "/author/id") != bot) {
        *words = with_quote(words, text(replied_to, "/content"));
    }
    let number = id(message, "/id")?;
    let place = Place { platform: Platform::Discord, chat: id(message, "/channel_id")?, thread: None };
    let quoted = guild.is_some().then(|| number.clone());
    Some(Incoming { id: number, place, quoted, sender, content })
}

/// What a message says, with names in place of ids.
fn words(message: &Value) -> String {
    let forwarded = message["message_snapshots"].as_array().and_then(|all| all.first());
    let forwarded = forwarded.map(|it| text(it, "/message/content")).filter(|words| !words.is_empty());
    let poll = message.get("poll").map(|poll| {
        let answers = poll["answers"].as_array().into_iter().flatten().map(|it| text(it, "/poll_media/text"));
        format!("[Poll: {} {}]", text(poll, "/question/text"), answers.collect::<Vec<_>>().join(" / "))
    });
    let said = text(message, "/content");
    let mut words = match (said.trim().is_empty(), forwarded, poll) {
        (false, _, _) => said.to_owned(),
        (true, Some(forwarded), _) => format!("[Forwarded] {forwarded}"),
        (true, None, poll) => poll.unwrap_or_default(),
    };
    for mentioned in message["mentions"].as_array().into_iter().flatten() {
        let name = format!("@{}", text(mentioned, "/username"));
        for written in ["<@", "<@!"] {
            words = words.replace(&format!("{written}{}>", text(mentioned, "/id")), &name);
        }
    }
    words
}

fn attached(message: &Value) -> Option<&'static str> {
    let some = |key: &str| message[key].as_array().is_some_and(|list| !list.is_empty());
    if message["flags"].as_u64().is_some_and(|flags| flags & VOICE != 0) {
        return Some("a voice message");
    }
    let kinds =
        [("attachments", "a file"), ("sticker_items", "a sticker"), ("message_snapshots", "a forwarded message")];
    kinds.into_iter().find(|(key, _)| some(key)).map(|(_, name)| name).filter(|_| {
        // A forwarded message with words is no attachment.
        some("attachments") || some("sticker_items") || words(message).is_empty()
    })
}

fn is_for(bot: &str, message: &Value) -> bool {
    let mentioned = message["mentions"].as_array().into_iter().flatten().any(|it| text(it, "/id") == bot);
    let said = text(message, "/content");
    mentioned
        || said.contains(&format!("<@{bot}>"))
        || said.contains(&format!("<@!{bot}>"))
        || text(message, "/referenced_message/author/id") == bot
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn discord(more: Value) -> Discord {
        let mut table = json!({ "bot_token": "t", "allowed_users": ["*"] });
        table.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(table).unwrap()
    }

    fn message(more: Value) -> Value {
        let mut message = json!({ "id": "1", "channel_id": "C", "guild_id": "G", "type": 0, "content": "hi", "author": { "id": "5", "username": "ada" } });
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        message
    }

    fn content(more: Value) -> Option<Content> {
        read_message(&discord(json!({})), "7", &message(more)).map(|incoming| incoming.content)
    }

    #[test]
    fn words_replies_forwards_and_polls_are_text() {
        let text = |text: &str| Some(Content::Text(text.into()));
        assert_eq!(content(json!({})), text("hi"));
        assert_eq!(
            content(json!({ "content": "<@9> look", "mentions": [{ "id": "9", "username": "bob" }] })),
            text("@bob look")
        );
        let reply = json!({ "type": 19, "content": "why?", "referenced_message": { "author": { "id": "6" }, "content": "it broke" } });
        assert_eq!(content(reply), text("> it broke\n\nwhy?"));
        let forward = json!({ "content": "", "message_snapshots": [{ "message": { "content": "news" } }] });
        assert_eq!(content(forward), text("[Forwarded] news"));
        let poll = json!({ "content": "", "poll": { "question": { "text": "Tea?" }, "answers": [{ "poll_media": { "text": "yes" } }] } });
        assert_eq!(content(poll), text("[Poll: Tea? yes]"));
        assert!(
            matches!(content(json!({ "attachments": [{}] })), Some(Content::Text(text)) if text.starts_with("hi\n"))
        );
    }

    #[test]
    fn files_alone_are_unreadable_and_bots_and_system_messages_nothing() {
        for more in [
            json!({ "attachments": [{}] }),
            json!({ "sticker_items": [{}] }),
            json!({ "flags": 8192, "attachments": [{}] }),
        ] {
            let mut more = more;
            more["content"] = json!("");
            assert_eq!(content(more), Some(Content::Unreadable));
        }
        for more in [
            json!({ "author": { "id": "5", "bot": true } }),
            json!({ "author": { "id": "7" } }),
            json!({ "webhook_id": "1" }),
            json!({ "type": 7 }),
            json!({ "type": 6 }),
            json!({ "content": "" }),
            json!({ "author": null }),
        ] {
            assert_eq!(content(more.clone()), None, "{more}");
        }
        for kind in ["TYPING_START", "PRESENCE_UPDATE", "MESSAGE_REACTION_ADD", "INTERACTION_CREATE", "GUILD_CREATE"] {
            assert_eq!(read(&discord(json!({})), "7", kind, &message(json!({}))), None, "{kind}");
        }
        assert_eq!(read(&discord(json!({})), "7", "MESSAGE_CREATE", &json!([])), None);
    }

    #[test]
    fn server_list_and_mention_decide_who_is_heard() {
        let only = discord(json!({ "guild_id": "G", "allowed_users": ["ada"], "mention_only": true }));
        let heard = |more| read_message(&only, "7", &message(more)).is_some();
        assert!(
            heard(json!({ "content": "<@7> hi" })) && heard(json!({ "mentions": [{ "id": "7", "username": "z" }] }))
        );
        assert!(heard(json!({ "referenced_message": { "author": { "id": "7" } } })));
        assert!(heard(json!({ "guild_id": null })), "a direct message");
        assert!(!heard(json!({})) && !heard(json!({ "mention_everyone": true, "content": "@everyone" })));
        assert!(!heard(json!({ "content": "<@7> hi", "guild_id": "H" })));
        assert!(!heard(json!({ "content": "<@7> hi", "author": { "id": "6", "username": "eve" } })));
    }

    #[test]
    fn edits_of_people_count_and_previews_do_not() {
        let any = discord(json!({}));
        let edit = |time: Value| read(&any, "7", "MESSAGE_UPDATE", &message(json!({ "edited_timestamp": time })));
        assert!(
            matches!(edit(json!("T1")), Some(Event::Edit { of, message }) if of == "1" && message.id == "1/edit-T1")
        );
        assert_eq!(edit(json!(null)), None);
        assert!(
            matches!(read(&any, "7", "MESSAGE_DELETE", &json!({ "id": "1" })), Some(Event::Delete { of, .. }) if of == "1")
        );
    }
}
