//! Keys: what they may do, for how long, and what ends with them.

use reqwest::Method;
use serde_json::{Value, json};
use zeroone::domain::{Plan, Scope};
use zeroone::http::HttpOptions;

use crate::world::{World, answer, new_agent, next_event, until};

/// A key as it was made: its id and its text.
async fn made(world: &World, with: &str, body: &Value) -> (String, String) {
    let made = answer(world.raw(Method::POST, "/api/keys").bearer_auth(with).json(body)).await;
    assert_eq!(made.status, 201, "{made:?}");
    (made.body["id"].as_str().unwrap().to_owned(), made.body["key"].as_str().unwrap().to_owned())
}

async fn status_of(world: &World, key: &str, path: &str) -> u16 {
    answer(world.raw(Method::GET, path).bearer_auth(key)).await.status
}

#[tokio::test]
async fn a_key_ends_no_later_than_the_key_that_made_it() {
    let world = World::new(Plan::Pro).await;
    let end = "2999-01-01T00:00:00Z";
    let (parent_id, parent) = made(&world, &world.key, &json!({"expiresAt": end})).await;
    for wanted in [json!({}), json!({"expiresAt": "2999-06-01T00:00:00Z"})] {
        let child = answer(world.raw(Method::POST, "/api/keys").bearer_auth(&parent).json(&wanted)).await;
        assert_eq!(
            (child.status, &child.body["expiresAt"], &child.body["parent"]),
            (201, &json!(end), &json!(parent_id))
        );
    }
    let sooner = json!({"expiresAt": "2998-01-01T00:00:00Z"});
    let child = answer(world.raw(Method::POST, "/api/keys").bearer_auth(&parent).json(&sooner)).await;
    assert_eq!(child.body["expiresAt"], "2998-01-01T00:00:00Z");
}

#[tokio::test]
async fn an_expired_key_is_refused() {
    let world = World::new(Plan::Pro).await;
    let now = world.plane.now();
    let end = now.checked_add(std::time::Duration::from_secs(3600)).unwrap();
    let (_, key) = made(&world, &world.key, &json!({"expiresAt": end.to_string()})).await;
    assert_eq!(status_of(&world, &key, "/api/agents").await, 200);
    world.fakes.engine().put_clock_forward(jiff::SignedDuration::from_secs(3601));
    until("the key has expired", async || status_of(&world, &key, "/api/agents").await == 401).await;
    assert_eq!(status_of(&world, &world.key, "/api/agents").await, 200, "a key without an end works on");
}

#[tokio::test]
async fn a_revoked_key_takes_those_it_made_along() {
    let mut world = World::new(Plan::Pro).await;
    let (id, parent) = made(&world, &world.key, &json!({"name": "parent"})).await;
    let (_, child) = made(&world, &parent, &json!({})).await;
    let (_, grandchild) = made(&world, &child, &json!({})).await;
    world.restart().await;
    assert_eq!(status_of(&world, &grandchild, "/api/agents").await, 200);
    assert_eq!(world.delete(&format!("/api/keys/{id}")).await.status, 204);
    for key in [&parent, &child, &grandchild] {
        assert_eq!(status_of(&world, key, "/api/agents").await, 401);
    }
    assert_eq!(status_of(&world, &world.key, "/api/agents").await, 200);
    world.restart().await;
    assert_eq!(status_of(&world, &grandchild, "/api/agents").await, 401);
}

#[tokio::test]
async fn open_streams_end_with_their_key() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let (key_id, key) = made(&world, &world.key, &json!({})).await;
    let mut streams = Vec::new();
    for path in
        ["/api/events".to_owned(), format!("/api/agents/{id}/events"), format!("/api/agents/{id}/logs?follow=true")]
    {
        let stream = world.raw(Method::GET, &path).bearer_auth(&key).header("accept", "text/event-stream");
        streams.push(stream.send().await.unwrap());
    }
    let waiting =
        world.raw(Method::GET, &format!("/api/agents/{id}/wait?status=STOPPED&timeout=300")).bearer_auth(&key);
    let waiting = tokio::spawn(answer(waiting));
    assert_eq!(world.delete(&format!("/api/keys/{key_id}")).await.status, 204);
    for mut stream in streams {
        let mut buffer = String::new();
        while next_event(&mut stream, &mut buffer).await.is_some() {}
    }
    assert_eq!(waiting.await.unwrap().status, 503);
}

#[tokio::test]
async fn a_user_has_fifty_keys_at_most() {
    let world = World::new(Plan::Pro).await;
    let mut last = String::new();
    for _ in 1..50 {
        last = made(&world, &world.key, &json!({})).await.0;
    }
    let refused = world.post("/api/keys", &json!({})).await;
    assert_eq!(refused.problem(403, "quota-exceeded")["limit"], 50);
    assert_eq!(world.delete(&format!("/api/keys/{last}")).await.status, 204);
    made(&world, &world.key, &json!({})).await;
}

