//! Administrators: any agent by the same routes, users suspended and deleted, keys of others, the last administrator.

use reqwest::Method;
use serde_json::{Value, json};
use zeroone::domain::{Plan, Scope};

use crate::world::{World, answer, new_agent, until};

#[tokio::test]
async fn administrators_act_on_any_agent_by_the_same_routes() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let agent = format!("/api/agents/{id}");
    let read = world.as_admin(Method::GET, &agent, None).await;
    assert_eq!((read.status, &read.body["userId"]), (200, &json!(world.user.to_string())));
    assert_eq!(world.as_admin(Method::PATCH, &agent, Some(&json!({"name": "b"}))).await.status, 200);
    let sent = world.as_admin(Method::POST, &format!("{agent}/message"), Some(&json!({"message": "hi"}))).await;
    assert_eq!((sent.status, &sent.body["response"]), (200, &json!("echo: hi")));
    assert_eq!(world.as_admin(Method::GET, &format!("{agent}/explain"), None).await.status, 200);
    assert_eq!(world.as_admin(Method::POST, &format!("{agent}/stop"), None).await.status, 202);
    world.reach(&id, "STOPPED").await;
    assert_eq!(world.as_admin(Method::DELETE, &agent, None).await.status, 204);
    // The administrator's own list has only their own.
    assert_eq!(world.as_admin(Method::GET, "/api/agents", None).await.body["data"], json!([]));
}

#[tokio::test]
async fn a_suspended_user_is_refused_and_their_agents_stop() {
    let mut world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let path = format!("/api/admin/users/{}", world.user);
    let mut stream = world.request(Method::GET, "/api/events").send().await.unwrap();
    let suspended = world.as_admin(Method::PATCH, &path, Some(&json!({"status": "suspended"}))).await;
    assert_eq!((suspended.status, &suspended.body["status"]), (200, &json!("suspended")), "{suspended:?}");
    world.get("/api/agents").await.problem(403, "suspended");
    while stream.chunk().await.unwrap().is_some() {}
    let agent = format!("/api/agents/{id}");
    let status = async |world: &World| {
        let agent = world.as_admin(Method::GET, &agent, None).await;
        agent.body["status"].as_str().unwrap_or("gone").to_owned()
    };
    until("the agent is stopped", async || status(&world).await == "STOPPED").await;
    world.restart().await;
    world.get("/api/agents").await.problem(403, "suspended");
    assert_eq!(status(&world).await, "STOPPED");
    let active = world.as_admin(Method::PATCH, &path, Some(&json!({"status": "active"}))).await;
    assert_eq!((active.status, &active.body["plan"]), (200, &json!("pro")), "{active:?}");
    assert_eq!(world.command(&id, "start").await.status, 202);
    world.reach(&id, "RUNNING").await;
    for status in ["deleting", "gone", ""] {
        let wrong = world.as_admin(Method::PATCH, &path, Some(&json!({"status": status}))).await;
        assert_eq!(wrong.pointers(), ["/status"]);
    }
    for field in ["plan", "status", "administrator"] {
        let removed = world.as_admin(Method::PATCH, &path, Some(&json!({field: null}))).await;
        assert_eq!(removed.pointers(), [format!("/{field}")], "{removed:?}");
    }
}

#[tokio::test]
async fn a_user_is_deleted_with_all_agents_also_across_a_restart() {
    let mut world = World::new(Plan::Pro).await;
    for name in ["a", "b", "c"] {
        world.running(name).await;
    }
    let path = format!("/api/admin/users/{}", world.user);
    world.as_admin(Method::DELETE, &path, None).await.problem(409, "in-use");
    world.as_admin(Method::DELETE, &format!("{path}?agents=keep"), None).await.problem(422, "invalid");
    assert_eq!(world.get("/api/agents").await.status, 200, "nothing was done");
    let accepted = world.as_admin(Method::DELETE, &format!("{path}?agents=delete"), None).await;
    assert_eq!((accepted.status, &accepted.body["status"]), (202, &json!("deleting")), "{accepted:?}");
    let refused = world.get("/api/agents").await;
    assert!(matches!(refused.status, 401 | 403), "{refused:?}");
    world.restart().await;
    until("the user is gone", async || world.as_admin(Method::GET, &path, None).await.status == 404).await;
    assert_eq!(world.as_admin(Method::GET, "/api/admin/agents", None).await.body["data"], json!([]));
    world.get("/api/agents").await.problem(401, "unauthorized");
}

