//! The same POST twice is one.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::json;
use zeroone::domain::{AgentId, Plan};
use zeroone::http::HttpOptions;
use zeroone::testkit::GatewayFault;

use crate::test_gateway::TestGateway;
use crate::world::{Answer, World, answer, new_agent, until};

fn keyed(world: &World, path: &str, body: &serde_json::Value) -> RequestBuilder {
    world.request(Method::POST, path).header("idempotency-key", "k-1").json(body)
}

fn same(first: &Answer, second: &Answer) {
    assert_eq!((first.status, &first.text), (second.status, &second.text));
    assert!(!first.headers.contains_key("idempotent-replayed"), "{first:?}");
    assert_eq!(second.header("idempotent-replayed"), "true");
    for name in ["location", "etag", "content-type"] {
        assert_eq!(first.headers.get(name), second.headers.get(name), "{name}");
    }
}

#[tokio::test]
async fn a_create_sent_twice_makes_one_agent_also_across_a_restart() {
    let mut world = World::new(Plan::Pro).await;
    let first = answer(keyed(&world, "/api/agents", &new_agent("a"))).await;
    assert_eq!(first.status, 202, "{first:?}");
    same(&first, &answer(keyed(&world, "/api/agents", &new_agent("a"))).await);
    world.restart().await;
    same(&first, &answer(keyed(&world, "/api/agents", &new_agent("a"))).await);
    assert_eq!(world.get("/api/agents").await.body["data"].as_array().unwrap().len(), 1);
    answer(keyed(&world, "/api/agents", &new_agent("b"))).await.problem(422, "invalid");
    // Another user's keys are their own.
    let other = world.raw(Method::POST, "/api/agents").bearer_auth(&world.admin).header("idempotency-key", "k-1");
    assert_eq!(answer(other.json(&new_agent("c"))).await.status, 202);
}

#[tokio::test]
async fn what_was_not_done_is_tried_anew() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let path = format!("/api/agents/{id}/message");
    world.command(&id, "stop").await;
    world.reach(&id, "STOPPED").await;
    answer(keyed(&world, &path, &json!({"message": "hi"}))).await.problem(409, "illegal-transition");
    world.command(&id, "start").await;
    let sent = answer(keyed(&world, &path, &json!({"message": "hi"}))).await;
    assert_eq!((sent.status, &sent.body["response"]), (200, &json!("echo: hi")), "{sent:?}");
    same(&sent, &answer(keyed(&world, &path, &json!({"message": "hi"}))).await);
}

#[tokio::test]
async fn a_lost_answer_stays_lost_and_the_message_is_not_sent_again() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let path = format!("/api/agents/{id}/message");
    world.fakes.engine().set_gateway_fault_of(id.parse::<AgentId>().unwrap(), Some(GatewayFault::HangsUp));
    let lost = answer(keyed(&world, &path, &json!({"message": "hi"}))).await;
    lost.problem(502, "delivery-unknown");
    world.fakes.engine().set_gateway_fault_of(id.parse::<AgentId>().unwrap(), None);
    let again = answer(keyed(&world, &path, &json!({"message": "hi"}))).await;
    assert_eq!((again.status, &again.text), (502, &lost.text));
    assert_eq!(again.header("idempotent-replayed"), "true");
}

#[tokio::test]
async fn one_under_way_is_in_progress_and_after_a_crash_unknown() {
    let mut world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let path = format!("/api/agents/{id}/message");
    let agent: AgentId = id.parse().unwrap();
    world.fakes.engine().set_gateway_fault_of(agent, Some(GatewayFault::Slow(Duration::from_secs(600))));
    let first = tokio::spawn(keyed(&world, &path, &json!({"message": "hi"})).send());
    until("in progress", async || {
        let request = keyed(&world, &path, &json!({"message": "hi"})).timeout(Duration::from_millis(500));
        request.send().await.is_ok_and(|response| response.status() == 409)
    })
    .await;
    let during = answer(keyed(&world, &path, &json!({"message": "hi"}))).await;
    during.problem(409, "in-progress");
    answer(keyed(&world, &path, &json!({"message": "other"}))).await.problem(422, "invalid");
    world.restart().await;
    first.abort();
    world.fakes.engine().set_gateway_fault_of(agent, None);
    let unknown = answer(keyed(&world, &path, &json!({"message": "hi"}))).await;
    unknown.problem(502, "delivery-unknown");
    let again = answer(keyed(&world, &path, &json!({"message": "hi"}))).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (502, "true"));
}

