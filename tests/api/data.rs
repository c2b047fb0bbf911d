//! An agent's memory and workspace as its owner's: out, in, and copied.

use reqwest::Method;
use serde_json::{Value, json};
use zeroone::domain::{AgentId, Plan};
use zeroone::internal::store::{Batch, commit};
use zeroone::store::IdempotencyState;
use zeroone::zeroclaw::bundle;

use crate::world::{Answer, World, answer};

const FILE: &str = "workspace/notes/a.txt";

/// A running agent with a file of its own.
async fn with_a_file(world: &World, name: &str) -> String {
    let id = world.running(name).await;
    let agent: AgentId = id.parse().unwrap();
    world.fakes.engine().put_file(agent, FILE, b"mine");
    id
}

async fn export(world: &World, id: &str) -> Vec<u8> {
    let response = world.request(Method::GET, &format!("/api/agents/{id}/export")).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers()["content-type"].to_str().unwrap()),
        (200, "application/x-tar")
    );
    assert!(response.headers()["content-disposition"].to_str().unwrap().ends_with(".tar\""));
    response.bytes().await.unwrap().to_vec()
}

async fn import(world: &World, query: &str, archive: Vec<u8>, key: Option<&str>) -> Answer {
    let request = world.request(Method::POST, &format!("/api/agents/import{query}"));
    let request = request.header("content-type", "application/x-tar").body(archive);
    answer(match key {
        Some(key) => request.header("x-model-api-key", key),
        None => request,
    })
    .await
}

fn file_of(world: &World, record: &Value) -> Option<Vec<u8>> {
    world.fakes.engine().file(record["id"].as_str().unwrap().parse().unwrap(), FILE)
}

#[tokio::test]
async fn export_has_no_secret_and_becomes_another_agent() {
    let world = World::new(Plan::Pro).await;
    let id = with_a_file(&world, "Ada").await;
    let archive = export(&world, &id).await;
    assert!(!archive.windows(10).any(|window| window == b"sk-planted"));
    let read = bundle::read(&archive).unwrap();
    assert_eq!((read.about.agent.name.as_str(), read.files.len()), ("Ada", 1), "{:?}", read.about);

    let imported = import(&world, "?name=Eve&slug=eve", archive, Some("sk-another")).await;
    assert_eq!((imported.status, imported.body["slug"].as_str()), (202, Some("eve")), "{imported:?}");
    assert_eq!(imported.header("location"), format!("/api/agents/{}", imported.body["id"].as_str().unwrap()));
    let record = world.reach(imported.body["id"].as_str().unwrap(), "RUNNING").await;
    assert_eq!((record["name"].as_str(), record["hasApiKey"].as_bool()), (Some("Eve"), Some(true)));
    assert_eq!(file_of(&world, &record).as_deref(), Some(&b"mine"[..]));
}

#[tokio::test]
async fn import_without_a_key_waits_for_one() {
    let world = World::new(Plan::Pro).await;
    let id = with_a_file(&world, "Ada").await;
    let imported = import(&world, "", export(&world, &id).await, None).await;
    assert_eq!((imported.status, imported.body["status"].as_str()), (202, Some("STOPPED")), "{imported:?}");
    assert_eq!(imported.body["statusReason"]["code"], "secrets-missing");
    let path = format!("/api/agents/{}", imported.body["id"].as_str().unwrap());
    assert_eq!(world.patch(&path, &json!({"apiKey": "sk-later"})).await.status, 200);
    assert_eq!(world.post(&format!("{path}/start"), &json!({})).await.status, 202);
    let record = world.reach(imported.body["id"].as_str().unwrap(), "RUNNING").await;
    assert_eq!(file_of(&world, &record).as_deref(), Some(&b"mine"[..]));
}

#[tokio::test]
async fn clone_has_the_same_data_and_key_and_no_channels() {
    let world = World::new(Plan::Pro).await;
    let id = with_a_file(&world, "Ada").await;
    let channels = json!({"channels": {"telegram": {"botToken": "1:planted"}}});
    assert_eq!(world.patch(&format!("/api/agents/{id}"), &channels).await.status, 200);
    world.reach(&id, "RUNNING").await;
    let cloned = world.post(&format!("/api/agents/{id}/clone"), &json!({"name": "Eve"})).await;
    assert_eq!((cloned.status, cloned.body["name"].as_str()), (202, Some("Eve")), "{cloned:?}");
    let record = world.reach(cloned.body["id"].as_str().unwrap(), "RUNNING").await;
    assert_eq!((record["hasApiKey"].as_bool(), record["channels"].as_object().unwrap().len()), (Some(true), 0));
    assert_eq!(file_of(&world, &record).as_deref(), Some(&b"mine"[..]));
    for (body, pointer) in
        [(json!({"name": ""}), "/name"), (json!({"slug": "No!"}), "/slug"), (json!({"nam": "x"}), "/nam")]
    {
        let refused = world.post(&format!("/api/agents/{id}/clone"), &body).await;
        refused.problem(422, "invalid");
        assert_eq!(refused.pointers(), [pointer]);
    }
}

