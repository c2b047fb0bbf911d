//! Telegram's updates, and what each is to us.
//!
//! | Update | |
//! |---|---|
//! | `message` with text, caption, contact, location, venue, poll, checklist, dice, `web_app_data` | text |
//! | `message` with voice, audio, video, photo, document, sticker, story … and no caption | "I can only read text" |
//! | `message` of an album | one message: the one with the caption |
//! | `message` of an administrator who stays anonymous, or in the name of a channel | as of a person, whose id is the chat's |
//! | `message` of the service kind (joined, pinned, topic made …), of a bot, copied from the group's channel | ignored |
//! | `edited_message` | an edit |
//! | `callback_query` | the title of the pressed button as text |
//! | all others | ignored |
//!
//! A topic is a conversation of its own. In groups with `mention_only`, only what mentions the bot or replies to it counts.

use serde_json::Value;

use crate::gateway::channels::{Place, Platform, Telegram, permit};
use crate::gateway::incoming::message::{Content, Event, Incoming, mentions, with_quote};
use crate::gateway::incoming::webhook::{id, text};

/// Who the bot is, by `getMe`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::gateway::incoming) struct Bot {
    pub(in crate::gateway::incoming) id: i64,
    pub(in crate::gateway::incoming) username: String,
}

/// What comes without words, with its name in a sentence. A photo sent as an animation is a document as well.
const ATTACHMENTS: [(&str, &str); 11] = [
    ("photo", "a photo"),
    ("voice", "a voice message"),
    ("audio", "an audio file"),
    ("video", "a video"),
    ("video_note", "a video message"),
    ("animation", "an animation"),
    ("sticker", "a sticker"),
    ("document", "a file"),
    ("story", "a story"),
    ("paid_media", "paid media"),
    ("game", "a game"),
];

/// The events of a batch of updates. Of an album the member with the caption comes first: it stands for all.
pub(super) fn read_all(telegram: &Telegram, bot: &Bot, updates: &[Value]) -> Vec<Event> {
    let mut updates: Vec<&Value> = updates.iter().collect();
    let silent_member =
        |update: &Value| update["message"]["media_group_id"].is_string() && text(update, "/message/caption").is_empty();
    updates.sort_by_key(|update| silent_member(update));
    updates.into_iter().filter_map(|update| read(telegram, bot, update)).collect()
}

fn read(telegram: &Telegram, bot: &Bot, update: &Value) -> Option<Event> {
    if let Some(message) = update.get("message") {
        return Some(Event::Message(read_message(telegram, bot, message, &message["from"])?));
    }
    if let Some(message) = update.get("edited_message") {
        let mut incoming = read_message(telegram, bot, message, &message["from"])?;
        let of = incoming.id.clone();
        incoming.id = format!("{of}/edit-{}", id(message, "/edit_date").unwrap_or_default());
        return Some(Event::Edit { of, message: incoming });
    }
    read_button(telegram, update.get("callback_query")?).map(Event::Message)
}

fn read_message(telegram: &Telegram, bot: &Bot, message: &Value, from: &Value) -> Option<Incoming> {
    // Every post of the channel would be a question to the bot in the group that discusses it.
    if message["is_automatic_forward"] == true {
        return None;
    }
    let sender = sender(telegram, from, &message["sender_chat"])?;
    let place = place(message)?;
    let in_private = text(message, "/chat/type") == "private" || !message["chat"]["type"].is_string();
    let spoken = spoken(message);
    if !in_private && telegram.mention_only && !is_for(bot, message, &spoken) {
        return None;
    }
    let attached = ATTACHMENTS.into_iter().find(|(key, _)| message.get(key).is_some()).map(|(_, name)| name);
    let mut content = Content::new(&spoken, attached)?;
    if let (Content::Text(words), Some(quoted)) = (&mut content, quoted(bot, message)) {
        *words = with_quote(words, &quoted);
    }
    let number = id(message, "/message_id")?;
    // The members of an album are one message.
    let name = message["media_group_id"].as_str().map_or(number.clone(), |album| format!("album-{album}"));
    Some(Incoming {
        id: format!("{}/{}/{name}", telegram.bot_id(), place.chat),
        quoted: (!in_private).then_some(number),
        place,
        sender,
        content,
    })
}

