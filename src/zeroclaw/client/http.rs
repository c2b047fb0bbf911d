//! The calls to a real gateway, over HTTP/1.1.
//!
//! Plain HTTP to an address that the runtime names: no proxy, no redirect, no retry of what may have been sent. Everything
//! that comes back is bounded in size, because an agent that went wrong may answer anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Uri, request};
use http_body_util::Full;
use serde::Deserialize;

use super::answer;
use super::cause::chain;
use super::connections::Connections;
use super::message::Messages;
use super::{Gateway, GatewayError, HealthReport, Pairing, WebhookAnswer, WebhookCall};
use crate::domain::Secret;
use crate::zeroclaw::memory::{MAX_ENTRIES, MemoryEntry};
use crate::zeroclaw::spending::Spent;
use crate::zeroclaw::usability::SelfReport;

const PAIRING_CODE: HeaderName = HeaderName::from_static("x-pairing-code");

/// `/health`, `/api/status` and `/pair` answer with a few hundred bytes.
const SMALL_ANSWER: usize = 64 * 1024;
/// An agent's status with all of its components and channels.
const SELF_REPORT: usize = 512 * 1024;
/// Some ten thousand entries.
const MEMORY: usize = 32 * 1024 * 1024;
/// What the gateway means by a lockout without a time: its own one for too many requests.
const DEFAULT_LOCKOUT_SECS: u64 = 60;

/// [`Gateway`] over HTTP. Clones share their connections.
#[derive(Clone, Default)]
pub struct HttpGateway {
    connections: Arc<Connections<SocketAddr, Full<Bytes>>>,
    messages: Arc<Messages>,
}

impl std::fmt::Debug for HttpGateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpGateway").finish_non_exhaustive()
    }
}

impl HttpGateway {
    /// Without a connection: they are opened when they are needed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends a request, and reads an answer of at most `limit` bytes within this time.
    async fn ask(
        &self,
        at: SocketAddr,
        request: request::Builder,
        body: Vec<u8>,
        limit: usize,
        within: Duration,
    ) -> Result<Answer, GatewayError> {
        let request = request.header(HOST, at.to_string()).body(Full::from(body));
        let request = request.map_err(|error| GatewayError::NotSent(error.to_string()))?;
        tokio::time::timeout(within, self.answer(at, request, limit)).await.unwrap_or(Err(GatewayError::TimedOut))
    }

    async fn answer(
        &self,
        at: SocketAddr,
        mut request: Request<Full<Bytes>>,
        limit: usize,
    ) -> Result<Answer, GatewayError> {
        loop {
            let leased = self.connections.lease(at, at, 0).await;
            let mut lease = leased.map_err(|error| GatewayError::NotSent(error.to_string()))?;
            let response = match lease.send(request).await {
                Ok(response) => response,
                Err(mut error) => {
                    let why = chain(error.error());
                    match error.take_message() {
                        // The gateway had closed a kept connection; nothing was sent on it.
                        Some(unsent) if lease.is_used() => {
                            request = unsent;
                            continue;
                        }
                        Some(_) => return Err(GatewayError::NotSent(why)),
                        None => return Err(GatewayError::Unknown(why)),
                    }
                }
            };
            let (head, body) = answer::read(response, &mut lease, limit).await?;
            lease.give_back();
            return Ok(Answer { status: head.status, content_type: head.headers.get(CONTENT_TYPE).cloned(), body });
        }
    }
}

fn get(path: &'static str) -> request::Builder {
    Request::builder().method(Method::GET).uri(Uri::from_static(path))
}

fn post(path: &'static str) -> request::Builder {
    Request::builder().method(Method::POST).uri(Uri::from_static(path))
}

