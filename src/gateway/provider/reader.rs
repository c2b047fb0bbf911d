//! Reads an answer in whatever form it comes: whole JSON or server-sent events, asked for or not.
//!
//! ```text
//! body ──► first bytes ──► "{" or "[" ──► JSON ──► an error in it? ──► the dialect's parse
//!                     └──► lines ──► "data:" ──► an error in it? ──► the dialect's Assembler ──► finish
//! ```

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tokio::sync::mpsc;

use super::body::Body;
use super::error::{ModelError, Reason};
use super::message::Completion;
use super::route::Dialect;
use super::{anthropic, gemini, openai};

/// Longest answer that is read, in bytes after decoding. No model writes this much; a broken server may.
const ANSWER_LIMIT: usize = 8 << 20;
/// Longest line of a stream that is kept, in bytes.
const LINE_LIMIT: usize = 1 << 20;

/// Puts an answer together from its events.
pub(super) trait Assembler: Send {
    /// Takes one event; what it adds to the text is returned.
    fn event(&mut self, event: &Value) -> Result<Option<String>, ModelError>;

    /// The server says that this was all.
    fn done(&mut self);

    /// The whole answer.
    ///
    /// # Errors
    /// When the stream ended before the answer did.
    fn finish(self: Box<Self>) -> Result<Completion, ModelError>;
}

/// Where pieces of text go, and whether any went.
pub(super) struct Pieces<'a> {
    pub(super) to: Option<&'a mpsc::Sender<String>>,
    pub(super) passed_on: &'a AtomicBool,
}

impl Pieces<'_> {
    async fn send(&self, text: String) {
        if let Some(to) = self.to {
            self.passed_on.store(true, Ordering::Relaxed);
            // Without a listener the answer is still worth having whole.
            let _ = to.send(text).await;
        }
    }
}

fn assembler(dialect: Dialect) -> Box<dyn Assembler> {
    match dialect {
        Dialect::OpenAi => Box::new(openai::Streamed::default()),
        Dialect::Anthropic => Box::new(anthropic::Streamed::default()),
        Dialect::Gemini => Box::new(gemini::Streamed::default()),
    }
}

/// Reads the answer to its end, and passes each piece of text on as it comes.
pub(super) async fn read(mut response: Body, dialect: Dialect, pieces: &Pieces<'_>) -> Result<Completion, ModelError> {
    let mut head = Vec::new();
    // What it is shows in its first byte that is no blank; the declared type is wrong too often.
    let first = loop {
        if let Some(byte) = head.iter().find(|byte: &&u8| !byte.is_ascii_whitespace() && **byte < 0x80) {
            break *byte;
        }
        match response.chunk().await? {
            Some(bytes) if head.len() + bytes.len() <= ANSWER_LIMIT => head.extend_from_slice(&bytes),
            Some(_) => return Err(ModelError::unreadable("it is too long")),
            None => return Err(ModelError::new(Reason::Broken, "its answer has no content")),
        }
    };
    if matches!(first, b'{' | b'[' | b'<' | b'"') {
        let body = rest(&mut response, head).await?;
        let completion = whole(&body, dialect)?;
        if !completion.message.text.is_empty() {
            pieces.send(completion.message.text.clone()).await;
        }
        return Ok(completion);
    }
    stream(response, &head, dialect, pieces).await
}

/// The body of a refusal, cut where it is too long.
pub(super) async fn refusal(mut response: Body) -> Vec<u8> {
    const LIMIT: usize = 64 << 10;
    let mut body = Vec::new();
    while body.len() < LIMIT {
        match response.chunk().await {
            Ok(Some(bytes)) => body.extend_from_slice(&bytes),
            _ => break,
        }
    }
    body.truncate(LIMIT);
    body
}

/// Whether a body is a web page.
pub(super) fn is_web_page(body: &[u8]) -> bool {
    let start = String::from_utf8_lossy(&body[..body.len().min(512)]).trim_start().to_ascii_lowercase();
    start.starts_with("<!doctype html") || start.starts_with("<html") || start.contains("<head")
}

async fn rest(response: &mut Body, mut body: Vec<u8>) -> Result<Vec<u8>, ModelError> {
    while let Some(bytes) = response.chunk().await? {
        if body.len() + bytes.len() > ANSWER_LIMIT {
            return Err(ModelError::unreadable("it is too long"));
        }
        body.extend_from_slice(&bytes);
    }
    Ok(body)
}

