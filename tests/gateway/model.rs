//! A model server that answers as it is told and remembers what it was asked. It speaks both dialects, streamed or not.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// What the model does with one call; without any script it echoes.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Echo,
    Text(String),
    /// Tool calls: name and JSON arguments.
    Tools(Vec<(&'static str, Value)>),
    Status(u16, Vec<(&'static str, &'static str)>, &'static str),
    /// Never answers.
    Hang,
}

/// One call as the server saw it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Call {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

#[derive(Default)]
struct Script {
    replies: VecDeque<Reply>,
    calls: Vec<Call>,
}

#[derive(Clone)]
pub(crate) struct FakeModel {
    pub(crate) address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

impl FakeModel {
    pub(crate) async fn start() -> Self {
        let script = Arc::new(Mutex::new(Script::default()));
        let router = Router::new().fallback(answer).with_state(script.clone());
        Self { address: super::world::serve(router).await, script }
    }

    /// The base URL as a provider setting wants it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub(crate) fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.script.lock().unwrap().replies.extend(replies);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.script.lock().unwrap().calls.clone()
    }
}

async fn answer(State(script): State<Arc<Mutex<Script>>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let reply = {
        let mut script = script.lock().unwrap();
        script.calls.push(Call { path: uri.path().to_owned(), headers, body: body.clone() });
        script.replies.pop_front().unwrap_or(Reply::Echo)
    };
    let (text, tools) = match reply {
        Reply::Echo => (format!("echo: {}", last_words(&body)), vec![]),
        Reply::Text(text) => (text, vec![]),
        Reply::Tools(tools) => (String::new(), tools),
        Reply::Status(status, headers, text) => {
            let mut response = (StatusCode::from_u16(status).unwrap(), text).into_response();
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            return response;
        }
        Reply::Hang => return std::future::pending().await,
    };
    let anthropic = uri.path().ends_with("/messages");
    match (anthropic, body["stream"].as_bool().unwrap_or(false)) {
        (false, false) => json_response(&openai(&text, &tools)),
        (true, false) => json_response(&anthropic_message(&text, &tools)),
        (false, true) => sse(openai_stream(&text, &tools)),
        (true, true) => sse(anthropic_stream(&text, &tools)),
    }
}

fn last_words(body: &Value) -> String {
    let content = &body["messages"].as_array().and_then(|messages| messages.last()).unwrap_or(&Value::Null)["content"];
    match content {
        Value::Array(parts) => parts.last().and_then(|part| part["text"].as_str()).unwrap_or_default().to_owned(),
        content => content.as_str().unwrap_or_default().to_owned(),
    }
}

fn json_response(body: &Value) -> Response {
    ([("content-type", "application/json")], body.to_string()).into_response()
}

fn openai(text: &str, tools: &[(&str, Value)]) -> Value {
    let mut message = json!({ "role": "assistant", "content": text });
    if !tools.is_empty() {
        let calls = tools.iter().enumerate().map(|(index, (name, arguments))| {
            let function = json!({ "name": name, "arguments": arguments.to_string() });
            json!({ "id": format!("call_{index}"), "type": "function", "function": function })
        });
        message = json!({ "role": "assistant", "content": null, "tool_calls": calls.collect::<Vec<_>>() });
    }
    json!({
        "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18 }
    })
}

fn anthropic_message(text: &str, tools: &[(&str, Value)]) -> Value {
    let mut content = vec![];
    if !text.is_empty() {
        content.push(json!({ "type": "text", "text": text }));
    }
    for (index, (name, input)) in tools.iter().enumerate() {
        content.push(json!({ "type": "tool_use", "id": format!("call_{index}"), "name": name, "input": input }));
    }
    json!({ "content": content, "stop_reason": "end_turn", "usage": { "input_tokens": 11, "output_tokens": 7 } })
}

/// Words with the blank before them, so that their sum is the text.
fn words(text: &str) -> Vec<String> {
    text.split_inclusive(' ').map(str::to_owned).collect()
}

fn openai_stream(text: &str, tools: &[(&str, Value)]) -> String {
    let mut events: Vec<Value> =
        words(text).iter().map(|word| json!({ "choices": [{ "index": 0, "delta": { "content": word } }] })).collect();
    for (index, (name, arguments)) in tools.iter().enumerate() {
        let arguments = arguments.to_string();
        // The name comes first, the arguments in two pieces, as the real one does it.
        let (head, tail) = arguments.split_at(arguments.len() / 2);
        let delta = |call: Value| json!({ "choices": [{ "index": 0, "delta": { "tool_calls": [call] } }] });
        events.push(delta(json!({
            "index": index, "id": format!("call_{index}"), "type": "function",
            "function": { "name": name, "arguments": "" }
        })));
        events.push(delta(json!({ "index": index, "function": { "arguments": head } })));
        events.push(delta(json!({ "index": index, "function": { "arguments": tail } })));
    }
    events.push(json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] }));
    events.push(json!({ "choices": [], "usage": { "prompt_tokens": 11, "completion_tokens": 7 } }));
    let lines: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    format!("{lines}data: [DONE]\n\n")
}

fn anthropic_stream(text: &str, tools: &[(&str, Value)]) -> String {
    let mut events =
        vec![json!({ "type": "message_start", "message": { "usage": { "input_tokens": 11, "output_tokens": 1 } } })];
    let mut index = 0;
    if !text.is_empty() {
        events.push(
            json!({ "type": "content_block_start", "index": index, "content_block": { "type": "text", "text": "" } }),
        );
        for word in words(text) {
            events.push(json!({ "type": "content_block_delta", "index": index, "delta": { "type": "text_delta", "text": word } }));
        }
        events.push(json!({ "type": "content_block_stop", "index": index }));
        index += 1;
    }
    for (name, input) in tools {
        events.push(json!({
            "type": "content_block_start", "index": index,
            "content_block": { "type": "tool_use", "id": format!("call_{index}"), "name": name, "input": {} }
        }));
        let input = input.to_string();
        let (head, tail) = input.split_at(input.len() / 2);
        for piece in [head, tail] {
            events.push(json!({ "type": "content_block_delta", "index": index, "delta": { "type": "input_json_delta", "partial_json": piece } }));
        }
        events.push(json!({ "type": "content_block_stop", "index": index }));
        index += 1;
    }
    events.push(
        json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" }, "usage": { "output_tokens": 7 } }),
    );
    events.push(json!({ "type": "message_stop" }));
    events.iter().map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap())).collect()
}

fn sse(text: String) -> Response {
    // Pieces that end in the middle of lines and characters, as a network delivers them.
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> =
        text.as_bytes().chunks(7).map(|piece| Ok(piece.to_vec())).collect();
    let stream = futures_util::stream::iter(pieces);
    ([("content-type", "text/event-stream")], Body::from_stream(stream)).into_response()
}