#[tokio::test]
async fn a_request_with_a_key_goes_on_without_its_caller() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let path = format!("/api/agents/{id}/message");
    let agent: AgentId = id.parse().unwrap();
    world.fakes.engine().set_gateway_fault_of(agent, Some(GatewayFault::Slow(Duration::from_millis(500))));
    let impatient = keyed(&world, &path, &json!({"message": "hi"})).timeout(Duration::from_millis(200));
    assert!(impatient.send().await.is_err());
    until("the answer is stored", async || {
        answer(keyed(&world, &path, &json!({"message": "hi"}))).await.headers.contains_key("idempotent-replayed")
    })
    .await;
    assert_eq!(answer(keyed(&world, &path, &json!({"message": "hi"}))).await.body["response"], "echo: hi");
}

#[tokio::test]
async fn keys_are_visible_ascii() {
    let world = World::new(Plan::Pro).await;
    for key in ["", "a b", "é", &"k".repeat(256)] {
        let request = world.request(Method::POST, "/api/agents").json(&new_agent("a"));
        answer(request.header("idempotency-key", key.as_bytes())).await.problem(400, "malformed");
    }
    let longest = world.request(Method::POST, "/api/agents").json(&new_agent("a"));
    assert_eq!(answer(longest.header("idempotency-key", "k".repeat(255))).await.status, 202);
}

#[tokio::test]
async fn an_answer_in_pieces_is_kept_while_it_is_passed_on_and_openais_answers_are_kept_too() {
    let mut world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("a").await;
    let gateway = TestGateway::of(&world, &id).await;
    let path = format!("/api/agents/{id}/message");
    let ask = |world: &World, text: &str| {
        keyed(world, &path, &json!({"message": text})).header("accept", "text/event-stream")
    };
    let first = answer(ask(&world, "one two")).await;
    assert!(first.text.contains("event: done"), "{first:?}");
    let again = answer(ask(&world, "one two")).await;
    assert_eq!((again.status, &again.text, again.header("content-type")), (200, &first.text, "text/event-stream"));
    assert_eq!((again.header("idempotent-replayed"), gateway.calls()), ("true", 1));
    answer(ask(&world, "three")).await.problem(422, "invalid");

    let chat = json!({"model": "a", "messages": [{"role": "user", "content": "hi"}]});
    let keyed_chat = |world: &World| {
        world.request(Method::POST, "/v1/chat/completions").header("idempotency-key", "k-2").json(&chat)
    };
    let (first, calls) = (answer(keyed_chat(&world)).await, gateway.calls());
    drop(gateway);
    world.restart().await;
    let again = answer(keyed_chat(&world)).await;
    assert_eq!((again.status, &again.text), (200, &first.text), "also over a restart");
    assert_eq!((again.header("idempotent-replayed"), calls), ("true", 2));
}

#[tokio::test]
async fn a_reader_with_a_key_that_goes_away_gets_the_whole_answer_later() {
    let world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("a").await;
    let gateway = TestGateway::of(&world, &id).await;
    let path = format!("/api/agents/{id}/message");
    let ask = || keyed(&world, &path, &json!({"message": "slow word by word"})).header("accept", "text/event-stream");
    let mut response = ask().send().await.unwrap();
    response.chunk().await.unwrap().unwrap();
    drop(response);
    until("the answer is kept", async || answer(ask()).await.text.contains("event: done")).await;
    assert_eq!(gateway.calls(), 1);
}
