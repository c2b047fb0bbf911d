//! `GET /ws/chat`: a conversation over a WebSocket.
//!
//! ```text
//! client  {"type":"message","content":"Hello"}
//! server  {"type":"chunk","content":"Hi "} …
//!         {"type":"tool_call","name":"time","args":{}}   {"type":"tool_result","name":"time","output":"…"}
//!         {"type":"done","full_response":"Hi there"}  or  {"type":"error","message":"…"}
//! client  {"type":"stop"}                                ends the answer under way: {"type":"stopped"}
//!         {"type":"history","messages":[{"role":"user","content":"…"},{"role":"assistant","content":"…"}]}
//!                                                        at the start: what was said over an earlier socket
//! ```
//! What was said stays in mind until the socket closes; with `?session_id=` it is that session's and outlives the socket,
//! which then begins with {"type":"session_start","session_id":"…","resumed":true,"message_count":4}. A socket that closes in the middle of an answer ends it.

use std::time::Duration;

use axum::extract::ws::{Message as Frame, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::webhook::names_a_session;
use crate::gateway::agent::{self, Answer, Ask, Progress, Source};
use crate::gateway::auth::bearer;
use crate::gateway::body::BODY_LIMIT;
use crate::gateway::conversation;
use crate::gateway::memory::Owner;
use crate::gateway::provider::Message;
use crate::gateway::reply::Refusal;
use crate::gateway::shared::App;

/// Messages of a conversation that are kept in mind.
const HISTORY: usize = 40;
/// Pieces of an answer that a slow client may be behind; then the model waits.
const IN_FLIGHT: usize = 64;
/// A silent client is asked whether it is there, and this many times.
const PING: Duration = Duration::from_secs(30);
const PINGS: u32 = 3;
/// A client that does not read for this long is gone.
const SEND: Duration = Duration::from_secs(30);
/// The subprotocol of those who bring their token as one.
const PROTOCOL: &str = "zeroclaw.v1";

#[derive(Deserialize)]
pub(super) struct Token {
    token: Option<String>,
    session_id: Option<String>,
}

#[derive(Deserialize)]
struct Said {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    content: String,
    #[serde(default)]
    messages: Vec<Turn>,
}

#[derive(Deserialize)]
struct Turn {
    role: String,
    content: String,
}

/// The token comes in the header, as a subprotocol `bearer.<token>`, or in the query: browsers cannot set headers here.
pub(super) async fn websocket(
    State(app): State<App>,
    Query(query): Query<Token>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let offered: Vec<&str> = offered.flat_map(|value| value.split(',')).map(str::trim).collect();
    let protocol = offered.iter().find(|protocol| protocol.starts_with("bearer."));
    let in_protocol = protocol.and_then(|protocol| protocol.strip_prefix("bearer."));
    let token = bearer(&headers).or(in_protocol).or(query.token.as_deref()).unwrap_or_default();
    // Where no token is needed, any page in a browser of this machine could speak for its user.
    let open_to_all = !app.pairing.required();
    if !app.pairing.accepts(token) || (open_to_all && is_foreign(&headers)) {
        return Err(Refusal::Unauthorized);
    }
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade.max_message_size(BODY_LIMIT).protocols([PROTOCOL.to_owned()]),
        Err(rejection) => return Ok(rejection.into_response()),
    };
    // A client that offers nothing but its token wants to see it chosen.
    let upgrade = match protocol {
        Some(protocol) if !offered.contains(&PROTOCOL) => upgrade.protocols([(*protocol).to_owned()]),
        _ => upgrade,
    };
    let session = query.session_id.filter(|name| names_a_session(name));
    Ok(upgrade.on_upgrade(move |socket| async move {
        let stop = app.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            _ = converse(app, socket, session) => {}
        }
    }))
}

/// Whether a browser asks for a page that another server sent.
fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    text(header::ORIGIN).is_some_and(|origin| origin.split_once("://").map(|(_, host)| host) != text(header::HOST))
}