/// Reads a whole answer.
fn whole(body: &[u8], dialect: Dialect) -> Result<Completion, ModelError> {
    if is_web_page(body) {
        return Err(ModelError::new(Reason::WebPage, "it is a web page"));
    }
    let Ok(answer) = serde_json::from_slice::<Value>(body) else {
        // JSON by lines is a stream of its own kind.
        return by_lines(body, dialect).unwrap_or_else(|| Err(ModelError::unreadable("it is not JSON")));
    };
    if let Some(error) = ModelError::from_body(200, &answer) {
        return Err(error);
    }
    match dialect {
        Dialect::OpenAi => openai::parse(&answer),
        Dialect::Anthropic => anthropic::parse(&answer),
        Dialect::Gemini => gemini::parse(&answer),
    }
}

/// One JSON value per line, as Ollama's own API streams.
fn by_lines(body: &[u8], dialect: Dialect) -> Option<Result<Completion, ModelError>> {
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let events: Vec<Value> = lines.map(serde_json::from_slice).collect::<Result<_, _>>().ok()?;
    let mut assembler = assembler(dialect);
    for event in &events {
        if let Some(error) = ModelError::from_body(0, event) {
            return Some(Err(error));
        }
        if let Err(error) = assembler.event(event) {
            return Some(Err(error));
        }
    }
    Some(assembler.finish())
}

async fn stream(
    mut response: Body,
    head: &[u8],
    dialect: Dialect,
    pieces: &Pieces<'_>,
) -> Result<Completion, ModelError> {
    let mut assembler = assembler(dialect);
    let mut events = Events::default();
    events.push(head)?;
    let mut read = head.len();
    let mut ended = false;
    loop {
        while let Some(event) = events.next()? {
            match event {
                Event::Done => assembler.done(),
                Event::Data(data) => {
                    if let Some(error) = ModelError::from_body(0, &data) {
                        return Err(error);
                    }
                    if let Some(text) = assembler.event(&data)? {
                        pieces.send(text).await;
                    }
                }
            }
        }
        if ended {
            break;
        }
        let Some(bytes) = response.chunk().await? else {
            events.close();
            ended = true;
            continue;
        };
        read += bytes.len();
        if read > ANSWER_LIMIT {
            return Err(ModelError::unreadable("it is too long"));
        }
        events.push(&bytes)?;
    }
    events.end()?;
    assembler.finish()
}

/// Server-sent events out of pieces.
#[derive(Default)]
struct Events {
    buffer: Vec<u8>,
    start: usize,
    /// `data:` lines that are no whole value yet.
    pending: String,
    is_error: bool,
    seen: bool,
    /// Lines of a stream that are no event: comments, names, blanks.
    is_stream: bool,
    /// Nothing comes any more.
    closed: bool,
}

#[derive(Debug, PartialEq)]
enum Event {
    Data(Value),
    Done,
}

