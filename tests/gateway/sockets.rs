//! Slack and Discord, which send their messages over WebSockets that we open; and Slack's signed requests.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::sync::Notify;

use super::world::{World, both, eventually};

#[derive(Default)]
struct Inner {
    /// What each next connection does after its greeting.
    scripts: VecDeque<Vec<Step>>,
    /// What clients sent over sockets, and messages by HTTP.
    heard: Vec<Value>,
    sent: Vec<Value>,
    connections: usize,
}

#[derive(Clone)]
enum Step {
    Send(Value),
    /// Waits until the client sent something with this operation or envelope.
    Await(Value),
    Close(u16),
}

/// Both platforms: `chat.postMessage` and `apps.connections.open`, `gateway/bot` and messages of channels.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
    news: Arc<Notify>,
}

impl Server {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { address: listener.local_addr().unwrap(), inner: Arc::default(), news: Arc::default() };
        let router = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    fn script(&self, steps: Vec<Step>) {
        self.inner.lock().unwrap().scripts.push_back(steps);
    }

    fn sent(&self) -> Vec<Value> {
        self.inner.lock().unwrap().sent.clone()
    }

    fn heard(&self) -> Vec<Value> {
        self.inner.lock().unwrap().heard.clone()
    }

    async fn first_sent(&self) -> Value {
        eventually(async || self.sent().into_iter().next()).await
    }
}

async fn answer(State(server): State<Server>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let socket = format!("ws://{}/socket", server.address);
    match path.as_str() {
        "/apps.connections.open" if bearer(request.headers()) == "Bearer xapp-1" => {
            axum::Json(json!({ "ok": true, "url": socket })).into_response()
        }
        "/apps.connections.open" => axum::Json(json!({ "ok": false, "error": "invalid_auth" })).into_response(),
        "/gateway/bot" => axum::Json(json!({ "url": socket })).into_response(),
        path if path.starts_with("/socket") => {
            let (mut parts, _) = request.into_parts();
            let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await.unwrap();
            upgrade.on_upgrade(move |socket| play(server, socket)).into_response()
        }
        _ => {
            let (_, body) = request.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_else(|_| Bytes::new());
            let mut body: Value = serde_json::from_slice(&body).unwrap_or_default();
            body["path"] = path.into();
            server.inner.lock().unwrap().sent.push(body);
            axum::Json(json!({ "ok": true })).into_response()
        }
    }
}

fn bearer(headers: &HeaderMap) -> &str {
    headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default()
}

async fn play(server: Server, mut socket: WebSocket) {
    let steps = {
        let mut inner = server.inner.lock().unwrap();
        inner.connections += 1;
        inner.scripts.pop_front().unwrap_or_default()
    };
    for step in steps {
        match step {
            Step::Send(value) => socket.send(Message::Text(value.to_string().into())).await.unwrap(),
            Step::Await(expected) => loop {
                let Some(value) = hear(&server, &mut socket).await else { return };
                if value["op"] == expected || value["envelope_id"] == expected {
                    break;
                }
            },
            Step::Close(code) => {
                let _ = socket.send(Message::Close(Some(CloseFrame { code, reason: "".into() }))).await;
                return;
            }
        }
    }
    while hear(&server, &mut socket).await.is_some() {}
}

async fn hear(server: &Server, socket: &mut WebSocket) -> Option<Value> {
    loop {
        if let Message::Text(text) = socket.recv().await?.ok()? {
            let value: Value = serde_json::from_str(&text).unwrap();
            server.inner.lock().unwrap().heard.push(value.clone());
            // A Discord that acknowledges heartbeats.
            if value["op"] == 1 {
                socket.send(Message::Text(json!({ "op": 11 }).to_string().into())).await.ok()?;
            }
            server.news.notify_waiters();
            return Some(value);
        }
    }
}

async fn slack(server: &Server, more: &str) -> World {
    World::paired(&format!(
        "[channels_config.slack]\nbot_token = \"xoxb-1\"\nallowed_users = [\"U1\"]\napi_base = \"http://{}\"\n{more}\n",
        server.address
    ))
    .await
}

fn slack_event(more: Value) -> Value {
    let mut event = json!({ "type": "message", "user": "U1", "channel": "C1", "channel_type": "channel", "ts": "1.1", "text": "hello" });
    event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "type": "event_callback", "team_id": "T", "event_id": "E", "event": event, "authorizations": [{ "user_id": "UBOT" }] })
}

fn envelope(id: &str, payload: Value) -> Step {
    Step::Send(json!({ "type": "events_api", "envelope_id": id, "payload": payload }))
}

