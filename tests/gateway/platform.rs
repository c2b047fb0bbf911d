//! A messaging platform's API: takes everything and remembers it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use serde_json::{Value, json};

#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Call {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Where Discord's clients ask for their socket, which this platform does not have.
const SOCKET: &str = "/gateway/bot";

#[derive(Default)]
struct Inner {
    calls: Vec<Call>,
    replies: VecDeque<(u16, HeaderMap, Value)>,
}

#[derive(Clone)]
pub(crate) struct Platform {
    address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
}

impl Platform {
    pub(crate) async fn start() -> Self {
        let inner = Arc::new(Mutex::new(Inner::default()));
        let router = Router::new().fallback(answer).with_state(inner.clone());
        Self { address: super::world::serve(router).await, inner }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers the next calls like this; others with `{"ok":true,"result":[]}`, which suits all platforms.
    pub(crate) fn script(&self, replies: impl IntoIterator<Item = (u16, Value)>) {
        let replies = replies.into_iter().map(|(status, body)| (status, HeaderMap::new(), body));
        self.inner.lock().unwrap().replies.extend(replies);
    }

    /// Refuses the next call with a header.
    pub(crate) fn refuse(&self, status: u16, (name, value): (&'static str, &'static str), body: Value) {
        let headers = [(HeaderName::from_static(name), HeaderValue::from_static(value))].into_iter().collect();
        self.inner.lock().unwrap().replies.push_back((status, headers, body));
    }

    /// All calls, but not Discord's question for its socket.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let calls = self.inner.lock().unwrap().calls.clone();
        calls.into_iter().filter(|call| call.path != SOCKET).collect()
    }
}

async fn answer(
    State(inner): State<Arc<Mutex<Inner>>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, HeaderMap, axum::Json<Value>) {
    let path = uri.path().to_owned();
    let scripted = {
        let mut inner = inner.lock().unwrap();
        let is_question = path != SOCKET;
        inner.calls.push(Call { path, headers, body });
        if is_question { inner.replies.pop_front() } else { None }
    };
    match scripted {
        Some((status, headers, body)) => (StatusCode::from_u16(status).unwrap(), headers, axum::Json(body)),
        None => (StatusCode::OK, HeaderMap::new(), axum::Json(json!({ "ok": true, "result": [] }))),
    }
}
