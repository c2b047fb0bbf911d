//! An agent's answer as pieces of text, for gateways without OpenAI's endpoints.
//!
//! Everything goes by `/webhook`, the one endpoint that all versions have. Since 0.8 it streams: each event has the whole
//! text so far, so that a piece is what is new in it. Older versions give one piece at the end.

use std::time::Duration;

use axum::body::Body;
use axum::http::uri::PathAndQuery;
use axum::http::{StatusCode, header};
use axum::response::Response;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::prompt::flatten;
use super::request::Ask;
use super::{Question, bad};
use crate::http::error::gateway_refusal;
use crate::http::message::hold_secs;
use crate::http::problem::{Code, Problem};
use crate::zeroclaw::client::WebhookAnswer;
use crate::zeroclaw::profile::Profile;

/// Pieces in order; an error is the last.
pub(super) type Pieces = BoxStream<'static, Result<String, Problem>>;

/// What ZeroClaw's gateway takes at most.
const MAX_PROMPT: usize = 65_536;
/// A model's longest answers are some hundred kilobytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
const WEBHOOK: &str = "/webhook";

/// Asks, and gives the answer as it comes. Fails at once where the agent is not there to be asked.
pub(super) async fn ask(question: &Question<'_>, ask: &Ask) -> Result<Pieces, Problem> {
    let streams = ask.stream && question.agent.profile() == Profile::V08;
    let message = flatten(&ask.lines);
    let body = if streams { json!({"message": message, "stream": true}) } else { json!({"message": message}) };
    let body = Bytes::from(body.to_string());
    if body.len() > MAX_PROMPT {
        let problem =
            bad("messages", &format!("are longer than the {MAX_PROMPT} bytes that the agent's gateway takes"));
        return Err(problem.with("openaiCode", "context_length_exceeded"));
    }
    let accept = if streams { "text/event-stream" } else { "application/json" };
    let call = question.call(PathAndQuery::from_static(WEBHOOK), body, Some(accept));
    if ask.stream && !streams {
        // The answer comes late and whole: signs of life go out meanwhile, once it is sure that there is an agent to ask.
        let hold = Duration::from_secs(hold_secs(&question.parts.headers));
        question.agent.access(Instant::now() + hold, hold, None).await?;
        let api = question.api.clone();
        let whole = async move { text(api.proxy.forward(call).await?).await };
        return Ok(stream::once(whole).boxed());
    }
    let response = question.api.proxy.forward(call).await?;
    if streams && response.status().is_success() && is_events(&response) {
        return Ok(pieces(response.into_body()));
    }
    let whole = text(response).await;
    Ok(stream::iter([Ok(whole?)]).boxed())
}

/// All pieces together.
pub(super) async fn collect(mut pieces: Pieces) -> Result<String, Problem> {
    let mut text = String::new();
    while let Some(piece) = pieces.next().await {
        text.push_str(&piece?);
    }
    Ok(text)
}

fn is_events(response: &Response) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// The text of a whole answer.
async fn text(response: Response) -> Result<String, Problem> {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).map(ToOwned::to_owned);
    let body = axum::body::to_bytes(response.into_body(), MAX_ANSWER).await.map_err(|_| broken_off())?;
    if status != StatusCode::OK {
        return Err(gateway_refusal(&WebhookAnswer { status: status.as_u16(), content_type: kind, body }));
    }
    let answer: Value = serde_json::from_slice(&body).map_err(|_| unusable())?;
    answer.get("response").and_then(Value::as_str).map(ToOwned::to_owned).ok_or_else(unusable)
}

fn broken_off() -> Problem {
    Problem::new(Code::GatewayError, "The agent's gateway ended before its answer did.")
}

fn unusable() -> Problem {
    Problem::new(Code::GatewayError, "The agent's gateway gave an answer without text.")
}

/// The pieces of a streamed answer.
fn pieces(body: Body) -> Pieces {
    let reader = Reader { body, buffer: BytesMut::new(), known: String::new(), over: false };
    stream::unfold(reader, |mut reader| async move {
        let piece = reader.next().await?;
        Some((piece, reader))
    })
    .boxed()
}

