//! Conversations that callers name, and answers in pieces, over every kind of gateway.

use std::sync::atomic::Ordering;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use zeroone::domain::{AgentId, Plan, Profile, Scope};
use zeroone::http::HttpOptions;

use crate::test_gateway::TestGateway;
use crate::world::{Answer, World, answer, until};

fn message(world: &World, id: &str, body: &Value) -> RequestBuilder {
    world.request(Method::POST, &format!("/api/agents/{id}/message")).json(body)
}

async fn say(world: &World, id: &str, session: &str, text: &str) -> Answer {
    answer(message(world, id, &json!({"message": text, "session": session}))).await
}

/// The events of an answer: kind and data.
fn events(text: &str) -> Vec<(String, Value)> {
    let events = text.split("\n\n").filter_map(|event| {
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
        Some((field("event: ")?.to_owned(), serde_json::from_str(field("data: ")?).unwrap()))
    });
    events.collect()
}

async fn stream(world: &World, id: &str, body: &Value) -> Vec<(String, Value)> {
    let answered = answer(message(world, id, body).header("accept", "text/event-stream")).await;
    assert_eq!((answered.status, answered.header("content-type")), (200, "text/event-stream"), "{answered:?}");
    events(&answered.text)
}

fn deltas(events: &[(String, Value)]) -> String {
    let deltas = events.iter().filter(|(kind, _)| kind == "delta");
    deltas.map(|(_, data)| data["text"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_messages_session_is_handed_to_the_gateway() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    assert_eq!(say(&world, &id, "chat-1_b.C", "hi").await.body["response"], "echo: hi");
    let agent: AgentId = id.parse().unwrap();
    let sent = world.fakes.engine().tally(agent).messages;
    assert_eq!(sent[0].session.as_ref().unwrap().as_str(), "chat-1_b.C");
    let long = "x".repeat(129);
    for session in ["", "a b", "a/b", "é", &long] {
        let refused = say(&world, &id, session, "hi").await;
        assert_eq!(refused.problem(422, "invalid")["errors"][0]["pointer"], "/session", "{session:?}");
    }
    let both = answer(message(&world, &id, &json!({"session": "a b"}))).await;
    assert_eq!(both.problem(422, "invalid")["errors"].as_array().unwrap().len(), 2, "all faults at once");
}

#[tokio::test]
async fn an_answer_comes_in_pieces_to_those_who_ask_for_them() {
    let world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("a").await;
    let gateway = TestGateway::of(&world, &id).await;
    let got = stream(&world, &id, &json!({"message": "one two", "session": "s"})).await;
    assert_eq!(deltas(&got), "echo: one two");
    assert_eq!(got.len(), 4, "{got:?}");
    assert_eq!(got[3], ("done".to_owned(), json!({"response": "echo: one two"})));
    assert_eq!(gateway.shared.sessions.lock().unwrap()["s"], ["one two", "echo: one two"]);
    let failed = stream(&world, &id, &json!({"message": "fail"})).await;
    let (kind, problem) = failed.last().unwrap();
    assert_eq!(
        (kind.as_str(), &problem["code"], &problem["model"]["status"]),
        ("error", &json!("model-error"), &json!(429))
    );
    let incident = async || world.get(&format!("/api/agents/{id}/incidents")).await.body["data"][0]["state"].clone();
    until("an incident", async || incident().await == "open").await;
    stream(&world, &id, &json!({"message": "well again"})).await;
    until("the end of it", async || incident().await == "recovered").await;
    let broken = stream(&world, &id, &json!({"message": "break"})).await;
    let (kind, problem) = broken.last().unwrap();
    assert_eq!((kind.as_str(), &problem["code"]), ("error", &json!("delivery-unknown")), "{broken:?}");
    assert!(broken.iter().all(|(kind, _)| kind != "done"), "{broken:?}");
    message(&world, &id, &json!({"message": " "}))
        .header("accept", "text/event-stream")
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap_err();
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_the_call_at_the_gateway() {
    for profile in [Profile::Embedded, Profile::V08] {
        let world = World::of_version(profile).await;
        let id = world.running("a").await;
        let gateway = TestGateway::of(&world, &id).await;
        let body = json!({"message": "endless", "session": "s"});
        let request = message(&world, &id, &body).header("accept", "text/event-stream");
        let mut response = request.send().await.unwrap();
        let first = response.chunk().await.unwrap().unwrap();
        assert!(first.starts_with(b"event: delta"), "{first:?}");
        drop(response);
        until("the call ends", async || gateway.shared.cancelled.load(Ordering::SeqCst) == 1).await;
        if profile == Profile::V08 {
            until("the answer is ended", async || *gateway.shared.aborted.lock().unwrap() == ["s"]).await;
        }
    }
}

#[tokio::test]
async fn a_gateway_that_keeps_conversations_by_its_socket_is_asked_there() {
    for profile in [Profile::V06, Profile::V08] {
        let world = World::of_version(profile).await;
        let id = world.running("a").await;
        let gateway = TestGateway::of(&world, &id).await;
        let whole = say(&world, &id, "s", "one").await;
        assert_eq!(
            (whole.status, &whole.body),
            (200, &json!({"model": "gpt-5", "response": "echo after 0: one"})),
            "{whole:?}"
        );
        let got = stream(&world, &id, &json!({"message": "two", "session": "s"})).await;
        assert_eq!(deltas(&got), "echo after 2: two");
        assert_eq!(got.last().unwrap(), &("done".to_owned(), json!({"response": "echo after 2: two"})));
        let failed = say(&world, &id, "s", "fail").await;
        assert_eq!(failed.problem(502, "model-error")["model"]["message"], "no key");
        let refused = say(&world, &id, "s", "dangerous").await;
        assert!(refused.body["response"].as_str().unwrap().contains("\"deny\""), "{refused:?}");
        // It may have been read: never again.
        let calls = gateway.calls();
        say(&world, &id, "s", "break").await.problem(502, "delivery-unknown");
        assert_eq!(gateway.calls(), calls + 1);
        drop(gateway);
        let held = message(&world, &id, &json!({"message": "x", "session": "s"})).header("prefer", "wait=0");
        answer(held).await.problem(503, "agent-not-ready");
    }
}

#[tokio::test]
async fn conversations_are_listed_read_and_forgotten() {
    let world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("a").await;
    let _gateway = TestGateway::of(&world, &id).await;
    let sessions = format!("/api/agents/{id}/sessions");
    assert_eq!(world.get(&sessions).await.body, json!({"data": [], "nextCursor": null}));
    stream(&world, &id, &json!({"message": "hi", "session": "s.1"})).await;
    let listed = world.get(&sessions).await;
    let expected = json!({"id": "s.1", "createdAt": "2026-01-02T03:04:05Z", "lastActivity": null, "messageCount": 2});
    assert_eq!(listed.body["data"], json!([expected]), "{listed:?}");
    let read = world.get(&format!("{sessions}/s.1")).await;
    let said = |role: &str, content: &str| json!({"role": role, "content": content, "time": null});
    assert_eq!(read.body, json!({"id": "s.1", "messages": [said("user", "hi"), said("assistant", "echo: hi")]}));
    let read_only = world.key_with(&[Scope::AgentsRead]).await;
    let path = format!("{sessions}/s.1");
    answer(world.raw(Method::DELETE, &path).bearer_auth(&read_only)).await.problem(403, "forbidden");
    assert_eq!(answer(world.raw(Method::GET, &path).bearer_auth(&read_only)).await.status, 200);
    assert_eq!(answer(world.request(Method::DELETE, &path)).await.status, 204);
    for (method, path) in
        [(Method::DELETE, path.clone()), (Method::GET, path), (Method::GET, format!("{sessions}/a%20b"))]
    {
        answer(world.request(method, &path)).await.problem(404, "not-found");
    }
    let stranger = world.stranger().await;
    answer(world.raw(Method::GET, &sessions).bearer_auth(&stranger)).await.problem(404, "not-found");
}

#[tokio::test]
async fn conversations_come_by_pages_and_go_all_at_once() {
    let world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("a").await;
    let _gateway = TestGateway::of(&world, &id).await;
    let sessions = format!("/api/agents/{id}/sessions");
    for name in ["s.3", "s.1", "s.2"] {
        stream(&world, &id, &json!({"message": "hi", "session": name})).await;
    }
    let names = |body: &Value| -> Vec<String> {
        let of = body["data"].as_array().unwrap().iter();
        of.map(|session| session["id"].as_str().unwrap().to_owned()).collect()
    };
    let first = world.get(&format!("{sessions}?limit=2")).await.body;
    let next = first["nextCursor"].as_str().unwrap();
    let rest = world.get(&format!("{sessions}?limit=2&cursor={next}")).await.body;
    assert_eq!([names(&first), names(&rest)].concat(), ["s.1", "s.2", "s.3"]);
    assert_eq!(rest["nextCursor"], Value::Null);
    for wrong in ["limit=0", "limit=201", "limit=x", "cursor=!"] {
        world.get(&format!("{sessions}?{wrong}")).await.problem(422, "invalid");
    }
    assert_eq!(answer(world.request(Method::DELETE, &sessions)).await.status, 204);
    assert_eq!(names(&world.get(&sessions).await.body), Vec::<String>::new());
}

#[tokio::test]
async fn a_version_that_keeps_no_conversations_says_so() {
    let world = World::of_version(Profile::V01).await;
    let id = world.running("a").await;
    let _gateway = TestGateway::of(&world, &id).await;
    for (method, path) in [(Method::GET, ""), (Method::DELETE, ""), (Method::GET, "/s"), (Method::DELETE, "/s")] {
        let refused = answer(world.request(method, &format!("/api/agents/{id}/sessions{path}"))).await;
        refused.problem(501, "not-supported");
    }
    let got = stream(&world, &id, &json!({"message": "one two", "session": "s"})).await;
    assert_eq!(got[0], ("delta".to_owned(), json!({"text": "echo: one two"})), "in one piece");
    assert_eq!(got[1].0, "done");
}