#[tokio::test]
async fn slack_messages_of_socket_mode_are_acknowledged_and_answered_in_their_thread() {
    let server = Server::start().await;
    server.script(vec![
        Step::Send(json!({ "type": "hello" })),
        envelope("e1", slack_event(json!({ "thread_ts": "0.9" }))),
        Step::Await("e1".into()),
        // Slack did not see the acknowledgement and sends it again, and tells of it as a mention too.
        envelope("e2", slack_event(json!({ "thread_ts": "0.9" }))),
        envelope("e3", slack_event(json!({ "type": "app_mention", "thread_ts": "0.9" }))),
        Step::Await("e3".into()),
        Step::Send(json!({ "type": "disconnect", "reason": "refresh_requested" })),
    ]);
    server.script(vec![
        Step::Send(json!({ "type": "hello" })),
        envelope("e4", slack_event(json!({ "ts": "2.2", "text": "after the renewal" }))),
    ]);
    let world = slack(&server, "app_token = \"xapp-1\"").await;
    eventually(async || (server.sent().len() == 2).then_some(())).await;
    let sent = server.sent();
    assert_eq!((&sent[0]["path"], &sent[0]["text"]), (&json!("/chat.postMessage"), &json!("echo: hello")));
    assert_eq!((&sent[0]["channel"], &sent[0]["thread_ts"]), (&json!("C1"), &json!("0.9")));
    assert_eq!((&sent[1]["text"], &sent[1]["thread_ts"]), (&json!("echo: after the renewal"), &Value::Null));
    let status = both(world.get("/api/status").send().await.unwrap()).await.1;
    assert_eq!(status["health"]["components"]["slack"]["status"], "ok");
}

#[tokio::test]
async fn a_refused_slack_token_is_said_with_its_remedy() {
    let server = Server::start().await;
    let world = slack(&server, "app_token = \"xapp-wrong\"").await;
    eventually(async || {
        let health = both(world.get("/health").send().await.unwrap()).await.1.to_string();
        health.contains("Slack refused app_token (invalid_auth)").then_some(())
    })
    .await;
}

/// Status and body; `null` where that is empty.
async fn signed(world: &World, kind: &str, body: &str, age: i64) -> (u16, Value) {
    let time = (jiff::Timestamp::now().as_second() - age).to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(b"sign").unwrap();
    mac.update(format!("v0:{time}:{body}").as_bytes());
    let signature: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let request = world.http.post(world.url("/slack")).header("content-type", kind).body(body.to_owned());
    let request =
        request.header("x-slack-request-timestamp", time).header("x-slack-signature", format!("v0={signature}"));
    let (status, body) = both(request.send().await.unwrap()).await;
    (status.as_u16(), body)
}

#[tokio::test]
async fn slack_requests_are_signed_fresh_and_taken_in_every_form() {
    const FORM: &str = "application/x-www-form-urlencoded";
    const JSON: &str = "application/json";
    let server = Server::start().await;
    let world = slack(&server, "signing_secret = \"sign\"").await;
    let challenge = json!({ "type": "url_verification", "challenge": "c" }).to_string();
    assert_eq!(signed(&world, JSON, &challenge, 0).await, (200, json!({ "challenge": "c" })));
    assert_eq!(signed(&world, JSON, &challenge, 600).await.0, 401, "a recording");
    let unsigned = world.http.post(world.url("/slack")).body(challenge).send().await.unwrap();
    assert_eq!(unsigned.status(), 401);

    assert_eq!(signed(&world, JSON, &slack_event(json!({})).to_string(), 0).await.0, 200);
    assert_eq!(server.first_sent().await["text"], "echo: hello");
    let command = "command=%2Fask&text=why%3F&user_id=U1&channel_id=C2&trigger_id=9";
    assert_eq!(signed(&world, FORM, command, 0).await, (200, Value::Null));
    let action = json!({ "type": "block_actions", "user": { "id": "U1" }, "channel": { "id": "C3" },
        "actions": [{ "text": { "text": "Yes please" }, "action_ts": "3.1" }] });
    let form = json!({ "type": "view_submission", "user": { "id": "U1" }, "view": { "id": "V1", "state": {
        "values": { "b": { "when": { "selected_users": ["U7", "U8"] } } } } } });
    let shortcut = json!({ "type": "message_action", "action_ts": "4.1", "user": { "id": "U1" },
        "channel": { "id": "C4" }, "message": { "ts": "1.0", "text": "explain" } });
    // Slack shows an error to the person where the answer to a form is anything else.
    for interaction in [action, form, shortcut, json!({ "type": "view_closed" })] {
        let payload: String = interaction.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect();
        assert_eq!(signed(&world, FORM, &format!("payload={payload}"), 0).await, (200, Value::Null), "{interaction}");
    }
    eventually(async || (server.sent().len() == 5).then_some(())).await;
    let mut texts: Vec<String> = server.sent().iter().map(|sent| sent["text"].as_str().unwrap().to_owned()).collect();
    texts.sort();
    assert_eq!(texts, ["echo: Yes please", "echo: explain", "echo: hello", "echo: when: U7, U8", "echo: why?"]);
    // Signed, and nothing that we know: never a 4xx, or Slack switches the subscription off.
    for odd in ["{", "[]", "{\"type\":\"event_callback\"}", "{\"event\":{\"type\":\"team_join\"}}"] {
        assert_eq!(signed(&world, JSON, odd, 0).await.0, 200, "{odd}");
    }
}