impl Gateway for HttpGateway {
    fn health(&self, at: SocketAddr, within: Duration) -> BoxFuture<'_, Result<HealthReport, GatewayError>> {
        async move {
            let answer = self.ask(at, get("/health"), vec![], SMALL_ANSWER, within).await?;
            Ok(HealthReport { status: answer.status.as_u16(), body: answer.body })
        }
        .boxed()
    }

    /// 200 with JSON is a yes, 401 and 403 are a no. Anything else says nothing about the token: an unknown path of
    /// ZeroClaw answers 200 with its dashboard's HTML, and a locked-out gateway 429 even for a good token.
    fn accepts_token<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Result<bool, GatewayError>> {
        async move {
            let request = get("/api/status").header(AUTHORIZATION, bearer(token)?);
            let answer = self.ask(at, request, vec![], SMALL_ANSWER, within).await?;
            match answer.status {
                StatusCode::OK if answer.is_json() => Ok(true),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(false),
                status => Err(GatewayError::Garbage(format!("{status} from /api/status"))),
            }
        }
        .boxed()
    }

    /// A path that the gateway does not have counts for nothing: it answers 404, or 200 with the dashboard's page.
    fn self_report<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Result<SelfReport, GatewayError>> {
        async move {
            let told = async |path| {
                let request = get(path).header(AUTHORIZATION, bearer(token)?);
                let answer = self.ask(at, request, vec![], SELF_REPORT, within).await?;
                let json = answer.status == StatusCode::OK && answer.is_json();
                Ok(json.then(|| serde_json::from_slice::<serde_json::Value>(&answer.body).ok()).flatten())
            };
            let (status, config) = tokio::try_join!(told("/api/status"), told("/api/config/status"))?;
            Ok(SelfReport::read(status.as_ref(), config.as_ref()))
        }
        .boxed()
    }

    fn spent<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Result<Option<Spent>, GatewayError>> {
        async move {
            let request = get("/api/cost").header(AUTHORIZATION, bearer(token)?);
            let answer = self.ask(at, request, vec![], SELF_REPORT, within).await?;
            let json = answer.status == StatusCode::OK && answer.is_json();
            let told = json.then(|| serde_json::from_slice(&answer.body).ok()).flatten();
            Ok(told.as_ref().and_then(Spent::read))
        }
        .boxed()
    }

    fn pair<'a>(
        &'a self,
        at: SocketAddr,
        code: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Result<Pairing, GatewayError>> {
        async move {
            let request = post("/pair")
                .header(PAIRING_CODE, sensitive(code.expose())?)
                .header(CONTENT_LENGTH, HeaderValue::from_static("0"));
            pairing(&self.ask(at, request, vec![], SMALL_ANSWER, within).await?)
        }
        .boxed()
    }

    fn memory<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Result<Vec<MemoryEntry>, GatewayError>> {
        async move {
            let request = get("/api/memory").header(AUTHORIZATION, bearer(token)?);
            let answer = self.ask(at, request, vec![], MEMORY, within).await?;
            let unusable = || GatewayError::Garbage(format!("{} from /api/memory", answer.status));
            if answer.status != StatusCode::OK || !answer.is_json() {
                return Err(unusable());
            }
            let json = serde_json::from_slice(&answer.body).map_err(|_| unusable())?;
            let entries = MemoryEntry::read_all(&json).ok_or_else(unusable)?;
            if entries.len() > MAX_ENTRIES {
                return Err(GatewayError::Garbage(format!("more than {MAX_ENTRIES} entries of memory")));
            }
            Ok(entries)
        }
        .boxed()
    }

    fn remember<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        entry: &'a MemoryEntry,
        within: Duration,
    ) -> BoxFuture<'a, Result<(), GatewayError>> {
        async move {
            let body = serde_json::to_vec(entry).map_err(|error| GatewayError::NotSent(error.to_string()))?;
            let request = post("/api/memory")
                .header(AUTHORIZATION, bearer(token)?)
                .header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let answer = self.ask(at, request, body, SMALL_ANSWER, within).await?;
            if answer.status.is_success() && answer.is_json() {
                return Ok(());
            }
            Err(GatewayError::Garbage(format!("{} from /api/memory", answer.status)))
        }
        .boxed()
    }

    fn webhook<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        call: WebhookCall,
        within: Duration,
    ) -> BoxFuture<'a, Result<WebhookAnswer, GatewayError>> {
        async move { self.messages.send(at, bearer(token)?, call, within).await }.boxed()
    }
}

/// A whole answer.
struct Answer {
    status: StatusCode,
    content_type: Option<HeaderValue>,
    body: Bytes,
}

impl Answer {
    fn content_type(&self) -> Option<&str> {
        self.content_type.as_ref().and_then(|value| value.to_str().ok())
    }

    fn is_json(&self) -> bool {
        self.content_type().is_some_and(|value| value.starts_with("application/json"))
    }
}

fn pairing(answer: &Answer) -> Result<Pairing, GatewayError> {
    #[derive(Deserialize)]
    struct Paired {
        token: Secret<String>,
        persisted: Option<bool>,
    }
    #[derive(Deserialize)]
    struct Locked {
        retry_after: Option<u64>,
    }
    match answer.status {
        StatusCode::OK => match serde_json::from_slice::<Paired>(&answer.body) {
            Ok(paired) if !paired.token.expose().is_empty() => {
                Ok(Pairing::Paired { token: paired.token, persisted: paired.persisted.unwrap_or(true) })
            }
            // What was sent is not repeated: it may hold the token.
            Ok(_) | Err(_) => Err(GatewayError::Garbage("200 from /pair without a token".into())),
        },
        StatusCode::FORBIDDEN => Ok(Pairing::Refused),
        StatusCode::TOO_MANY_REQUESTS => {
            let told = serde_json::from_slice::<Locked>(&answer.body).ok().and_then(|locked| locked.retry_after);
            Ok(Pairing::LockedOut { retry_after_secs: told.unwrap_or(DEFAULT_LOCKOUT_SECS) })
        }
        status => Err(GatewayError::Garbage(format!("{status} from /pair"))),
    }
}

fn bearer(token: &Secret<String>) -> Result<HeaderValue, GatewayError> {
    sensitive(Secret::new(["Bearer ", token.expose()].concat()).expose())
}

fn sensitive(value: &str) -> Result<HeaderValue, GatewayError> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| GatewayError::NotSent("the secret cannot be sent in a header".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests;
