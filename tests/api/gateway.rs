//! The agent's whole gateway through the API, and by its own host name.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::ws::{Message as Frame, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post};
use axum::{Json, Router};
use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use zeroone::domain::{AgentId, Scope};
use zeroone::http::HttpOptions;
use zeroone::proxy::ProxyOptions;

use crate::world::{Answer, PATIENCE, World, answer, until};

/// What listens where the fake engine says that an agent does.
pub struct TestGateway {
    server: JoinHandle<()>,
    pub shared: Arc<Shared>,
}

#[derive(Default)]
pub struct Shared {
    pub token: Mutex<String>,
    /// Requests that reached it.
    pub calls: AtomicUsize,
    /// Answers that were dropped before their end.
    pub cancelled: AtomicUsize,
    /// Conversations whose answer was ended.
    pub aborted: Mutex<Vec<String>>,
    /// Bytes that were asked for of answers without end.
    pub flood: AtomicUsize,
    /// What was said in each conversation.
    pub sessions: Mutex<BTreeMap<String, Vec<String>>>,
}

impl TestGateway {
    /// In the place of a running agent's gateway.
    pub async fn of(world: &World, id: &str) -> Self {
        let view = world.plane.agent(id.parse::<AgentId>().unwrap()).unwrap().view().unwrap();
        let access = view.access.clone().unwrap();
        let shared = Arc::new(Shared::default());
        access.token.expose().clone_into(&mut shared.token.lock().unwrap());
        Self::at(access.endpoint, shared).await
    }

    async fn at(endpoint: SocketAddr, shared: Arc<Shared>) -> Self {
        let listener = TcpListener::bind(endpoint).await.expect("the agent's port is free");
        let app = Router::new()
            .route("/ws/chat", get(socket))
            .route("/ticks", get(ticks))
            .route("/half", get(half))
            .route("/silent", get(silent))
            .route("/flood", get(flood))
            .route("/cookie", get(cookie))
            .route("/v1/chat/completions", any(echo))
            .route("/webhook", any(webhook))
            .route("/api/sessions", get(sessions))
            .route("/api/sessions/{id}/messages", get(session))
            .route("/api/sessions/{id}", delete(forget))
            .route("/api/sessions/{id}/abort", post(abort))
            .fallback(any(echo))
            .with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { server, shared }
    }

