//! A chat completion in pieces, by server-sent events.

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;

use super::{Head, OpenAiError, add_members, finish_reason, usage};
use crate::gateway::agent::{self, AgentError, Answer, Ask, Progress};
use crate::gateway::shared::App;

/// Pieces that a slow reader may be behind; then the model waits.
const IN_FLIGHT: usize = 64;

/// Answers as soon as there is a first piece, or a failure: until then the status is still open.
pub(super) async fn respond(app: App, mut ask: Ask, head: Head, with_usage: bool) -> Result<Response, OpenAiError> {
    let (sender, mut progress) = mpsc::channel(IN_FLIGHT);
    ask.progress = Some(sender);
    let model = ask.tuning.model.clone().unwrap_or_else(|| app.config().default_model.clone());
    let worker = app.clone();
    // A reader that goes away ends the work: its tokens would be paid for nothing.
    let mut work = AbortOnDropHandle::new(tokio::spawn(async move { agent::answer(&worker, ask).await }));
    let first = progress.recv().await;
    if first.is_none() {
        // The work is over without a piece, and may have failed.
        let answer = finished((&mut work).await)?;
        let events = last_events(&head, Ok(answer), with_usage);
        return Ok(sse(&app, stream::iter(start(&head, &model)).chain(stream::iter(events))));
    }
    let opening = start(&head, &model);
    let head_of_pieces = Head { id: head.id.clone(), created: head.created };
    let pieces = stream::iter(first).chain(ReceiverStream::new(progress)).filter_map(move |progress| {
        let event = match progress {
            Progress::Text(text) => Some(chunk(&head_of_pieces, &model, json!({ "content": text }), None)),
            Progress::ToolCall(_) | Progress::ToolResult { .. } | Progress::Thinking { .. } => None,
        };
        std::future::ready(event)
    });
    let end = stream::once(async move { last_events(&head, finished(work.await), with_usage) }).flat_map(stream::iter);
    Ok(sse(&app, stream::iter(opening).chain(pieces).chain(end)))
}

pub(super) fn finished(work: Result<Result<Answer, AgentError>, JoinError>) -> Result<Answer, AgentError> {
    // Its handle is here and was not dropped; what is left is a panic.
    work.unwrap_or(Err(AgentError::Interrupted))
}

fn sse(app: &App, events: impl stream::Stream<Item = Event> + Send + 'static) -> Response {
    let events = events.map(Ok::<_, std::convert::Infallible>).take_until(app.stop.clone().cancelled_owned());
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

fn start(head: &Head, model: &str) -> Vec<Event> {
    vec![chunk(head, model, json!({ "role": "assistant", "content": "" }), None)]
}

fn last_events(head: &Head, answer: Result<Answer, AgentError>, with_usage: bool) -> Vec<Event> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return vec![Event::default().data(OpenAiError::from(error).body().to_string())],
    };
    let mut events = Vec::new();
    let mut members = json!({});
    add_members(&mut members, &answer);
    if members.as_object().is_some_and(|members| !members.is_empty()) {
        events.push(chunk(head, &answer.model, members, None));
    }
    events.push(chunk(head, &answer.model, json!({}), Some(finish_reason(&answer))));
    if with_usage {
        let mut last = body(head, &answer.model);
        last["choices"] = json!([]);
        last["usage"] = usage(&answer);
        events.push(Event::default().data(last.to_string()));
    }
    events.push(Event::default().data("[DONE]"));
    events
}

fn chunk(head: &Head, model: &str, delta: Value, finish: Option<&str>) -> Event {
    let mut body = body(head, model);
    body["choices"] = json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish }]);
    Event::default().data(body.to_string())
}

fn body(head: &Head, model: &str) -> Value {
    json!({ "id": head.id, "object": "chat.completion.chunk", "created": head.created, "model": model })
}
