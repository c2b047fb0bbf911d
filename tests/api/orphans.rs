//! `/api/admin/orphans`: what belongs to no agent is shown, adopted and removed by administrators.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use zeroone::domain::{AgentId, AgentSpec, Origin, Provider, UserId};

use crate::world::{Answer, World};

async fn world() -> (World, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (World::complete(folder.path()).await, folder)
}

async fn orphans(world: &World) -> Vec<Value> {
    let page = world.as_admin(Method::GET, "/api/admin/orphans", None).await;
    assert_eq!((page.status, &page.body["nextCursor"]), (200, &Value::Null), "{page:?}");
    page.body["data"].as_array().unwrap().clone()
}

async fn settle(world: &World, body: &Value) -> Answer {
    world.as_admin(Method::POST, "/api/admin/orphans", Some(body)).await
}

fn origin(world: &World, user: UserId) -> Origin {
    let spec = AgentSpec::new("Ada", Provider::Ollama, "llama3.2");
    Origin::new(user, world.fakes.engine().now(), Arc::new(spec))
}

#[tokio::test]
async fn an_administrator_sees_what_belongs_to_no_agent_and_gives_it_to_a_user() {
    let (world, _folder) = world().await;
    let of_an_agent = world.running("a").await;
    let (told, untold) = (world.orphan(Some(origin(&world, world.user))).await, world.orphan(None).await);
    let seen = orphans(&world).await;
    let ids: Vec<&str> = seen.iter().map(|it| it["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [told.as_str(), untold.as_str()], "not {of_an_agent}");
    let shown = &seen[0];
    assert_eq!(
        (&shown["slug"], &shown["state"], &shown["deletedHere"]),
        (&json!("lost"), &json!("created"), &json!(false))
    );
    assert_eq!((&shown["origin"]["name"], &shown["origin"]["email"]), (&json!("Ada"), &json!("ada@example.org")));
    assert_eq!(seen[1]["origin"], Value::Null);

    let adopted = settle(&world, &json!({"id": told, "action": "adopt"})).await;
    assert_eq!((adopted.status, &adopted.body["name"]), (202, &json!("Ada")), "{adopted:?}");
    assert_eq!(adopted.header("location"), format!("/api/agents/{told}"));
    assert_eq!(world.command(&told, "start").await.status, 202);
    world.reach(&told, "RUNNING").await;

    let unknown = settle(&world, &json!({"id": untold, "action": "adopt"})).await;
    unknown.problem(422, "invalid");
    assert_eq!(unknown.pointers(), ["/user"]);
    let adopted = settle(&world, &json!({"id": untold, "action": "adopt", "user": world.user})).await;
    assert_eq!(
        (adopted.status, &adopted.body["statusReason"]["code"]),
        (202, &json!("secrets-missing")),
        "{adopted:?}"
    );
    assert_eq!(orphans(&world).await, Vec::<Value>::new());
    let own = world.get("/api/audit?action=orphans").await;
    assert_eq!(own.body["data"], json!([]), "an administrator's: {own:?}");
}

#[tokio::test]
async fn what_is_removed_is_gone_with_its_data_and_told_before() {
    let (world, _folder) = world().await;
    let (agent, orphan) = (world.running("a").await, world.orphan(None).await);
    let id: AgentId = orphan.parse().unwrap();
    let remove = json!({"id": orphan, "action": "remove"});
    assert_eq!(settle(&world, &remove).await.status, 204);
    assert!(world.fakes.engine().observed(id).is_none());
    assert!(!world.fakes.engine().volumes().contains(&id));
    settle(&world, &remove).await.problem(404, "not-found");
    settle(&world, &json!({"id": agent, "action": "remove"})).await.problem(404, "not-found");
    assert_eq!(world.status(&agent).await, "RUNNING", "an agent is no orphan");
    let told = world.as_admin(Method::GET, "/api/admin/audit?action=orphans&outcome=done", None).await;
    assert_eq!(told.body["data"].as_array().unwrap().len(), 1, "{told:?}");
}

#[tokio::test]
async fn a_wrong_request_about_an_orphan_says_what_is_wrong() {
    let (world, _folder) = world().await;
    let orphan = world.orphan(Some(origin(&world, UserId::new()))).await;
    assert_eq!(orphans(&world).await[0]["origin"]["email"], Value::Null, "their user is gone");
    for (body, pointers) in [
        (json!({}), vec!["/id", "/action"]),
        (json!({"id": "x", "action": "y", "user": "z"}), vec!["/id", "/user", "/action"]),
        (json!({"id": orphan, "action": "adopt"}), vec!["/user"]),
        (json!({"id": orphan, "action": "adopt", "user": UserId::new()}), vec!["/user"]),
    ] {
        let refused = settle(&world, &body).await;
        refused.problem(422, "invalid");
        assert_eq!(refused.pointers(), pointers, "{body}");
    }
    world.get("/api/admin/orphans").await.problem(403, "forbidden");
    world.post("/api/admin/orphans", &json!({})).await.problem(403, "forbidden");
    assert_eq!(orphans(&world).await.len(), 1, "nothing was done");
}
