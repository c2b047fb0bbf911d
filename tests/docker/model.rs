//! A model server of our own: says one thing, and keeps what it was asked.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::world::World;

pub(crate) const ANSWER: &str = "hello from the model";

pub(crate) struct Model {
    port: u16,
    questions: mpsc::UnboundedReceiver<String>,
}

impl Model {
    pub(crate) async fn new(world: &World) -> Self {
        let listener = TcpListener::bind((world.host_gateway, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        #[expect(clippy::disallowed_methods, reason = "a test asks some dozens of questions")]
        let (asked, questions) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, asked.clone()));
            }
        });
        Self { port, questions }
    }

    /// Its base URL, as a container has it.
    pub(crate) fn url(&self) -> String {
        format!("http://host.docker.internal:{}/v1", self.port)
    }

    /// The oldest question that was not taken yet: the whole request.
    pub(crate) async fn question(&mut self) -> String {
        self.questions.recv().await.unwrap()
    }
}

async fn answer(mut stream: TcpStream, asked: mpsc::UnboundedSender<String>) {
    let mut request = Vec::new();
    while !complete(&request) {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    // Nobody listens any more once the test is over.
    let _ = asked.send(String::from_utf8_lossy(&request).into_owned());
    if String::from_utf8_lossy(&request).replace(' ', "").contains("\"stream\":true") {
        return stream_answer(stream).await;
    }
    let body = serde_json::json!({
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ANSWER}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    })
    .to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
}

/// The same in pieces.
async fn stream_answer(mut stream: TcpStream) {
    let chunk = |delta: serde_json::Value, finish: Option<&str>| {
        let choice = serde_json::json!({"index": 0, "delta": delta, "finish_reason": finish});
        let chunk =
            serde_json::json!({"id": "1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]});
        format!("data: {chunk}\n\n")
    };
    let pieces = ANSWER.split_inclusive(' ').map(|piece| chunk(serde_json::json!({"content": piece}), None));
    let body: String = pieces.chain([chunk(serde_json::json!({}), Some("stop")), "data: [DONE]\n\n".into()]).collect();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
}

/// Whether a request is here with all of its body.
fn complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, value)| value.trim().parse().unwrap());
    body.len() >= length
}
