//! Messages: held, delivered, refused, and never sent twice.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use zeroone::domain::{AgentId, Plan};
use zeroone::testkit::GatewayFault;

use crate::test_gateway::TestGateway;
use crate::world::{Answer, World, answer, until};

async fn say(world: &World, id: &str, text: &str, prefer: &'static str) -> Answer {
    let request = world.request(Method::POST, &format!("/api/agents/{id}/message")).json(&json!({"message": text}));
    answer(request.header("prefer", prefer)).await
}

#[tokio::test]
async fn the_gateways_answer_comes_back_as_it_is() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let answered = say(&world, &id, "hi", "wait=5").await;
    assert_eq!((answered.status, &answered.text[..]), (200, r#"{"model":"fake","response":"echo: hi"}"#));
    assert_eq!(answered.header("preference-applied"), "wait=5");
}

#[tokio::test]
async fn a_message_is_held_while_the_agent_comes_up() {
    let world = World::new(Plan::Pro).await;
    let id = world.created("a").await;
    assert_eq!(say(&world, &id, "early", "wait=20").await.body["response"], "echo: early");
    world.command(&id, "restart").await;
    assert_eq!(say(&world, &id, "again", "wait=20").await.body["response"], "echo: again");
}

#[tokio::test]
async fn one_that_does_not_come_up_in_time_is_not_ready() {
    let world = World::new(Plan::Pro).await;
    world.fakes.engine().set_gateway_fault(GatewayFault::Unwell);
    let id = world.created("a").await;
    let held = say(&world, &id, "hi", "wait=1").await;
    held.problem(503, "agent-not-ready");
    assert!(held.header("retry-after").parse::<u64>().unwrap() > 0);
}

#[tokio::test]
async fn what_the_gateway_says_is_told_honestly() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let agent: AgentId = id.parse().unwrap();
    for (gateway_fault, status, code, failed) in [
        (GatewayFault::Fails(408), 504, "gateway-timeout", Some("model")),
        (GatewayFault::Fails(429), 429, "rate-limited", Some("gateway")),
        (GatewayFault::Fails(500), 502, "model-error", Some("model")),
        (GatewayFault::Fails(413), 413, "too-large", Some("gateway")),
        (GatewayFault::HangsUp, 502, "delivery-unknown", None),
        (GatewayFault::Garbage, 502, "gateway-error", None),
        (GatewayFault::Unusable, 503, "agent-not-ready", Some("configuration")),
    ] {
        world.fakes.engine().set_gateway_fault_of(agent, Some(gateway_fault));
        let refused = say(&world, &id, "hi", "wait=5").await;
        refused.problem(status, code);
        assert_eq!(matches!(status, 429 | 503), refused.headers.contains_key("retry-after"), "{refused:?}");
        assert_eq!(refused.body["failed"].as_str(), failed, "{refused:?}");
        assert_eq!(refused.body["limitSecs"].as_u64(), (status == 504).then_some(120), "{refused:?}");
        world.fakes.engine().set_gateway_fault_of(agent, None);
        world.reach(&id, "RUNNING").await;
        if code == "model-error" {
            assert!(refused.body["model"]["message"].as_str().unwrap().contains("model failed"), "{refused:?}");
        }
    }
    world.fakes.engine().set_gateway_fault_of(agent, None);
    world.reach(&id, "RUNNING").await;
    assert_eq!(say(&world, &id, "well again", "wait=20").await.status, 200);
}

