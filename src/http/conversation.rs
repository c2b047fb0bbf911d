//! A message of a named conversation, for gateways that keep conversations over their WebSocket alone.
//!
//! ```text
//! open ─► session_start ─► {"type":"message"} ─► chunk … ─► done, or error
//!   └── again until the wait is over ──┘   └─ from here on it may have been read: never again
//! ```

use std::time::Duration;

use axum::http::Method;
use axum::http::uri::PathAndQuery;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::error::delivery_unknown;
use super::pieces::{Piece, Pieces, Unanswered};
use super::problem::{Code, Problem};
use super::question::{Asked, Question};
use crate::control::DeliveryError;
use crate::domain::SessionName;
use crate::proxy::Socket;
use crate::zeroclaw::client::WebhookAnswer;

/// How long a gateway that was reached may take to say that the conversation begins.
const BEGINS_WITHIN: Duration = Duration::from_secs(10);

/// Puts a message in the conversation, and gives the answer as it comes.
///
/// # Errors
/// It was certainly not sent.
pub async fn ask(question: &Question, session: &SessionName, message: &str) -> Result<Pieces, Problem> {
    let turn = question.turn().await?;
    let mut socket = begin(question, session).await?;
    let asked = Asked::now(question);
    let within = question.api.options.answer_within;
    let sent = timeout(within, socket.send(&json!({ "type": "message", "content": message }))).await;
    drop(turn);
    if !matches!(sent, Ok(Some(()))) {
        return Err(delivery_unknown());
    }
    let over = Box::pin(question.api.over(question.caller.clone()));
    let abort = PathAndQuery::try_from(format!("/api/sessions/{session}/abort")).map_err(|_| Problem::not_found())?;
    let unread = Unread {
        question: Some(Question { hold: Duration::ZERO, deadline: Instant::now(), ..question.clone() }),
        abort,
    };
    let answer = Answer { socket, within, streamed: false, over: false, unread };
    let pieces = stream::unfold(answer, |mut answer| async move {
        let pieces = answer.next().await?;
        Some((stream::iter(pieces), answer))
    });
    Ok(asked.judged(pieces.flatten().take_until(over).boxed()))
}

/// A socket on which the gateway waits for a message of the conversation.
async fn begin(question: &Question, session: &SessionName) -> Result<Socket, Problem> {
    let Question { api, agent, client, hold, deadline, .. } = question;
    let user = agent.view().ok_or_else(Problem::not_found)?.record.user;
    // From 0.8 on a gateway has several agents; ours has one. Older ones do not read it.
    let path = PathAndQuery::try_from(format!("/ws/chat?agent=default&session_id={session}"));
    let path = path.map_err(|_| Problem::not_found())?;
    loop {
        let mut socket = api.proxy.open_socket(agent, user, &path, client, *hold, *deadline).await?;
        let began = async {
            loop {
                match socket.next().await.map(|event| event["type"] == "session_start") {
                    Some(true) => return true,
                    Some(false) => {}
                    None => return false,
                }
            }
        };
        if timeout(BEGINS_WITHIN, began).await.unwrap_or(false) {
            return Ok(socket);
        }
        agent.report_unreachable();
        if Instant::now() >= *deadline {
            return Err(DeliveryError::Garbage("the conversation did not begin".into()).into());
        }
    }
}

struct Answer {
    socket: Socket,
    /// How long the gateway may be silent.
    within: Duration,
    /// Whether pieces of it came.
    streamed: bool,
    over: bool,
    unread: Unread,
}

/// Ends the answer at the gateway when it is dropped before its end: ZeroClaw goes on when a socket closes, for whoever comes
/// back to the conversation.
struct Unread {
    /// `None` once it has ended by itself.
    question: Option<Question>,
    abort: PathAndQuery,
}

impl Drop for Unread {
    fn drop(&mut self) {
        let Some(question) = self.question.take() else { return };
        let abort = self.abort.clone();
        tokio::spawn(async move {
            // ZeroClaw 0.6 has no such call: its answer goes on unread.
            if let Err(problem) = question.send(Method::POST, abort, Bytes::new()).await {
                tracing::debug!(code = problem.cause().0, "an answer that nobody reads was not ended");
            }
        });
    }
}

impl Answer {
    /// What the next message brings; `None` after the last.
    async fn next(&mut self) -> Option<Vec<Result<Piece, Unanswered>>> {
        if self.over {
            return None;
        }
        let event = match timeout(self.within, self.socket.next()).await {
            Ok(Some(event)) => event,
            Ok(None) => return self.end(delivery_unknown()),
            Err(_) => return self.end(Problem::from(DeliveryError::TimedOut)),
        };
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        match event["type"].as_str().unwrap_or_default() {
            "chunk" => {
                self.streamed = true;
                Some(vec![Ok(Piece::Text(text("content")))])
            }
            "done" => {
                let whole = text("full_response");
                let first = (!self.streamed).then(|| Ok(Piece::Text(whole.clone())));
                self.finish();
                Some(first.into_iter().chain([Ok(Piece::Whole(whole))]).collect())
            }
            "error" => self.end(failed(&event)),
            "aborted" | "stopped" => {
                self.end(Problem::new(Code::GatewayError, "The answer was ended at the agent's gateway."))
            }
            // Nobody is there to be asked.
            "approval_request" => {
                let refusal =
                    json!({ "type": "approval_response", "request_id": event["request_id"], "decision": "deny" });
                match self.socket.send(&refusal).await {
                    Some(()) => Some(Vec::new()),
                    None => self.end(delivery_unknown()),
                }
            }
            _ => Some(Vec::new()),
        }
    }

    fn end(&mut self, why: impl Into<Unanswered>) -> Option<Vec<Result<Piece, Unanswered>>> {
        self.finish();
        Some(vec![Err(why.into())])
    }

    fn finish(&mut self) {
        self.over = true;
        self.unread.question = None;
    }
}

/// The gateway's words for what failed, as its `/webhook` would have told it.
fn failed(event: &Value) -> Unanswered {
    let model = json!({ "model": { "message": event["message"], "code": event["code"] } });
    Unanswered::Refused(WebhookAnswer::new(502, model.to_string()))
}
