//! Answers of `/v1/chat/completions`, in OpenAI's form.

use axum::Json;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use serde_json::{Value, json};
use uuid::Uuid;

use super::late_error;
use crate::http::pieces::{Piece, Pieces};

pub(super) fn whole(model: &str, text: &str) -> Response {
    let answer = json!({
        "id": id(), "object": "chat.completion", "created": now(), "model": model,
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": null},
            "logprobs": null,
            "finish_reason": "stop",
        }],
    });
    Json(answer).into_response()
}

/// Chunks as the pieces come. How many tokens it took is not told by the gateway, so there is no usage.
pub(super) fn streamed(model: &str, pieces: Pieces) -> impl Stream<Item = Event> + Send + use<> {
    let (id, created, model) = (id(), now(), model.to_owned());
    let chunk = move |delta: Value, finish: Option<&str>| {
        let chunk = json!({
            "id": id, "object": "chat.completion.chunk", "created": created, "model": model,
            "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}],
        });
        Event::default().data(chunk.to_string())
    };
    let first = chunk(json!({"role": "assistant", "content": ""}), None);
    let mut failed = false;
    let last = chunk.clone();
    let pieces = pieces.map(Some).chain(stream::once(async { None })).flat_map(move |piece| {
        let out = match piece {
            Some(Ok(Piece::Text(piece))) => vec![chunk(json!({"content": piece}), None)],
            Some(Ok(Piece::Whole(_))) => Vec::new(),
            Some(Err(problem)) => {
                failed = true;
                vec![late_error(&problem)]
            }
            None if failed => Vec::new(),
            None => vec![last(json!({}), Some("stop")), Event::default().data("[DONE]")],
        };
        stream::iter(out)
    });
    stream::iter([first]).chain(pieces)
}

fn id() -> String {
    format!("chatcmpl-{}", Uuid::now_v7().simple())
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
