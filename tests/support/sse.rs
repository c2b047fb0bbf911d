//! Server-sent events, read one by one.

use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::Value;

/// A stream of events that is open.
pub struct Events {
    response: Response,
    /// Bytes, since a chunk may end within a character.
    buffer: Vec<u8>,
}

/// An event with JSON in it.
#[derive(Debug)]
pub struct Event {
    pub kind: String,
    pub data: Value,
}

impl Events {
    /// Opens a stream; it must be one.
    pub async fn open(request: RequestBuilder) -> Self {
        let response = request.header("accept", "text/event-stream").send().await.expect("the service answers");
        assert_eq!(response.status(), StatusCode::OK);
        Self { response, buffer: Vec::new() }
    }

    /// The next event; `None` at the end of the stream. Comments, which keep it alive, are passed over.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(end) = self.buffer.windows(2).position(|bytes| bytes == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                if let Some(event) = parse(std::str::from_utf8(&block).expect("events are text")) {
                    return Some(event);
                }
            }
            let chunk = self.response.chunk().await.expect("the stream goes on")?;
            self.buffer.extend_from_slice(&chunk);
        }
    }
}

fn parse(block: &str) -> Option<Event> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let data = serde_json::from_str(field("data:")?).expect("the data is JSON");
    Some(Event { kind: field("event:").unwrap_or("message").to_owned(), data })
}