/// A pressed button: its title, for its data is meant for programs.
fn read_button(telegram: &Telegram, query: &Value) -> Option<Incoming> {
    let message = query.get("message")?;
    let sender = sender(telegram, &query["from"], &Value::Null)?;
    let data = text(query, "/data");
    let rows = message["reply_markup"]["inline_keyboard"].as_array().into_iter().flatten();
    let mut buttons = rows.filter_map(Value::as_array).flatten();
    let title =
        buttons.find(|button| text(button, "/callback_data") == data).map_or(data, |button| text(button, "/text"));
    let content = Content::new(title, None)?;
    let id = format!("{}/button-{}", telegram.bot_id(), id(query, "/id")?);
    Some(Incoming { id, place: place(message)?, quoted: None, sender, content })
}

/// A person who may write.
///
/// Telegram puts a bot in the place of people who stay anonymous (1087968824) or write in the name of a channel (136817688):
/// it is the chat that they write for which is allowed or not.
fn sender(telegram: &Telegram, from: &Value, chat: &Value) -> Option<String> {
    const STAND_INS: [i64; 2] = [1_087_968_824, 136_817_688];
    let hidden = from["id"].as_i64().is_some_and(|id| STAND_INS.contains(&id)) && chat.is_object();
    if from["is_bot"] == true && !hidden {
        return None;
    }
    let from = if hidden { chat } else { from };
    let sender = id(from, "/id")?;
    if permit(&telegram.allowed_users, &[&sender, text(from, "/username")]).is_err() {
        tracing::warn!(user = sender, "a Telegram message from a user who is not allowed was dropped");
        return None;
    }
    Some(sender)
}

fn place(message: &Value) -> Option<Place> {
    // Outside of topics the field names a chain of replies, which is no place of its own.
    let in_topic = message["is_topic_message"] == true;
    let thread = id(message, "/message_thread_id").filter(|_| in_topic);
    Some(Place { platform: Platform::Telegram, chat: id(message, "/chat/id")?, thread })
}

/// What a message says in words.
fn spoken(message: &Value) -> String {
    for said in ["/text", "/caption", "/web_app_data/data"] {
        if !text(message, said).trim().is_empty() {
            return text(message, said).to_owned();
        }
    }
    if let Some(venue) = message.get("venue") {
        return format!("[Place: {}, {}]", text(venue, "/title"), text(venue, "/address"));
    }
    if let Some(location) = message.get("location") {
        return format!("[Location: {}, {}]", location["latitude"], location["longitude"]);
    }
    if let Some(contact) = message.get("contact") {
        let name = format!("{} {}", text(contact, "/first_name"), text(contact, "/last_name"));
        return format!("[Contact: {}, {}]", name.trim(), text(contact, "/phone_number"));
    }
    if let Some(poll) = message.get("poll") {
        let options = poll["options"].as_array().into_iter().flatten().map(|option| text(option, "/text"));
        return format!("[Poll: {} {}]", text(poll, "/question"), options.collect::<Vec<_>>().join(" / "));
    }
    if let Some(list) = message.get("checklist") {
        let tasks = list["tasks"].as_array().into_iter().flatten().map(|task| {
            let done = task.get("completion_date").is_some_and(|date| date.as_i64().is_some_and(|date| date > 0));
            format!("- [{}] {}", if done { "x" } else { " " }, text(task, "/text"))
        });
        return format!("[Checklist: {}]\n{}", text(list, "/title"), tasks.collect::<Vec<_>>().join("\n"));
    }
    message.get("dice").map(|dice| format!("[{} {}]", text(dice, "/emoji"), dice["value"])).unwrap_or_default()
}

/// Whether a message of a group is meant for the bot.
fn is_for(bot: &Bot, message: &Value, spoken: &str) -> bool {
    let at_name = format!("@{}", bot.username);
    let replied_to = &message["reply_to_message"];
    // In a topic every message replies to the one that made the topic.
    let replies = replied_to["from"]["id"].as_i64() == Some(bot.id) && replied_to.get("forum_topic_created").is_none();
    let entities = ["entities", "caption_entities"].map(|key| message[key].as_array().into_iter().flatten());
    let named = entities.into_iter().flatten().any(|entity| entity["user"]["id"].as_i64() == Some(bot.id));
    // `/ask@bot`: in groups a command names the bot that it is for.
    let commanded = spoken.split_whitespace().next().and_then(|word| word.strip_prefix('/')?.split_once('@'));
    let commanded = commanded.is_some_and(|(_, name)| name.eq_ignore_ascii_case(&bot.username));
    replies || named || (!bot.username.is_empty() && (commanded || mentions(spoken, &at_name)))
}

