//! The audit: every change, refusal and look is in it, and no secret.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use zeroone::control::{AccountSettings, Registration};
use zeroone::domain::Plan;
use zeroone::http::HttpOptions;

use crate::world::{World, answer, new_agent};

const PASSWORD: &str = "planted horse battery";

async fn audit(world: &World, query: &str) -> Vec<Value> {
    let page = world.as_admin(Method::GET, &format!("/api/admin/audit?limit=200&{query}"), None).await;
    assert_eq!(page.status, 200, "{page:?}");
    page.body["data"].as_array().unwrap().clone()
}

/// Routes that change something, by the document itself: neither reads, nor messages, nor what is an agent's own business.
pub fn changing(document: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
            let read = matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS" | "PARAMETERS");
            let message = path.starts_with("/v1/") || path.ends_with("/message") || path.contains("/gateway/");
            if !read && !message {
                found.insert(format!("{method} {path}"));
            }
        }
    }
    found
}

#[tokio::test]
async fn every_route_that_changes_something_tells_of_a_refusal() {
    let accounts = AccountSettings::default().with_registration(Registration::Open);
    let world = World::with_accounts(Plan::Enterprise, HttpOptions::default(), accounts).await;
    let document = answer(world.raw(Method::GET, "/api/openapi.json")).await.body;
    for action in changing(&document) {
        let (method, path) = action.split_once(' ').unwrap();
        // Refused for want of a key where nothing has that id: even that must be there.
        let path = path.replace("{", "").replace("}", "");
        let asked = world.raw(method.parse().unwrap(), &path).header("x-request-id", "walk").json(&json!({}));
        let status = answer(asked.header("origin", "https://elsewhere.example")).await.status;
        assert!(matches!(status, 401 | 403), "{action} {status}");
    }
    let refused: BTreeSet<String> =
        audit(&world, "outcome=refused").await.iter().map(|it| it["action"].as_str().unwrap().to_owned()).collect();
    assert_eq!(refused, changing(&document));
}

#[tokio::test]
async fn what_is_done_is_written_with_who_did_it_in_the_commit_that_did_it() {
    let accounts = AccountSettings::default().with_registration(Registration::Open);
    let world = World::with_accounts(Plan::Enterprise, HttpOptions::default(), accounts).await;
    let user = world.user;
    let admin = async |method: Method, path: &str, body: Value| {
        let done = world.as_admin(method, path, Some(&body)).await;
        assert!(done.status < 300, "{path} {done:?}");
        done.body
    };
    let id = world.running("a").await;
    let agent = format!("/api/agents/{id}");
    assert_eq!(world.patch(&agent, &json!({"name": "b"})).await.status, 200);
    for command in ["restart", "stop", "start"] {
        assert_eq!(world.command(&id, command).await.status, 202, "{command}");
        world.reach(&id, if command == "stop" { "STOPPED" } else { "RUNNING" }).await;
    }
    let key = world.post("/api/keys", &json!({})).await;
    assert_eq!(world.delete(&format!("/api/keys/{}", key.body["id"].as_str().unwrap())).await.status, 204);
    let login = json!({"email": "ada@example.org", "password": PASSWORD});
    let register = json!({"email": "bob@example.org", "password": PASSWORD});
    let users = "/api/admin/users";
    admin(Method::POST, &format!("{users}/{user}/password"), json!({"password": PASSWORD})).await;
    let post = async |path: &str, body: &Value| answer(world.raw(Method::POST, path).json(body)).await;
    let bob = post("/api/auth/register", &register).await;
    let welcome = post("/api/auth/login", &login).await;
    let cookie = welcome.header("set-cookie").split(';').next().unwrap().to_owned();
    let with_cookie = async |method: Method, path: &str, body: Value| {
        let done = answer(world.raw(method, path).header("cookie", &cookie).json(&body)).await;
        assert!(done.status < 300, "{path} {done:?}");
    };
    with_cookie(Method::POST, "/api/me/password", json!({"current": PASSWORD, "password": PASSWORD})).await;
    with_cookie(Method::DELETE, "/api/me/sessions", json!({})).await;
    with_cookie(Method::POST, "/api/auth/logout", json!({})).await;
    post("/api/auth/login", &json!({"email": "ada@example.org", "password": "wrong"}))
        .await
        .problem(401, "unauthorized");
    let link = admin(Method::POST, &format!("{users}/{user}/sign-in-link"), json!({})).await;
    assert_eq!(post("/api/auth/link", &json!({"token": link["token"]})).await.status, 200);
    admin(Method::DELETE, &format!("{users}/{user}/sessions"), Value::Null).await;
    let invitation = admin(Method::POST, "/api/admin/invitations", json!({})).await;
    let withdrawn = format!("/api/admin/invitations/{}", invitation["id"].as_str().unwrap());
    admin(Method::DELETE, &withdrawn, Value::Null).await;
    let made = admin(Method::POST, users, json!({"email": "c@d.e", "plan": "pro"})).await;
    let theirs = format!("{users}/{}", made["id"].as_str().unwrap());
    let their_key = admin(Method::POST, &format!("{theirs}/keys"), json!({})).await;
    admin(Method::DELETE, &format!("{theirs}/keys/{}", their_key["id"].as_str().unwrap()), Value::Null).await;
    admin(Method::PATCH, &theirs, json!({"status": "suspended"})).await;
    admin(Method::DELETE, &theirs, Value::Null).await;
    assert_eq!(world.delete(&agent).await.status, 204);

    let written = audit(&world, "outcome=done").await;
    let actions: Vec<&str> = written.iter().rev().map(|it| it["action"].as_str().unwrap()).collect();
    assert_eq!(
        actions,
        [
            "POST /api/agents",
            "PATCH /api/agents/{id}",
            "POST /api/agents/{id}/restart",
            "POST /api/agents/{id}/stop",
            "POST /api/agents/{id}/start",
            "POST /api/keys",
            "DELETE /api/keys/{id}",
            "POST /api/admin/users/{id}/password",
            "POST /api/auth/register",
            "POST /api/auth/login",
            "POST /api/me/password",
            "DELETE /api/me/sessions",
            "POST /api/auth/logout",
            "POST /api/admin/users/{id}/sign-in-link",
            "POST /api/auth/link",
            "DELETE /api/admin/users/{id}/sessions",
            "POST /api/admin/invitations",
            "DELETE /api/admin/invitations/{id}",
            "POST /api/admin/users",
            "POST /api/admin/users/{id}/keys",
            "DELETE /api/admin/users/{id}/keys/{key}",
            "PATCH /api/admin/users/{id}",
            "DELETE /api/admin/users/{id}",
            "DELETE /api/agents/{id}",
        ]
    );
    let of = |action: &str| written.iter().find(|it| it["action"] == action).unwrap();
    let start = of("POST /api/agents/{id}/start");
    assert_eq!(
        (&start["user"], &start["email"], &start["via"]),
        (&json!(user), &json!("ada@example.org"), &json!("key"))
    );
    assert_eq!((&start["target"], &start["address"]), (&json!(format!("{agent}/start")), &json!("127.0.0.1")));
    assert_eq!(of("POST /api/auth/login")["user"], json!(user));
    assert_eq!(
        (&of("POST /api/me/password")["via"], &of("POST /api/auth/register")["user"]),
        (&json!("session"), &bob.body["id"])
    );
    assert_eq!(of("POST /api/admin/users/{id}/password")["owner"], json!(user));
    let failed = &audit(&world, "outcome=refused").await[0];
    assert_eq!(
        (&failed["action"], &failed["user"], &failed["owner"]),
        (&json!("POST /api/auth/login"), &Value::Null, &json!(user))
    );
    let all = serde_json::to_string(&audit(&world, "").await).unwrap();
    for secret in [PASSWORD, "sk-planted-key", "zo_", "zs_", "zt_", "wrong"] {
        assert!(!all.contains(secret), "{secret} is in the audit");
    }
}