#[tokio::test]
async fn a_key_cannot_revoke_one_that_may_do_more() {
    let world = World::new(Plan::Pro).await;
    let made = world.as_admin(Method::POST, "/api/keys", Some(&json!({"scopes": ["admin", "agents:read"]}))).await;
    let writer = world.as_admin(Method::POST, "/api/keys", Some(&json!({"scopes": ["agents:write"]}))).await;
    let path = format!("/api/keys/{}", made.body["id"].as_str().unwrap());
    let writer = writer.body["key"].as_str().unwrap();
    answer(world.raw(Method::DELETE, &path).bearer_auth(writer)).await.problem(403, "forbidden");
    assert_eq!(world.as_admin(Method::DELETE, &path, None).await.status, 204);
}

#[tokio::test]
async fn names_of_keys_have_no_character_that_a_terminal_obeys() {
    let world = World::new(Plan::Pro).await;
    for name in ["", "  ", "a\u{1b}[2J", "a\nb", "a\0", "\u{9b}2J", "\u{202e}ab", "\u{feff}", &"x".repeat(101)] {
        world.post("/api/keys", &json!({"name": name})).await.problem(422, "invalid");
    }
    assert_eq!(world.post("/api/keys", &json!({"name": "Größe 東京 🦀"})).await.status, 201);
}

#[tokio::test]
async fn an_answer_with_a_key_is_never_given_twice() {
    let world = World::new(Plan::Pro).await;
    let keyed = |key: &str, body: Value| {
        world.raw(Method::POST, "/api/keys").bearer_auth(key).header("idempotency-key", "provision-1").json(&body)
    };
    let first = answer(keyed(&world.admin, json!({"scopes": ["admin"]}))).await;
    assert_eq!(first.status, 201, "{first:?}");
    let again = answer(keyed(&world.admin, json!({"scopes": ["admin"]}))).await;
    assert_eq!(again.problem(409, "answer-not-kept")["originalStatus"], 201);
    assert!(!again.text.contains("zo_"), "{again:?}");
    // Another key of the same user does not see what this one was answered.
    let weaker = world.as_admin(Method::POST, "/api/keys", Some(&json!({"scopes": ["agents:write"]}))).await;
    let weaker = answer(keyed(weaker.body["key"].as_str().unwrap(), json!({"scopes": ["admin"]}))).await;
    weaker.problem(422, "invalid");
}

#[tokio::test]
async fn the_same_idempotency_key_on_another_path_is_another_request() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let keyed = |command: &str| {
        world.request(Method::POST, &format!("/api/agents/{id}/{command}")).header("idempotency-key", "k")
    };
    assert_eq!(answer(keyed("stop")).await.status, 202);
    answer(keyed("start")).await.problem(422, "invalid");
}

#[tokio::test]
async fn a_user_has_a_rate_whatever_the_number_of_keys() {
    use std::num::NonZeroU32;
    let five = NonZeroU32::new(5).unwrap();
    let limit = zeroone::http::RateLimit { per_second: NonZeroU32::MIN, burst: five };
    let world = World::with(Plan::Pro, HttpOptions::default().with_rate_limit(limit)).await;
    let mut answered = 0;
    let keys =
        [world.key.clone(), world.key_with(&[Scope::AgentsRead]).await, world.key_with(&[Scope::AgentsRead]).await];
    for key in keys.iter().cycle().take(60) {
        answered += u32::from(status_of(&world, key, "/api/agents").await == 200);
    }
    // Ten at once, and two for each second that the calls took.
    assert!((10..=30).contains(&answered), "{answered}");
}