struct Reader {
    body: Body,
    /// What came and is no whole event yet.
    buffer: BytesMut,
    /// The text so far.
    known: String,
    over: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<String, Problem>> {
        while !self.over {
            while let Some(event) = take_event(&mut self.buffer) {
                match self.read(&event) {
                    Step::Piece(piece) => return Some(Ok(piece)),
                    Step::Nothing => {}
                    Step::Done => {
                        self.over = true;
                        return None;
                    }
                    Step::Failed(problem) => {
                        self.over = true;
                        return Some(Err(problem));
                    }
                }
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(_)) | None => {
                    self.over = true;
                    return Some(Err(broken_off()));
                }
            }
            if self.buffer.len() > MAX_ANSWER {
                self.over = true;
                return Some(Err(unusable()));
            }
        }
        None
    }

    fn read(&mut self, event: &str) -> Step {
        let field = |name: &str| {
            let lines = event.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            lines.map(|value| value.strip_prefix(' ').unwrap_or(value)).collect::<Vec<_>>().join("\n")
        };
        let data: Value = serde_json::from_str(&field("data")).unwrap_or_default();
        match field("event").as_str() {
            "token" => {
                let whole = data.get("text").and_then(Value::as_str).unwrap_or_default();
                // A gateway that changes its mind about what it said cannot take it back from a client that has it.
                let piece = whole.strip_prefix(self.known.as_str()).unwrap_or_default().to_owned();
                if piece.is_empty() {
                    return Step::Nothing;
                }
                self.known.push_str(&piece);
                Step::Piece(piece)
            }
            "done" => Step::Done,
            "error" => Step::Failed(Problem::new(Code::GatewayError, "The agent's model gave no answer.")),
            _ => Step::Nothing,
        }
    }
}

enum Step {
    Piece(String),
    Nothing,
    Done,
    Failed(Problem),
}

/// The next whole event: what stands before a blank line.
fn take_event(buffer: &mut BytesMut) -> Option<String> {
    let ends =
        |end: &'static [u8]| buffer.windows(end.len()).position(|window| window == end).map(|at| (at, end.len()));
    let (at, length) = match (ends(b"\n\n"), ends(b"\r\n\r\n")) {
        (Some(short), Some(long)) => std::cmp::min(short, long),
        (found, other) => found.or(other)?,
    };
    let event = buffer.split_to(at);
    buffer.advance(length);
    Some(String::from_utf8_lossy(&event).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(text: &'static str, size: usize) -> (String, Option<Code>) {
        let chunks: Vec<Result<&[u8], std::io::Error>> = text.as_bytes().chunks(size).map(Ok).collect();
        let mut pieces = pieces(Body::from_stream(stream::iter(chunks)));
        let (mut text, mut failed) = (String::new(), None);
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(piece) => text.push_str(&piece),
                Err(problem) => failed = Some(problem.code()),
            }
        }
        (text, failed)
    }

    #[tokio::test]
    async fn events_are_read_however_they_are_cut() {
        let text = ": hi\n\nevent: token\ndata: {\"text\":\"Gr\"}\n\nevent: token\ndata: {\"text\":\"Größe\"}\n\nevent: done\ndata: {}\n\n";
        for size in [1, 2, 3, 7, 1000] {
            assert_eq!(read(text, size).await, ("Größe".to_owned(), None), "{size}");
        }
        let crlf = "event: token\r\ndata: {\"text\":\"x\"}\r\n\r\nevent: done\r\ndata: {}\r\n\r\n";
        assert_eq!(read(crlf, 5).await, ("x".to_owned(), None));
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_or_fails_is_an_error_at_its_end() {
        let cut = "event: token\ndata: {\"text\":\"x\"}\n\nevent: tok";
        assert_eq!(read(cut, 9).await, ("x".to_owned(), Some(Code::GatewayError)));
        let failed = "event: error\ndata: {\"message\":\"no\"}\n\n";
        assert_eq!(read(failed, 9).await, (String::new(), Some(Code::GatewayError)));
    }
}