#[tokio::test]
async fn one_sees_what_others_did_to_ones_own_and_nothing_else() {
    let mut world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let agent = format!("/api/agents/{id}");
    for _ in 0..3 {
        assert_eq!(world.as_admin(Method::GET, &agent, None).await.status, 200);
        assert_eq!(world.get(&agent).await.status, 200);
    }
    let message = json!({"message": "hello"});
    world.post(&format!("{agent}/message"), &message).await;
    world.as_admin(Method::POST, &format!("{agent}/message"), Some(&message)).await;
    world.as_admin(Method::POST, "/api/admin/users", Some(&json!({"email": "c@d.e", "plan": "pro"}))).await;
    world.get("/api/admin/users").await.problem(403, "forbidden");
    world.restart().await;
    let own = world.get("/api/audit").await;
    let seen: Vec<(&str, &str)> = own.body["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["action"].as_str().unwrap(), it["outcome"].as_str().unwrap()))
        .collect();
    assert_eq!(
        seen,
        [
            ("GET /api/admin/users", "refused"),
            ("POST /api/agents/{id}/message", "done"),
            ("GET /api/agents/{id}", "done"),
            ("POST /api/agents", "done"),
        ]
    );
    let look = &own.body["data"][2];
    assert_eq!(
        (&look["email"], &look["address"], &look["key"]),
        (&json!("root@example.org"), &Value::Null, &Value::Null)
    );
    let stranger = answer(world.raw(Method::GET, "/api/audit").bearer_auth(world.stranger().await)).await;
    assert_eq!(stranger.body["data"], json!([]));
    world.get("/api/admin/audit").await.problem(403, "forbidden");
}

#[tokio::test]
async fn the_audit_is_filtered_paged_and_exported() {
    let world = World::new(Plan::Pro).await;
    for n in 0..5 {
        world.post("/api/keys", &json!({"name": format!("k{n}")})).await;
    }
    world.post("/api/agents", &new_agent("a")).await;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("/api/audit?limit=2&action=keys{cursor}")).await;
        seen.extend(page.body["data"].as_array().unwrap().iter().map(|it| it["id"].as_u64().unwrap()));
        match page.body["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 5);
    assert!(seen.is_sorted_by(|a, b| a > b), "{seen:?}");
    assert_eq!(audit(&world, "user=ada@example.org&action=agents").await.len(), 1);
    assert_eq!(audit(&world, "since=2999-01-01T00:00:00Z").await.len(), 0);
    let wrong = world.as_admin(Method::GET, "/api/admin/audit?user=nobody&outcome=maybe", None).await;
    wrong.problem(422, "invalid");
    let export = world.raw(Method::GET, "/api/admin/audit?action=keys").bearer_auth(&world.admin);
    let export = answer(export.header("accept", "application/x-ndjson")).await;
    assert_eq!(export.header("content-type"), "application/x-ndjson");
    let lines: Vec<Value> = export.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|it| it["id"].as_u64().unwrap()).collect::<Vec<_>>(), seen);
}
