//! An agent's answer as pieces of text, whatever its gateway's version.
//!
//! Everything goes by `/webhook`, the one endpoint that all versions have. Where it streams, each event has the whole text so
//! far (ZeroClaw 0.8) or what is new in it (the embedded gateway). Older versions give one piece at the end.

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::Response;
use bytes::{Buf, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::problem::{Code, Problem};
use crate::zeroclaw::client::WebhookAnswer;

/// Pieces in order; the whole or an error is the last.
pub type Pieces<E = Problem> = BoxStream<'static, Result<Piece, E>>;

/// Why there is no answer, or no more of it.
#[derive(Debug)]
pub enum Unanswered {
    /// The gateway said so, here as it answers a whole message.
    Refused(WebhookAnswer),
    Problem(Problem),
}

impl From<Problem> for Unanswered {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// What is new.
    Text(String),
    /// All of it in the gateway's own words at the end, where it says that. They count more than the pieces.
    Whole(String),
}

/// A model's longest answers are some hundred kilobytes.
pub const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// The pieces of an answer to `/webhook`, streamed or not.
///
/// # Errors
/// The gateway refused the message.
pub async fn of(response: Response) -> Result<Pieces<Unanswered>, Unanswered> {
    if response.status().is_success() && is_events(&response) {
        return Ok(pieces(response.into_body()));
    }
    Ok(stream::iter([Ok(Piece::Text(text(response).await?))]).boxed())
}

/// All pieces together.
pub async fn collect(mut pieces: Pieces) -> Result<String, Problem> {
    let mut text = String::new();
    while let Some(piece) = pieces.next().await {
        match piece? {
            Piece::Text(piece) => text.push_str(&piece),
            Piece::Whole(whole) => text = whole,
        }
    }
    Ok(text)
}

fn is_events(response: &Response) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// The text of a whole answer.
pub async fn text(response: Response) -> Result<String, Unanswered> {
    let (head, body) = response.into_parts();
    let body = axum::body::to_bytes(body, MAX_ANSWER).await.map_err(|_| broken_off())?;
    if head.status != StatusCode::OK {
        return Err(Unanswered::Refused(WebhookAnswer::of(head.status, &head.headers, body)));
    }
    let answer: Value = serde_json::from_slice(&body).map_err(|_| unusable())?;
    answer.get("response").and_then(Value::as_str).map(ToOwned::to_owned).ok_or_else(|| unusable().into())
}

fn broken_off() -> Problem {
    Problem::new(Code::DeliveryUnknown, "The agent's gateway ended before its answer did.")
}

fn unusable() -> Problem {
    Problem::new(Code::GatewayError, "The agent's gateway gave an answer without text.")
}

/// What an answer's last event says of a failure, as a whole answer would have said it.
fn failed(event: &Value) -> Unanswered {
    // Ours, see `proxy::body`: the stream ended before the answer did.
    match event["code"].as_str() {
        Some(code) if code == Code::GatewayError.as_str() || code == Code::StreamClosed.as_str() => {
            return broken_off().into();
        }
        Some(code) if code == Code::StreamIdle.as_str() => {
            return Problem::new(Code::GatewayTimeout, "The agent wrote nothing more for too long.").into();
        }
        _ => {}
    }
    let (status, body) = match event.get("model") {
        Some(model) => (502, json!({ "model": model })),
        None => (500, json!({ "error": "LLM request failed" })),
    };
    Unanswered::Refused(WebhookAnswer::new(status, body.to_string()))
}

/// The pieces of a streamed answer.
fn pieces(body: Body) -> Pieces<Unanswered> {
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
    /// The text so far, where each event repeats it.
    known: String,
    over: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<Piece, Unanswered>> {
        while !self.over {
            while let Some(event) = take_event(&mut self.buffer) {
                match self.read(&event) {
                    Step::Piece(piece) => return Some(Ok(Piece::Text(piece))),
                    Step::Nothing => {}
                    Step::Done(whole) => {
                        self.over = true;
                        return whole.map(|whole| Ok(Piece::Whole(whole)));
                    }
                    Step::Failed(why) => {
                        self.over = true;
                        return Some(Err(why));
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
                    return Some(Err(broken_off().into()));
                }
            }
            if self.buffer.len() > MAX_ANSWER {
                self.over = true;
                return Some(Err(unusable().into()));
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
        let text = |name: &str| data.get(name).and_then(Value::as_str);
        match field("event").as_str() {
            "token" => {
                let piece = match (text("delta"), text("text")) {
                    (Some(piece), _) => piece.to_owned(),
                    // A gateway that changes its mind about what it said cannot take it back from a client that has it.
                    (None, Some(whole)) => {
                        let piece = whole.strip_prefix(self.known.as_str()).unwrap_or_default().to_owned();
                        self.known.push_str(&piece);
                        piece
                    }
                    (None, None) => String::new(),
                };
                if piece.is_empty() { Step::Nothing } else { Step::Piece(piece) }
            }
            "done" => Step::Done(text("response").map(ToOwned::to_owned)),
            "error" => Step::Failed(failed(&data)),
            _ => Step::Nothing,
        }
    }
}

enum Step {
    Piece(String),
    Nothing,
    Done(Option<String>),
    Failed(Unanswered),
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
    use crate::zeroclaw::client::ModelFailure;

    async fn read(text: &'static str, size: usize) -> (String, Option<Unanswered>) {
        let chunks: Vec<Result<&[u8], std::io::Error>> = text.as_bytes().chunks(size).map(Ok).collect();
        let mut pieces = pieces(Body::from_stream(stream::iter(chunks)));
        let (mut text, mut failed) = (String::new(), None);
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(Piece::Text(piece)) => text.push_str(&piece),
                Ok(Piece::Whole(whole)) => assert_eq!(whole, text),
                Err(why) => failed = Some(why),
            }
        }
        (text, failed)
    }

    #[tokio::test]
    async fn events_are_read_however_they_are_cut() {
        let text = ": hi\n\nevent: token\ndata: {\"text\":\"Gr\"}\n\nevent: token\ndata: {\"text\":\"Größe\"}\n\nevent: done\ndata: {}\n\n";
        for size in [1, 2, 3, 7, 1000] {
            assert!(matches!(read(text, size).await, (text, None) if text == "Größe"), "{size}");
        }
        let deltas = "event: token\ndata: {\"delta\":\"a\"}\n\nevent: token\ndata: {\"delta\":\"a\"}\n\nevent: done\ndata: {}\n\n";
        assert!(matches!(read(deltas, 9).await, (text, None) if text == "aa"));
        let crlf = "event: token\r\ndata: {\"text\":\"x\"}\r\n\r\nevent: done\r\ndata: {}\r\n\r\n";
        assert!(matches!(read(crlf, 5).await, (text, None) if text == "x"));
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_or_fails_is_an_error_at_its_end() {
        let problem = |read: (String, Option<Unanswered>)| match read.1 {
            Some(Unanswered::Problem(problem)) => Some(problem.code()),
            Some(Unanswered::Refused(_)) | None => None,
        };
        let cut = "event: token\ndata: {\"text\":\"x\"}\n\nevent: tok";
        assert_eq!(problem(read(cut, 9).await), Some(Code::DeliveryUnknown));
        for (code, told) in [
            ("gateway-error", Code::DeliveryUnknown),
            ("stream-closed", Code::DeliveryUnknown),
            ("stream-idle", Code::GatewayTimeout),
        ] {
            let ended: &'static str = format!("event: error\ndata: {{\"code\":\"{code}\"}}\n\n").leak();
            assert_eq!(problem(read(ended, 9).await), Some(told), "{code}");
        }
        let failed = "event: error\ndata: {\"message\":\"no\"}\n\n";
        let (_, failed) = read(failed, 9).await;
        assert!(matches!(failed, Some(Unanswered::Refused(answer)) if ModelFailure::read(&answer).is_some()));
    }
}