#[tokio::test]
async fn the_last_administrator_stays() {
    let world = World::new(Plan::Pro).await;
    let keys = world.as_admin(Method::GET, "/api/keys", None).await;
    let own = format!("/api/keys/{}", keys.body["data"][0]["id"].as_str().unwrap());
    world.as_admin(Method::DELETE, &own, None).await.problem(409, "last-administrator");
    let me = world.as_admin(Method::GET, "/api/me", None).await;
    let operator = format!("/api/admin/users/{}", me.body["id"].as_str().unwrap());
    world.as_admin(Method::PATCH, &operator, Some(&json!({"status": "suspended"}))).await.problem(403, "forbidden");
    // Another user's administrator key is enough to go.
    let other = world.key_with(&[Scope::Admin]).await;
    let by_other = async |method: Method, path: &str, body: serde_json::Value| {
        answer(world.raw(method, path).bearer_auth(&other).json(&body)).await
    };
    let suspended = by_other(Method::PATCH, &operator, json!({"status": "suspended"})).await;
    assert_eq!(suspended.status, 200, "{suspended:?}");
    let path = format!("/api/admin/users/{}", world.user);
    by_other(Method::PATCH, &path, json!({"status": "suspended"})).await.problem(403, "forbidden");
    assert_eq!(by_other(Method::DELETE, &operator, json!({})).await.status, 204);
}

#[tokio::test]
async fn administrators_list_and_revoke_the_keys_of_a_user() {
    let world = World::new(Plan::Pro).await;
    let keys = format!("/api/admin/users/{}/keys", world.user);
    let made = world.as_admin(Method::POST, &keys, Some(&json!({"name": "for ada"}))).await;
    assert_eq!((made.status, &made.body["parent"]), (201, &json!(null)), "{made:?}");
    let text = made.body["key"].as_str().unwrap();
    let list = world.as_admin(Method::GET, &keys, None).await;
    assert_eq!(list.body["data"].as_array().unwrap().len(), 2);
    assert!(!list.text.contains(text));
    let key = format!("{keys}/{}", made.body["id"].as_str().unwrap());
    assert_eq!(world.as_admin(Method::DELETE, &key, None).await.status, 204);
    world.as_admin(Method::DELETE, &key, None).await.problem(404, "not-found");
    answer(world.raw(Method::GET, "/api/agents").bearer_auth(text)).await.problem(401, "unauthorized");
    let nobody = "/api/admin/users/01890000-0000-7000-8000-000000000000/keys";
    world.as_admin(Method::GET, nobody, None).await.problem(404, "not-found");
    // What an administrator's key made with the scope admin goes with it.
    let admin = world.as_admin(Method::POST, &keys, Some(&json!({"scopes": ["admin"]}))).await;
    assert!(admin.body["parent"].is_string(), "{admin:?}");
}

#[tokio::test]
async fn users_are_found_by_their_address() {
    let world = World::new(Plan::Pro).await;
    let found = world.as_admin(Method::GET, "/api/admin/users?email=ADA%40example.org", None).await;
    let found = found.body["data"].as_array().unwrap();
    assert_eq!((found.len(), &found[0]["id"]), (1, &json!(world.user.to_string())));
    let nobody = world.as_admin(Method::GET, "/api/admin/users?email=no@body", None).await;
    assert_eq!(nobody.body["data"], json!([]));
}