/// `None` when the socket is closed.
async fn converse(app: App, mut socket: WebSocket, session: Option<String>) -> Option<()> {
    let mut history: Vec<Message> = Vec::new();
    if let Some(id) = &session {
        let name = id.clone();
        let known =
            conversation::on_disk(&app, move |sessions| sessions.messages(&name)).await.map_or(0, |said| said.len());
        let start = json!({ "type": "session_start", "session_id": id, "resumed": known > 0, "message_count": known });
        send(&mut socket, start).await?;
    }
    loop {
        let text = next_text(&mut socket).await?;
        let Ok(said) = serde_json::from_str::<Said>(&text) else {
            send(&mut socket, json!({ "type": "error", "message": "Invalid JSON" })).await?;
            continue;
        };
        if said.kind == "history" && history.is_empty() {
            history = earlier(said.messages);
        }
        if said.kind != "message" || said.content.is_empty() {
            continue;
        }
        history.push(Message::user(said.content));
        // A named session has its own history, which outlives the socket.
        if session.is_some() {
            history.drain(..history.len() - 1);
        }
        match answer(&app, &mut socket, session.clone(), history.clone()).await? {
            Ended::Stopped => {
                history.pop();
                send(&mut socket, json!({ "type": "stopped" })).await?;
            }
            Ended::Answered(answer) => {
                send(&mut socket, done(&answer)).await?;
                history.push(answer.message());
            }
            Ended::Failed(failed) => {
                history.pop();
                send(&mut socket, failed).await?;
            }
        }
        let surplus = history.len().saturating_sub(HISTORY);
        history.drain(..surplus);
    }
}

fn done(answer: &Answer) -> Value {
    json!({
        "type": "done", "full_response": answer.text, "model": answer.model, "usage": answer.usage,
        "cost_usd": answer.cost_usd,
    })
}

/// What a client knows from an earlier socket, as much as is kept in mind.
fn earlier(messages: Vec<Turn>) -> Vec<Message> {
    let surplus = messages.len().saturating_sub(HISTORY);
    let known = messages.into_iter().skip(surplus).filter(|turn| !turn.content.trim().is_empty());
    let read = |turn: Turn| match turn.role.as_str() {
        "user" => Some(Message::User(turn.content)),
        "assistant" => Some(Message::assistant(turn.content)),
        _ => None,
    };
    known.filter_map(read).collect()
}

/// How an answer ended.
enum Ended {
    Answered(Answer),
    Failed(Value),
    /// By the client's wish.
    Stopped,
}

/// Answers with its pieces on the way.
async fn answer(
    app: &App,
    socket: &mut WebSocket,
    session: Option<String>,
    conversation: Vec<Message>,
) -> Option<Ended> {
    let (sender, mut progress) = mpsc::channel(IN_FLIGHT);
    let ask = Ask { conversation, progress: Some(sender), ..Ask::new(Source::WebSocket, "") };
    let worker = app.clone();
    let work = AbortOnDropHandle::new(tokio::spawn(async move {
        match session {
            Some(id) => conversation::answer(&worker, &id, Ask { owner: Owner::session(&id), ..ask }).await,
            None => agent::answer(&worker, ask).await,
        }
    }));
    loop {
        tokio::select! {
            piece = progress.recv() => match piece {
                Some(piece) => send(socket, show(piece)).await?,
                None => break,
            },
            frame = socket.recv() => match frame? {
                Ok(Frame::Text(text)) if is_stop(&text) => return Some(Ended::Stopped),
                Ok(Frame::Text(_)) => {
                    send(socket, json!({ "type": "error", "message": "Still answering the last message" })).await?;
                }
                Ok(Frame::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            },
        }
    }
    Some(match work.await {
        Ok(Ok(answer)) => Ended::Answered(answer),
        Ok(Err(error)) => {
            Ended::Failed(json!({ "type": "error", "message": error.to_string(), "model": error.model_json() }))
        }
        Err(_) => Ended::Failed(json!({ "type": "error", "message": "The answer was interrupted" })),
    })
}

fn is_stop(text: &str) -> bool {
    serde_json::from_str::<Said>(text).is_ok_and(|said| said.kind == "stop")
}

fn show(progress: Progress) -> Value {
    match progress {
        Progress::Text(text) => json!({ "type": "chunk", "content": text }),
        Progress::ToolCall(call) => {
            let args: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
            json!({ "type": "tool_call", "name": call.name, "args": args })
        }
        Progress::ToolResult { name, output, success } => {
            json!({ "type": "tool_result", "name": name, "output": output, "success": success })
        }
        Progress::Thinking { seconds } => json!({ "type": "thinking", "seconds": seconds }),
    }
}

/// The next text of a client that is there.
async fn next_text(socket: &mut WebSocket) -> Option<String> {
    let mut unanswered = 0;
    loop {
        match tokio::time::timeout(PING, socket.recv()).await {
            Ok(Some(Ok(Frame::Text(text)))) => return Some(text.to_string()),
            Ok(None | Some(Ok(Frame::Close(_)) | Err(_))) => return None,
            Ok(Some(Ok(_))) => unanswered = 0,
            Err(_) if unanswered == PINGS => return None,
            Err(_) => {
                unanswered += 1;
                socket.send(Frame::Ping(bytes::Bytes::new())).await.ok()?;
            }
        }
    }
}

async fn send(socket: &mut WebSocket, message: Value) -> Option<()> {
    let sent = socket.send(Frame::Text(message.to_string().into()));
    tokio::time::timeout(SEND, sent).await.ok()?.ok()
}
