//! Hostile clients at the data path: what they write by hand, and what they do not read.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite;
use zeroone::domain::Scope;
use zeroone::http::HttpOptions;
use zeroone::proxy::ProxyOptions;

use crate::test_gateway::{TestGateway, open_socket, raw};
use crate::world::{PATIENCE, World, answer, until};

/// A request for the agent's gateway, in the caller's own bytes.
fn request(world: &World, id: &str, line: &str, rest: &str) -> String {
    let line = line.replace("{id}", id);
    format!("{line}\r\nHost: a\r\nAuthorization: Bearer {}\r\nConnection: close\r\n{rest}", world.key)
}

#[tokio::test]
async fn odd_requests_are_refused_or_read_in_one_way_only() {
    let world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("ada").await;
    let gateway = TestGateway::of(&world, &id).await;
    let get = "GET /api/agents/{id}/gateway/x HTTP/1.1";
    let post = "POST /api/agents/{id}/gateway/x HTTP/1.1";
    let hidden = "GET /pair HTTP/1.1\r\nHost: a\r\n\r\n";
    for (name, line, rest, statuses) in [
        ("bare LF", get, "X-A: 1\nX-B: 2\n\n", &[200, 400][..]),
        ("bare LF before a hidden request", post, &format!("Content-Length: 0\n\n{hidden}"), &[200, 400]),
        ("bare CR in a value", get, "X-A: 1\rContent-Length: 5\r\n\r\n", &[400]),
        ("NUL in a value", get, "X-A: 1\0\r\n\r\n", &[400]),
        ("NUL in a name", get, "X\0A: 1\r\n\r\n", &[400]),
        ("no name", get, ": 1\r\n\r\n", &[400]),
        ("folded line", get, "X-A: 1\r\n  2\r\n\r\n", &[200, 400]),
        ("two hosts", get, "Host: b\r\n\r\n", &[400]),
        ("two keys", get, "Authorization: Bearer zo_other\r\n\r\n", &[200, 400, 401]),
        ("two equal lengths", post, "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", &[200, 400]),
        ("a list of lengths", post, "Content-Length: 2, 2\r\n\r\nok", &[200, 400]),
        ("a signed length", post, "Content-Length: +2\r\n\r\nok", &[400]),
        ("a length beyond all numbers", post, "Content-Length: 99999999999999999999\r\n\r\n", &[400, 413]),
        ("two codings", post, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[200, 400]),
        ("chunked is not last", post, "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", &[400]),
        ("a chunk size beyond all numbers", post, "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nx", &[400]),
        ("a signed chunk size", post, "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n0\r\n\r\n", &[400]),
        ("a path with a blank", "GET /api/agents/{id}/gateway/x y HTTP/1.1", "\r\n", &[400]),
        ("a path with a control character", "GET /api/agents/{id}/gateway/\x01 HTTP/1.1", "\r\n", &[400]),
        ("an encoded slash", "GET /api/agents/{id}/gateway/x%2f..%2fpair HTTP/1.1", "\r\n", &[400]),
        ("encoded dots", "GET /api/agents/{id}/gateway/x/%2e%2e/pair HTTP/1.1", "\r\n", &[400]),
        ("encoded dots before the gateway", "GET /api/agents/{id}/x/%2e%2e/gateway/x HTTP/1.1", "\r\n", &[404]),
        ("dots before the gateway", "GET /api/agents/{id}/../{id}/gateway/pair HTTP/1.1", "\r\n", &[404]),
        ("a tunnel", "CONNECT 127.0.0.1:22 HTTP/1.1", "\r\n", &[400, 404, 405]),
        ("a tunnel below", "CONNECT /api/agents/{id}/gateway/x HTTP/1.1", "\r\n", &[400, 404, 405]),
        ("a trace", "TRACE /api/agents/{id}/gateway/x HTTP/1.1", "\r\n", &[405]),
        ("an absolute target", "GET http://127.0.0.1/api/agents/{id}/gateway/x HTTP/1.1", "\r\n", &[200]),
        ("an absolute target elsewhere", "GET http://evil.test/latest/meta-data HTTP/1.1", "\r\n", &[403, 404]),
        (
            "an absolute target with a user",
            "GET http://a@127.0.0.1:1/api/agents/{id}/gateway/pair HTTP/1.1",
            "\r\n",
            &[400, 403],
        ),
        (
            "another protocol",
            get,
            "Upgrade: h2c\r\nConnection: upgrade, http2-settings\r\nHTTP2-Settings: AA\r\n\r\n",
            &[200],
        ),
        ("a protocol of its own", get, "Upgrade: zeroclaw/9\r\nConnection: upgrade\r\n\r\n", &[200]),
        (
            "a WebSocket by POST",
            post,
            "Upgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n",
            &[200, 400],
        ),
        ("an older version", "GET /api/agents/{id}/gateway/x HTTP/1.0", "\r\n", &[200]),
        ("an unknown version", "GET /api/agents/{id}/gateway/x HTTP/3.0", "\r\n", &[400]),
    ] {
        let before = gateway.calls();
        let answer = raw(&world, &request(&world, &id, line, rest)).await;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(400);
        assert!(statuses.contains(&status), "{name}: {answer}");
        // One whose body breaks on the way has begun.
        assert!(gateway.calls() <= before + 1, "{name}: {answer}");
        assert!(!answer.contains("\"target\":\"/pair\"") && !answer.contains("\"upgrade\""), "{name}: {answer}");
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_stops_the_gateway_and_not_the_service() {
    let world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("a").await;
    let gateway = TestGateway::of(&world, &id).await;
    let mut slow = TcpStream::connect(world.at).await.unwrap();
    let flood = request(&world, &id, "GET /api/agents/{id}/gateway/flood HTTP/1.1", "\r\n");
    slow.write_all(flood.as_bytes()).await.unwrap();
    let sent = || gateway.shared.flood.load(Ordering::SeqCst);
    // It stands still once what lies between them is full: the sockets' buffers, and little of ours.
    let (mut last, mut same) = (0, 0);
    until("the gateway is held up", async || {
        tokio::time::sleep(Duration::from_millis(20)).await;
        same = if sent() == last && last > 0 { same + 1 } else { 0 };
        last = sent();
        same >= 20
    })
    .await;
    assert!(last < 64 * 1024 * 1024, "{last} bytes for a reader that reads none");
    assert_eq!(world.get(&format!("/api/agents/{id}/gateway/x")).await.status, 200, "others are not held up");
    // It goes on where it stood.
    let mut some = vec![0; 8 * 1024 * 1024];
    tokio::time::timeout(PATIENCE, slow.read_exact(&mut some)).await.expect("it goes on").unwrap();
    drop(slow);
    until("the gateway's answer ends with its reader", async || gateway.shared.cancelled.load(Ordering::SeqCst) == 1)
        .await;
}

#[tokio::test]
async fn a_client_that_closes_its_half_gets_an_answer_or_an_end() {
    let world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("a").await;
    let gateway = TestGateway::of(&world, &id).await;
    for (path, rest) in [("x", "\r\n"), ("ticks", "\r\n"), ("x", "Content-Length: 10\r\n\r\nhalf")] {
        let mut half = TcpStream::connect(world.at).await.unwrap();
        let line = format!("POST /api/agents/{id}/gateway/{path} HTTP/1.1");
        half.write_all(request(&world, &id, &line, rest).as_bytes()).await.unwrap();
        half.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, half.read_to_end(&mut answer)).await;
        read.expect("it ends").ok();
    }
    until("nothing stays open", async || {
        world.plane.agent(id.parse().unwrap()).is_some() && gateway.shared.cancelled.load(Ordering::SeqCst) <= 1
    })
    .await;
    assert_eq!(world.get(&format!("/api/agents/{id}/gateway/x")).await.status, 200);
}

#[tokio::test]
async fn a_stream_is_no_faster_than_it_may_be() {
    let proxy = ProxyOptions::default().with_bytes_per_sec(std::num::NonZeroU32::new(64 * 1024));
    let world = World::with_free_ports(HttpOptions::default().with_proxy(proxy)).await;
    let id = world.running("a").await;
    let _gateway = TestGateway::of(&world, &id).await;
    let began = std::time::Instant::now();
    let mut flood =
        world.request(reqwest::Method::GET, &format!("/api/agents/{id}/gateway/flood")).send().await.unwrap();
    let mut read = 0;
    while read < 192 * 1024 {
        read += flood.chunk().await.unwrap().unwrap().len();
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(900), "{read} bytes in {took:?}");
    let small = world.get(&format!("/api/agents/{id}/gateway/x")).await;
    assert_eq!(small.status, 200, "short answers are not held up");
}

#[tokio::test]
async fn a_revoked_key_ends_also_a_stream_that_never_waits() {
    let world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("a").await;
    let _gateway = TestGateway::of(&world, &id).await;
    let key = world.key_with(&[Scope::AgentsRead]).await;
    let flood = world.raw(Method::GET, &format!("/api/agents/{id}/gateway/flood")).bearer_auth(&key);
    let mut flood = flood.send().await.unwrap();
    assert!(!flood.chunk().await.unwrap().unwrap().is_empty());
    world.forget(&key).await;
    let ended = async { while matches!(flood.chunk().await, Ok(Some(_))) {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("it ends with the key");
}

#[tokio::test]
async fn a_key_beside_a_request_that_opens_no_websocket_does_not_reach_the_gateway() {
    let world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("a").await;
    let gateway = TestGateway::of(&world, &id).await;
    let (path, key) = (format!("/api/agents/{id}/gateway/echo"), world.key.clone());
    // Half a handshake, as a proxy leaves it that passes on one of its two headers.
    for (target, name, value) in [
        (format!("{path}?token={key}"), "upgrade", "websocket".to_owned()),
        (path.clone(), "sec-websocket-protocol", format!("bearer.{key}")),
    ] {
        let half = world.raw(Method::GET, &target).header("upgrade", "websocket").header(name, value);
        assert_eq!(answer(half).await.status, 401, "{target}");
    }
    assert_eq!(gateway.calls(), 0);
    let twice = world.raw(Method::GET, &format!("{path}?a=1&token={key}&b=2&token=theirs"));
    let twice = twice.bearer_auth(&key).header("sec-websocket-protocol", format!("bearer.{key}"));
    let told = answer(twice).await;
    assert_eq!(told.body["target"], "/echo?a=1&b=2&token=theirs", "{told:?}");
    assert!(!told.text.contains(&key), "{told:?}");
}

/// What `/metrics` says of calls that met a bound.
async fn met(world: &World, bound: &str) -> u64 {
    let text = world.get("/metrics").await.text;
    let line = text.lines().find(|line| line.starts_with(&format!("zeroone_proxy_bounded_total{{bound=\"{bound}\"}}")));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{bound}: {text}"))
}

#[tokio::test]
async fn each_bound_has_its_code_and_its_figure() {
    let proxy = ProxyOptions::default().with_per_agent(2).with_per_user(3).with_max_body(1000);
    let world = World::with_free_ports(HttpOptions::default().with_proxy(proxy)).await;
    let (ada, bob) = (world.running("ada").await, world.running("bob").await);
    let _gateways = (TestGateway::of(&world, &ada).await, TestGateway::of(&world, &bob).await);
    let path = |id: &str, path: &str| format!("/api/agents/{id}/gateway/{path}");
    let post = world.request(reqwest::Method::POST, &path(&ada, "x")).body(vec![b'x'; 1001]);
    answer(post).await.problem(413, "too-large");
    let open = async |id: &str| world.request(reqwest::Method::GET, &path(id, "ticks")).send().await.unwrap();
    let first = (open(&ada).await, open(&ada).await);
    assert_eq!(world.get(&path(&ada, "x")).await.problem(429, "too-many-streams")["limit"], 2);
    let third = open(&bob).await;
    assert_eq!(third.status(), 200);
    let refused = world.get(&path(&bob, "x")).await;
    assert_eq!(refused.problem(429, "too-many-streams-of-user")["limit"], 3);
    assert!(refused.headers.contains_key("retry-after"));
    // A WebSocket takes a place like any other stream.
    let target = format!("{}?token={}", path(&bob, "ws/chat"), world.key);
    assert_eq!(open_socket(&world, &target, &[]).await.err(), Some(429));
    drop((first, third));
    for (bound, times) in [("body", 1), ("agent", 1), ("user", 2), ("idle", 0), ("pace", 0)] {
        assert_eq!(met(&world, bound).await, times, "{bound}");
    }
    until("places come back", async || open_socket(&world, &target, &[]).await.is_ok()).await;
}

#[tokio::test]
async fn what_is_silent_for_too_long_is_closed() {
    let proxy = ProxyOptions::default().with_idle(Duration::from_millis(300));
    let world = World::with_free_ports(HttpOptions::default().with_proxy(proxy)).await;
    let id = world.running("a").await;
    let gateway = TestGateway::of(&world, &id).await;
    let silent = world.get(&format!("/api/agents/{id}/gateway/silent")).await;
    assert!(silent.text.starts_with("data: 1\n\n") && silent.text.contains("stream-idle"), "{silent:?}");
    until("the gateway's stream is ended", async || gateway.shared.cancelled.load(Ordering::SeqCst) == 1).await;
    let target = format!("/api/agents/{id}/gateway/ws/chat?token={}", world.key);
    let (mut socket, _) = open_socket(&world, &target, &[]).await.unwrap();
    let end = async { while socket.next().await.is_some_and(|frame| frame.is_ok()) {} };
    tokio::time::timeout(PATIENCE, end).await.expect("it is closed");
    until("both are counted", async || met(&world, "idle").await == 2).await;
    // What is not silent stays.
    let mut ticks =
        world.request(reqwest::Method::GET, &format!("/api/agents/{id}/gateway/ticks")).send().await.unwrap();
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_millis(700) {
        assert!(!String::from_utf8_lossy(&ticks.chunk().await.unwrap().unwrap()).contains("error"));
    }
}

#[tokio::test]
async fn a_websocket_is_no_faster_than_it_may_be_in_either_direction() {
    let proxy = ProxyOptions::default().with_bytes_per_sec(std::num::NonZeroU32::new(64 * 1024));
    let world = World::with_free_ports(HttpOptions::default().with_proxy(proxy)).await;
    let id = world.running("a").await;
    let _gateway = TestGateway::of(&world, &id).await;
    let target = format!("/api/agents/{id}/gateway/ws/chat?token={}", world.key);
    let (mut socket, _) = open_socket(&world, &target, &[]).await.unwrap();
    let began = std::time::Instant::now();
    // Three seconds' worth, of which one goes at once: two on the way there, and two on the way back behind them.
    let long = "x".repeat(192 * 1024);
    socket.send(tungstenite::Message::text(long.clone())).await.unwrap();
    let reply = tokio::time::timeout(PATIENCE, socket.next()).await.expect("it is silent").unwrap().unwrap();
    assert_eq!(reply.into_text().unwrap().as_str(), format!("echo: {long}"));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(3600), "{took:?}");
    assert_eq!(met(&world, "pace").await, 2);
}

#[tokio::test]
async fn a_handshake_with_a_body_opens_no_websocket() {
    let world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("a").await;
    let gateway = TestGateway::of(&world, &id).await;
    let hidden = "GET /pair HTTP/1.1\r\nHost: a\r\n\r\n";
    let upgrade = "Upgrade: websocket\r\nConnection: close, upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    for framing in [
        format!("Content-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len()),
    ] {
        for path in ["ws/chat", "x"] {
            let line = format!("GET /api/agents/{{id}}/gateway/{path} HTTP/1.1");
            let answer = raw(&world, &request(&world, &id, &line, &format!("{upgrade}{framing}"))).await;
            assert!(!answer.starts_with("HTTP/1.1 101"), "{answer}");
            assert!(!answer.contains("\"target\":\"/pair\""), "{answer}");
        }
        // What comes next on the gateway's connections is whole.
        let before = gateway.calls();
        let post = world.request(reqwest::Method::POST, &format!("/api/agents/{id}/gateway/y")).body("whole");
        assert_eq!(answer(post).await.body["text"], "whole");
        assert_eq!(gateway.calls(), before + 1);
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let proxy = ProxyOptions::default().with_idle(Duration::from_millis(300)).with_per_agent(1);
    let world = World::with_free_ports(HttpOptions::default().with_proxy(proxy)).await;
    let id = world.running("a").await;
    let _gateway = TestGateway::of(&world, &id).await;
    for length in [10, 1_000_000] {
        let rest = format!("Content-Length: {length}\r\n\r\nsome");
        let line = "POST /api/agents/{id}/gateway/x HTTP/1.1";
        let answer = raw(&world, &request(&world, &id, line, &rest)).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{length}: {answer}");
        until("its place is free", async || world.get(&format!("/api/agents/{id}/gateway/x")).await.status == 200)
            .await;
    }
    assert_eq!(met(&world, "idle").await, 2);
}

#[tokio::test]
async fn strangers_at_an_agents_host_name_do_not_keep_its_owner_out() {
    let proxy = ProxyOptions::default().with_per_agent(8);
    let world = World::with_free_ports(HttpOptions::default().with_proxy(proxy)).await;
    let id = world.running("ada").await;
    let gateway = TestGateway::of(&world, &id).await;
    let at = |method, path: &str| world.raw(method, path).header("host", "ada.agents.example.org");
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(at(reqwest::Method::GET, "/ticks").send().await.unwrap());
    }
    answer(at(reqwest::Method::GET, "/ticks")).await.problem(429, "too-many-streams");
    assert_eq!(world.get(&format!("/api/agents/{id}/gateway/x")).await.status, 200);
    drop(open);
    until("a stranger's place is free", async || answer(at(reqwest::Method::GET, "/x")).await.status == 200).await;
    // ZeroClaw shuts everybody out after ten wrong tokens in a minute: so many never get there.
    let token = gateway.shared.token.lock().unwrap().clone();
    let hook = |token: &str| {
        answer(at(reqwest::Method::POST, "/webhook").bearer_auth(token).json(&serde_json::json!({"message": "hi"})))
    };
    assert_eq!(hook(&token).await.status, 200, "a device that somebody has paired by hand");
    let before = gateway.calls();
    let mut refused = 0;
    for n in 0..20 {
        match hook(&format!("guess {n}")).await {
            told if told.status == 401 => {}
            told => {
                told.problem(429, "rate-limited");
                refused += 1;
            }
        }
    }
    assert_eq!((gateway.calls() - before, refused), (5, 15));
    assert_eq!(hook(&token).await.status, 200, "a token that is known does not wait");
    let own = world.request(reqwest::Method::POST, &format!("/api/agents/{id}/gateway/webhook"));
    assert_eq!(answer(own.json(&serde_json::json!({"message": "hi"}))).await.status, 200);
}
