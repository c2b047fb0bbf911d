//! `POST /v1/responses`: OpenAI's newer API. A request is put in the terms of a chat completion and answered as one;
//! nothing is stored, so that what refers to an earlier response is refused.

use axum::Json;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;

use super::request::{self, Invalid};
use super::{BODY_LIMIT, Head, OpenAiError};
use crate::domain::Timestamp;
use crate::gateway::agent::{self, AgentError, Answer, Ask, Progress};
use crate::gateway::auth::Paired;
use crate::gateway::body::Limited;
use crate::gateway::reply::Refusal;
use crate::gateway::routes::webhook::Admitted;
use crate::gateway::shared::App;

/// Pieces that a slow reader may be behind; then the model waits.
const IN_FLIGHT: usize = 64;

pub(in crate::gateway::routes) async fn responses(
    State(app): State<App>,
    admitted: Result<Admitted, Refusal>,
    paired: Result<Paired, Refusal>,
    body: Result<Limited<BODY_LIMIT>, Refusal>,
) -> Result<Response, OpenAiError> {
    admitted?;
    paired?;
    let body = body?;
    let fields: Value = body.json("Expected an OpenAI response request with \"input\"")?;
    let instructions = fields["instructions"].clone();
    let request = request::read(as_chat(fields)?, &app.config().default_model).map_err(in_own_terms)?;
    let request = request.of_session(&body.headers);
    let head = Head { id: format!("resp_{}", uuid::Uuid::now_v7().simple()), created: Timestamp::now().as_second() };
    let shape = Shape { head, instructions };
    if request.stream {
        return respond(app, request.ask, shape).await;
    }
    let answer = agent::answer(&app, request.ask).await?;
    Ok(Json(shape.completed(&answer)).into_response())
}

/// The request in the terms of a chat completion.
fn as_chat(body: Value) -> Result<Value, Invalid> {
    let Value::Object(fields) = body else {
        return Err(Invalid { message: "the body must be a JSON object".into(), param: None });
    };
    let mut chat = json!({});
    let mut messages = vec![];
    for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_null()) {
        match name.as_str() {
            "instructions" => messages.insert(0, json!({ "role": "system", "content": value })),
            "input" => messages.extend(input(&value)?),
            "tools" if value.is_array() => chat["tools"] = value.as_array().into_iter().flatten().map(tool).collect(),
            "tool_choice" if value["name"].is_string() => {
                chat["tool_choice"] = json!({ "type": "function", "function": { "name": value["name"] } });
            }
            "text" => text_format(&mut chat, &value),
            "max_output_tokens" => chat["max_completion_tokens"] = value,
            "reasoning" => {
                if value["effort"].is_string() {
                    chat["reasoning_effort"] = value["effort"].clone();
                }
            }
            "previous_response_id" | "conversation" => {
                return Err(Invalid::new(
                    &name,
                    format!("{name} is not supported: responses are not stored; send the whole input"),
                ));
            }
            "background" if value == true => return Err(Invalid::new(&name, "background is not supported")),
            "truncation" if value != "disabled" => return Err(Invalid::new(&name, "truncation must be disabled")),
            "prompt" | "max_tool_calls" => return Err(Invalid::new(&name, format!("{name} is not supported"))),
            "include" if asks_for_logprobs(&value) => {
                return Err(Invalid::new(&name, "include: logprobs are not supported"));
            }
            // What else can be included is of tools and of stored responses, and there are none.
            "background" | "truncation" | "include" | "stream_options" => {}
            "messages" => return Err(Invalid::new(&name, "messages is not supported; use input")),
            _ => chat[name] = value,
        }
    }
    if messages.iter().all(|message| message["role"] == "system") {
        return Err(Invalid::new("input", "input is required"));
    }
    chat["messages"] = messages.into();
    Ok(chat)
}

fn asks_for_logprobs(include: &Value) -> bool {
    let mut wanted = include.as_array().into_iter().flatten().filter_map(Value::as_str);
    wanted.any(|part| part.ends_with(".logprobs"))
}

