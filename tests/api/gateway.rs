//! The agent's whole gateway through the API.

use std::sync::atomic::Ordering;

use axum::body::Bytes;
use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::json;
use tokio_tungstenite::tungstenite;
use zeroone::domain::Scope;
use zeroone::http::HttpOptions;
use zeroone::proxy::ProxyOptions;

use crate::test_gateway::{TestGateway, open_socket, raw};
use crate::world::{Answer, PATIENCE, World, answer, until};

async fn through(world: &World, id: &str, method: Method, path: &str) -> Answer {
    answer(world.request(method, &format!("/api/agents/{id}/gateway{path}"))).await
}

#[tokio::test]
async fn a_request_reaches_the_gateway_as_it_is_with_the_agents_token() {
    let world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("a").await;
    let gateway = TestGateway::of(&world, &id).await;
    for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
        let request = world.request(method.clone(), &format!("/api/agents/{id}/gateway/api/x%20y/?a=1&b=%2F"));
        let told = answer(request.header("x-mine", "1").header("cookie", "zeroone_session=s; c=1").body("hello")).await;
        assert_eq!((told.status, told.header("x-from")), (200, "gateway"), "{told:?}");
        assert_eq!(told.body["method"], method.as_str());
        assert_eq!(told.body["target"], "/api/x%20y/?a=1&b=%2F");
        assert_eq!((&told.body["authorized"], &told.body["text"]), (&json!(true), &json!("hello")));
        let headers = &told.body["headers"];
        assert_eq!((&headers["x-mine"], &headers["cookie"]), (&json!("1"), &json!("c=1")));
        assert_eq!(headers["x-forwarded-prefix"], format!("/api/agents/{id}/gateway"));
        assert!(!told.text.contains("zo_"), "the caller's key went on: {}", told.text);
    }
    let head = world.request(Method::HEAD, &format!("/api/agents/{id}/gateway/health")).send().await.unwrap();
    assert_eq!(head.status(), 200);
    let root = through(&world, &id, Method::GET, "/").await;
    assert_eq!(root.body["target"], "/");
    assert!(gateway.calls() >= 7);
}

#[tokio::test]
async fn what_belongs_to_the_control_plane_is_not_passed_on() {
    let world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("a").await;
    let gateway = TestGateway::of(&world, &id).await;
    for path in ["/pair", "/PAIR", "/%70air", "/pair/code", "/admin/reload", "/api/version/upgrade"] {
        through(&world, &id, Method::POST, path).await.problem(403, "forbidden");
    }
    // By hand: clients resolve some of these themselves.
    for path in ["/x/%2e%2e/pair", "/x/../pair", "/x%2f..%2fpair", "//pair", "/%2570air", "/x%5cpair"] {
        let head =
            format!("POST /api/agents/{id}/gateway{path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}", world.key);
        let refused = raw(&world, &format!("{head}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")).await;
        assert!(refused.starts_with("HTTP/1.1 400"), "{path}: {refused}");
    }
    for path in ["/api/config", "/api/config/prop"] {
        let refused = through(&world, &id, Method::PUT, path).await;
        assert!(refused.problem(409, "configuration-managed")["detail"].as_str().unwrap().contains("PATCH"));
        assert_eq!(through(&world, &id, Method::GET, path).await.status, 200);
    }
    assert_eq!(gateway.calls(), 2, "only the two reads reached it");
}

#[tokio::test]
async fn scopes_and_owners_hold_for_every_method() {
    let world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("a").await;
    let _gateway = TestGateway::of(&world, &id).await;
    let (read, send) = (world.key_with(&[Scope::AgentsRead]).await, world.key_with(&[Scope::MessagesSend]).await);
    let path = format!("/api/agents/{id}/gateway/x");
    for (key, method, status) in [
        (&read, Method::GET, 200),
        (&read, Method::POST, 403),
        (&read, Method::DELETE, 403),
        (&send, Method::POST, 200),
        (&send, Method::GET, 403),
        (&world.stranger().await, Method::GET, 404),
        (&"zo_nothing".to_owned(), Method::GET, 401),
    ] {
        let answered = answer(world.raw(method.clone(), &path).bearer_auth(key)).await;
        assert_eq!(answered.status, status, "{method} {answered:?}");
    }
    answer(world.raw(Method::GET, &path)).await.problem(401, "unauthorized");
}

