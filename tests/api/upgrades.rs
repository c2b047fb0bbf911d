//! `POST /api/agents/{id}/upgrade`.

use serde_json::{Value, json};
use zeroone::domain::{Plan, Profile};
use zeroone::testkit::{FakeImage, GatewayFault};

use crate::world::{World, until};

async fn world() -> World {
    let world = World::new(Plan::Pro).await;
    for (name, profile, version) in
        [("zeroclaw:0.1.7", Profile::V01, "0.1.7"), ("zeroclaw:0.8.7", Profile::V08, "0.8.7")]
    {
        world.fakes.engine().add_image(name, FakeImage::new(profile, version));
    }
    world
}

async fn over(world: &World, id: &str) -> Value {
    let path = format!("/api/agents/{id}");
    until("the end of the upgrade", async || world.get(&path).await.body["upgrade"].is_null()).await;
    world.get(&path).await.body
}

#[tokio::test]
async fn upgrade_is_accepted_shown_and_done() {
    let world = world().await;
    let id = world.running("Ada").await;
    let path = format!("/api/agents/{id}/upgrade");
    assert_eq!(world.post(&path, &json!({})).await.status, 200, "it runs what new agents run");
    assert_eq!(world.command(&id, "upgrade").await.status, 200, "no body is an empty one");
    let accepted = world.post(&path, &json!({"image": "zeroclaw:0.8.7"})).await;
    assert_eq!((accepted.status, accepted.body["upgrade"].as_str()), (202, Some("rehearsing")), "{accepted:?}");
    let record = over(&world, &id).await;
    assert_eq!((record["image"].as_str(), record["version"].as_str()), (Some("zeroclaw:0.8.7"), Some("0.8.7")));
    let events = world.get(&format!("/api/agents/{id}/events")).await;
    let causes: Vec<&str> =
        events.body["data"].as_array().unwrap().iter().filter_map(|e| e["cause"].as_str()).collect();
    let steps = ["upgrade-requested", "upgrade-started", "upgraded"];
    assert!(steps.iter().all(|step| causes.contains(step)), "{causes:?}");
}

#[tokio::test]
async fn refused_upgrade_is_told_by_events_and_explain() {
    let world = world().await;
    let bad = FakeImage::new(Profile::V08, "0.8.8").with_fault(GatewayFault::Unusable);
    world.fakes.engine().add_image("bad", bad);
    let id = world.running("Ada").await;
    assert_eq!(world.post(&format!("/api/agents/{id}/upgrade"), &json!({"image": "bad"})).await.status, 202);
    let record = over(&world, &id).await;
    assert_eq!((record["status"].as_str(), record["image"].as_str()), (Some("RUNNING"), Some("zeroclaw:0.1.7")));
    let because = world.get(&format!("/api/agents/{id}/explain")).await.body["because"].as_str().unwrap().to_owned();
    assert!(because.contains("rehearsal") && because.contains("Add a model provider."), "{because}");
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused() {
    let world = world().await;
    let id = world.running("Ada").await;
    let path = format!("/api/agents/{id}/upgrade");
    for body in
        [json!({"image": ""}), json!({"image": "a b"}), json!({"image": "x".repeat(300)}), json!({"image": "nowhere"})]
    {
        let refused = world.post(&path, &body).await;
        refused.problem(422, "invalid");
        assert_eq!(refused.pointers(), ["/image"], "{body}");
    }
    world.command(&id, "stop").await;
    world.reach(&id, "STOPPED").await;
    let refused = world.post(&path, &json!({"image": "zeroclaw:0.8.7"})).await;
    let allowed = &refused.problem(409, "illegal-transition")["allowed"];
    assert!(allowed.as_array().unwrap().contains(&json!("start")), "{allowed}");
    let bare = World::new(Plan::Pro).await;
    let id = bare.running("Ada").await;
    bare.command(&id, "upgrade").await.problem(409, "conflict");
}
