//! Telegram: what people send, where answers go, and what stands in the way of both.

use serde_json::{Value, json};

use super::model::Reply;
use super::telegram_server::{Fate, TelegramServer};
use super::world::{World, both, eventually};

async fn start(more: &str) -> (TelegramServer, World) {
    let telegram = TelegramServer::start().await;
    let world = World::paired(&telegram.config(more)).await;
    (telegram, world)
}

async fn first(telegram: &TelegramServer, chat: i64) -> Value {
    eventually(async || telegram.sent(chat).into_iter().next()).await
}

#[tokio::test]
async fn captions_places_and_buttons_are_answered_and_voices_get_one_notice() {
    let (telegram, world) = start("").await;
    telegram.say(1, json!({ "photo": [{}], "caption": "what is this?" }));
    assert!(first(&telegram, 1).await["text"].as_str().unwrap().starts_with("echo: what is this?"));
    telegram.say(2, json!({ "location": { "latitude": 47.5, "longitude": 8.7 } }));
    assert_eq!(first(&telegram, 2).await["text"], "echo: [Location: 47.5, 8.7]");
    let button = json!({ "text": "Yes please", "callback_data": "y" });
    telegram.update(json!({ "callback_query": {
        "id": "q1", "from": { "id": 5 }, "data": "y",
        "message": { "message_id": 3, "chat": { "id": 3, "type": "private" }, "reply_markup": { "inline_keyboard": [[button]] } }
    } }));
    assert_eq!(first(&telegram, 3).await["text"], "echo: Yes please");
    assert_eq!(telegram.asked("answerCallbackQuery"), 1);

    for _ in 0..3 {
        telegram.say(4, json!({ "voice": { "duration": 3 } }));
    }
    telegram.text(4, "in words then");
    eventually(async || telegram.texts(4).contains(&"echo: in words then".to_owned()).then_some(())).await;
    assert_eq!(telegram.texts(4), ["Sorry, I can only read text.", "echo: in words then"]);
    assert_eq!(world.model.calls().len(), 4, "a notice costs nothing");
}

#[tokio::test]
async fn topics_have_conversations_and_answers_of_their_own() {
    let (telegram, world) = start("").await;
    let number = telegram.say(-9, json!({ "text": "seven", "message_thread_id": 7, "is_topic_message": true }));
    eventually(async || (telegram.sent(-9).len() == 1).then_some(())).await;
    telegram.say(-9, json!({ "text": "nine", "message_thread_id": 9, "is_topic_message": true }));
    eventually(async || (telegram.sent(-9).len() == 2).then_some(())).await;
    telegram.say(-9, json!({ "text": "seven again", "message_thread_id": 7, "is_topic_message": true }));
    eventually(async || (telegram.sent(-9).len() == 3).then_some(())).await;
    let topics: Vec<Value> = telegram.sent(-9).iter().map(|body| body["message_thread_id"].clone()).collect();
    assert_eq!(topics, [7, 9, 7]);
    assert_eq!(telegram.sent(-9)[0]["reply_parameters"]["message_id"], number);
    let asked = |n: usize| world.model.calls()[n].body["messages"].to_string();
    assert!(!asked(1).contains("seven"), "topic 9 knows nothing of topic 7");
    assert!(asked(2).contains("echo: seven") && !asked(2).contains("nine"));
}

#[tokio::test]
async fn answers_follow_a_group_that_moved_and_outlive_their_topic() {
    let (telegram, _world) = start("").await;
    telegram.fate(Fate::Moved(-1_007));
    telegram.text(-7, "where are we?");
    let moved = first(&telegram, -1_007).await;
    assert_eq!((&moved["text"], &moved["reply_parameters"]), (&json!("echo: where are we?"), &Value::Null));

    telegram.fate(Fate::NoTopic);
    telegram.say(-8, json!({ "text": "and the topic?", "message_thread_id": 3, "is_topic_message": true }));
    let sent = first(&telegram, -8).await;
    assert_eq!((&sent["text"], &sent["message_thread_id"]), (&json!("echo: and the topic?"), &Value::Null));
    assert_eq!(telegram.asked("sendMessage"), 4, "one more try each");
}

/// The conversation that the model was shown last, without what the system says.
fn shown(world: &World) -> Vec<Value> {
    let calls = world.model.calls();
    let messages = calls.last().unwrap().body["messages"].as_array().unwrap().clone();
    messages.into_iter().filter(|message| message["role"] != "system").collect()
}

#[tokio::test]
async fn history_keeps_what_the_provider_wants_back_over_a_restart_and_is_shortened_when_too_long() {
    const JSON: (&str, &str) = ("content-type", "application/json");
    const THOUGHT: &str =
        r#"{"choices":[{"message":{"content":"four","reasoning_content":"two twos"},"finish_reason":"stop"}]}"#;
    const TOO_LONG: &str = r#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#;
    let (telegram, mut world) = start("").await;
    let answers = async |count| eventually(async || (telegram.sent(5).len() == count).then_some(())).await;
    world.model.script([Reply::Status(200, vec![JSON], THOUGHT)]);
    telegram.text(5, "2+2?");
    answers(1).await;
    world.restart().await;
    telegram.text(5, "and 2+3?");
    answers(2).await;
    let turns = shown(&world);
    assert_eq!(turns.len(), 3);
    assert_eq!((&turns[1]["content"], &turns[1]["reasoning_content"]), (&json!("four"), &json!("two twos")));

    world.model.script([Reply::Status(400, vec![JSON], TOO_LONG)]);
    telegram.text(5, "and 2+4?");
    answers(3).await;
    assert_eq!(shown(&world).len(), 3, "without the older half");
    telegram.text(5, "and 2+5?");
    answers(4).await;
    let questions = shown(&world);
    let questions: Vec<&str> = questions.iter().step_by(2).map(|turn| turn["content"].as_str().unwrap()).collect();
    assert_eq!(questions, ["and 2+3?", "and 2+4?", "and 2+5?"], "what was too long stays left out");
    assert_eq!(world.model.calls().len(), 5);
}

