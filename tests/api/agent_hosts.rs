//! Each agent's gateway by a host name of its own.

use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::json;
use tokio_tungstenite::tungstenite;
use zeroone::domain::Scope;
use zeroone::http::HttpOptions;

use crate::test_gateway::{TestGateway, open_socket};
use crate::world::{PATIENCE, World, answer};

#[tokio::test]
async fn an_agent_has_a_host_name_of_its_own() {
    let world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("ada").await;
    let gateway = TestGateway::of(&world, &id).await;
    let at = |host: &str, method: Method, path: &str| world.raw(method, path).header("host", host);
    let told = answer(at("ada.agents.example.org", Method::GET, "/api/agents?x=1")).await;
    assert_eq!(
        (&told.body["target"], &told.body["authorized"]),
        (&json!("/api/agents?x=1"), &json!(false)),
        "no token is added"
    );
    assert_eq!(told.body["headers"]["host"], "ada.agents.example.org");
    let moved = answer(at("ADA.agents.example.org:443", Method::GET, "/cookie")).await;
    assert_eq!((moved.header("location"), moved.header("access-control-allow-origin")), ("/login", "*"));
    assert_eq!(moved.header("set-cookie"), "theme=dark; Path=/", "its cookies are no other host's");
    answer(at("bob.agents.example.org", Method::GET, "/")).await.problem(404, "not-found");
    answer(at("ada.agents.example.org", Method::POST, "/pair")).await.problem(403, "forbidden");
    assert_eq!(answer(at("agents.example.org", Method::GET, "/livez")).await.status, 200);
    drop(gateway);
    world.command(&id, "stop").await;
    world.reach(&id, "STOPPED").await;
    answer(at("ada.agents.example.org", Method::GET, "/")).await.problem(503, "agent-not-ready");
    let page = answer(at("ada.agents.example.org", Method::GET, "/").header("accept", "text/html")).await;
    assert_eq!((page.status, page.header("refresh")), (503, "3"));
    assert!(page.text.contains("reloads by itself"));
}

#[tokio::test]
async fn an_owner_uses_the_agents_own_page_by_a_code() {
    let world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("ada").await;
    let gateway = TestGateway::of(&world, &id).await;
    let at = |method: Method, path: &str| world.raw(method, path).header("host", "ada.agents.example.org");
    let pair = async |code: &str| answer(at(Method::POST, "/pair").header("x-pairing-code", code)).await;
    pair("AAAAAA").await.problem(403, "forbidden");
    let key = world.key_with(&[Scope::AgentsRead, Scope::AgentsWrite, Scope::MessagesSend]).await;
    let invite = || world.raw(Method::POST, &format!("/api/agents/{id}/dashboard")).bearer_auth(&key);
    let invited = answer(invite()).await;
    assert_eq!((invited.status, &invited.body["host"]), (201, &json!("ada.agents.example.org")), "{invited:?}");
    let code = invited.body["code"].as_str().unwrap();
    let paired = pair(code).await;
    assert_eq!((paired.status, &paired.body["paired"]), (200, &json!(true)), "{paired:?}");
    pair(code).await.problem(403, "forbidden");
    let token = paired.body["token"].as_str().unwrap().to_owned();
    let call = |method: Method, path: &str| at(method, path).bearer_auth(&token);
    let told = answer(call(Method::POST, "/x")).await;
    assert_eq!((&told.body["authorized"], &told.body["target"]), (&json!(true), &json!("/x")), "{told:?}");
    assert!(!told.text.contains("zv_"));
    // A WebSocket presents it as pages do.
    for (target, headers) in [
        (format!("/ws/chat?token={token}"), vec![]),
        ("/ws/chat".to_owned(), vec![("sec-websocket-protocol", format!("zeroclaw.v1, bearer.{token}"))]),
    ] {
        let host = ("host", "ada.agents.example.org".to_owned());
        let headers: Vec<_> = headers.into_iter().chain([host]).collect();
        let (mut socket, _) = open_socket(&world, &target, &headers).await.unwrap();
        socket.send(tungstenite::Message::text("hi")).await.unwrap();
        let reply = tokio::time::timeout(PATIENCE, socket.next()).await.expect("it is silent").unwrap().unwrap();
        assert_eq!(reply.into_text().unwrap().as_str(), "echo: hi");
    }
    // What belongs to the control plane stays with it, and the token is worth nothing elsewhere.
    answer(call(Method::PUT, "/api/config")).await.problem(409, "configuration-managed");
    answer(call(Method::POST, "/pair")).await.problem(403, "forbidden");
    answer(world.raw(Method::GET, &format!("/api/agents/{id}")).bearer_auth(&token)).await.problem(401, "unauthorized");
    world.running("bob").await;
    let elsewhere = world.raw(Method::GET, "/x").header("host", "bob.agents.example.org").header("accept", "text/html");
    assert_ne!(answer(elsewhere.bearer_auth(&token)).await.status, 200);
    // A visit ends with the key by which it was opened.
    let calls = gateway.calls();
    world.forget(&key).await;
    assert_eq!(answer(call(Method::GET, "/x")).await.body["authorized"], false);
    assert_eq!(gateway.calls(), calls + 1);
    answer(invite()).await.problem(401, "unauthorized");
}
