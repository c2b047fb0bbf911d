//! A stand-in for a model: speaks OpenAI's chat API and answers by rule. It is no AI, and says so.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Longest request that is read.
const REQUEST_LIMIT: usize = 4 << 20;
/// Longest part of a message that is repeated in its answer.
const QUOTE: usize = 200;

/// What the model is called.
pub(super) const NAME: &str = "stand-in";

/// A model server of one's own, gone when it is dropped.
pub(super) struct StandIn {
    address: SocketAddr,
    heard: Heard,
    stop: CancellationToken,
}

/// Words by which a message asks to be counted: a run of chaos wants to know of each of its messages how often it came.
pub(super) const COUNTED: &str = "chaos-";

/// How often each message that asked for it was heard.
type Heard = Arc<Mutex<HashMap<String, u32>>>;

impl StandIn {
    pub(super) async fn start(at: Ipv4Addr) -> std::io::Result<Self> {
        let listener = TcpListener::bind((at, 0)).await?;
        let heard = Heard::default();
        let (address, stop) = (listener.local_addr()?, CancellationToken::new());
        tokio::spawn(stop.clone().run_until_cancelled_owned(accept(listener, Arc::clone(&heard))));
        Ok(Self { address, heard, stop })
    }

    pub(super) fn is_local(&self) -> bool {
        self.address.ip().is_loopback()
    }

    pub(super) const fn port(&self) -> u16 {
        self.address.port()
    }

    /// Messages that came more than once.
    pub(super) fn heard_twice(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().filter(|(_, times)| **times > 1).map(|(message, _)| message.clone()).collect()
    }

    /// As an agent's `providerUrl` wants it.
    pub(super) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: TcpListener, heard: Heard) {
    loop {
        // An accept that fails has no descriptor left; the next one waits its turn like any other task.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let heard = Arc::clone(&heard);
        let service = service_fn(move |request| answer(request, Arc::clone(&heard)));
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the stand-in model ended early");
            }
        });
    }
}

async fn answer(request: Request<Incoming>, heard: Heard) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::POST || request.uri().path() != "/v1/chat/completions" {
        return Ok(refuse(StatusCode::NOT_FOUND, "this stand-in has POST /v1/chat/completions and nothing else"));
    }
    let body = Limited::new(request.into_body(), REQUEST_LIMIT).collect().await;
    let chat = body.ok().and_then(|body| serde_json::from_slice::<Value>(&body.to_bytes()).ok());
    Ok(match chat {
        Some(chat) => {
            let words = last_words(&chat);
            if words.starts_with(COUNTED) {
                *heard.lock().unwrap_or_else(PoisonError::into_inner).entry(words).or_default() += 1;
            }
            complete(&chat)
        }
        None => refuse(StatusCode::BAD_REQUEST, "the request is no JSON, or too long"),
    })
}

fn complete(chat: &Value) -> Response<Full<Bytes>> {
    let text = reply(last_words(chat).trim());
    let model = chat["model"].as_str().unwrap_or(NAME);
    if chat["stream"].as_bool().unwrap_or(false) {
        return respond(StatusCode::OK, "text/event-stream", stream(model, &text));
    }
    let message = json!({ "role": "assistant", "content": text });
    let answer = json!({
        "id": "chatcmpl-stand-in", "object": "chat.completion", "model": model,
        "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }],
        "usage": usage(chat, &text)
    });
    respond(StatusCode::OK, "application/json", answer.to_string())
}

/// The same words for the same message, always.
fn reply(message: &str) -> String {
    let words = message.split_whitespace().count();
    let quote: String = message.chars().take(QUOTE).collect();
    let more = if quote.len() < message.len() { "…" } else { "" };
    format!(
        "I am a stand-in for a model, no AI. Your message came through with {words} word{}: \"{quote}{more}\". \
         Give an agent a real provider and key, and a real model answers here.",
        if words == 1 { "" } else { "s" }
    )
}

/// What the user said last: a text, or the texts of a list of parts.
fn last_words(chat: &Value) -> String {
    let messages = chat["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(last) = messages.iter().rfind(|message| message["role"] == "user") else { return String::new() };
    match &last["content"] {
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join(" "),
        content => content.as_str().unwrap_or_default().to_owned(),
    }
}

/// Words for tokens: near enough for a stand-in.
fn usage(chat: &Value, text: &str) -> Value {
    let prompt = chat["messages"].to_string().split_whitespace().count();
    let completion = text.split_whitespace().count();
    json!({ "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion })
}

fn stream(model: &str, text: &str) -> String {
    let chunk = |delta: Value, end: Option<&str>| {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": end });
        let chunk = json!({
            "id": "chatcmpl-stand-in", "object": "chat.completion.chunk", "model": model, "choices": [choice]
        });
        format!("data: {chunk}\n\n")
    };
    let words = text.split_inclusive(' ').map(|word| chunk(json!({ "content": word }), None));
    words.chain([chunk(json!({}), Some("stop")), "data: [DONE]\n\n".to_owned()]).collect()
}

fn refuse(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    respond(status, "application/json", json!({ "error": { "message": message } }).to_string())
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_the_last_thing_the_user_said_and_says_what_it_is() {
        let chat = json!({ "messages": [
            { "role": "system", "content": "You are Z." }, { "role": "user", "content": "first" },
            { "role": "user", "content": [{ "type": "text", "text": "two words" }] }
        ] });
        let text = reply(&last_words(&chat));
        assert!(text.contains("2 words: \"two words\"") && text.contains("no AI"), "{text}");
        assert_eq!(last_words(&json!({})), "");
    }

    #[test]
    fn the_pieces_of_a_stream_are_the_text() {
        let pieces: String = stream("m", "one two  three")
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
            .collect();
        assert_eq!(pieces, "one two  three");
    }

    #[test]
    fn a_long_message_is_not_repeated_whole() {
        let long = "é".repeat(1000);
        assert!(reply(&long).chars().count() < 500);
    }
}