impl Events {
    fn push(&mut self, piece: &[u8]) -> Result<(), ModelError> {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(piece);
        let open = self.buffer.iter().rposition(|byte| is_line_end(*byte)).map_or(0, |at| at + 1);
        if self.buffer.len() - open + self.pending.len() > LINE_LIMIT {
            return Err(ModelError::unreadable("a line of its stream is too long"));
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Event>, ModelError> {
        while let Some(line) = self.next_line() {
            if let Some(event) = self.take(&line)? {
                self.seen = true;
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// The last line may lack its end.
    fn close(&mut self) {
        self.closed = true;
    }

    /// A stream without a single event is none, and one that ends within a value has lost it.
    fn end(&mut self) -> Result<(), ModelError> {
        if self.is_error && !self.pending.is_empty() {
            return Err(ModelError::refused(502, self.pending.trim()));
        }
        if !self.seen && self.is_stream && self.pending.is_empty() {
            return Err(ModelError::new(Reason::Broken, "its stream ended before the answer began"));
        }
        if !self.pending.is_empty() || !self.seen {
            return Err(ModelError::unreadable("it is neither JSON nor a stream of events"));
        }
        Ok(())
    }

    fn take(&mut self, line: &str) -> Result<Option<Event>, ModelError> {
        let line = line.trim_start_matches('\u{feff}');
        self.is_stream |= [":", "event:", "data:", "id:", "retry:"].iter().any(|field| line.starts_with(field));
        if let Some(name) = line.strip_prefix("event:") {
            self.is_error = name.trim() == "error";
            return Ok(None);
        }
        if line.is_empty() {
            if !self.pending.is_empty() {
                return Err(match self.is_error {
                    true => ModelError::refused(502, self.pending.trim()),
                    false => ModelError::unreadable("its stream has an event that is not JSON"),
                });
            }
            return Ok(None);
        }
        // An error in the middle of a stream is sometimes a bare line.
        let data = match line.strip_prefix("data:") {
            Some(data) => data.trim(),
            None if line.starts_with('{') => line.trim(),
            None => return Ok(None),
        };
        if data.is_empty() {
            return Ok(None);
        }
        if self.pending.is_empty() && data == "[DONE]" {
            return Ok(Some(Event::Done));
        }
        self.pending.push_str(data);
        let Ok(value) = serde_json::from_str::<Value>(&self.pending) else {
            self.pending.push('\n');
            return Ok(None);
        };
        self.pending.clear();
        if std::mem::take(&mut self.is_error) {
            let error = ModelError::from_body(0, &value);
            return Err(error.unwrap_or_else(|| ModelError::refused(502, &value.to_string())));
        }
        Ok(Some(Event::Data(value)))
    }

    /// The next whole line, without its end: CR, LF or both. Half a character is never seen: a line is cut only at its end.
    fn next_line(&mut self) -> Option<String> {
        let rest = &self.buffer[self.start..];
        let (length, end) = match rest.iter().position(|byte| is_line_end(*byte)) {
            // The other half of it may be on its way.
            Some(at) if rest[at] == b'\r' && at + 1 == rest.len() && !self.closed => return None,
            Some(at) if rest[at..].starts_with(b"\r\n") => (at, 2),
            Some(at) => (at, 1),
            None if self.closed && !rest.is_empty() => (rest.len(), 0),
            None => return None,
        };
        let line = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.start += length + end;
        Some(line)
    }
}

const fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn events(text: &str, size: usize) -> Result<Vec<Event>, ModelError> {
        let mut events = Events::default();
        let mut seen = vec![];
        for piece in text.as_bytes().chunks(size) {
            events.push(piece)?;
            while let Some(event) = events.next()? {
                seen.push(event);
            }
        }
        events.close();
        while let Some(event) = events.next()? {
            seen.push(event);
        }
        events.end()?;
        Ok(seen)
    }

    #[test]
    fn lines_end_as_they_like_and_the_last_one_need_not() {
        for text in [
            "data: {\"a\":1}\r\rdata: [DONE]\r\r",
            "data: {\"a\":1}\n\ndata: [DONE]",
            "data: {\"a\":1}\r\n\r\ndata: [DONE]\r",
        ] {
            for size in 1..=text.len() {
                let expected = [Event::Data(json!({ "a": 1 })), Event::Done];
                assert_eq!(events(text, size).unwrap(), expected, "{text:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_stream_that_never_began_may_be_asked_for_again() {
        for text in [": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n", "event: ping\n\n"] {
            assert_eq!(events(text, 5).unwrap_err().reason, Reason::Broken, "{text}");
        }
        for text in ["event: error\ndata: upstream is busy\n\n", "event: error\ndata: upstream is busy"] {
            let error = events(text, 5).unwrap_err();
            assert_eq!(error.status, Some(502));
            assert!(error.to_string().contains("upstream is busy"), "{error}");
        }
    }

    #[test]
    fn events_come_whole_whatever_the_pieces() {
        let text = ": comment\r\nevent: x\r\ndata: {\"a\":\"é\"}\r\n\r\ndata: {\"b\":\ndata: 2}\n\ndata: [DONE]\n\n";
        for size in 1..=text.len() {
            let expected = [Event::Data(json!({ "a": "é" })), Event::Data(json!({ "b": 2 })), Event::Done];
            assert_eq!(events(text, size).unwrap(), expected, "pieces of {size}");
        }
    }

    #[test]
    fn an_error_event_is_an_error_whatever_its_shape() {
        for text in [
            "event: error\ndata: {\"message\":\"busy\"}\n\n",
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n\n",
        ] {
            assert!(events(text, 100).unwrap_err().to_string().contains("busy"), "{text}");
        }
        let bare = events("data: {}\n\n{\"error\":\"busy\"}\n", 100).unwrap();
        assert_eq!(bare[1], Event::Data(json!({ "error": "busy" })));
    }

    #[test]
    fn what_is_no_stream_is_an_error() {
        for text in ["hello\n", "data: {\n\n", "data: {\"a\":\n", "\n\n"] {
            assert!(events(text, 3).is_err(), "{text}");
        }
        let mut events = Events::default();
        assert!((0..2000).any(|_| events.push(&[b'x'; 1024]).is_err()));
    }

    #[test]
    fn an_answer_by_lines_is_put_together() {
        let lines =
            "{\"message\":{\"content\":\"he\"},\"done\":false}\n{\"message\":{\"content\":\"llo\"},\"done\":true}\n";
        assert_eq!(whole(lines.as_bytes(), Dialect::OpenAi).unwrap().message.text, "hello");
    }

    #[test]
    fn web_pages_and_garbage_are_told_apart() {
        let reason = |body: &str| whole(body.as_bytes(), Dialect::OpenAi).unwrap_err().reason;
        assert_eq!(reason("<!DOCTYPE html><html></html>"), Reason::WebPage);
        assert_eq!(reason("{\"choices\":"), Reason::Unreadable);
        assert_eq!(reason("{\"error\":{\"message\":\"no\",\"code\":429}}"), Reason::Refused);
    }
}
