//! Records and commands: every row of the contract's table that is one.

use reqwest::Method;
use serde_json::{Value, json};
use zeroone::domain::Plan;
use zeroone::testkit::GatewayFault;

use crate::world::{World, answer, new_agent};

const RECORD: [&str; 33] = [
    "id",
    "userId",
    "name",
    "slug",
    "agentName",
    "userName",
    "timezone",
    "communicationStyle",
    "containerId",
    "containerPort",
    "status",
    "provider",
    "model",
    "providerUrl",
    "temperature",
    "maxTokens",
    "memoryBackend",
    "autoSave",
    "subdomain",
    "memoryMb",
    "cpuPercent",
    "lastHealthAt",
    "createdAt",
    "updatedAt",
    "statusReason",
    "generation",
    "restarts",
    "nextAttemptAt",
    "hasApiKey",
    "image",
    "version",
    "upgrade",
    "channels",
];

fn keys(record: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = record.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn a_create_is_answered_at_once_and_the_agent_comes_up() {
    let world = World::new(Plan::Pro).await;
    let mut body = new_agent("Ada's agent");
    body["channels"] = json!({"telegram": {"botToken": "1:planted-bot"}});
    let created = world.post("/api/agents", &body).await;
    assert_eq!(created.status, 202, "{created:?}");
    let id = created.body["id"].as_str().unwrap().to_owned();
    assert_eq!(created.header("location"), format!("/api/agents/{id}"));
    assert_eq!(created.header("etag"), "\"1\"");
    assert!(["PENDING", "STARTING"].contains(&created.body["status"].as_str().unwrap()), "{created:?}");
    let mut expected = RECORD.to_vec();
    expected.sort_unstable();
    assert_eq!(keys(&created.body), expected);
    for (field, value) in [
        ("slug", json!("ada-s-agent")),
        ("agentName", json!("ZeroClaw")),
        ("userName", Value::Null),
        ("timezone", json!("UTC")),
        ("temperature", json!(0.7)),
        ("memoryBackend", json!("sqlite")),
        ("autoSave", json!(true)),
        ("subdomain", json!("ada-s-agent.agents.example.org")),
        ("generation", json!(1)),
        ("restarts", json!(0)),
        ("hasApiKey", json!(true)),
    ] {
        assert_eq!(created.body[field], value, "{field}");
    }
    let running = world.reach(&id, "RUNNING").await;
    assert!(running["containerId"].is_string(), "{running}");
    assert!((40_000..=50_000).contains(&running["containerPort"].as_u64().unwrap()));
    assert_eq!(running["channels"]["telegram"]["botToken"], "1:planted-bot");
    assert!(!running.to_string().contains("sk-planted-key"));
    let list = world.get("/api/agents").await;
    assert_eq!(list.body["data"][0]["channelKinds"], json!(["telegram"]));
    assert!(list.body["data"][0].get("channels").is_none());
    assert!(!list.text.contains("planted"));
}

#[tokio::test]
async fn everything_wrong_with_a_new_agent_is_said_at_once() {
    let world = World::new(Plan::Pro).await;
    let refused = world
        .post(
            "/api/agents",
            &json!({"name": "", "provider": "openai", "temperature": 3, "slug": "A B", "timezone": "Mars"}),
        )
        .await;
    refused.problem(422, "invalid");
    let mut pointers = refused.pointers();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/apiKey", "/model", "/name", "/slug", "/temperature", "/timezone"]);
    let typo = world.post("/api/agents", &json!({"nmae": "x"})).await;
    typo.problem(422, "invalid");
    assert_eq!(typo.pointers(), ["/nmae"]);
    let nested = world.post("/api/agents", &json!({"channels": {"telegram": {"botToken": 5}}})).await;
    assert_eq!(nested.pointers(), ["/channels/telegram/botToken"]);
}

#[tokio::test]
async fn only_ollama_works_without_a_key() {
    let world = World::new(Plan::Pro).await;
    let created = world.post("/api/agents", &json!({"name": "a", "provider": "ollama", "model": "m"})).await;
    assert_eq!((created.status, &created.body["hasApiKey"]), (202, &json!(false)), "{created:?}");
}

#[tokio::test]
async fn model_on_this_machine_is_asked_under_the_address_that_instances_have_for_it() {
    let world = World::new(Plan::Pro).await;
    let mut body = new_agent("a");
    body["providerUrl"] = json!("http://localhost:11434/v1");
    let id = world.post("/api/agents", &body).await.body["id"].as_str().unwrap().to_owned();
    let record = world.reach(&id, "RUNNING").await;
    assert_eq!(record["providerUrl"], "http://localhost:11434/v1", "what its owner wrote stays");
    let file = world.fakes.engine().file(id.parse().unwrap(), ".zeroclaw/config.toml").unwrap();
    let config = String::from_utf8(file).unwrap();
    assert!(config.contains("custom:http://host.test:11434/v1"), "{config}");
}

#[tokio::test]
async fn slugs_are_unique_and_quotas_hold_whoever_asks_at_once() {
    let world = World::new(Plan::Free).await;
    let creates = (0..40).map(|n| {
        let request = world.request(Method::POST, "/api/agents").json(&new_agent(&format!("a{n}")));
        tokio::spawn(answer(request))
    });
    let mut admitted = 0;
    for create in creates.collect::<Vec<_>>() {
        let create = create.await.unwrap();
        if create.status == 202 {
            admitted += 1;
        } else {
            let problem = create.problem(403, "quota-exceeded");
            assert_eq!((&problem["limit"], &problem["used"]), (&json!(3), &json!(3)));
        }
    }
    assert_eq!(admitted, 3);
    let me = world.get("/api/me").await;
    assert_eq!((&me.body["used"], &me.body["limits"]["maxAgents"]), (&json!(3), &json!(3)), "{me:?}");
    let mut taken = new_agent("other");
    taken["slug"] = world.get("/api/agents?limit=1").await.body["data"][0]["slug"].clone();
    let taken = answer(world.raw(Method::POST, "/api/agents").bearer_auth(&world.admin).json(&taken)).await;
    taken.problem(409, "name-taken");
    assert_eq!(taken.pointers(), ["/slug"]);
}

#[tokio::test]
async fn lists_come_in_pages_and_by_status() {
    let world = World::new(Plan::Pro).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(world.running(&format!("a{n}")).await);
    }
    world.command(&ids[1], "stop").await;
    world.reach(&ids[1], "STOPPED").await;
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = world.get(&format!("/api/agents?limit=2{cursor}")).await.body;
        seen.extend(page["data"].as_array().unwrap().iter().map(|agent| agent["id"].as_str().unwrap().to_owned()));
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ids);
    let stopped = world.get("/api/agents?status=STOPPED,ERROR").await.body;
    assert_eq!((stopped["data"].as_array().unwrap().len(), &stopped["data"][0]["id"]), (1, &json!(ids[1])));
    // By what people call it, or by its model, whatever the case.
    let found = world.get("/api/agents?search=STOPPED-nothing").await.body;
    assert_eq!(found["data"], json!([]));
    let first = world.get("/api/agents?limit=1").await.body["data"][0].clone();
    let words = first["slug"].as_str().unwrap().to_uppercase();
    let found = world.get(&format!("/api/agents?search={words}")).await.body;
    assert!(found["data"].as_array().unwrap().iter().any(|agent| agent["id"] == first["id"]), "{found}");
    for query in ["limit=0", "limit=201", "limit=x", "cursor=!", "status=ALIVE"] {
        world.get(&format!("/api/agents?{query}")).await.problem(422, "invalid");
    }
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_restarts_only_for_what_must_be_seen() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let path = format!("/api/agents/{id}");
    let attempt = async || world.get(&format!("{path}/explain")).await.body["attempt"].clone();
    let first = attempt().await;
    let renamed = world.patch(&path, &json!({"name": "b"})).await;
    assert_eq!((renamed.status, renamed.header("etag")), (200, "\"2\""), "{renamed:?}");
    assert_eq!((&renamed.body["name"], &renamed.body["status"]), (&json!("b"), &json!("RUNNING")));
    assert_eq!(attempt().await, first);
    let nothing = world.patch(&path, &json!({})).await;
    assert_eq!((nothing.status, nothing.header("etag")), (200, "\"2\""));
    let changed =
        world.patch(&path, &json!({"userName": "Ada", "channels": {"slack": {"botToken": "xoxb-planted"}}})).await;
    assert_eq!((changed.status, &changed.body["userName"]), (200, &json!("Ada")), "{changed:?}");
    assert_eq!(changed.body["channels"]["slack"]["botToken"], "xoxb-planted");
    world.reach(&id, "RUNNING").await;
    assert_ne!(attempt().await, first);
    // What it is already is no change, however it is written.
    let (tag, second) = (world.get(&path).await.header("etag").to_owned(), attempt().await);
    for same in [json!({"channels": {"slack": {"botToken": "xoxb-planted"}}}), json!({"userName": "Ada"})] {
        let same_as_before = world.patch(&path, &same).await;
        assert_eq!((same_as_before.status, same_as_before.header("etag")), (200, tag.as_str()), "{same}");
    }
    assert_eq!(attempt().await, second);
    let removed = world.patch(&path, &json!({"userName": null, "channels": null})).await;
    assert_eq!((&removed.body["userName"], &removed.body["channels"]), (&Value::Null, &json!({})), "{removed:?}");
    for (body, pointer) in [
        (json!({"apiKey": null}), "/apiKey"),
        (json!({"name": null}), "/name"),
        (json!({"slug": "x"}), "/slug"),
        (json!({"id": "x"}), "/id"),
        (json!({"temperature": 9}), "/temperature"),
        (json!({"temperature": "warm"}), "/temperature"),
        (json!({"maxTokens": 0}), "/maxTokens"),
        (json!({"maxTokens": -1}), "/maxTokens"),
        (json!({"providerUrl": "http://elsewhere.test/v1"}), "/apiKey"),
    ] {
        let refused = world.patch(&path, &body).await;
        refused.problem(422, "invalid");
        assert_eq!(refused.pointers(), [pointer], "{body}");
    }
    let tuned = world.patch(&path, &json!({"maxTokens": 512, "temperature": 0.1})).await;
    assert_eq!((&tuned.body["maxTokens"], &tuned.body["temperature"]), (&json!(512), &json!(0.1)), "{tuned:?}");
    let cleared = world.patch(&path, &json!({"maxTokens": null, "temperature": null})).await;
    assert_eq!((&cleared.body["maxTokens"], &cleared.body["temperature"]), (&Value::Null, &json!(0.7)), "{cleared:?}");
    let away = world.patch(&path, &json!({"provider": "ollama", "apiKey": null})).await;
    assert_eq!((away.status, &away.body["hasApiKey"]), (200, &json!(false)), "{away:?}");
    for none in [json!({"apiKey": null}), json!({"channels": null}), json!({"channels": {"telegram": null}})] {
        let again = world.patch(&path, &none).await;
        assert_eq!(again.header("etag"), away.header("etag"), "it has none: {none}");
    }
}