#[tokio::test]
async fn failed_model_is_told_by_timeline_explain_and_incidents_until_it_answers() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let path = format!("/api/agents/{id}");
    let fail = |fault| world.fakes.engine().set_gateway_fault_of(id.parse::<AgentId>().unwrap(), fault);
    let incident = async || world.get(&format!("{path}/incidents")).await.body["data"][0].clone();
    fail(Some(GatewayFault::Fails(500)));
    for _ in 0..3 {
        say(&world, &id, "hi", "wait=5").await.problem(502, "model-error");
    }
    until("an incident", async || incident().await["cause"] == "model").await;
    let explained = world.get(&format!("{path}/explain")).await.body;
    assert!(explained["because"].as_str().unwrap().contains("its model failed"), "{explained}");
    assert_eq!((&explained["lastError"]["cause"], &explained["status"]), (&json!("model-failed"), &json!("RUNNING")));
    let open = incident().await;
    assert_eq!(
        (&open["state"], &open["code"], &open["endedAt"]),
        (&json!("open"), &json!("model-failed"), &json!(null))
    );
    assert!(open["detail"].as_str().unwrap().contains("the model failed"), "{open}");

    fail(None);
    assert_eq!(say(&world, &id, "hi", "wait=5").await.status, 200);
    until("the end of it", async || incident().await["state"] == "recovered").await;
    assert!(world.get(&format!("{path}/explain")).await.body["remedy"].is_null());
    let events = world.get(&format!("{path}/events")).await.body;
    let causes = events["data"].as_array().unwrap().iter().map(|event| event["cause"].as_str().unwrap());
    let told: Vec<&str> = causes.filter(|cause| cause.starts_with("model")).collect();
    assert_eq!(told, ["model-failed", "model-back"], "three failures of one kind are one");

    fail(Some(GatewayFault::Fails(500)));
    say(&world, &id, "hi", "wait=5").await.problem(502, "model-error");
    fail(None);
    world.command(&id, "restart").await;
    world.reach(&id, "RUNNING").await;
    let explained = world.get(&format!("{path}/explain")).await.body;
    assert!(explained["remedy"].is_null(), "nothing is known of the model of the new run: {explained}");
    assert_eq!(incident().await["state"], "abandoned");
}

#[tokio::test]
async fn failed_model_is_noted_also_where_a_message_is_passed_on() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let _gateway = TestGateway::of(&world, &id).await;
    let (path, passed_on) = (format!("/api/agents/{id}"), format!("/api/agents/{id}/gateway/webhook"));
    let explain = async || world.get(&format!("{path}/explain")).await.body;
    let refused = world.post(&passed_on, &json!({"message": "no model"})).await;
    assert_eq!((refused.status, &refused.body["model"]["code"]), (502, &json!("invalid_api_key")), "as it came");
    until("it is told", async || explain().await["lastError"]["cause"] == "model-failed").await;
    let because = explain().await["because"].clone();
    assert!(because.as_str().unwrap().contains("wrong key"), "{because}");

    let answered = world.post(&passed_on, &json!({"message": "hi"})).await;
    assert_eq!((answered.status, &answered.body["response"]), (200, &json!("echo: hi")));
    until("the end of it", async || explain().await["remedy"].is_null()).await;
}

#[tokio::test]
async fn messages_are_texts_of_a_bounded_length() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let path = format!("/api/agents/{id}/message");
    for body in [
        json!({}),
        json!({"message": ""}),
        json!({"message": " "}),
        json!({"message": 5}),
        json!({"message": "a".repeat(32_001)}),
    ] {
        let refused = world.post(&path, &body).await;
        refused.problem(422, "invalid");
        assert_eq!(refused.pointers(), ["/message"]);
    }
    world.post(&path, &json!({"message": "🦀".repeat(20_000)})).await.problem(413, "too-large");
    world.post(&path, &json!({"message": "x".repeat(500_000)})).await.problem(413, "too-large");
}

#[tokio::test]
async fn a_client_that_goes_away_frees_the_agent() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let agent: AgentId = id.parse().unwrap();
    world.fakes.engine().set_gateway_fault_of(agent, Some(GatewayFault::Hung));
    let request = world.request(Method::POST, &format!("/api/agents/{id}/message")).json(&json!({"message": "hi"}));
    assert!(request.timeout(Duration::from_millis(200)).send().await.is_err());
    world.fakes.engine().set_gateway_fault_of(agent, None);
    assert_eq!(say(&world, &id, "next", "wait=20").await.body["response"], "echo: next");
}
