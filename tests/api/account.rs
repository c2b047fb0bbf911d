//! Keys, users and who may do what.

use std::num::NonZeroU32;

use reqwest::Method;
use serde_json::json;
use zeroone::domain::{Plan, Scope};
use zeroone::http::{HttpOptions, RateLimit};

use crate::world::{World, answer, new_agent};

#[tokio::test]
async fn without_a_good_key_nobody_gets_in() {
    let world = World::new(Plan::Pro).await;
    for authorization in
        [None, Some("Bearer zo_wrong"), Some("Basic eDp5"), Some("Bearer"), Some("zo_x"), Some("Bearer \u{e9}")]
    {
        let mut request = world.raw(Method::GET, "/api/agents");
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization.as_bytes());
        }
        let refused = answer(request).await;
        refused.problem(401, "unauthorized");
        assert!(refused.header("www-authenticate").starts_with("Bearer"));
    }
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let reader = world.key_with(&[Scope::AgentsRead]).await;
    let sender = world.key_with(&[Scope::MessagesSend]).await;
    let try_with = async |key: &str, method: Method, path: String, body: serde_json::Value| {
        answer(world.raw(method, &path).bearer_auth(key).json(&body)).await
    };
    let agent = format!("/api/agents/{id}");
    assert_eq!(try_with(&reader, Method::GET, agent.clone(), json!({})).await.status, 200);
    try_with(&reader, Method::POST, "/api/agents".into(), new_agent("b")).await.problem(403, "forbidden");
    try_with(&reader, Method::POST, format!("{agent}/message"), json!({"message": "x"}))
        .await
        .problem(403, "forbidden");
    try_with(&sender, Method::GET, agent.clone(), json!({})).await.problem(403, "forbidden");
    assert_eq!(try_with(&sender, Method::POST, format!("{agent}/message"), json!({"message": "x"})).await.status, 200);
    for path in ["/api/admin/users", "/api/admin/agents", "/api/admin/runtime"] {
        world.get(path).await.problem(403, "forbidden");
    }
}

#[tokio::test]
async fn users_make_list_and_revoke_keys() {
    let world = World::new(Plan::Pro).await;
    let body = json!({"name": "ci", "scopes": ["agents:read"], "expiresAt": "2999-01-01T00:00:00Z"});
    let made = world.post("/api/keys", &body).await;
    assert_eq!(made.status, 201, "{made:?}");
    let key = made.body["key"].as_str().unwrap().to_owned();
    assert!(key.starts_with("zo_") && key.len() >= 67);
    assert_eq!((&made.body["name"], &made.body["scopes"]), (&json!("ci"), &json!(["agents:read"])));
    assert_eq!(answer(world.raw(Method::GET, "/api/agents").bearer_auth(&key)).await.status, 200);
    let list = world.get("/api/keys").await;
    assert!(!list.text.contains(&key));
    let listed = list.body["data"].as_array().unwrap().iter().find(|k| k["id"] == made.body["id"]).unwrap();
    assert!(listed["lastUsedAt"].is_string() && listed.get("key").is_none(), "{listed}");
    world.post("/api/keys", &json!({"scopes": ["admin"]})).await.problem(403, "forbidden");
    for body in [
        json!({"scopes": ["all"]}),
        json!({"scopes": []}),
        json!({"expiresAt": "2001-01-01T00:00:00Z"}),
        json!({"name": ""}),
    ] {
        world.post("/api/keys", &body).await.problem(422, "invalid");
    }
    let path = format!("/api/keys/{}", made.body["id"].as_str().unwrap());
    answer(world.raw(Method::DELETE, &path).bearer_auth(world.stranger().await)).await.problem(404, "not-found");
    assert_eq!(world.delete(&path).await.status, 204);
    world.delete(&path).await.problem(404, "not-found");
    answer(world.raw(Method::GET, "/api/agents").bearer_auth(&key)).await.problem(401, "unauthorized");
}