#[tokio::test]
async fn an_address_that_guesses_keys_is_slowed_and_others_are_not() {
    use std::num::NonZeroU32;
    let limit = zeroone::http::RateLimit { per_second: NonZeroU32::MIN, burst: NonZeroU32::new(3).unwrap() };
    let world = World::with(Plan::Pro, HttpOptions::default().with_failure_limit(limit)).await;
    until("guesses are refused", async || status_of(&world, "zo_guess", "/api/agents").await == 429).await;
    assert_eq!(status_of(&world, &world.key, "/api/agents").await, 200);
    // A proxy on this machine says for whom it calls.
    let guess = world.raw(Method::GET, "/api/agents").bearer_auth("zo_guess").header("x-forwarded-for", "192.0.2.1");
    assert_eq!(guess.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_user_has_so_many_streams_and_others_go_on() {
    let options = HttpOptions::default().with_streams_per_user(3);
    let world = World::with(Plan::Pro, options).await;
    let open = || world.request(Method::GET, "/api/events").send();
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(open().await.unwrap());
    }
    let refused = world.get("/api/events").await;
    refused.problem(429, "rate-limited");
    refused.header("retry-after");
    assert_eq!(world.get("/api/agents").await.status, 200);
    let other = world.raw(Method::GET, "/api/events").bearer_auth(&world.admin).send().await.unwrap();
    assert_eq!(other.status(), 200);
    streams.pop();
    until("the place is free again", async || open().await.unwrap().status() == 200).await;
}

#[tokio::test]
async fn channel_secrets_are_for_keys_that_may_write() {
    let world = World::new(Plan::Pro).await;
    let mut body = new_agent("a");
    body["channels"] = json!({"telegram": {"botToken": "1:planted"}, "slack": {"botToken": "xoxb-planted"}});
    let created = world.post("/api/agents", &body).await;
    assert_eq!(created.body["channels"]["telegram"]["botToken"], "1:planted");
    let path = format!("/api/agents/{}", created.body["id"].as_str().unwrap());
    let reader = world.key_with(&[Scope::AgentsRead]).await;
    let read = answer(world.raw(Method::GET, &path).bearer_auth(&reader)).await;
    assert_eq!(read.body["channels"], json!({"telegram": {"configured": true}, "slack": {"configured": true}}));
    let admin = world.as_admin(Method::GET, &path, None).await;
    for answer in [read, admin] {
        assert!(answer.status == 200 && !answer.text.contains("planted"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_stored_key_is_not_sent_to_another_server() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let path = format!("/api/agents/{id}");
    for elsewhere in [
        json!({"providerUrl": "http://attacker.example/steal"}),
        json!({"provider": "groq"}),
        json!({"provider": "ollama"}),
    ] {
        let refused = world.patch(&path, &elsewhere).await;
        refused.problem(422, "invalid");
        assert_eq!(refused.pointers(), ["/apiKey"], "{elsewhere}");
        let mut with_key = elsewhere.clone();
        with_key["apiKey"] = json!("sk-new");
        with_key["memoryBackend"] = json!("nothing");
        assert_eq!(world.patch(&path, &with_key).await.pointers(), ["/memoryBackend"]);
    }
    let moved = world.patch(&path, &json!({"providerUrl": "http://models.example/v1", "apiKey": "sk-new"})).await;
    assert_eq!(moved.status, 200, "{moved:?}");
    let same_server = world.patch(&path, &json!({"providerUrl": "http://models.example/v2"})).await;
    assert_eq!(same_server.status, 200, "{same_server:?}");
    world.patch(&path, &json!({"providerUrl": null})).await.problem(422, "invalid");
}

/// For every path and method of the document: a key of each single scope is let through only if it is the right one.
#[tokio::test]
async fn every_route_wants_its_scope() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let document = zeroone::http::openapi();
    let mut tried = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Some(security) = operation["security"].as_array() else { continue };
            let needed: Vec<&str> =
                security[0]["apiKey"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            let method: Method = method.to_uppercase().parse().unwrap();
            // What is passed on needs a scope by its method: tests/api/gateway.rs.
            if path.starts_with("/api/agents/{id}/gateway") {
                continue;
            }
            let of_agent = path.starts_with("/api/agents/{id}");
            let mut right = Vec::new();
            for &scope in Scope::ALL {
                let enough = needed.is_empty() || needed == [scope.as_str()] || (of_agent && scope == Scope::Admin);
                if enough {
                    right.push(scope);
                    continue;
                }
                let key = world.key_with(&[scope]).await;
                let path = path.replace("{id}", &id).replace("{key}", &id);
                let refused = answer(world.raw(method.clone(), &path).bearer_auth(&key).json(&json!({}))).await;
                // Below `/v1` errors have OpenAI's form.
                let code = refused.body["code"].as_str().or_else(|| refused.body["error"]["code"].as_str());
                assert_eq!((refused.status, code), (403, Some("forbidden")), "{method} {path}");
                tried += 1;
                world.forget(&key).await;
            }
            assert!(!right.is_empty(), "{method} {path} can be called by no key");
            let without = answer(world.raw(method, &path.replace("{id}", &id)).json(&json!({}))).await;
            assert_eq!(without.status, 401, "{path}");
        }
    }
    assert!(tried > 60, "{tried}");
    // Nothing came of any of it.
    assert_eq!(world.status(&id).await, "RUNNING");
}

#[tokio::test]
async fn the_right_scope_is_enough() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let admin = world.key_with(&[Scope::Admin]).await;
    for (scope, method, path) in [
        (Scope::AgentsRead, Method::GET, format!("/api/agents/{id}")),
        (Scope::AgentsRead, Method::GET, "/api/keys".to_owned()),
        (Scope::AgentsWrite, Method::POST, format!("/api/agents/{id}/start")),
        (Scope::MessagesSend, Method::GET, "/api/me".to_owned()),
    ] {
        let key = world.key_with(&[scope]).await;
        assert_eq!(answer(world.raw(method, &path).bearer_auth(&key)).await.status, 200, "{path}");
    }
    for path in [format!("/api/agents/{id}"), "/api/admin/users".to_owned()] {
        assert_eq!(status_of(&world, &admin, &path).await, 200, "{path}");
    }
}