async fn discord(server: &Server, more: &str) -> World {
    World::paired(&format!(
        "[channels_config.discord]\nbot_token = \"Nw.planted\"\nallowed_users = [\"ada\"]\nguild_id = 42\napi_base = \"http://{}\"\n{more}\n",
        server.address
    ))
    .await
}

fn hello() -> Step {
    Step::Send(json!({ "op": 10, "d": { "heartbeat_interval": 150 } }))
}

fn ready(server: &Server) -> Step {
    let resume = format!("ws://{}/socket/resume", server.address);
    Step::Send(
        json!({ "op": 0, "s": 1, "t": "READY", "d": { "session_id": "S", "resume_gateway_url": resume, "user": { "id": "7" } } }),
    )
}

fn written(sequence: u64, id: &str, content: &str) -> Step {
    Step::Send(json!({ "op": 0, "s": sequence, "t": "MESSAGE_CREATE", "d": {
        "id": id, "channel_id": "99", "guild_id": "42", "type": 0, "content": content, "author": { "id": "5", "username": "ada" }
    } }))
}

#[tokio::test]
async fn discord_messages_are_answered_and_heartbeats_kept() {
    let server = Server::start().await;
    server.script(vec![
        hello(),
        Step::Await(2.into()),
        ready(&server),
        written(2, "1000", "hello"),
        Step::Await(1.into()),
        Step::Await(1.into()),
    ]);
    let _world = discord(&server, "").await;
    let sent = server.first_sent().await;
    assert_eq!((&sent["path"], &sent["content"]), (&json!("/channels/99/messages"), &json!("echo: hello")));
    assert_eq!(sent["message_reference"]["message_id"], "1000");
    assert_eq!(sent["allowed_mentions"], json!({ "parse": [] }));
    let identify = server.heard().into_iter().find(|heard| heard["op"] == 2).unwrap();
    assert_eq!(identify["d"]["token"], "Nw.planted");
    eventually(async || (server.heard().iter().filter(|heard| heard["op"] == 1).count() >= 2).then_some(())).await;
}

#[tokio::test]
async fn a_restart_resumes_the_discord_session_and_answers_nothing_twice() {
    let server = Server::start().await;
    server.script(vec![hello(), Step::Await(2.into()), ready(&server), written(2, "1000", "hello")]);
    let mut world = discord(&server, "").await;
    server.first_sent().await;
    server.script(vec![
        hello(),
        Step::Await(6.into()),
        written(2, "1000", "hello"),
        written(3, "1001", "while you were away"),
    ]);
    world.restart().await;
    eventually(async || (server.sent().len() == 2).then_some(())).await;
    assert_eq!(server.sent()[1]["content"], "echo: while you were away");
    let resume = server.heard().into_iter().find(|heard| heard["op"] == 6).unwrap();
    assert_eq!(resume["d"], json!({ "token": "Nw.planted", "session_id": "S", "seq": 2 }));
}

#[tokio::test]
async fn a_session_that_is_over_is_begun_again() {
    let server = Server::start().await;
    server.script(vec![hello(), Step::Await(2.into()), ready(&server), Step::Send(json!({ "op": 7 }))]);
    server.script(vec![hello(), Step::Await(6.into()), Step::Send(json!({ "op": 9, "d": false }))]);
    server.script(vec![hello(), Step::Await(2.into()), ready(&server), written(2, "1000", "hello")]);
    let _world = discord(&server, "").await;
    assert_eq!(server.first_sent().await["content"], "echo: hello");
}

#[tokio::test]
async fn without_the_message_content_intent_discord_is_read_as_far_as_it_goes_and_it_is_said() {
    let server = Server::start().await;
    server.script(vec![hello(), Step::Await(2.into()), Step::Close(4014)]);
    server.script(vec![
        hello(),
        Step::Await(2.into()),
        ready(&server),
        written(2, "1000", ""),
        written(3, "1001", "<@7> hello"),
    ]);
    let world = discord(&server, "").await;
    assert_eq!(server.first_sent().await["content"], "echo: <@7> hello");
    let health = both(world.get("/health").send().await.unwrap()).await.1;
    let intents: Vec<u64> = server.heard().iter().filter_map(|heard| heard["d"]["intents"].as_u64()).collect();
    assert_eq!((intents[0] & (1 << 15) != 0, intents[1] & (1 << 15) != 0), (true, false));
    assert!(health.to_string().contains("discord"), "{health}");
}

#[tokio::test]
async fn a_wrong_discord_token_is_said_and_never_shown() {
    let server = Server::start().await;
    server.script(vec![hello(), Step::Await(2.into()), Step::Close(4004)]);
    let world = discord(&server, "").await;
    let seen = eventually(async || {
        let health = both(world.get("/health").send().await.unwrap()).await.1.to_string();
        health.contains("Discord does not know the bot token").then_some(health)
    })
    .await;
    assert!(!seen.contains("planted"));
}
