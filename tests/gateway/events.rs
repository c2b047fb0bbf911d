//! `/api/events`.

use reqwest::Response;
use serde_json::{Value, json};

use super::model::Reply;
use super::world::{PATIENCE, World};

/// A reader of server-sent events.
struct Stream {
    response: Response,
    buffer: String,
}

impl Stream {
    async fn open(world: &World, last: Option<&str>) -> Self {
        let request = world.get("/api/events");
        let request = match last {
            Some(last) => request.header("Last-Event-ID", last),
            None => request,
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        Self { response, buffer: String::new() }
    }

    /// The next event: its id and its data.
    async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some((event, rest)) = self.buffer.split_once("\n\n") {
                let field =
                    |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
                let (id, data) = (field("id: "), field("data: "));
                self.buffer = rest.to_owned();
                if !data.is_empty() {
                    return (id, serde_json::from_str(&data).unwrap());
                }
                continue;
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.unwrap().unwrap().unwrap();
            self.buffer.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn until(&mut self, kind: &str) -> (String, Value) {
        loop {
            let event = self.next().await;
            if event.1["type"] == kind {
                return event;
            }
        }
    }
}

#[tokio::test]
async fn messages_tools_cost_and_errors_are_seen_as_they_happen() {
    let prices = "[reliability]\nprovider_retries = 0\n[cost.prices.m]\ninput = 1000000.0\noutput = 0.0\n";
    let world = World::paired(prices).await;
    assert_eq!(world.http.get(world.url("/api/events")).send().await.unwrap().status(), 401);
    let mut stream = Stream::open(&world, None).await;
    world.model.script([Reply::Tools(vec![("time", json!({}))])]);
    world.post("/api/chat").json(&json!({ "message": "hi" })).send().await.unwrap();
    let (_, message) = stream.next().await;
    assert_eq!(
        (&message["type"], &message["role"], &message["content"]),
        (&json!("message"), &json!("user"), &json!("hi"))
    );
    assert!(message["timestamp"].is_string());
    assert_eq!(stream.until("cost").await.1["cost_usd"], 11.0);
    let (_, tool) = stream.until("tool_call").await;
    assert_eq!((&tool["tool"], &tool["success"]), (&json!("time"), &json!(true)));
    assert_eq!(stream.until("message").await.1["role"], "assistant");
    world.model.script([Reply::Status(400, vec![], "{}")]);
    world.say("fail").await;
    assert_eq!(stream.until("error").await.1["component"], "agent");
}

#[tokio::test]
async fn who_comes_back_gets_what_was_missed() {
    let world = World::paired("").await;
    let mut stream = Stream::open(&world, None).await;
    world.say("one").await;
    let (id, first) = stream.next().await;
    assert_eq!(first["content"], "one");
    drop(stream);
    world.say("two").await;
    let mut back = Stream::open(&world, Some(&id)).await;
    let mut seen = vec![];
    while seen.last() != Some(&json!("echo: two")) {
        let event = back.until("message").await.1;
        seen.push(event["content"].clone());
    }
    assert_eq!(seen, ["echo: one", "two", "echo: two"]);
    assert_eq!(Stream::open(&world, Some("0-7")).await.next().await.1["type"], "gap");
}