/// A refusal by the names that this API has for the parameters of the other one.
fn in_own_terms(refused: Invalid) -> Invalid {
    const NAMES: [(&str, &str); 4] = [
        ("messages", "input"),
        ("max_completion_tokens", "max_output_tokens"),
        ("response_format", "text"),
        ("reasoning_effort", "reasoning"),
    ];
    let own = refused.param.as_deref().and_then(|param| NAMES.iter().find(|(name, _)| *name == param));
    let Some((name, own)) = own else { return refused };
    Invalid { message: refused.message.replace(name, own), param: Some((*own).to_owned()) }
}

/// The items of the input as messages; calls that follow one another are one message.
fn input(value: &Value) -> Result<Vec<Value>, Invalid> {
    if value.is_string() {
        return Ok(vec![json!({ "role": "user", "content": value })]);
    }
    let items = value.as_array().ok_or_else(|| Invalid::new("input", "input must be a string or a list"))?;
    let mut messages: Vec<Value> = Vec::new();
    for item in items {
        match item["type"].as_str().unwrap_or("message") {
            "message" => {
                messages.push(json!({ "role": item["role"], "name": item["name"], "content": item["content"] }));
            }
            "function_call" => {
                let function = json!({ "name": item["name"], "arguments": item["arguments"] });
                let call = json!({ "id": item["call_id"], "type": "function", "function": function });
                match messages.last_mut().and_then(|last| last["tool_calls"].as_array_mut()) {
                    Some(calls) => calls.push(call),
                    None => messages.push(json!({ "role": "assistant", "content": null, "tool_calls": [call] })),
                }
            }
            "function_call_output" => {
                messages.push(json!({ "role": "tool", "tool_call_id": item["call_id"], "content": item["output"] }));
            }
            // What we never send is not ours to read.
            "reasoning" => {}
            _ => return Err(Invalid::new("input", "input has an item of a type that is not supported")),
        }
    }
    Ok(messages)
}

fn tool(tool: &Value) -> Value {
    if tool["type"] != "function" || tool["function"].is_object() {
        return tool.clone();
    }
    let mut function = tool.clone();
    if let Some(members) = function.as_object_mut() {
        members.remove("type");
    }
    json!({ "type": "function", "function": function })
}

fn text_format(chat: &mut Value, text: &Value) {
    let format = &text["format"];
    if format["type"] == "json_schema" {
        let schema = json!({ "name": format["name"], "schema": format["schema"], "strict": format["strict"] });
        chat["response_format"] = json!({ "type": "json_schema", "json_schema": schema });
    } else if format.is_object() {
        chat["response_format"] = format.clone();
    }
    if text["verbosity"].is_string() {
        chat["verbosity"] = text["verbosity"].clone();
    }
}

/// What every form of one response repeats.
struct Shape {
    head: Head,
    instructions: Value,
}

impl Shape {
    fn response(&self, status: &str, model: &str, output: &[Value]) -> Value {
        json!({
            "id": self.head.id, "object": "response", "created_at": self.head.created, "status": status,
            "error": null, "incomplete_details": null, "instructions": self.instructions, "model": model,
            "output": output, "parallel_tool_calls": true, "previous_response_id": null, "store": false,
            "text": { "format": { "type": "text" } }, "tool_choice": "auto", "tools": [], "truncation": "disabled",
            "metadata": {}, "usage": null,
        })
    }

    fn completed(&self, answer: &Answer) -> Value {
        let status = if answer.cut { "incomplete" } else { "completed" };
        let mut response = self.response(status, &answer.model, &self.output(answer));
        if answer.cut {
            response["incomplete_details"] = json!({ "reason": "max_output_tokens" });
        }
        let usage = answer.usage;
        response["usage"] = json!({
            "input_tokens": usage.input_tokens, "input_tokens_details": { "cached_tokens": 0 },
            "output_tokens": usage.output_tokens, "output_tokens_details": { "reasoning_tokens": 0 },
            "total_tokens": usage.input_tokens + usage.output_tokens,
        });
        response
    }

    fn failed(&self, model: &str, error: &AgentError) -> Value {
        let mut response = self.response("failed", model, &[]);
        let told = error.model_json();
        response["error"] = json!({ "code": told["code"], "message": told["message"] });
        response["model_error"] = told;
        response
    }

