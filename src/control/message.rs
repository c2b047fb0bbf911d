//! A message on its way to an agent: held while the agent comes up, in order, delivered at most once.
//!
//! ```text
//! enter ──► queue ──► my turn ──► RUNNING? ──► send ──► bytes handed over: next one's turn ──► answer
//!             │           │           │          └─ not sent: hold on      └─ connection lost: unknown, never again
//!             └───────────┴───────────┴─ not within the wait: refused, certainly not sent
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::AgentHandle;
use crate::actor::AgentMsg;
use crate::domain::{SessionName, Status, Timestamp};
use crate::lifecycle::allowed;
use crate::runtime::{LogLine, LogQuery};
use crate::view::{Access, AgentView, Known};
use crate::zeroclaw::client::{GatewayError, ModelFailure, Refusal, SentMark, WebhookAnswer, WebhookCall};

/// A message with how long its sender waits.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Message {
    /// JSON as `/webhook` takes it.
    pub body: Bytes,
    /// Sent along as `X-Request-Id`, for logs.
    pub request_id: Option<String>,
    /// Sent along as `traceparent` (W3C Trace Context).
    pub traceparent: Option<String>,
    /// The gateway's conversation that it belongs to.
    pub session: Option<SessionName>,
    /// How long it may be held while the agent is not ready.
    pub hold: Duration,
    /// How long the answer may take once it is sent.
    pub answer_within: Duration,
}

impl Message {
    /// A message of this text, held for at most 30 s while the agent comes up, with two minutes for the answer.
    pub fn text(text: impl Into<String>) -> Self {
        Self::json(serde_json::json!({ "message": text.into() }).to_string())
    }

