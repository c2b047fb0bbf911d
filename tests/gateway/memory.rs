//! `/api/memory` and `auto_save`.

use serde_json::{Value, json};

use super::world::{World, both, eventually};

async fn entries(world: &World, query: &str) -> Vec<Value> {
    let (status, body) = both(world.get(&format!("/api/memory{query}")).send().await.unwrap()).await;
    assert_eq!(status, 200);
    body["entries"].as_array().unwrap().clone()
}

async fn store(world: &World, body: Value) -> u16 {
    world.post("/api/memory").json(&body).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn entries_are_stored_found_and_deleted_in_every_backend() {
    for backend in ["sqlite", "markdown"] {
        let mut world = World::paired(&format!("[memory]\nbackend = \"{backend}\"\nauto_save = false\n")).await;
        assert_eq!(
            store(&world, json!({ "key": "tea time/1", "content": "Ada likes green tea", "category": "core" })).await,
            200
        );
        assert_eq!(store(&world, json!({ "key": "bike", "content": "red", "category": "things" })).await, 200);
        assert_eq!(store(&world, json!({ "key": "", "content": "x" })).await, 400);
        assert_eq!(store(&world, json!({ "key": "x" })).await, 400);
        world.restart().await;
        assert_eq!(entries(&world, "").await.len(), 2, "{backend}");
        let found = entries(&world, "?query=GREEN").await;
        assert_eq!((found.len(), &found[0]["key"], &found[0]["category"]), (1, &json!("tea time/1"), &json!("core")));
        assert_eq!(entries(&world, "?category=things").await[0]["content"], "red");
        let gone = both(world.request("DELETE", "/api/memory/tea%20time%2F1").send().await.unwrap()).await.1;
        assert_eq!(gone, json!({ "status": "ok", "deleted": true }));
        let again = both(world.request("DELETE", "/api/memory/tea%20time%2F1").send().await.unwrap()).await.1;
        assert_eq!(again, json!({ "status": "ok", "deleted": false }));
    }
}

#[tokio::test]
async fn messages_are_saved_when_wished_and_not_otherwise() {
    let world = World::paired("").await;
    world.say("the answer is 42").await;
    let saved = eventually(async || entries(&world, "?category=conversation").await.into_iter().next()).await;
    assert_eq!(saved["content"], "the answer is 42");
    assert!(saved["key"].as_str().unwrap().starts_with("webhook_msg_"));

    let silent = World::paired("[memory]\nbackend = \"sqlite\"\nauto_save = false\n").await;
    silent.say("hush").await;
    assert!(entries(&silent, "").await.is_empty());
    let none = World::paired("[memory]\nbackend = \"none\"\n").await;
    assert_eq!(store(&none, json!({ "key": "k", "content": "c" })).await, 200);
    assert!(entries(&none, "").await.is_empty());
}

#[tokio::test]
async fn a_disk_that_fails_is_said_and_messages_are_still_answered() {
    let world = World::paired("").await;
    // A file where the folder should be: no database can be made.
    std::fs::write(world.workspace().join("memory"), "in the way").unwrap();
    let (status, body) = both(world.get("/api/memory").send().await.unwrap()).await;
    assert_eq!((status.as_u16(), &body["error"]), (500, &json!("The memory cannot be used; see the log")));
    assert_eq!(world.say("hi").await.0, 200);
    std::fs::remove_file(world.workspace().join("memory")).unwrap();
    assert!(entries(&world, "").await.len() <= 1, "it can be used again");
}

#[tokio::test]
async fn what_was_answered_is_remembered_and_paid_for_although_the_gateway_stops_at_once() {
    let mut world = World::paired("").await;
    for number in 0..5 {
        world.say(&format!("message {number}")).await;
    }
    world.restart().await;
    assert_eq!(entries(&world, "?category=conversation").await.len(), 5);
    let cost = both(world.get("/api/cost").send().await.unwrap()).await.1;
    assert_eq!(cost["cost"]["request_count"], 5);
}

/// What the model was last told to remember.
fn recalled(world: &World) -> String {
    let calls = world.model.calls();
    let system = calls.last().unwrap().body["messages"][0]["content"].as_str().unwrap().to_owned();
    system.split_once("What you remember:").map(|(_, rest)| rest.to_owned()).unwrap_or_default()
}

async fn chat(world: &World, session: Option<&str>, message: &str) {
    let mut request = world.post("/api/chat").json(&json!({ "message": message }));
    if let Some(session) = session {
        request = request.header("X-Session-Id", session);
    }
    assert_eq!(request.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_message_of_one_repeated_word_costs_no_more_than_another() {
    let mut world = World::paired("").await;
    store(&world, json!({ "key": "tea", "content": "Ada likes a green tea" })).await;
    for word in ["a ", "茶", "tea, ", "🫖 "] {
        let message = word.repeat(60_000 / word.len());
        chat(&world, None, &message).await;
        entries(&world, "?query=tea%20tea%20tea").await;
    }
    // The last message is being stored, and the gateway ends all the same.
    world.stop().await;
}

#[tokio::test]
async fn notes_are_found_in_any_script_by_search_and_in_the_prompt() {
    for backend in ["sqlite", "markdown"] {
        let world = World::paired(&format!("[memory]\nbackend = \"{backend}\"\nauto_save = false\n")).await;
        for (number, (text, query)) in [
            ("그는 화요일에 서울로 간다", "화요일"),
            ("東京タワーの近くに住んでいます", "タワー"),
            ("ລາວມັກກາແຟ", "ກາແຟ"),
            ("Zoë était à l'hôpital", "hopital"),
            ("Встреча у Ёлки", "елки"),
            ("मुझे चाय पसंद है", "चाय"),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(store(&world, json!({ "key": format!("k{number}"), "content": text })).await, 200);
            let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let found = entries(&world, &format!("?query={encoded}")).await;
            assert_eq!(found[0]["content"], text, "{query} by search in {backend}");
            chat(&world, None, &format!("{query}?")).await;
            assert!(recalled(&world).contains(text), "{query} in the prompt with {backend}");
        }
    }
}

#[tokio::test]
async fn a_session_is_not_told_what_was_said_in_another() {
    let world = World::paired("").await;
    store(&world, json!({ "key": "colour", "content": "The boat is blue" })).await;
    chat(&world, Some("one"), "the boat's code is 4711").await;
    eventually(async || (entries(&world, "?query=4711").await.len() == 1).then_some(())).await;
    chat(&world, Some("two"), "what do you know of the boat?").await;
    let other = recalled(&world);
    assert!(other.contains("blue") && !other.contains("4711"), "{other}");
    chat(&world, Some("one"), "what do you know of the boat?").await;
    assert!(recalled(&world).contains("4711"));
    for (path, field) in [("/v1/chat/completions", "messages"), ("/v1/responses", "input")] {
        for (session, knows) in [("one", true), ("two", false)] {
            let mut body = json!({ "model": "m" });
            body[field] = json!([{ "role": "user", "content": "what do you know of the boat?" }]);
            let asked = world.post(path).header("X-Session-Id", session).json(&body).send().await.unwrap();
            assert_eq!((asked.status().as_u16(), recalled(&world).contains("4711")), (200, knows), "{path} {session}");
        }
    }
    let said = &entries(&world, "?query=4711").await[0];
    assert_eq!(
        (&said["owner"], &said["session_id"], &said["kind"]),
        (&json!("session:one"), &json!("one"), &json!("said"))
    );
}

#[tokio::test]
async fn prompts_of_clients_for_themselves_are_not_memories() {
    let world = World::paired("").await;
    for task in ["### Task:\nSuggest tags", "  ### TASK:\nGenerate a title\n<chat_history>USER: tags</chat_history>"] {
        let body = json!({ "model": "m", "messages": [{ "role": "user", "content": task }] });
        assert_eq!(world.post("/v1/chat/completions").json(&body).send().await.unwrap().status(), 200);
    }
    chat(&world, None, "a real one").await;
    eventually(async || (!entries(&world, "").await.is_empty()).then_some(())).await;
    assert_eq!(entries(&world, "").await.len(), 1);
}