#[tokio::test]
async fn who_knows_an_older_generation_changes_nothing() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let path = format!("/api/agents/{id}");
    let with = |method: Method, tag: &'static str| world.request(method, &path).header("if-match", tag);
    answer(with(Method::PATCH, "\"7\"").json(&json!({"name": "b"}))).await.problem(412, "precondition-failed");
    answer(with(Method::DELETE, "\"7\"")).await.problem(412, "precondition-failed");
    answer(with(Method::PATCH, "nonsense").json(&json!({"name": "b"}))).await.problem(400, "malformed");
    assert_eq!(answer(with(Method::PATCH, "\"1\"").json(&json!({"name": "b"}))).await.status, 200);
    assert_eq!(answer(with(Method::DELETE, "\"2\"")).await.status, 204);
}

#[tokio::test]
async fn patches_at_once_all_count() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let path = format!("/api/agents/{id}");
    let patches = ["x", "y", "z"]
        .map(|name| tokio::spawn(answer(world.request(Method::PATCH, &path).json(&json!({"name": name})))));
    for patch in patches {
        assert_eq!(patch.await.unwrap().status, 200);
    }
    assert_eq!(world.get(&path).await.body["generation"], 4);
}

#[tokio::test]
async fn commands_are_answered_by_what_they_find() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    assert_eq!(world.command(&id, "start").await.status, 200);
    assert_eq!(world.command(&id, "stop").await.status, 202);
    world.reach(&id, "STOPPED").await;
    let stopped = world.command(&id, "stop").await;
    assert_eq!((stopped.status, &stopped.body["status"]), (200, &json!("STOPPED")), "{stopped:?}");
    let refused = world.post(&format!("/api/agents/{id}/message"), &json!({"message": "hi"})).await;
    let problem = refused.problem(409, "illegal-transition");
    assert_eq!((&problem["agentStatus"], &problem["allowed"][0]), (&json!("STOPPED"), &json!("start")));
    assert_eq!(world.command(&id, "start").await.status, 202);
    world.reach(&id, "RUNNING").await;
    let restarted = world.command(&id, "restart").await;
    assert_eq!(restarted.status, 202, "{restarted:?}");
    world.reach(&id, "RUNNING").await;
    let typo = world.post(&format!("/api/agents/{id}/stop"), &json!({"force": true})).await;
    assert_eq!(typo.pointers(), ["/force"]);
}

