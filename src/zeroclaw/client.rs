//! The calls that the control plane makes to an agent's gateway.

mod answer;
mod cause;
pub(crate) mod connections;
pub(crate) mod expect;
pub(crate) mod handover;
mod http;
mod message;
mod model_failure;
mod refusal;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::memory::MemoryEntry;
use super::spending::Spent;
use super::usability::SelfReport;
use crate::domain::{Secret, SessionName};

pub use http::HttpGateway;
pub use model_failure::ModelFailure;
pub use refusal::{Failed, Refusal};

/// A running instance's gateway. Object-safe, so that tests can put one in memory behind it.
pub trait Gateway: Send + Sync + 'static {
    /// `GET /health`. Any answer is an `Ok`; see [`HealthReport::healthy`].
    fn health(&self, at: SocketAddr, within: Duration) -> BoxFuture<'_, Result<HealthReport, GatewayError>>;

    /// Whether the gateway takes this token, by an authenticated call that changes nothing (`GET /api/status`).
    fn accepts_token<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Result<bool, GatewayError>>;

    /// What the gateway says about itself to a paired client; nothing where it cannot tell. Without a default on purpose: what
    /// wraps another gateway and forgot to ask it would hide that it is unusable.
    fn self_report<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Result<SelfReport, GatewayError>>;

    /// What its model has cost (`GET /api/cost`); `None` where it does not tell.
    fn spent<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Result<Option<Spent>, GatewayError>>;

    /// `POST /pair` with a one-time code. Sent once, never again by itself: failures count towards a lockout.
    fn pair<'a>(
        &'a self,
        at: SocketAddr,
        code: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Result<Pairing, GatewayError>>;

    /// All that the gateway remembers (`GET /api/memory`).
    fn memory<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Result<Vec<MemoryEntry>, GatewayError>>;

    /// Makes the gateway remember an entry, in place of the one with the same key (`POST /api/memory`).
    fn remember<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        entry: &'a MemoryEntry,
        within: Duration,
    ) -> BoxFuture<'a, Result<(), GatewayError>>;

    /// `POST /webhook` with a JSON body. Sent at most once; see [`GatewayError`] for what a failure means.
    fn webhook<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        call: WebhookCall,
        within: Duration,
    ) -> BoxFuture<'a, Result<WebhookAnswer, GatewayError>>;
}

/// An answer of `/health`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HealthReport {
    /// The HTTP status.
    pub status: u16,
    /// The body, as it came.
    pub body: Bytes,
}

impl HealthReport {
    /// With both.
    pub fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, body: body.into() }
    }

    /// Whether the gateway says that it is well: by status 200, whatever the body.
    pub const fn healthy(&self) -> bool {
        self.status == 200
    }
}

/// How `POST /pair` ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pairing {
    /// The gateway took the code and gave a token.
    Paired {
        /// The bearer token for all later calls.
        token: Secret<String>,
        /// Whether the gateway will know it after a restart.
        persisted: bool,
    },
    /// Wrong or used code.
    Refused,
    /// Too many failures: no code is taken for now.
    LockedOut {
        /// Seconds until the gateway listens again.
        retry_after_secs: u64,
    },
}

/// A message on its way to `/webhook`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WebhookCall {
    /// A JSON object with the message.
    pub body: Bytes,
    /// Passed on as `X-Request-Id`, for logs.
    pub request_id: Option<String>,
    /// Passed on as `traceparent` (W3C Trace Context).
    pub traceparent: Option<String>,
    /// The conversation that it belongs to, as `X-Session-Id`.
    pub session: Option<SessionName>,
    /// Set when the body is handed to the transport: from then on the gateway may have seen the message.
    pub sent: SentMark,
}

impl WebhookCall {
    /// A message alone: a JSON object.
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), request_id: None, traceparent: None, session: None, sent: SentMark::default() }
    }

    setters! {
        with_request_id(request_id: impl Into<String> => Some(request_id.into()));
        with_traceparent(traceparent: impl Into<String> => Some(traceparent.into()));
        with_session(session: impl Into<Option<SessionName>> => session.into());
        with_sent(sent: SentMark);
    }
}

/// Set once the transport took the message.
#[derive(Debug, Clone, Default)]
pub struct SentMark(std::sync::Arc<tokio::sync::SetOnce<()>>);

impl SentMark {
    /// Says that the transport has the message.
    pub fn set(&self) {
        let _ = self.0.set(());
    }

    /// Whether the transport has the message.
    pub fn is_set(&self) -> bool {
        self.0.initialized()
    }

    /// Resolves when the message was handed to the transport.
    pub async fn wait(&self) {
        self.0.wait().await;
    }
}

/// An answer of `/webhook`, whatever its status.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WebhookAnswer {
    /// The HTTP status.
    pub status: u16,
    /// Its `Content-Type`, where it has one.
    pub content_type: Option<String>,
    /// Seconds of its `Retry-After`, where it has one.
    pub retry_after: Option<u64>,
    /// The whole body.
    pub body: Bytes,
}

impl WebhookAnswer {
    /// Without a type.
    pub fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, content_type: None, retry_after: None, body: body.into() }
    }

    /// An answer whose head is known.
    pub(crate) fn of(status: ::http::StatusCode, headers: &::http::HeaderMap, body: Bytes) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            status: status.as_u16(),
            content_type: text(::http::header::CONTENT_TYPE).map(ToOwned::to_owned),
            retry_after: text(::http::header::RETRY_AFTER).and_then(|secs| secs.trim().parse().ok()),
            body,
        }
    }

    setters! {
        with_retry_after(retry_after: impl Into<Option<u64>> => retry_after.into());
        with_content_type(content_type: impl Into<String> => Some(content_type.into()));
    }
}

/// A call that got no whole answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// Nothing of the request reached the gateway: it is safe to send it again.
    #[error("the gateway could not be reached: {0}")]
    NotSent(String),
    /// The request may have been acted on.
    #[error("the connection ended before the answer: {0}")]
    Unknown(String),
    /// No answer in time. The request may have been acted on.
    #[error("the gateway did not answer in time")]
    TimedOut,
    /// An answer that is none of ZeroClaw's, or too long.
    #[error("the gateway's answer cannot be used: {0}")]
    Garbage(String),
}