    fn output(&self, answer: &Answer) -> Vec<Value> {
        let text = (!answer.text.is_empty() || answer.tool_calls.is_empty()).then(|| self.message(&answer.text));
        let calls = answer.tool_calls.iter().enumerate().map(|(at, call)| {
            json!({
                "type": "function_call", "id": format!("fc_{}_{at}", self.item()), "call_id": call.id, "name": call.name,
                "arguments": call.arguments, "status": "completed",
            })
        });
        text.into_iter().chain(calls).collect()
    }

    fn item(&self) -> &str {
        self.head.id.trim_start_matches("resp_")
    }

    fn message(&self, text: &str) -> Value {
        let part = json!({ "type": "output_text", "text": text, "annotations": [] });
        json!({
            "type": "message", "id": format!("msg_{}", self.item()), "status": "completed", "role": "assistant",
            "content": [part],
        })
    }
}

/// Events in the order that clients of this API expect, numbered.
struct Events {
    shape: Shape,
    model: String,
    number: u64,
    /// The message has begun.
    begun: bool,
}

impl Events {
    fn event(&mut self, kind: &str, mut body: Value) -> Event {
        body["type"] = kind.into();
        body["sequence_number"] = self.number.into();
        self.number += 1;
        Event::default().event(kind).data(body.to_string())
    }

    fn start(&mut self) -> Vec<Event> {
        let response = self.shape.response("in_progress", &self.model, &[]);
        let created = self.event("response.created", json!({ "response": response }));
        vec![created, self.event("response.in_progress", json!({ "response": response }))]
    }

    fn begin(&mut self) -> Vec<Event> {
        if std::mem::replace(&mut self.begun, true) {
            return vec![];
        }
        let mut item = self.shape.message("");
        let id = item["id"].clone();
        item["status"] = "in_progress".into();
        item["content"] = json!([]);
        let part = json!({ "type": "output_text", "text": "", "annotations": [] });
        let added = self.event("response.output_item.added", json!({ "output_index": 0, "item": item }));
        let body = json!({ "item_id": id, "output_index": 0, "content_index": 0, "part": part });
        vec![added, self.event("response.content_part.added", body)]
    }

    fn text(&mut self, delta: &str) -> Vec<Event> {
        let mut events = self.begin();
        let id = format!("msg_{}", self.shape.item());
        let body = json!({ "item_id": id, "output_index": 0, "content_index": 0, "delta": delta, "logprobs": [] });
        events.push(self.event("response.output_text.delta", body));
        events
    }

    fn end(&mut self, answer: &Result<Answer, AgentError>) -> Vec<Event> {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let response = self.shape.failed(&self.model, error);
                return vec![self.event("response.failed", json!({ "response": response }))];
            }
        };
        let mut events = vec![];
        for (at, item) in self.shape.output(answer).into_iter().enumerate() {
            if item["type"] == "message" {
                events.extend(self.begin());
                let place = |extra: Value| {
                    let mut body = json!({ "item_id": item["id"], "output_index": at, "content_index": 0 });
                    for (name, value) in extra.as_object().into_iter().flatten() {
                        body[name] = value.clone();
                    }
                    body
                };
                let part = &item["content"][0];
                events.push(
                    self.event("response.output_text.done", place(json!({ "text": part["text"], "logprobs": [] }))),
                );
                events.push(self.event("response.content_part.done", place(json!({ "part": part }))));
            } else {
                let mut open = item.clone();
                open["arguments"] = "".into();
                open["status"] = "in_progress".into();
                events.push(self.event("response.output_item.added", json!({ "output_index": at, "item": open })));
                let body = |name: &str| json!({ "item_id": item["id"], "output_index": at, name: item["arguments"] });
                events.push(self.event("response.function_call_arguments.delta", body("delta")));
                events.push(self.event("response.function_call_arguments.done", body("arguments")));
            }
            events.push(self.event("response.output_item.done", json!({ "output_index": at, "item": item })));
        }
        let kind = if answer.cut { "response.incomplete" } else { "response.completed" };
        let response = self.shape.completed(answer);
        events.push(self.event(kind, json!({ "response": response })));
        events
    }
}