#[tokio::test]
async fn a_stop_is_legal_while_it_starts_and_a_delete_always() {
    let world = World::new(Plan::Pro).await;
    world.fakes.engine().set_gateway_fault(GatewayFault::Unwell);
    let starting = world.created("starting").await;
    world.reach(&starting, "STARTING").await;
    assert_eq!(world.command(&starting, "stop").await.status, 202);
    world.reach(&starting, "STOPPED").await;
    assert_eq!(world.delete(&format!("/api/agents/{starting}")).await.status, 204);
    world.fakes.engine().set_gateway_fault(GatewayFault::Well);
    let new = world.created("new").await;
    assert_eq!(world.delete(&format!("/api/agents/{new}")).await.status, 204);
    let running = world.running("running").await;
    assert_eq!(world.delete(&format!("/api/agents/{running}")).await.status, 204);
    world.get(&format!("/api/agents/{running}")).await.problem(404, "not-found");
    world.delete(&format!("/api/agents/{running}")).await.problem(404, "not-found");
    assert_eq!(world.get("/api/me").await.body["used"], 0);
    assert!(world.fakes.engine().all().is_empty() && world.fakes.engine().volumes().is_empty());
}

#[tokio::test]
async fn a_wait_ends_when_reached_at_the_timeout_or_when_out_of_reach() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let wait = async |query: &str| world.get(&format!("/api/agents/{id}/wait?{query}")).await;
    assert_eq!(wait("status=STOPPED,RUNNING").await.body["status"], "RUNNING");
    wait("status=STOPPED&timeout=1").await.problem(408, "timeout");
    world.command(&id, "stop").await;
    world.reach(&id, "STOPPED").await;
    let problem = wait("status=RUNNING&timeout=30").await;
    let told = problem.problem(409, "illegal-transition");
    assert_eq!(told["agentStatus"], "STOPPED");
    assert!(told["allowed"].as_array().unwrap().contains(&json!("start")), "{told}");
    for query in ["timeout=0", "timeout=301", "status=UP"] {
        wait(query).await.problem(422, "invalid");
    }
}

#[tokio::test]
async fn agents_of_others_look_like_none() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let stranger = world.stranger().await;
    for (method, path) in [
        (Method::GET, ""),
        (Method::DELETE, ""),
        (Method::POST, "/stop"),
        (Method::GET, "/wait"),
        (Method::GET, "/logs"),
        (Method::GET, "/stats"),
        (Method::GET, "/health"),
        (Method::GET, "/events"),
        (Method::GET, "/explain"),
        (Method::GET, "/incidents"),
    ] {
        let path = format!("/api/agents/{id}{path}");
        let theirs = answer(world.raw(method.clone(), &path).bearer_auth(&stranger)).await;
        theirs.problem(404, "not-found");
        let none = path.replace(&id, "019513f2-5c3e-7b1a-9c55-1f2e3d4c5b6a");
        let none = answer(world.raw(method, &none).bearer_auth(&stranger)).await;
        assert_eq!((none.status, &none.body["detail"]), (theirs.status, &theirs.body["detail"]));
    }
    assert_eq!(answer(world.raw(Method::GET, "/api/agents").bearer_auth(&stranger)).await.body["data"], json!([]));
    assert_eq!(world.status(&id).await, "RUNNING");
}