#[tokio::test]
async fn operators_keep_the_users() {
    let world = World::new(Plan::Pro).await;
    let make = async |body: serde_json::Value| world.as_admin(Method::POST, "/api/admin/users", Some(&body)).await;
    let made = make(json!({"email": "Bob@Example.org", "plan": "free"})).await;
    assert_eq!(made.status, 201, "{made:?}");
    let path = made.header("location").to_owned();
    assert_eq!((&made.body["email"], &made.body["limits"]["maxAgents"]), (&json!("bob@example.org"), &json!(3)));
    make(json!({"email": "bob@example.org", "plan": "pro"})).await.problem(409, "name-taken");
    let wrong = make(json!({"email": "bob", "plan": "gold"})).await;
    wrong.problem(422, "invalid");
    assert_eq!(wrong.pointers(), ["/email", "/plan"]);
    let custom = json!({"maxAgents": 7, "cpu": 4, "memoryMb": 1024});
    make(json!({"email": "c@d.e", "plan": "pro", "limits": custom})).await.problem(422, "invalid");
    let patched = world.as_admin(Method::PATCH, &path, Some(&json!({"plan": "enterprise", "limits": custom}))).await;
    assert_eq!((patched.status, &patched.body["limits"]["maxAgents"]), (200, &json!(7)), "{patched:?}");
    let back = world.as_admin(Method::PATCH, &path, Some(&json!({"plan": "pro"}))).await;
    assert_eq!((&back.body["limits"]["maxAgents"], &back.body["customLimits"]), (&json!(20), &json!(false)));
    let key = world.as_admin(Method::POST, &format!("{path}/keys"), Some(&json!({}))).await;
    assert_eq!(key.status, 201, "{key:?}");
    let key = key.body["key"].as_str().unwrap().to_owned();
    let created = answer(world.raw(Method::POST, "/api/agents").bearer_auth(&key).json(&new_agent("bob"))).await;
    assert_eq!(created.status, 202, "{created:?}");
    world.as_admin(Method::DELETE, &path, None).await.problem(409, "in-use");
    let agents = world.as_admin(Method::GET, "/api/admin/agents", None).await;
    assert_eq!(agents.body["data"][0]["id"], created.body["id"]);
    let agent = format!("/api/agents/{}", created.body["id"].as_str().unwrap());
    assert_eq!(answer(world.raw(Method::DELETE, &agent).bearer_auth(&key)).await.status, 204);
    assert_eq!(world.as_admin(Method::DELETE, &path, None).await.status, 204);
    world.as_admin(Method::GET, &path, None).await.problem(404, "not-found");
    answer(world.raw(Method::GET, "/api/me").bearer_auth(&key)).await.problem(401, "unauthorized");
    let users = world.as_admin(Method::GET, "/api/admin/users?limit=1", None).await;
    assert!(users.body["nextCursor"].is_string(), "{users:?}");
    let me = world.as_admin(Method::GET, "/api/me", None).await;
    let own = format!("/api/admin/users/{}", me.body["id"].as_str().unwrap());
    world.as_admin(Method::DELETE, &own, None).await.problem(403, "forbidden");
    let runtime = world.as_admin(Method::GET, "/api/admin/runtime", None).await;
    assert_eq!((runtime.status, &runtime.body["reachable"]), (200, &json!(true)), "{runtime:?}");
    assert_eq!(runtime.body["installation"], world.fakes.installation().to_string());
    let public = answer(world.raw(Method::GET, "/readyz?verbose")).await;
    assert!(!public.text.contains(&world.fakes.installation().to_string()), "{public:?}");
}

#[tokio::test]
async fn each_key_has_its_share() {
    let few = RateLimit { per_second: NonZeroU32::MIN, burst: NonZeroU32::new(3).unwrap() };
    let world = World::with(Plan::Pro, HttpOptions::default().with_rate_limit(few)).await;
    let first = world.get("/api/me").await;
    assert_eq!((first.header("ratelimit-limit"), first.header("ratelimit-remaining")), ("3", "2"));
    let mut last = first;
    for _ in 0..3 {
        last = world.get("/api/me").await;
    }
    last.problem(429, "rate-limited");
    assert_eq!((last.header("ratelimit-remaining"), last.header("retry-after")), ("0", "1"));
    assert_eq!(world.as_admin(Method::GET, "/api/me", None).await.status, 200);
}