    /// As [`Message::text`], with a body of one's own: JSON as `/webhook` takes it.
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            request_id: None,
            traceparent: None,
            session: None,
            hold: Duration::from_secs(30),
            answer_within: Duration::from_secs(120),
        }
    }

    setters! {
        with_request_id(request_id: impl Into<String> => Some(request_id.into()));
        with_traceparent(traceparent: impl Into<String> => Some(traceparent.into()));
        with_session(session: impl Into<Option<SessionName>> => session.into());
        with_hold(hold: Duration);
        with_answer_within(answer_within: Duration);
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DeliveryError {
    /// Certainly not sent: the agent was deleted.
    #[error("the agent is gone")]
    Gone,
    /// Certainly not sent: the service ends.
    #[error("the service is shutting down")]
    Closing,
    /// Certainly not sent: it does not run, and will not by itself.
    #[error("the agent is {status}")]
    NotRunning {
        /// The status at that moment.
        status: Status,
        /// Commands that would change something, by their names in the API.
        allowed: Vec<&'static str>,
    },
    /// Certainly not sent: it did not become ready in time.
    #[error("the agent did not become ready within {} s", held.as_secs())]
    NotReady {
        /// The status at the end.
        status: Status,
        /// How long the message was to be held.
        held: Duration,
    },
    /// Certainly not sent: too many messages wait already.
    #[error("too many messages wait for this agent")]
    QueueFull,
    /// It was sent and the answer was lost.
    #[error("the message was sent and the answer was lost: {0}")]
    Unknown(String),
    /// No answer came within [`Message::answer_within`]; the agent may have acted on the message.
    #[error("the agent did not answer in time")]
    TimedOut,
    /// It was sent, and what came back is no answer of a gateway.
    #[error("the agent's answer cannot be used: {0}")]
    Garbage(String),
    /// Refused even with a token that was just proven.
    #[error("the agent's gateway refuses the token")]
    Unauthorized,
}

impl DeliveryError {
    /// Whether nothing of it reached the gateway.
    pub const fn is_certainly_not_sent(&self) -> bool {
        match self {
            Self::Gone | Self::Closing | Self::NotRunning { .. } | Self::NotReady { .. } | Self::QueueFull => true,
            Self::Unknown(_) | Self::TimedOut | Self::Garbage(_) | Self::Unauthorized => false,
        }
    }
}

/// Messages that may wait for one agent or be under way to it. More would only wait to fail.
pub(super) const MAX_HELD: u32 = 256;
/// Lines of a gateway's log in which the reason of a failure is looked for.
const LOG_LINES: usize = 40;
/// Pause before a message that could not be sent is tried again: by then a death is noticed, or the gateway is back.
const RESEND_PAUSE: Duration = Duration::from_millis(10);

impl AgentHandle {
    /// Delivers a message and gives the gateway's answer, whatever its status. Dropping the future cancels the call.
    ///
    /// # Errors
    /// See [`DeliveryError`]; it says whether the message was sent.
    pub async fn deliver(&self, message: Message) -> Result<WebhookAnswer, DeliveryError> {
        let queue = self.known().and_then(Known::send_queue).ok_or(DeliveryError::Gone)?;
        let _held = queue.enter(MAX_HELD).ok_or(DeliveryError::QueueFull)?;
        let deadline = Instant::now() + message.hold;
        let mut refused_in = None;
        // Kept until the message is on the wire: what could not be sent must not queue behind those that came later.
        let mut turn = None;
        loop {
            let view = self.view().ok_or(DeliveryError::Gone)?;
            if !is_open(&view) {
                // A message that is refused in any case need not queue.
                return Err(closed(&view));
            }
            if turn.is_none() {
                // Free only where nobody waits for it.
                turn = queue.turn.try_acquire().ok();
            }
            let at_once = view.access.as_ref().filter(|access| turn.is_some() && Some(access.attempt) > refused_in);
            let access = match at_once {
                Some(access) if !self.plane.shared.closing.is_cancelled() => Arc::clone(access),
                Some(_) | None => {
                    let wait = async {
                        if turn.is_none() {
                            turn = Some(queue.turn.acquire().await.map_err(|_closed| DeliveryError::Gone)?);
                        }
                        self.ready(refused_in).await
                    };
                    tokio::select! {
                        biased;
                        () = self.plane.shared.closing.cancelled() => return Err(DeliveryError::Closing),
                        waited = timeout_at(deadline, wait) => match waited {
                            Ok(access) => access?,
                            Err(_elapsed) => return Err(self.not_ready(message.hold)),
                        },
                    }
                }
            };
            let began = self.plane.now();
            let mark = SentMark::default();
            let call = WebhookCall {
                body: message.body.clone(),
                request_id: message.request_id.clone(),
                traceparent: message.traceparent.clone(),
                session: message.session.clone(),
                sent: mark.clone(),
            };
            let gateway = &self.plane.shared.services.gateway;
            let sending = gateway.webhook(access.endpoint, &access.token, call, message.answer_within);
            tokio::pin!(sending);
            let outcome = tokio::select! {
                biased;
                outcome = &mut sending => outcome,
                () = mark.wait() => {
                    // It is on the wire: the next one may follow while this one waits for its answer.
                    turn = None;
                    sending.await
                }
            };
            match outcome {
                Ok(answer) if answer.status == 401 && refused_in.is_none() => {
                    // The gateway refused it unread: one new pairing, then once more.
                    refused_in = Some(access.attempt);
                    self.tell(AgentMsg::TokenRefused { attempt: access.attempt });
                }
                Ok(answer) if answer.status == 401 => return Err(DeliveryError::Unauthorized),
                Ok(answer) => {
                    let answer = self.heed(answer, began, access.attempt).await;
                    self.note_answer(&answer);
                    return Ok(answer);
                }
                Err(GatewayError::NotSent(_)) if Instant::now() < deadline => {
                    self.tell(AgentMsg::Resync);
                    sleep(RESEND_PAUSE).await;
                }
                Err(GatewayError::NotSent(_)) => return Err(self.not_ready(message.hold)),
                Err(GatewayError::Unknown(reason)) => return Err(DeliveryError::Unknown(reason)),
                Err(GatewayError::TimedOut) => return Err(DeliveryError::TimedOut),
                Err(GatewayError::Garbage(reason)) => return Err(DeliveryError::Garbage(reason)),
            }
        }
    }

    /// What an attempt's gateway answered to a message that was sent at `since`, with the reason of a failure where only the log
    /// has it. One that has no configuration gets its files anew.
    pub(crate) async fn heed(&self, answer: WebhookAnswer, since: Timestamp, attempt: u64) -> WebhookAnswer {
        if answer.status == 200 {
            return answer;
        }
        let answer = self.explained(answer, since).await;
        if let Refusal::NotConfigured(why) = Refusal::read(&answer) {
            // Nothing but files written anew can help, and no deep check has found it yet.
            self.tell(AgentMsg::Unusable { attempt, why: why.into() });
        }
        answer
    }

    /// What is said of an agent that did not become ready within `held`.
    pub(crate) fn not_ready(&self, held: Duration) -> DeliveryError {
        match self.view() {
            Some(view) => DeliveryError::NotReady { status: view.status(), held },
            None => DeliveryError::Gone,
        }
    }

    /// The answer, with why the model failed where the gateway does not say it and its log does.
    async fn explained(&self, answer: WebhookAnswer, since: Timestamp) -> WebhookAnswer {
        if !ModelFailure::read(&answer).is_some_and(|failure| failure.is_unexplained()) {
            return answer;
        }
        let lines = timeout(self.plane.shared.services.settings.limits.health, self.last_lines(since))
            .await
            .unwrap_or_default();
        let Some(mut failure) = ModelFailure::in_log(lines.iter().map(|line| line.text.as_str())) else {
            return answer;
        };
        failure.message = self.without_secrets(failure.message);
        let model = failure.to_json();
        let body = serde_json::json!({ "error": "LLM request failed", "model": model }).to_string();
        WebhookAnswer { body: body.into(), ..answer }
    }

    /// What the instance has printed since then, as far as a reason may be in it.
    async fn last_lines(&self, since: Timestamp) -> Vec<LogLine> {
        let query = LogQuery { since: Some(since), tail: Some(LOG_LINES), ..LogQuery::default() };
        match self.logs(query).await {
            Ok(lines) => lines.try_collect().await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    #[cfg(feature = "server")]
    pub(super) fn check_open(&self) -> Result<(), DeliveryError> {
        let view = self.view().ok_or(DeliveryError::Gone)?;
        if is_open(&view) { Ok(()) } else { Err(closed(&view)) }
    }

    /// Waits for a way to the gateway, of a later attempt than `after`.
    pub(super) async fn ready(&self, after: Option<u64>) -> Result<Arc<Access>, DeliveryError> {
        let mut views = self.changes().ok_or(DeliveryError::Gone)?;
        loop {
            {
                let view = views.borrow_and_update();
                if !is_open(&view) {
                    return Err(closed(&view));
                }
                if let Some(access) = view.access.as_ref().filter(|access| Some(access.attempt) > after) {
                    return Ok(Arc::clone(access));
                }
            }
            views.changed().await.map_err(|_| DeliveryError::Gone)?;
        }
    }

    pub(super) fn tell(&self, message: AgentMsg) {
        if let Some(actor) = self.plane.shared.directory.get(&self.id()) {
            // An actor that is being rebuilt looks for itself when it is up.
            let _ = actor.value().cast(message);
        }
    }
}

fn is_open(view: &AgentView) -> bool {
    view.status() == Status::Running || view.record.state.will_run()
}

fn closed(view: &AgentView) -> DeliveryError {
    DeliveryError::NotRunning { status: view.status(), allowed: allowed(&view.record.state.phase) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_may_be_repeated_only_where_nothing_of_it_was_sent() {
        let held = Duration::from_secs(30);
        for error in [
            DeliveryError::Gone,
            DeliveryError::Closing,
            DeliveryError::NotRunning { status: Status::Stopped, allowed: vec!["start"] },
            DeliveryError::NotReady { status: Status::Starting, held },
            DeliveryError::QueueFull,
        ] {
            assert!(error.is_certainly_not_sent(), "{error}");
        }
        for error in [
            DeliveryError::Unknown("connection closed".into()),
            DeliveryError::TimedOut,
            DeliveryError::Garbage("no HTTP".into()),
            DeliveryError::Unauthorized,
        ] {
            assert!(!error.is_certainly_not_sent(), "{error}");
        }
    }
}