#[tokio::test]
async fn in_groups_with_mention_only_small_talk_costs_nothing() {
    let (telegram, world) = start("mention_only = true").await;
    telegram.text(-9, "hello all");
    telegram.say(-9, json!({ "voice": {} }));
    telegram.text(-9, "what do you think, @ZBot?");
    telegram.say(-9, json!({ "text": "and you?", "reply_to_message": { "from": { "id": 7 }, "text": "earlier" } }));
    telegram.text(5, "in private no name is needed");
    eventually(async || (telegram.sent(-9).len() == 2 && telegram.sent(5).len() == 1).then_some(())).await;
    assert_eq!(telegram.texts(-9), ["echo: what do you think, @ZBot?", "echo: and you?"]);
    assert_eq!(world.model.calls().len(), 3);
}

#[tokio::test]
async fn edits_are_answered_when_the_words_changed() {
    let (telegram, world) = start("").await;
    let number = telegram.say(5, json!({ "text": "2+2" }));
    first(&telegram, 5).await;
    let edited = |text: &str, date: u64| {
        telegram.update(json!({ "edited_message": {
            "message_id": number, "edit_date": date, "text": text, "from": { "id": 5 }, "chat": { "id": 5, "type": "private" }
        } }));
    };
    edited("2+2", 1);
    edited("2+3", 2);
    eventually(async || (telegram.sent(5).len() == 2).then_some(())).await;
    assert_eq!(telegram.texts(5), ["echo: 2+2", "echo: 2+3"]);
    assert_eq!(world.model.calls().len(), 2);
}

#[tokio::test]
async fn a_webhook_in_the_way_is_removed_and_messages_before_it_are_answered() {
    let telegram = TelegramServer::start().await;
    telegram.set_webhook();
    telegram.text(5, "hello");
    let _world = World::new(&telegram.config("")).await;
    assert_eq!(first(&telegram, 5).await["text"], "echo: hello");
    assert_eq!(telegram.asked("deleteWebhook"), 1);
}

#[tokio::test]
async fn rate_limits_and_failures_of_the_platform_delay_answers_but_lose_none() {
    let (telegram, world) = start("").await;
    telegram.fate(Fate::TooMany(0.3));
    telegram.fate(Fate::Status(502));
    telegram.text(5, "hello");
    telegram.text(5, "more");
    eventually(async || (telegram.sent(5).len() == 2).then_some(())).await;
    assert_eq!(telegram.texts(5), ["echo: hello", "echo: more"]);
    assert_eq!(telegram.too_early(), 0, "the pause that was asked for is kept");
    assert_eq!(world.model.calls().len(), 2, "the model is asked once for each");
}

#[tokio::test]
async fn an_answer_that_is_refused_for_good_is_given_up_and_reported() {
    let (telegram, world) = start("").await;
    telegram.fate(Fate::Status(403));
    telegram.text(5, "hello");
    eventually(async || {
        let health = both(world.get("/api/health").send().await.unwrap()).await.1;
        health.to_string().contains("the platform answered 403 (no)").then_some(())
    })
    .await;
    telegram.text(5, "more");
    assert_eq!(first(&telegram, 5).await["text"], "echo: more");
}

#[tokio::test]
async fn a_token_that_is_wrong_is_said_in_health_with_the_remedy() {
    let telegram = TelegramServer::start().await;
    let world = World::new(&telegram.config("").replace("7:planted", "8:other")).await;
    let seen = eventually(async || {
        let health = both(world.get("/health").send().await.unwrap()).await.1.to_string();
        health.contains("does not know the bot token").then_some(health)
    })
    .await;
    assert!(!seen.contains("8:other"), "{seen}");
}

#[tokio::test]
async fn doctor_asks_telegram_and_reports_a_webhook_or_a_wrong_token() {
    let (telegram, world) = start("").await;
    let doctor = async |world: &World| both(world.get("/api/doctor").send().await.unwrap()).await.1.to_string();
    assert!(doctor(&world).await.contains("telegram: @zbot is known"));
    eventually(async || (telegram.asked("getUpdates") > 0).then_some(())).await;
    telegram.set_webhook();
    assert!(doctor(&world).await.contains("a webhook is set"));
    let wrong = World::paired(&telegram.config("").replace("7:planted", "8:planted")).await;
    let said = doctor(&wrong).await;
    assert!(
        said.contains("telegram cannot receive or send messages: the platform does not take the token")
            && !said.contains("8:planted"),
        "{said}"
    );
}