/// Answers as soon as there is a first piece, or a failure: until then the status is still open.
async fn respond(app: App, mut ask: Ask, shape: Shape) -> Result<Response, OpenAiError> {
    let (sender, mut progress) = mpsc::channel(IN_FLIGHT);
    ask.progress = Some(sender);
    let model = ask.tuning.model.clone().unwrap_or_else(|| app.config().default_model.clone());
    let worker = app.clone();
    let mut work = AbortOnDropHandle::new(tokio::spawn(async move { agent::answer(&worker, ask).await }));
    let first = progress.recv().await;
    let mut events = Events { shape, model, number: 0, begun: false };
    let opening = events.start();
    if first.is_none() {
        let answer = super::stream::finished((&mut work).await)?;
        let last = events.end(&Ok(answer));
        return Ok(sse(&app, stream::iter(opening).chain(stream::iter(last))));
    }
    // The pieces and the end number their events together.
    let (out, pieces) = mpsc::channel(IN_FLIGHT);
    let convert = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut next = first;
        while let Some(piece) = next {
            if let Progress::Text(text) = piece {
                for event in events.text(&text) {
                    out.send(event).await.ok()?;
                }
            }
            next = progress.recv().await;
        }
        let answer = super::stream::finished(work.await);
        for event in events.end(&answer) {
            out.send(event).await.ok()?;
        }
        Some(())
    }));
    let pieces = ReceiverStream::new(pieces).map(move |event| {
        // The conversion ends with its reader.
        let _ = &convert;
        event
    });
    Ok(sse(&app, stream::iter(opening).chain(pieces)))
}

fn sse(app: &App, events: impl stream::Stream<Item = Event> + Send + 'static) -> Response {
    let events = events.map(Ok::<_, std::convert::Infallible>).take_until(app.stop.clone().cancelled_owned());
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_becomes_a_chat_completion() {
        let chat = as_chat(json!({
            "model": "m", "instructions": "be brief", "max_output_tokens": 5, "stream": null,
            "input": [
                { "role": "user", "content": [{ "type": "input_text", "text": "hi" }] },
                { "type": "reasoning", "summary": [] },
                { "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}" },
                { "type": "function_call_output", "call_id": "c", "output": "done" },
            ],
            "tools": [{ "type": "function", "name": "f", "parameters": { "type": "object" }, "strict": true }],
            "tool_choice": { "type": "function", "name": "f" },
            "text": { "format": { "type": "json_schema", "name": "n", "schema": {}, "strict": true } },
            "reasoning": { "effort": "low" },
        }))
        .unwrap();
        let roles: Vec<&str> = chat["messages"].as_array().unwrap().iter().filter_map(|m| m["role"].as_str()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "tool"]);
        assert_eq!(chat["tools"][0]["function"]["name"], "f");
        assert_eq!(chat["tool_choice"]["function"]["name"], "f");
        assert_eq!(chat["response_format"]["json_schema"]["name"], "n");
        assert_eq!((&chat["max_completion_tokens"], &chat["reasoning_effort"]), (&json!(5), &json!("low")));
        assert!(chat["stream"].is_null() && request::read(chat, "m").is_ok());
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        for (name, value) in [
            ("previous_response_id", json!("resp_1")),
            ("conversation", json!("c")),
            ("background", json!(true)),
            ("truncation", json!("auto")),
            ("max_tool_calls", json!(1)),
            ("include", json!(["message.output_text.logprobs"])),
            ("messages", json!([])),
            ("max_output_tokens", json!(0)),
            ("tools", json!("x")),
            ("input", json!([{ "role": "user", "content": [{ "type": "input_image" }] }])),
            ("input", json!([{ "type": "image_generation_call" }])),
            ("input", Value::Null),
        ] {
            let mut body = json!({ "input": "hi" });
            body[name] = value;
            let read = as_chat(body).and_then(|chat| request::read(chat, "m").map_err(in_own_terms));
            let refused = read.err().unwrap();
            assert_eq!(refused.param.as_deref(), Some(name));
            assert!(!refused.message.contains("max_completion_tokens"), "{}", refused.message);
        }
    }
}
