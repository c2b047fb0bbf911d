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