#[tokio::test]
async fn a_changed_and_a_deleted_user_do_not_race() {
    let world = World::new(Plan::Pro).await;
    for round in 0..20 {
        let new = json!({"email": format!("{round}@example.org"), "plan": "free"});
        let made = world.as_admin(Method::POST, "/api/admin/users", Some(&new)).await;
        let path = made.header("location").to_owned();
        let (patch, suspend) = (json!({"plan": "pro"}), json!({"status": "suspended"}));
        let (changed, status, deleted) = tokio::join!(
            world.as_admin(Method::PATCH, &path, Some(&patch)),
            world.as_admin(Method::PATCH, &path, Some(&suspend)),
            world.as_admin(Method::DELETE, &path, None),
        );
        assert_eq!(deleted.status, 204);
        for answer in [changed, status] {
            assert!(matches!(answer.status, 200 | 404), "{answer:?}");
        }
        world.as_admin(Method::GET, &path, None).await.problem(404, "not-found");
    }
    let new = json!({"email": "both@example.org", "plan": "free"});
    let path = world.as_admin(Method::POST, "/api/admin/users", Some(&new)).await.header("location").to_owned();
    let (plan, status) = (json!({"plan": "pro"}), json!({"status": "suspended"}));
    tokio::join!(
        world.as_admin(Method::PATCH, &path, Some(&plan)),
        world.as_admin(Method::PATCH, &path, Some(&status)),
    );
    let both = world.as_admin(Method::GET, &path, None).await;
    assert_eq!((&both.body["plan"], &both.body["status"]), (&json!("pro"), &json!("suspended")));
}

#[tokio::test]
async fn a_suspended_user_gets_no_agent() {
    let world = World::new(Plan::Pro).await;
    let path = format!("/api/admin/users/{}", world.user);
    world.as_admin(Method::PATCH, &path, Some(&json!({"status": "suspended"}))).await;
    world.post("/api/agents", &new_agent("a")).await.problem(403, "suspended");
}

#[tokio::test]
async fn a_plan_below_what_is_used_stops_nothing_and_says_so() {
    let world = World::new(Plan::Pro).await;
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(world.running(&format!("a{n}")).await);
    }
    let path = format!("/api/admin/users/{}", world.user);
    let changed = world.as_admin(Method::PATCH, &path, Some(&json!({"plan": "free"}))).await;
    assert_eq!((changed.status, &changed.body["overLimit"]), (200, &json!(true)), "{changed:?}");
    let me = world.get("/api/me").await.body;
    assert_eq!((&me["used"], &me["limits"]["maxAgents"], &me["overLimit"]), (&json!(4), &json!(3), &json!(true)));
    for id in &ids {
        assert_eq!(world.status(id).await, "RUNNING");
    }
    let explained = world.get(&format!("/api/agents/{}/explain", ids[0])).await.body;
    assert_eq!(explained["overLimit"], json!({"limit": 3, "used": 4}));
    world.post("/api/agents", &new_agent("more")).await.problem(403, "quota-exceeded");
    assert_eq!(world.delete(&format!("/api/agents/{}", ids[3])).await.status, 204);
    let explained = world.get(&format!("/api/agents/{}/explain", ids[0])).await.body;
    assert_eq!(explained["overLimit"], json!(null));
}

#[tokio::test]
async fn the_last_administrator_stays_one() {
    let world = World::new(Plan::Pro).await;
    let me = world.as_admin(Method::GET, "/api/me", None).await.body["id"].as_str().unwrap().to_owned();
    let own = format!("/api/admin/users/{me}");
    let promote = |yes: bool| json!({"administrator": yes});
    assert_eq!(world.as_admin(Method::PATCH, &own, Some(&promote(true))).await.status, 200);
    // The key that acts administers the service too.
    assert_eq!(world.as_admin(Method::PATCH, &own, Some(&promote(false))).await.status, 200);
    world.as_admin(Method::PATCH, &own, Some(&promote(true))).await;
    let password = json!({"password": "correct horse battery"});
    world.as_admin(Method::POST, &format!("{own}/password"), Some(&password)).await;
    let login = json!({"email": "root@example.org", "password": "correct horse battery"});
    let welcome = answer(world.raw(Method::POST, "/api/auth/login").json(&login)).await;
    let cookie = welcome.header("set-cookie").split(';').next().unwrap().to_owned();
    // With a password the last key may go,
    let key = world.as_admin(Method::GET, "/api/keys", None).await.body["data"][0]["id"].as_str().unwrap().to_owned();
    let ask = async |method, path: &str, body: Option<Value>| {
        let mut request = world.raw(method, path).header("cookie", &cookie);
        if let Some(body) = body {
            request = request.json(&body);
        }
        answer(request).await
    };
    assert_eq!(ask(Method::DELETE, &format!("/api/keys/{key}"), None).await.status, 204);
    // but then not the administrator.
    ask(Method::PATCH, &own, Some(promote(false))).await.problem(409, "last-administrator");
    assert_eq!(ask(Method::GET, "/api/admin/users", None).await.status, 200);
}