/// What a message replies to or quotes, unless the bot said it: that is in the conversation already.
fn quoted(bot: &Bot, message: &Value) -> Option<String> {
    let replied_to = message.get("reply_to_message").filter(|it| it.get("forum_topic_created").is_none());
    let picked = text(message, "/quote/text");
    if !picked.is_empty() {
        return Some(picked.to_owned());
    }
    replied_to.filter(|it| it["from"]["id"].as_i64() != Some(bot.id)).map(spoken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn telegram(mention_only: bool) -> Telegram {
        serde_json::from_value(json!({ "bot_token": "7:t", "allowed_users": ["*"], "mention_only": mention_only }))
            .unwrap()
    }

    fn bot() -> Bot {
        Bot { id: 7, username: "ZBot".into() }
    }

    fn say(more: Value) -> Value {
        let mut message = json!({ "message_id": 3, "from": { "id": 5 }, "chat": { "id": 9, "type": "private" } });
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        message
    }

    fn content(message: Value) -> Option<Content> {
        read_message(&telegram(false), &bot(), &message, &message["from"]).map(|incoming| incoming.content)
    }

    fn words(message: Value) -> String {
        match content(message) {
            Some(Content::Text(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn words_are_text_in_every_form() {
        assert_eq!(words(say(json!({ "text": "hi" }))), "hi");
        assert!(words(say(json!({ "photo": [], "caption": "what?" }))).starts_with("what?\n"));
        assert_eq!(words(say(json!({ "location": { "latitude": 47.5, "longitude": 8 } }))), "[Location: 47.5, 8]");
        assert!(
            words(say(json!({ "venue": { "title": "Inn", "address": "A 1" }, "location": {} }))).contains("Inn, A 1")
        );
        assert!(words(say(json!({ "contact": { "first_name": "Ada", "phone_number": "+1" } }))).contains("Ada, +1"));
        assert!(
            words(say(json!({ "poll": { "question": "Tea?", "options": [{ "text": "yes" }, { "text": "no" }] } })))
                .contains("yes / no")
        );
        let tasks = json!([{ "id": 1, "text": "milk", "completion_date": 5 }, { "id": 2, "text": "tea" }]);
        assert_eq!(
            words(say(json!({ "checklist": { "title": "Shop", "tasks": tasks } }))),
            "[Checklist: Shop]\n- [x] milk\n- [ ] tea"
        );
        assert_eq!(words(say(json!({ "dice": { "emoji": "🎲", "value": 4 } }))), "[🎲 4]");
        let reply = json!({ "text": "why?", "reply_to_message": { "from": { "id": 6 }, "text": "it broke" } });
        assert_eq!(words(say(reply)), "> it broke\n\nwhy?");
        let own = json!({ "text": "why?", "reply_to_message": { "from": { "id": 7 }, "text": "I said" } });
        assert_eq!(words(say(own)), "why?");
    }

    #[test]
    fn what_has_no_words_is_unreadable_and_service_messages_are_nothing() {
        for (key, _) in ATTACHMENTS {
            assert_eq!(content(say(json!({ key: {} }))), Some(Content::Unreadable), "{key}");
        }
        for key in
            ["new_chat_members", "pinned_message", "forum_topic_created", "migrate_to_chat_id", "video_chat_started"]
        {
            assert_eq!(content(say(json!({ key: {} }))), None, "{key}");
        }
        assert_eq!(content(say(json!({ "text": "hi", "from": { "id": 5, "is_bot": true } }))), None);
        assert_eq!(content(say(json!({ "text": "hi", "from": null }))), None, "a post of a channel");
        for junk in [
            json!(null),
            json!({}),
            json!({ "message": 5 }),
            json!({ "message": { "chat": {} } }),
            json!({ "poll_answer": {} }),
        ] {
            assert_eq!(read(&telegram(false), &bot(), &junk), None, "{junk}");
        }
    }

    #[test]
    fn people_behind_a_chat_are_heard_as_that_chat_and_copies_of_a_channel_are_not() {
        let group = json!({ "id": -9, "type": "supergroup" });
        let channel = json!({ "id": -8, "type": "channel", "username": "News" });
        let anonymous = json!({ "id": 1_087_968_824, "is_bot": true, "username": "GroupAnonymousBot" });
        let as_channel = json!({ "id": 136_817_688, "is_bot": true, "username": "Channel_Bot" });
        let said =
            |from: &Value, chat: &Value| say(json!({ "text": "hi", "from": from, "sender_chat": chat, "chat": group }));
        let heard = |users: Value, message: &Value| {
            let telegram: Telegram =
                serde_json::from_value(json!({ "bot_token": "7:t", "allowed_users": users })).unwrap();
            read_message(&telegram, &bot(), message, &message["from"]).map(|incoming| incoming.sender)
        };
        assert_eq!(heard(json!(["*"]), &said(&anonymous, &group)).as_deref(), Some("-9"));
        assert_eq!(heard(json!(["-9"]), &said(&anonymous, &group)).as_deref(), Some("-9"));
        assert_eq!(heard(json!(["@news"]), &said(&as_channel, &channel)).as_deref(), Some("-8"));
        assert_eq!(heard(json!(["5", "GroupAnonymousBot"]), &said(&anonymous, &group)), None, "it is everybody's name");
        assert_eq!(heard(json!(["*"]), &said(&anonymous, &Value::Null)), None);
        assert_eq!(heard(json!(["*"]), &said(&json!({ "id": 6, "is_bot": true }), &group)), None, "a bot all the same");
        let mut copy = said(&json!({ "id": 777_000, "is_bot": false }), &channel);
        copy["is_automatic_forward"] = json!(true);
        assert_eq!(heard(json!(["*"]), &copy), None);
    }

    #[test]
    fn topics_are_places_and_chains_of_replies_are_not() {
        let at = |more| place(&say(more)).unwrap().thread;
        assert_eq!(at(json!({ "message_thread_id": 8, "is_topic_message": true })).as_deref(), Some("8"));
        assert_eq!(at(json!({ "message_thread_id": 8 })), None);
    }

    #[test]
    fn in_groups_only_what_is_for_the_bot_counts_when_asked_for() {
        let group = json!({ "id": -9, "type": "supergroup" });
        let heard = |more: Value| {
            let mut message = say(more);
            message["chat"] = group.clone();
            read_message(&telegram(true), &bot(), &message, &message["from"]).is_some()
        };
        assert!(heard(json!({ "text": "hello @zbot" })) && heard(json!({ "text": "/ask@zbot now" })));
        assert!(heard(json!({ "caption": "@ZBOT?", "photo": [] })));
        assert!(heard(json!({ "text": "you", "entities": [{ "type": "text_mention", "user": { "id": 7 } }] })));
        assert!(heard(json!({ "text": "and?", "reply_to_message": { "from": { "id": 7 } } })));
        assert!(heard(json!({ "voice": {}, "reply_to_message": { "from": { "id": 7 } } })));
        for small_talk in [
            json!({ "text": "hello" }),
            json!({ "text": "@zbottle" }),
            json!({ "voice": {} }),
            json!({ "text": "x", "reply_to_message": { "from": { "id": 6 } } }),
            json!({ "text": "x", "reply_to_message": { "from": { "id": 7 }, "forum_topic_created": {} } }),
        ] {
            assert!(!heard(small_talk.clone()), "{small_talk}");
        }
    }

    #[test]
    fn albums_are_one_message_and_the_caption_stands_for_it() {
        let member = |n: u64, caption: &str| json!({ "update_id": n, "message": say(json!({ "message_id": n, "media_group_id": "A", "photo": [], "caption": caption })) });
        let events = read_all(&telegram(false), &bot(), &[member(1, ""), member(2, "look"), member(3, "")]);
        let messages: Vec<_> = events
            .iter()
            .map(|event| match event {
                Event::Message(message) => message,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(matches!(&messages[0].content, Content::Text(text) if text.starts_with("look")));
        assert!(messages.iter().all(|message| message.id == messages[0].id));
    }

    #[test]
    fn edits_and_buttons_are_read() {
        let edited = json!({ "edited_message": say(json!({ "text": "hi", "edit_date": 77 })) });
        let Some(Event::Edit { of, message }) = read(&telegram(false), &bot(), &edited) else { panic!() };
        assert_eq!((of.as_str(), message.id.as_str()), ("7/9/3", "7/9/3/edit-77"));
        let keyboard =
            json!([[{ "text": "Yes please", "callback_data": "y" }, { "text": "No", "callback_data": "n" }]]);
        let mut message = say(json!({ "reply_markup": { "inline_keyboard": keyboard } }));
        message["from"] = json!({ "id": 7, "is_bot": true });
        let pressed = json!({ "callback_query": { "id": "q1", "from": { "id": 5 }, "data": "y", "message": message } });
        let Some(Event::Message(incoming)) = read(&telegram(false), &bot(), &pressed) else { panic!() };
        assert_eq!(incoming.content, Content::Text("Yes please".into()));
    }
}