#[tokio::test]
async fn bodies_stream_both_ways_and_have_a_bound() {
    let proxy = ProxyOptions::default().with_max_body(2 * 1024 * 1024);
    let world = World::with_free_ports(HttpOptions::default().with_proxy(proxy)).await;
    let id = world.running("a").await;
    let _gateway = TestGateway::of(&world, &id).await;
    let post = || world.request(Method::POST, &format!("/api/agents/{id}/gateway/x"));
    let chunks = |count: usize| {
        let chunks = (0..count).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 64 * 1024])));
        reqwest::Body::wrap_stream(futures_util::stream::iter(chunks.collect::<Vec<_>>()))
    };
    assert_eq!(answer(post().body(chunks(16))).await.body["bytes"], 1024 * 1024);
    assert_eq!(answer(post().body(vec![b'x'; 1024 * 1024])).await.body["bytes"], 1024 * 1024);
    answer(post().body(vec![b'x'; 3 * 1024 * 1024])).await.problem(413, "too-large");
    answer(post().body(chunks(48))).await.problem(413, "too-large");
}

#[tokio::test]
async fn an_event_stream_comes_at_once_and_ends_with_its_reader() {
    let world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("a").await;
    let gateway = TestGateway::of(&world, &id).await;
    let mut stream = world.request(Method::GET, &format!("/api/agents/{id}/gateway/ticks")).send().await.unwrap();
    let first = tokio::time::timeout(PATIENCE, stream.chunk()).await.expect("it is silent").unwrap().unwrap();
    assert!(first.starts_with(b"data: 0"), "{first:?}");
    drop(stream);
    until("the gateway's stream ends with its reader", async || gateway.shared.cancelled.load(Ordering::SeqCst) == 1)
        .await;
}

#[tokio::test]
async fn an_event_stream_that_breaks_off_ends_with_an_error_event() {
    let world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("a").await;
    let _gateway = TestGateway::of(&world, &id).await;
    let broken = through(&world, &id, Method::GET, "/half").await;
    assert!(broken.text.starts_with("data: wh\n\nevent: error\n"), "{broken:?}");
}

