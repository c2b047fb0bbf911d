//! OpenAI's API in front of the agent: any client of it can talk to the agent by changing its base URL.
//!
//! Without tools in the request the agent answers, with its persona and its own tools. With them the request is put to
//! the model with the caller's tools in place of ours, and calls to them are the answer.

mod request;
mod responses;
mod stream;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use request::Invalid;
pub(super) use responses::responses;

use super::chat::BODY_LIMIT;
use super::webhook::Admitted;
use crate::domain::Timestamp;
use crate::gateway::agent::{self, AgentError, Answer};
use crate::gateway::auth::Paired;
use crate::gateway::body::Limited;
use crate::gateway::provider::{self, ModelError, Reason, ToolCall};
use crate::gateway::reply::Refusal;
use crate::gateway::shared::App;

/// `GET /v1/models`: the configured ones.
pub(super) async fn models(
    State(app): State<App>,
    paired: Result<Paired, Refusal>,
) -> Result<Json<Value>, OpenAiError> {
    paired?;
    Ok(Json(json!({ "object": "list", "data": configured(&app) })))
}

/// `GET /v1/models/{id}`. An id may have slashes.
pub(super) async fn model(
    State(app): State<App>,
    paired: Result<Paired, Refusal>,
    Path(id): Path<String>,
) -> Result<Json<Value>, OpenAiError> {
    paired?;
    configured(&app).into_iter().find(|model| model["id"] == id).map(Json).ok_or_else(|| OpenAiError {
        status: StatusCode::NOT_FOUND,
        kind: "invalid_request_error",
        message: "The model does not exist; GET /v1/models lists those that do".into(),
        param: Some("model".into()),
        code: Some("model_not_found".into()),
        retry_after: None,
        model: None,
    })
}

fn configured(app: &App) -> Vec<Value> {
    let config = app.config();
    let stand_ins = config.reliability.model_fallbacks.get(&config.default_model).cloned().unwrap_or_default();
    let names = std::iter::once(config.default_model.clone()).chain(stand_ins);
    let model = |id: String| json!({ "id": id, "object": "model", "created": 0, "owned_by": config.provider_name() });
    names.map(model).collect()
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
    let body = body?;
    let fields: Value = body.json("Expected an OpenAI chat completion request with \"messages\"")?;
    let request = request::read(fields, &app.config().default_model)?.of_session(&body.headers);
    let head =
        Head { id: format!("chatcmpl-{}", uuid::Uuid::now_v7().simple()), created: Timestamp::now().as_second() };
    if request.stream {
        return stream::respond(app, request.ask, head, request.include_usage).await;
    }
    let answer = agent::answer(&app, request.ask).await?;
    Ok(Json(completion(&head, &answer)).into_response())
}

/// What every part of an answer repeats.
struct Head {
    id: String,
    created: i64,
}

fn completion(head: &Head, answer: &Answer) -> Value {
    let mut message = json!({ "role": "assistant", "content": answer.text, "refusal": null });
    add_members(&mut message, answer);
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

/// Calls, and what the provider wants back with them in the next request.
fn add_members(message: &mut Value, answer: &Answer) {
    for (name, value) in answer.extra.iter().filter(|(name, _)| *name != "content") {
        message[name] = value.clone();
    }
    if !answer.tool_calls.is_empty() {
        message["tool_calls"] = tool_calls(answer).into();
    }
}

fn tool_calls(answer: &Answer) -> Vec<Value> {
    let call = |(index, call): (usize, &ToolCall)| {
        let function = json!({ "name": call.name, "arguments": call.arguments });
        let mut value = json!({ "index": index, "id": call.id, "type": "function", "function": function });
        for (name, member) in &call.extra {
            value[name] = member.clone();
        }
        value
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
    param: Option<String>,
    code: Option<String>,
    retry_after: Option<HeaderValue>,
    /// Why the model gave no answer.
    model: Option<Value>,
}

impl OpenAiError {
    fn body(&self) -> Value {
        let error = json!({ "message": self.message, "type": self.kind, "param": self.param, "code": self.code });
        let mut body = json!({ "error": error });
        if let Some(model) = &self.model {
            body["model"] = model.clone();
        }
        body
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
        let retry_after = response.headers().get(header::RETRY_AFTER).cloned();
        Self { status, kind, message, param: None, code: None, retry_after, model: None }
    }
}

impl From<Invalid> for OpenAiError {
    fn from(invalid: Invalid) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            kind: "invalid_request_error",
            message: invalid.message,
            param: invalid.param,
            code: None,
            retry_after: None,
            model: None,
        }
    }
}

impl From<AgentError> for OpenAiError {
    fn from(error: AgentError) -> Self {
        let (message, model) = (error.to_string(), error.model_json());
        let code = model["code"].as_str().map(str::to_owned);
        match error {
            AgentError::Model(error) if is_the_callers(&error) => Self {
                status: StatusCode::BAD_REQUEST,
                kind: "invalid_request_error",
                message,
                param: error.param.map(String::from),
                code,
                retry_after: None,
                model: Some(model),
            },
            AgentError::Model(error) => Self {
                status: StatusCode::BAD_GATEWAY,
                kind: "server_error",
                message,
                param: error.param.map(String::from),
                code,
                retry_after: error.retry_after.map(|wait| provider::whole_seconds(wait).into()),
                model: Some(model),
            },
            // As OpenAI says that the quota is used up.
            AgentError::Limit(_) => Self {
                status: StatusCode::TOO_MANY_REQUESTS,
                kind: "insufficient_quota",
                message,
                param: None,
                code,
                retry_after: None,
                model: None,
            },
            AgentError::TookTooLong { .. } | AgentError::Interrupted => Self {
                status: StatusCode::GATEWAY_TIMEOUT,
                kind: "server_error",
                message,
                param: None,
                code,
                retry_after: None,
                model: Some(model),
            },
        }
    }
}

/// The model refuses what the caller asked for, by its name.
fn is_the_callers(error: &ModelError) -> bool {
    let refused = error.reason == Reason::Refused && matches!(error.status, Some(400 | 422));
    error.reason == Reason::Unsupported || (refused && error.param.is_some())
}

impl IntoResponse for OpenAiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, wait);
        }
        response
    }
}
