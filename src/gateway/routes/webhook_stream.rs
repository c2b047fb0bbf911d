//! An answer of `/webhook` in pieces, by server-sent events, for a message with `"stream": true` and
//! `Accept: text/event-stream`.
//!
//! ```text
//! event: token   {"delta":"Hi "}                  what is new; ZeroClaw 0.8 sends all so far as "text" instead
//! event: done    {"model":"…","response":"Hi there"}
//! event: error   {"message":"…","model":{…}}
//! ```

use std::convert::Infallible;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;

use super::webhook::in_session;
use crate::gateway::agent::{AgentError, Answer, Ask, Progress};
use crate::gateway::reply::Refusal;
use crate::gateway::shared::App;

/// Pieces that a slow reader may be behind; then the model waits.
const IN_FLIGHT: usize = 64;

/// Answers as soon as there is a first piece, a sign that the model is at work, or a failure: until then the status is
/// still open.
pub(super) async fn respond(app: App, session: Option<String>, mut ask: Ask) -> Result<Response, Refusal> {
    let (sender, mut progress) = mpsc::channel(IN_FLIGHT);
    ask.progress = Some(sender);
    let stop = app.stop.clone();
    // A reader that goes away ends the work: its tokens would be paid for nothing.
    let mut work = AbortOnDropHandle::new(tokio::spawn(async move { in_session(&app, session.as_deref(), ask).await }));
    let first = progress.recv().await;
    if first.is_none() {
        // The work is over without a piece, and may have failed.
        let answer = (&mut work).await.unwrap_or(Err(AgentError::Interrupted))?;
        return Ok(events(stop.cancelled_owned(), stream::iter(whole(&answer))));
    }
    let pieces = stream::iter(first).chain(ReceiverStream::new(progress)).filter_map(async |progress| match progress {
        Progress::Text(text) => Some(event("token", &json!({ "delta": text }))),
        Progress::ToolCall(_) | Progress::ToolResult { .. } | Progress::Thinking { .. } => None,
    });
    let end = stream::once(async move { last(work.await.unwrap_or(Err(AgentError::Interrupted))) });
    Ok(events(stop.cancelled_owned(), pieces.chain(end)))
}

/// An answer that came in one piece.
fn whole(answer: &Answer) -> Vec<Event> {
    let text = (!answer.text.is_empty()).then(|| event("token", &json!({ "delta": answer.text })));
    text.into_iter().chain([done(answer)]).collect()
}

fn last(answer: Result<Answer, AgentError>) -> Event {
    match answer {
        Ok(answer) => done(&answer),
        Err(error) => event("error", &json!({ "message": error.to_string(), "model": error.model_json() })),
    }
}

fn done(answer: &Answer) -> Event {
    event("done", &json!({ "model": answer.model, "response": answer.text }))
}

fn event(kind: &str, data: &Value) -> Event {
    Event::default().event(kind).data(data.to_string())
}

fn events(
    stop: impl Future<Output = ()> + Send + 'static,
    events: impl stream::Stream<Item = Event> + Send + 'static,
) -> Response {
    let events = events.map(Ok::<_, Infallible>).take_until(Box::pin(stop));
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}