#[tokio::test]
async fn redirects_and_cookies_stay_below_the_agent() {
    let world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("a").await;
    let _gateway = TestGateway::of(&world, &id).await;
    let moved = through(&world, &id, Method::GET, "/cookie").await;
    assert_eq!(moved.header("location"), format!("/api/agents/{id}/gateway/login"));
    assert_eq!(moved.header("set-cookie"), format!("theme=dark; Path=/api/agents/{id}/gateway/"));
    assert_eq!(moved.header("content-security-policy"), "sandbox");
    assert!(!moved.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn an_agent_that_comes_up_is_waited_for_and_a_stopped_one_is_not() {
    let world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("a").await;
    let gateway = TestGateway::of(&world, &id).await;
    world.command(&id, "stop").await;
    world.reach(&id, "STOPPED").await;
    through(&world, &id, Method::GET, "/x").await.problem(409, "illegal-transition");
    world.command(&id, "start").await;
    assert_eq!(through(&world, &id, Method::GET, "/x").await.status, 200, "held until it runs");
    drop(gateway);
    let request = world.request(Method::GET, &format!("/api/agents/{id}/gateway/x")).header("prefer", "wait=0");
    answer(request).await.problem(503, "agent-not-ready");
}

#[tokio::test]
async fn places_are_bounded_and_come_back() {
    let proxy = ProxyOptions::default().with_per_agent(2).with_per_user(3);
    let world = World::with_free_ports(HttpOptions::default().with_proxy(proxy)).await;
    let id = world.running("a").await;
    let _gateway = TestGateway::of(&world, &id).await;
    let open = || world.request(Method::GET, &format!("/api/agents/{id}/gateway/ticks")).send();
    let (first, second) = (open().await.unwrap(), open().await.unwrap());
    assert_eq!((first.status(), second.status()), (reqwest::StatusCode::OK, reqwest::StatusCode::OK));
    let refused = through(&world, &id, Method::GET, "/x").await;
    assert_eq!(refused.problem(429, "too-many-streams")["limit"], 2);
    assert!(refused.headers.contains_key("retry-after"));
    drop(first);
    until("a place is free again", async || through(&world, &id, Method::GET, "/x").await.status == 200).await;
    drop(second);
}

#[tokio::test]
async fn a_websocket_works_with_every_way_to_present_a_key() {
    let world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("a").await;
    let gateway = TestGateway::of(&world, &id).await;
    let path = format!("/api/agents/{id}/gateway/ws/chat");
    let key = world.key.clone();
    let token = gateway.shared.token.lock().unwrap().clone();
    for (target, headers, protocol) in [
        (path.clone(), vec![("authorization", format!("Bearer {key}"))], None),
        (format!("{path}?token={key}&session_id=s"), vec![], None),
        (
            path.clone(),
            vec![("sec-websocket-protocol", format!("zeroclaw.v1, bearer.{key}"))],
            Some("zeroclaw.v1".to_owned()),
        ),
        (path.clone(), vec![("sec-websocket-protocol", format!("bearer.{key}"))], Some(format!("bearer.{key}"))),
    ] {
        let (mut socket, headers) =
            open_socket(&world, &target, &headers).await.unwrap_or_else(|status| panic!("{target}: {status}"));
        assert_eq!(headers.get("sec-websocket-protocol").map(|v| v.to_str().unwrap().to_owned()), protocol);
        assert!(!format!("{headers:?}").contains(&token));
        socket.send(tungstenite::Message::text("hi")).await.unwrap();
        let reply = tokio::time::timeout(PATIENCE, socket.next()).await.expect("it is silent").unwrap().unwrap();
        assert_eq!(reply.into_text().unwrap().as_str(), "echo: hi");
        socket.send(tungstenite::Message::text("bye")).await.unwrap();
        let end =
            tokio::time::timeout(PATIENCE, async { while socket.next().await.is_some_and(|frame| frame.is_ok()) {} });
        end.await.expect("the socket ends with the gateway's");
    }
    assert_eq!(open_socket(&world, &path, &[]).await.err(), Some(401));
    assert_eq!(open_socket(&world, &format!("{path}?token=zo_wrong"), &[]).await.err(), Some(401));
    let read = world.key_with(&[Scope::AgentsRead]).await;
    assert_eq!(open_socket(&world, &format!("{path}?token={read}"), &[]).await.err(), Some(403));
    assert_eq!(open_socket(&world, &format!("/api/agents/{id}/gateway/pair?token={key}"), &[]).await.err(), Some(403));
}

#[tokio::test]
async fn no_framing_smuggles_a_second_request_to_a_gateway() {
    let world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("a").await;
    let gateway = TestGateway::of(&world, &id).await;
    let head = |extra: &str| {
        format!(
            "POST /api/agents/{id}/gateway/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nConnection: close\r\n{extra}",
            world.key
        )
    };
    let hidden = "GET /pair HTTP/1.1\r\nHost: a\r\n\r\n";
    for (name, extra) in [
        (
            "CL.TE",
            format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}", 5 + hidden.len()),
        ),
        ("TE.CL", format!("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n{hidden}")),
        ("two lengths", format!("Content-Length: 0\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len())),
        ("odd coding", format!("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}")),
        ("folded", format!("X-A: 1\r\n Content-Length: 5\r\nContent-Length: 0\r\n\r\n{hidden}")),
        ("space before colon", format!("Content-Length : 0\r\n\r\n{hidden}")),
        ("listed length", format!("Content-Length: 0\r\nConnection: content-length\r\n\r\n{hidden}")),
    ] {
        let before = gateway.calls();
        let answer = raw(&world, &head(&extra)).await;
        let told = answer.rfind("{\"authorized\"").map(|at| &answer[at..]).unwrap_or_default();
        assert!(gateway.calls() <= before + 1, "{name}: {answer}");
        assert!(!told.contains("\"target\":\"/pair\""), "{name}: {answer}");
    }
    let upgraded =
        raw(&world, &head("Upgrade: h2c\r\nConnection: upgrade\r\nHTTP2-Settings: AA\r\nContent-Length: 0\r\n\r\n"))
            .await;
    assert!(upgraded.starts_with("HTTP/1.1 200") && !upgraded.contains("\"upgrade\""), "{upgraded}");
    let absolute = raw(&world, &format!("GET http://evil.test/api/agents/{id}/gateway/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n", world.key)).await;
    assert!(absolute.starts_with("HTTP/1.1 "), "{absolute}");
}

#[tokio::test]
async fn trailers_and_expectations_are_passed_on() {
    let world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("a").await;
    let _gateway = TestGateway::of(&world, &id).await;
    let request = format!(
        "POST /api/agents/{id}/gateway/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nConnection: close\r\nTE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n",
        world.key
    );
    let answer = raw(&world, &request).await;
    assert!(answer.contains("x-sum") && answer.contains("\"bytes\":3"), "{answer}");
    let expecting = format!(
        "POST /api/agents/{id}/gateway/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
        world.key
    );
    let answer = raw(&world, &expecting).await;
    assert!(answer.contains("HTTP/1.1 100") && answer.contains("\"text\":\"ok\""), "{answer}");
}