    pub fn calls(&self) -> usize {
        self.shared.calls.load(Ordering::SeqCst)
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn is_known(shared: &Shared, headers: &HeaderMap) -> bool {
    let expected = format!("Bearer {}", shared.token.lock().unwrap());
    headers.get(header::AUTHORIZATION).is_some_and(|given| *given == expected)
}

/// Tells what came, trailers included.
async fn echo(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    shared.calls.fetch_add(1, Ordering::SeqCst);
    let authorized = is_known(&shared, request.headers());
    let (parts, body) = request.into_parts();
    let Ok(collected) = body.collect().await else { return StatusCode::BAD_REQUEST.into_response() };
    let trailers = collected.trailers().map(|t| format!("{t:?}"));
    let headers: Value = parts
        .headers
        .iter()
        .filter(|(name, _)| *name != header::AUTHORIZATION)
        .map(|(name, value)| (name.to_string(), Value::from(value.to_str().unwrap_or("?"))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let body = collected.to_bytes();
    let told = json!({
        "method": parts.method.as_str(), "target": parts.uri.to_string(), "headers": headers, "authorized": authorized,
        "bytes": body.len(), "text": String::from_utf8_lossy(&body[..body.len().min(200)]), "trailers": trailers,
    });
    ([("x-from", "gateway")], Json(told)).into_response()
}

async fn webhook(shared: State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    shared.calls.fetch_add(1, Ordering::SeqCst);
    if !is_known(&shared, &headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let message = asked["message"].as_str().unwrap_or_default();
    if message == "no model" {
        let model = json!({"status": 401, "code": "invalid_api_key", "message": "wrong key"});
        return (StatusCode::BAD_GATEWAY, Json(json!({"error": "LLM request failed", "model": model}))).into_response();
    }
    let text = format!("echo: {message}");
    if let Some(session) = headers.get("x-session-id") {
        keep(&shared, session.to_str().unwrap(), [message, &text]);
    }
    if asked["stream"] != true || headers[header::ACCEPT] != "text/event-stream" {
        return Json(json!({"model": "m", "response": text})).into_response();
    }
    let event = |kind: &str, data: Value| Ok::<_, std::io::Error>(format!("event: {kind}\ndata: {data}\n\n"));
    let tokens = text.split_inclusive(' ').map(|piece| event("token", json!({"delta": piece}))).collect::<Vec<_>>();
    let end = match message {
        "fail" => event("error", json!({"message": "no", "model": {"status": 429, "message": "slow down"}})),
        "break" => Err(std::io::Error::other("killed")),
        _ => event("done", json!({"model": "m", "response": text})),
    };
    let open = Open(Arc::clone(&shared));
    let endless = message == "endless";
    let events = futures_util::stream::iter(tokens).chain(futures_util::stream::once(async move {
        let _open = open;
        if endless {
            std::future::pending::<()>().await;
        }
        // The pieces have left before the end comes.
        tokio::time::sleep(Duration::from_millis(20)).await;
        end
    }));
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}

fn keep<'a>(shared: &Shared, session: &str, said: impl IntoIterator<Item = &'a str>) {
    let mut sessions = shared.sessions.lock().unwrap();
    sessions.entry(session.to_owned()).or_default().extend(said.into_iter().map(ToOwned::to_owned));
}

async fn sessions(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let listed = shared.sessions.lock().unwrap();
    let listed = listed.iter().map(|(id, said)| {
        json!({"session_id": id, "message_count": said.len(), "created_at": "2026-01-02T03:04:05+00:00", "agent_alias": "default"})
    });
    Json(json!({"sessions": listed.collect::<Vec<_>>()}))
}

async fn session(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Json<Value> {
    let said = shared.sessions.lock().unwrap().get(&id).cloned().unwrap_or_default();
    let roles = ["user", "assistant"].into_iter().cycle();
    let said = said.iter().zip(roles).map(|(text, role)| json!({"role": role, "content": text}));
    Json(json!({"session_id": id, "messages": said.collect::<Vec<_>>()}))
}

async fn abort(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Json<Value> {
    shared.aborted.lock().unwrap().push(id);
    Json(json!({"status": "aborted"}))
}

async fn forget(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let gone = shared.sessions.lock().unwrap().remove(&id);
    let status = if gone.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    (status, Json(json!({"deleted": gone.is_some()}))).into_response()
}

/// Counts the answers that nobody reads any more.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.cancelled.fetch_add(1, Ordering::SeqCst);
    }
}

async fn ticks(State(shared): State<Arc<Shared>>) -> Response {
    let open = Open(shared);
    let events = futures_util::stream::unfold((0_u32, open), |(n, open)| async move {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Some((Ok::<_, std::io::Error>(format!("data: {n}\n\n")), (n + 1, open)))
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}

/// As much as is taken, without end.
async fn flood(State(shared): State<Arc<Shared>>) -> Response {
    let open = Open(Arc::clone(&shared));
    let chunks = futures_util::stream::repeat_with(move || {
        let _open = &open;
        shared.flood.fetch_add(16 * 1024, Ordering::SeqCst);
        Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 16 * 1024]))
    });
    Body::from_stream(chunks).into_response()
}

/// Says one thing, and nothing more.
async fn silent(State(shared): State<Arc<Shared>>) -> Response {
    let open = Open(shared);
    let first = futures_util::stream::iter([Ok::<_, std::io::Error>("data: 1\n\n")]);
    let rest = futures_util::stream::once(async move {
        let _open = open;
        std::future::pending().await
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(first.chain(rest))).into_response()
}

/// Breaks off in the middle of an event.
async fn half() -> Response {
    let parts = futures_util::stream::iter([Ok("data: wh"), Err(std::io::Error::other("killed"))]);
    // The first part has left before the second one comes.
    let parts = parts.then(async |part| {
        if part.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        part
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(parts)).into_response()
}

async fn cookie() -> Response {
    let headers = [
        (header::SET_COOKIE, HeaderValue::from_static("theme=dark; Path=/; Domain=example.org")),
        (header::LOCATION, HeaderValue::from_static("/login")),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
    ];
    (StatusCode::CREATED, headers).into_response()
}

async fn socket(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    request: axum::http::Uri,
    socket: WebSocketUpgrade,
) -> Response {
    let token = shared.token.lock().unwrap().clone();
    let by_query = request.query().is_some_and(|query| query.split('&').any(|pair| pair == format!("token={token}")));
    if !by_query || !is_known(&shared, &headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let socket = socket.protocols(["zeroclaw.v1".to_owned(), format!("bearer.{token}")]);
    let query = request.query().unwrap_or_default().to_owned();
    socket.on_upgrade(async move |mut socket| {
        let session = query.split('&').find_map(|pair| pair.strip_prefix("session_id=")).unwrap_or_default();
        if query.contains("agent=") {
            return converse(&shared, socket, session).await;
        }
        while let Some(Ok(frame)) = socket.recv().await {
            match frame {
                Frame::Text(text) if text == "bye" => break,
                Frame::Text(text) => socket.send(Frame::Text(format!("echo: {text}").into())).await.unwrap(),
                _ => {}
            }
        }
    })
}

/// A conversation as ZeroClaw 0.8 has it.
async fn converse(shared: &Arc<Shared>, mut socket: WebSocket, session: &str) {
    let _open = Open(Arc::clone(shared));
    let send = async |socket: &mut WebSocket, event: Value| {
        let _ = socket.send(Frame::Text(event.to_string().into())).await;
    };
    send(&mut socket, json!({"type": "session_start", "session_id": session})).await;
    while let Some(Ok(frame)) = socket.recv().await {
        let Ok(asked) = serde_json::from_slice::<Value>(&frame.into_data()) else { continue };
        let message = asked["content"].as_str().unwrap_or_default();
        shared.calls.fetch_add(1, Ordering::SeqCst);
        let earlier = shared.sessions.lock().unwrap().get(session).map_or(0, Vec::len);
        let text = format!("echo after {earlier}: {message}");
        for piece in text.split_inclusive(' ') {
            send(&mut socket, json!({"type": "chunk", "content": piece})).await;
        }
        match message {
            "break" => return,
            "endless" => continue,
            "fail" => send(&mut socket, json!({"type": "error", "code": "PROVIDER_ERROR", "message": "no key"})).await,
            "dangerous" => {
                send(&mut socket, json!({"type": "approval_request", "request_id": "r1"})).await;
                let answer = socket.recv().await.unwrap().unwrap().into_text().unwrap();
                send(&mut socket, json!({"type": "done", "full_response": answer.as_str()})).await;
            }
            _ => {
                keep(shared, session, [message, &text]);
                send(&mut socket, json!({"type": "chunk_reset"})).await;
                send(&mut socket, json!({"type": "done", "full_response": text, "model": "m"})).await;
            }
        }
    }
}

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

pub async fn open_socket(world: &World, target: &str, headers: &[(&'static str, String)]) -> Result<Socket, u16> {
    let mut request = format!("ws://{}{target}", world.at).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let stream = TcpStream::connect(world.at).await.unwrap();
    match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, answer)) => Ok((socket, answer.headers().clone())),
        Err(tungstenite::Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

pub type Socket = (tokio_tungstenite::WebSocketStream<TcpStream>, HeaderMap);

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

/// Writes raw bytes to the service and reads until it closes or nothing comes.
pub async fn raw(world: &World, request: &str) -> String {
    let mut stream = TcpStream::connect(world.at).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection is closed");
    String::from_utf8_lossy(&answer).into_owned()
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