/// The answer got lost with the service, after the agent was there or before.
#[tokio::test]
async fn an_import_or_a_clone_sent_again_after_a_crash_makes_one_agent() {
    let mut world = World::new(Plan::Enterprise).await;
    let id = with_a_file(&world, "Ada").await;
    let archive = export(&world, &id).await;
    for what in ["import", "clone"] {
        let send = async |world: &World| {
            let request = match what {
                "import" => {
                    let request = world.request(Method::POST, "/api/agents/import?slug=eve").body(archive.clone());
                    request.header("content-type", "application/x-tar").header("x-model-api-key", "sk-another")
                }
                _ => world.request(Method::POST, &format!("/api/agents/{id}/clone")).json(&json!({"name": "Zoe"})),
            };
            answer(request.header("idempotency-key", what)).await
        };
        let first = send(&world).await;
        assert_eq!(first.status, 202, "{first:?}");
        let made = first.body["id"].as_str().unwrap().to_owned();
        world.reach(&made, "RUNNING").await;
        let count = async |world: &World| world.get("/api/agents").await.body["data"].as_array().unwrap().len();
        let agents = count(&world).await;
        unanswered(&world, what, &made).await;
        world.restart().await;
        let again = send(&world).await;
        assert_eq!((again.status, again.body["id"].as_str()), (202, Some(made.as_str())), "{again:?}");
        assert_eq!(count(&world).await, agents, "{what}");

        // Nothing is left of it: as after a crash in the midst of it.
        unanswered(&world, what, &made).await;
        assert_eq!(world.delete(&format!("/api/agents/{made}")).await.status, 204);
        let anew = send(&world).await;
        assert_eq!(anew.status, 202, "{anew:?}");
        assert_ne!(anew.body["id"].as_str(), Some(made.as_str()));
        assert_eq!(count(&world).await, agents, "{what}");
    }
}

/// Makes it be as if the request with this key had been cut short after it made this agent.
async fn unanswered(world: &World, key: &str, made: &str) {
    let store = world.plane.store();
    let mut record = store.idempotency(world.user, key).await.unwrap().unwrap();
    let agent = Some(made.parse().unwrap());
    record.state = IdempotencyState::InFlight { agent, started_at: record.expires_at };
    commit(store, Batch::remove_idempotency(world.user, key)).await.unwrap();
    commit(store, Batch::put_idempotency(world.user, key, &record)).await.unwrap();
}

#[tokio::test]
async fn nothing_is_left_of_an_import_that_is_refused() {
    let world = World::new(Plan::Free).await;
    let id = with_a_file(&world, "Ada").await;
    let archive = export(&world, &id).await;
    // What an archive may not hold is tried out beside the code that reads it.
    for bad in [b"no archive".to_vec(), Vec::new(), [archive.clone()[..700].to_vec(), vec![7; 400]].concat()] {
        import(&world, "", bad, Some("sk-1")).await.problem(422, "invalid");
    }
    let typed = world.request(Method::POST, "/api/agents/import").header("content-type", "text/plain").body("x");
    answer(typed).await.problem(415, "unsupported-media-type");
    assert_eq!(import(&world, "?name=", archive.clone(), Some("sk-1")).await.pointers(), ["/name"]);
    let limit = Plan::Free.limits().max_agents.unwrap();
    for _ in 1..limit {
        assert_eq!(import(&world, "", archive.clone(), Some("sk-1")).await.status, 202);
    }
    import(&world, "", archive, Some("sk-1")).await.problem(403, "quota-exceeded");
    let left = world.get("/api/agents").await.body["data"].as_array().unwrap().len();
    assert_eq!((left, world.fakes.engine().volumes().len()), (limit as usize, limit as usize));
}

#[tokio::test]
async fn data_of_another_user_is_nobodys() {
    let world = World::new(Plan::Pro).await;
    let id = with_a_file(&world, "Ada").await;
    let stranger = world.stranger().await;
    for (method, rest) in [(Method::GET, "export"), (Method::POST, "clone"), (Method::POST, "upgrade")] {
        let request = world.raw(method, &format!("/api/agents/{id}/{rest}")).bearer_auth(&stranger);
        answer(request).await.problem(404, "not-found");
    }
}
