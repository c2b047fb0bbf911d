//! Answers of `/v1/responses`, in OpenAI's form.

use axum::Json;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use serde_json::{Value, json};
use uuid::Uuid;

use super::late_error;
use crate::http::pieces::{Piece, Pieces};

/// One response and its only item, under names that stay the same in all its events.
#[derive(Clone)]
struct Identity {
    response: String,
    item: String,
    created: i64,
    model: String,
}

impl Identity {
    fn new(model: &str) -> Self {
        let unique = Uuid::now_v7().simple();
        Self {
            response: format!("resp_{unique}"),
            item: format!("msg_{unique}"),
            created: jiff::Timestamp::now().as_second(),
            model: model.to_owned(),
        }
    }

    fn response(&self, status: &str, output: Vec<Value>) -> Value {
        json!({
            "id": self.response, "object": "response", "created_at": self.created, "model": self.model,
            "status": status, "output": output,
            "error": null, "incomplete_details": null, "instructions": null, "metadata": {},
            "parallel_tool_calls": false, "tool_choice": "auto", "tools": [], "temperature": null, "top_p": null,
        })
    }

    fn item(&self, status: &str, content: Vec<Value>) -> Value {
        json!({"id": self.item, "type": "message", "role": "assistant", "status": status, "content": content})
    }
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": []})
}

pub(super) fn whole(model: &str, text: &str) -> Response {
    let identity = Identity::new(model);
    let item = identity.item("completed", vec![part(text)]);
    Json(identity.response("completed", vec![item])).into_response()
}

/// The events of a response, from `response.created` to `response.completed` or `response.failed`.
pub(super) fn streamed(model: &str, pieces: Pieces) -> impl Stream<Item = Event> + Send + use<> {
    let identity = Identity::new(model);
    let mut writer = Writer { identity, sequence: 0, text: String::new(), failed: false };
    let first = writer.opening();
    let rest = pieces.map(Some).chain(stream::once(async { None })).flat_map(move |piece| {
        let out = match piece {
            Some(Ok(Piece::Text(piece))) => vec![writer.delta(&piece)],
            Some(Ok(Piece::Whole(_))) => Vec::new(),
            Some(Err(problem)) => {
                writer.failed = true;
                vec![writer.failure(&problem.openai_body()["error"]), late_error(&problem)]
            }
            None if writer.failed => Vec::new(),
            None => writer.closing(),
        };
        stream::iter(out)
    });
    stream::iter(first).chain(rest)
}

struct Writer {
    identity: Identity,
    sequence: u64,
    text: String,
    failed: bool,
}

impl Writer {
    fn event(&mut self, kind: &str, mut data: Value) -> Event {
        data["type"] = kind.into();
        data["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        Event::default().event(kind).data(data.to_string())
    }

    /// What every event of the text says about its place.
    fn place(&self) -> Value {
        json!({"item_id": self.identity.item, "output_index": 0, "content_index": 0})
    }

    fn opening(&mut self) -> Vec<Event> {
        let response = self.identity.response("in_progress", Vec::new());
        let item = self.identity.item("in_progress", Vec::new());
        let mut place = self.place();
        place["part"] = part("");
        vec![
            self.event("response.created", json!({"response": response})),
            self.event("response.in_progress", json!({"response": response})),
            self.event("response.output_item.added", json!({"output_index": 0, "item": item})),
            self.event("response.content_part.added", place),
        ]
    }

    fn delta(&mut self, piece: &str) -> Event {
        self.text.push_str(piece);
        let mut place = self.place();
        place["delta"] = piece.into();
        place["logprobs"] = json!([]);
        self.event("response.output_text.delta", place)
    }

    fn closing(&mut self) -> Vec<Event> {
        let (mut text, mut closed) = (self.place(), self.place());
        text["text"] = self.text.as_str().into();
        text["logprobs"] = json!([]);
        closed["part"] = part(&self.text);
        let item = self.identity.item("completed", vec![part(&self.text)]);
        let response = self.identity.response("completed", vec![item.clone()]);
        vec![
            self.event("response.output_text.done", text),
            self.event("response.content_part.done", closed),
            self.event("response.output_item.done", json!({"output_index": 0, "item": item})),
            self.event("response.completed", json!({"response": response})),
        ]
    }

    fn failure(&mut self, error: &Value) -> Event {
        let mut response = self.identity.response("failed", Vec::new());
        response["error"] = json!({"code": "server_error", "message": error["message"]});
        self.event("response.failed", json!({"response": response}))
    }
}
