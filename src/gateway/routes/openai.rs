//! OpenAI's API in front of the agent: any client of it can talk to the agent by changing its base URL.
//!
//! Without tools in the request the agent answers, with its persona and its own tools. With them the request is put to
//! the model with the caller's tools in place of ours, and calls to them are the answer.

mod request;
mod stream;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use request::Request;

use super::chat::BODY_LIMIT;
use super::webhook::Admitted;
use crate::domain::Timestamp;
use crate::gateway::agent::{self, AgentError, Answer};
use crate::gateway::auth::Paired;
use crate::gateway::body::Limited;
use crate::gateway::reply::Refusal;
use crate::gateway::shared::App;

/// `GET /v1/models`: the configured one.
pub(super) async fn models(
    State(app): State<App>,
    paired: Result<Paired, Refusal>,
) -> Result<Json<Value>, OpenAiError> {
    paired?;
    let config = app.config();
    let model = json!({ "id": config.default_model, "object": "model", "created": 0, "owned_by": config.provider() });
    Ok(Json(json!({ "object": "list", "data": [model] })))
}

/// `POST /v1/chat/completions`.
pub(super) async fn chat_completions(
    State(app): State<App>,
    admitted: Result<Admitted, Refusal>,
    paired: Result<Paired, Refusal>,
    body: Result<Limited<BODY_LIMIT>, Refusal>,
) -> Result<Response, OpenAiError> {
    admitted?;
    paired?;
    let request: Request = body?.json("Expected an OpenAI chat completion request with \"messages\"")?;
    let stream = request.stream;
    let with_usage = request.wants_usage();
    let ask = request.into_ask(&app.config().default_model)?;
    let head =
        Head { id: format!("chatcmpl-{}", uuid::Uuid::now_v7().simple()), created: Timestamp::now().as_second() };
    if stream {
        return stream::respond(app, ask, head, with_usage).await;
    }
    let answer = agent::answer(&app, ask).await?;
    Ok(Json(completion(&head, &answer)).into_response())
}

/// What every part of an answer repeats.
struct Head {
    id: String,
    created: i64,
}

fn completion(head: &Head, answer: &Answer) -> Value {
    let mut message = json!({ "role": "assistant", "content": answer.text, "refusal": null });
    if !answer.tool_calls.is_empty() {
        message["tool_calls"] = tool_calls(answer).into();
    }
    json!({
        "id": head.id,
        "object": "chat.completion",
        "created": head.created,
        "model": answer.model,
        "choices": [{
            "index": 0, "message": message, "logprobs": null, "finish_reason": finish_reason(answer)
        }],
        "usage": usage(answer),
    })
}

fn tool_calls(answer: &Answer) -> Vec<Value> {
    let call = |(index, call): (usize, &crate::gateway::provider::ToolCall)| {
        let function = json!({ "name": call.name, "arguments": call.arguments });
        json!({ "index": index, "id": call.id, "type": "function", "function": function })
    };
    answer.tool_calls.iter().enumerate().map(call).collect()
}

fn finish_reason(answer: &Answer) -> &'static str {
    match (answer.cut, answer.tool_calls.is_empty()) {
        (true, _) => "length",
        (false, true) => "stop",
        (false, false) => "tool_calls",
    }
}

fn usage(answer: &Answer) -> Value {
    let usage = answer.usage;
    json!({
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    })
}

/// A failure in OpenAI's form, which its clients turn into their own exceptions.
pub(super) struct OpenAiError {
    status: StatusCode,
    kind: &'static str,
    message: String,
    retry_after: Option<axum::http::HeaderValue>,
}

impl OpenAiError {
    fn body(&self) -> Value {
        json!({ "error": { "message": self.message, "type": self.kind, "param": null, "code": null } })
    }
}

impl From<Refusal> for OpenAiError {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.message();
        let response = refusal.into_response();
        let status = response.status();
        let kind = match status.as_u16() {
            401 => "authentication_error",
            429 => "rate_limit_error",
            400..500 => "invalid_request_error",
            _ => "server_error",
        };
        let retry_after = response.headers().get(axum::http::header::RETRY_AFTER).cloned();
        Self { status, kind, message, retry_after }
    }
}

impl From<AgentError> for OpenAiError {
    fn from(error: AgentError) -> Self {
        let status = match error {
            AgentError::TookTooLong => StatusCode::GATEWAY_TIMEOUT,
            AgentError::Model(_) => StatusCode::BAD_GATEWAY,
            // As OpenAI says that the quota is used up.
            AgentError::Limit(_) => StatusCode::TOO_MANY_REQUESTS,
        };
        Self { status, kind: "server_error", message: error.to_string(), retry_after: None }
    }
}

impl IntoResponse for OpenAiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(axum::http::header::RETRY_AFTER, wait);
        }
        response
    }
}
