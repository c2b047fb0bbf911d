//! Conversations that clients name: kept over a restart, bounded, listed, deleted.

use serde_json::{Value, json};

use super::model::Reply;
use super::world::{World, both};

async fn say(world: &World, path: &str, session: Option<&str>, message: &str) -> (u16, Value) {
    let mut request = world.post(path).json(&json!({ "message": message }));
    if let Some(session) = session {
        request = request.header("X-Session-Id", session);
    }
    let (status, body) = both(request.send().await.unwrap()).await;
    (status.as_u16(), body)
}

/// What the model was put in its last call, but for the system prompt.
fn put(world: &World) -> Vec<String> {
    let calls = world.model.calls();
    let messages = calls.last().unwrap().body["messages"].as_array().unwrap().clone();
    let texts = messages.iter().filter(|message| message["role"] != "system");
    texts.map(|message| message["content"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn sessions(world: &World) -> Vec<(String, u64)> {
    let (status, body) = both(world.get("/api/sessions").send().await.unwrap()).await;
    assert_eq!(status, 200);
    let listed = body["sessions"].as_array().unwrap().iter();
    listed.map(|s| (s["session_id"].as_str().unwrap().to_owned(), s["message_count"].as_u64().unwrap())).collect()
}

#[tokio::test]
async fn a_named_session_keeps_its_history_over_a_restart_and_others_do_not_see_it() {
    for path in ["/webhook", "/api/chat"] {
        let mut world = World::paired("[memory]\nauto_save = false\n").await;
        assert_eq!(say(&world, path, Some("a.1"), "my name is Ada").await.0, 200);
        world.restart().await;
        say(&world, path, Some("a.1"), "what is my name?").await;
        assert_eq!(put(&world), ["my name is Ada", "echo: my name is Ada", "what is my name?"], "{path}");
        say(&world, path, Some("b"), "and mine?").await;
        assert_eq!(put(&world), ["and mine?"], "{path}");
        say(&world, path, None, "no session").await;
        assert_eq!(put(&world), ["no session"], "{path}");
        // What is no name is none, as in ZeroClaw.
        say(&world, path, Some("not a name"), "no session either").await;
        assert_eq!(put(&world), ["no session either"], "{path}");
        assert_eq!(sessions(&world).await, [("b".to_owned(), 2), ("a.1".to_owned(), 4)]);
    }
}

#[tokio::test]
async fn sessions_are_read_and_deleted_by_paired_clients_only() {
    let world = World::paired("").await;
    say(&world, "/webhook", Some("s"), "hello").await;
    let (_, body) = both(world.get("/api/sessions/s/messages").send().await.unwrap()).await;
    let said: Vec<(&str, &str)> = body["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| (message["role"].as_str().unwrap(), message["content"].as_str().unwrap()))
        .collect();
    assert_eq!(said, [("user", "hello"), ("assistant", "echo: hello")]);
    for (method, path) in [("GET", "/api/sessions"), ("GET", "/api/sessions/s"), ("DELETE", "/api/sessions/s")] {
        let stranger = world.http.request(method.parse().unwrap(), world.url(path)).send().await.unwrap();
        assert_eq!(stranger.status(), 401, "{method} {path}");
    }
    let (status, gone) = both(world.request("DELETE", "/api/sessions/s").send().await.unwrap()).await;
    assert_eq!((status.as_u16(), &gone["deleted"]), (200, &json!(true)));
    assert_eq!(world.request("DELETE", "/api/sessions/s").send().await.unwrap().status(), 404);
    assert_eq!(world.get("/api/sessions/s").send().await.unwrap().status(), 404);
    say(&world, "/webhook", Some("s"), "hello again").await;
    assert_eq!(put(&world), ["hello again"]);
}

#[tokio::test]
async fn a_history_is_bounded_by_tokens() {
    let world = World::paired("[agent]\nmax_context_tokens = 1000\n[memory]\nauto_save = false\n").await;
    for number in 0..12 {
        say(&world, "/webhook", Some("s"), &format!("{number} {}", "word ".repeat(100))).await;
    }
    let kept = put(&world);
    assert!((3..12).contains(&kept.len()), "{}", kept.len());
    assert!(kept.last().unwrap().starts_with("11 ") && kept.iter().map(String::len).sum::<usize>() < 4_500);
    // In another script each character counts.
    for number in 0..6 {
        say(&world, "/webhook", Some("c"), &format!("{number}{}", "茶".repeat(300))).await;
    }
    assert!(put(&world).len() <= 3, "{}", put(&world).len());
}

#[tokio::test]
async fn a_conversation_that_the_model_calls_too_long_is_shortened_and_stays_so() {
    let world = World::paired("[memory]\nauto_save = false\n[reliability]\nprovider_retries = 0\n").await;
    for number in 0..6 {
        say(&world, "/api/chat", Some("s"), &format!("question {number}")).await;
    }
    let too_long =
        || Reply::Status(400, vec![], r#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#);
    world.model.script([too_long(), too_long(), Reply::Text("short enough".into())]);
    let (status, body) = say(&world, "/api/chat", Some("s"), "the last one").await;
    assert_eq!((status, &body["reply"]), (200, &json!("short enough")));
    let shortened = put(&world).len();
    assert!(shortened < 13 && shortened > 1, "{shortened}");
    say(&world, "/api/chat", Some("s"), "one more").await;
    assert_eq!(put(&world).len(), shortened + 2, "what was left out is not sent again");
    // A question that is too long by itself is the caller's to shorten.
    world.model.script([too_long()]);
    assert!(say(&world, "/api/chat", None, "alone").await.0 >= 400);
}

#[tokio::test]
async fn messages_of_one_session_are_answered_in_turn() {
    let world = World::paired("[memory]\nauto_save = false\n").await;
    let (first, second) =
        tokio::join!(say(&world, "/webhook", Some("s"), "one"), say(&world, "/webhook", Some("s"), "two"));
    assert_eq!((first.0, second.0), (200, 200));
    assert_eq!(put(&world).len(), 3, "the second one knows of the first");
}

#[tokio::test]
async fn a_disk_that_fails_costs_the_history_and_not_the_answer() {
    let world = World::paired("[memory]\nauto_save = false\n").await;
    std::fs::write(world.workspace().join("state"), "in the way").unwrap();
    assert_eq!(say(&world, "/webhook", Some("s"), "hi").await.0, 200);
    assert_eq!(world.get("/api/sessions").send().await.unwrap().status(), 500);
}

#[tokio::test]
async fn sessions_can_be_kept_in_memory_alone() {
    let mut world = World::paired("[gateway]\nsession_persistence = false\n[memory]\nauto_save = false\n").await;
    say(&world, "/webhook", Some("s"), "one").await;
    say(&world, "/webhook", Some("s"), "two").await;
    assert_eq!(put(&world).len(), 3);
    world.restart().await;
    say(&world, "/webhook", Some("s"), "three").await;
    assert_eq!(put(&world), ["three"]);
    assert!(!world.workspace().join("state/sessions.db").exists());
}
