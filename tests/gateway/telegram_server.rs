//! A Bot API server: keeps updates until they are confirmed, checks topics and rate limits, and remembers what was sent.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::sync::Notify;

pub(crate) const TOKEN: &str = "7:planted";

/// What happens to one `sendMessage`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    /// It arrives, and the answer does not come.
    ArrivesWithoutAnswer,
    /// It is refused, with a pause in seconds.
    TooMany(f64),
    Status(u16),
    /// It is refused: the group has another id.
    Moved(i64),
    /// It is refused: its topic was deleted.
    NoTopic,
}

#[derive(Default)]
struct Inner {
    updates: VecDeque<Value>,
    next: i64,
    sent: Vec<Value>,
    fates: VecDeque<Fate>,
    /// No message is taken before this moment: the server asked for a pause.
    closed_until: Option<Instant>,
    /// Messages that came in a pause.
    too_early: usize,
    webhook: bool,
    offset: i64,
    asked: Vec<String>,
}

#[derive(Clone, Default)]
struct Shared {
    inner: Arc<Mutex<Inner>>,
    news: Arc<Notify>,
}

#[derive(Clone)]
pub(crate) struct TelegramServer {
    address: SocketAddr,
    shared: Shared,
}

impl TelegramServer {
    pub(crate) async fn start() -> Self {
        let shared = Shared::default();
        let router = Router::new().fallback(answer).with_state(shared.clone());
        Self { address: super::world::serve(router).await, shared }
    }

    /// The table of the configuration.
    pub(crate) fn config(&self, more: &str) -> String {
        format!(
            "[channels_config.telegram]\nbot_token = \"{TOKEN}\"\nallowed_users = [\"*\"]\napi_base = \"http://{}\"\n{more}\n",
            self.address
        )
    }

    /// A message of a person: 5 in the private chat 5, or in a group.
    pub(crate) fn say(&self, chat: i64, more: Value) -> i64 {
        let number = self.shared.inner.lock().unwrap().next + 100;
        let kind = if chat < 0 { "supergroup" } else { "private" };
        let mut message = json!({
            "message_id": number, "date": 1, "from": { "id": 5, "is_bot": false, "username": "ada" },
            "chat": { "id": chat, "type": kind }
        });
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.update(json!({ "message": message }));
        number
    }

    pub(crate) fn update(&self, mut update: Value) {
        let mut inner = self.shared.inner.lock().unwrap();
        inner.next += 1;
        update["update_id"] = (inner.next + 1_000).into();
        inner.updates.push_back(update);
        drop(inner);
        self.shared.news.notify_waiters();
    }

    pub(crate) fn text(&self, chat: i64, text: &str) {
        self.say(chat, json!({ "text": text }));
    }

    pub(crate) fn fate(&self, fate: Fate) {
        self.shared.inner.lock().unwrap().fates.push_back(fate);
    }

    pub(crate) fn set_webhook(&self) {
        self.shared.inner.lock().unwrap().webhook = true;
    }

    /// All that was sent to a chat and arrived.
    pub(crate) fn sent(&self, chat: i64) -> Vec<Value> {
        let chat = chat.to_string();
        let inner = self.shared.inner.lock().unwrap();
        inner.sent.iter().filter(|body| body["chat_id"] == chat.as_str()).cloned().collect()
    }

    pub(crate) fn texts(&self, chat: i64) -> Vec<String> {
        self.sent(chat).iter().map(|body| body["text"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn too_early(&self) -> usize {
        self.shared.inner.lock().unwrap().too_early
    }

    /// Whether all updates are confirmed.
    pub(crate) fn all_confirmed(&self) -> bool {
        let inner = self.shared.inner.lock().unwrap();
        inner.offset > inner.next + 1_000
    }

    pub(crate) fn asked(&self, method: &str) -> usize {
        self.shared.inner.lock().unwrap().asked.iter().filter(|asked| *asked == method).count()
    }
}

async fn answer(State(shared): State<Shared>, uri: Uri, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let Some(method) = uri.path().strip_prefix(&format!("/bot{TOKEN}/")).map(str::to_owned) else {
        return refuse(401, "Unauthorized");
    };
    shared.inner.lock().unwrap().asked.push(method.clone());
    match method.as_str() {
        "getUpdates" => updates(&shared, &body).await,
        "sendMessage" => send(&shared, body).await,
        "getMe" => good(json!({ "id": 7, "is_bot": true, "username": "zbot" })),
        "getWebhookInfo" => {
            let url = if shared.inner.lock().unwrap().webhook { "https://example.org/hook" } else { "" };
            good(json!({ "url": url, "pending_update_count": 0 }))
        }
        "deleteWebhook" => {
            shared.inner.lock().unwrap().webhook = false;
            good(json!(true))
        }
        _ => good(json!(true)),
    }
}

async fn updates(shared: &Shared, body: &Value) -> Response {
    let offset = body["offset"].as_i64().unwrap_or(0);
    loop {
        let news = shared.news.notified();
        tokio::pin!(news);
        news.as_mut().enable();
        {
            let mut inner = shared.inner.lock().unwrap();
            if inner.webhook {
                return refuse(409, "Conflict: can't use getUpdates method while webhook is active");
            }
            inner.offset = inner.offset.max(offset);
            inner.updates.retain(|update| update["update_id"].as_i64().unwrap() >= offset);
            if !inner.updates.is_empty() {
                return good(json!(inner.updates));
            }
        }
        news.await;
    }
}

async fn send(shared: &Shared, body: Value) -> Response {
    let fate = {
        let mut inner = shared.inner.lock().unwrap();
        if inner.closed_until.is_some_and(|until| Instant::now() < until) {
            inner.too_early += 1;
            return refuse(429, "Too Many Requests");
        }
        inner.fates.pop_front()
    };
    match fate {
        Some(Fate::TooMany(seconds)) => {
            let until = Instant::now() + std::time::Duration::from_secs_f64(seconds);
            shared.inner.lock().unwrap().closed_until = Some(until);
            let body = json!({ "ok": false, "error_code": 429, "description": "Too Many Requests", "parameters": { "retry_after": seconds } });
            (StatusCode::TOO_MANY_REQUESTS, axum::Json(body)).into_response()
        }
        Some(Fate::Status(status)) => refuse(status, "no"),
        Some(Fate::Moved(chat)) => {
            let words = "Bad Request: group chat was upgraded to a supergroup chat";
            let parameters = json!({ "migrate_to_chat_id": chat });
            let body = json!({ "ok": false, "error_code": 400, "description": words, "parameters": parameters });
            (StatusCode::BAD_REQUEST, axum::Json(body)).into_response()
        }
        Some(Fate::NoTopic) => refuse(400, "Bad Request: message thread not found"),
        Some(Fate::ArrivesWithoutAnswer) => {
            shared.inner.lock().unwrap().sent.push(body);
            std::future::pending().await
        }
        None => {
            shared.inner.lock().unwrap().sent.push(body);
            good(json!({ "message_id": 1 }))
        }
    }
}

fn good(result: Value) -> Response {
    axum::Json(json!({ "ok": true, "result": result })).into_response()
}

fn refuse(status: u16, words: &str) -> Response {
    let body = json!({ "ok": false, "error_code": status, "description": words });
    (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
}
