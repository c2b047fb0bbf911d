//! A model of the OpenAI kind at an address that Pods reach.

use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::cluster::HOST;

pub(crate) const ANSWER: &str = "hello from the model";

pub(crate) struct Model {
    pub(crate) url: String,
    server: tokio::task::JoinHandle<()>,
}

impl Model {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::from(HOST), 0)).await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/chat/completions", post(answer));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, server }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(Json(request): Json<Value>) -> axum::response::Response {
    use axum::response::IntoResponse as _;
    let choice = |key: &str, finish: Value| json!([{ "index": 0, "finish_reason": finish, key: { "role": "assistant", "content": ANSWER } }]);
    if request["stream"] == true {
        let chunk = json!({ "id": "1", "object": "chat.completion.chunk", "model": "m", "choices": choice("delta", json!("stop")) });
        let body = format!("data: {chunk}\n\ndata: [DONE]\n\n");
        return ([("content-type", "text/event-stream")], body).into_response();
    }
    Json(json!({
        "id": "1", "object": "chat.completion", "model": "m", "choices": choice("message", json!("stop")),
        "usage": { "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2 },
    }))
    .into_response()
}
