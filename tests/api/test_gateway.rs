//! What stands in the place of an agent's gateway, and clients that write their own bytes.

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
use futures_util::StreamExt;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use zeroone::domain::AgentId;

use crate::world::{PATIENCE, World};

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

/// Writes raw bytes to the service and reads until it closes or nothing comes.
pub async fn raw(world: &World, request: &str) -> String {
    let mut stream = TcpStream::connect(world.at).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection is closed");
    String::from_utf8_lossy(&answer).into_owned()
}
