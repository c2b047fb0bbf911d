//! The calls to a real gateway, over HTTP/1.1.
//!
//! Plain HTTP to an address that the runtime names: no proxy, no redirect, no retry. Everything that comes back is
//! bounded in size, because an agent that went wrong may answer anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::{BoxFuture, FutureExt};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use serde::Deserialize;

use super::cause::chain;
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
/// Kept open between calls. Short, because an agent that restarts leaves dead connections behind.
const IDLE: Duration = Duration::from_secs(20);
const IDLE_PER_AGENT: usize = 8;
/// What the gateway means by a lockout without a time: its own one for too many requests.
const DEFAULT_LOCKOUT_SECS: u64 = 60;

/// [`Gateway`] over HTTP. Clones share one connection pool.
#[derive(Debug, Clone)]
pub struct HttpGateway {
    client: reqwest::Client,
    messages: Arc<Messages>,
}

impl HttpGateway {
    /// # Errors
    /// The HTTP client cannot be set up on this system.
    pub fn new() -> Result<Self, GatewayError> {
        let client = without_tls(reqwest::Client::builder())?
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .http1_only()
            .pool_max_idle_per_host(IDLE_PER_AGENT)
            .pool_idle_timeout(IDLE)
            .tcp_nodelay(true)
            .build()
            .map_err(|error| GatewayError::NotSent(chain(&error)))?;
        Ok(Self { client, messages: Arc::default() })
    }

    fn request(&self, method: Method, at: SocketAddr, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("http://{at}{path}"))
    }
}

impl Gateway for HttpGateway {
    fn health(&self, at: SocketAddr, within: Duration) -> BoxFuture<'_, Result<HealthReport, GatewayError>> {
        let request = self.request(Method::GET, at, "/health");
        async move {
            let answer = deadline(within, answer(request, SMALL_ANSWER)).await?;
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
            let request = self.request(Method::GET, at, "/api/status").header(AUTHORIZATION, bearer(token)?);
            let answer = deadline(within, answer(request, SMALL_ANSWER)).await?;
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
            let get = async |path| {
                let request = self.request(Method::GET, at, path).header(AUTHORIZATION, bearer(token)?);
                let answer = deadline(within, answer(request, SELF_REPORT)).await?;
                let json = answer.status == StatusCode::OK && answer.is_json();
                Ok(json.then(|| serde_json::from_slice::<serde_json::Value>(&answer.body).ok()).flatten())
            };
            let (status, config) = tokio::try_join!(get("/api/status"), get("/api/config/status"))?;
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
            let request = self.request(Method::GET, at, "/api/cost").header(AUTHORIZATION, bearer(token)?);
            let answer = deadline(within, answer(request, SELF_REPORT)).await?;
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
            let request = self
                .request(Method::POST, at, "/pair")
                .header(PAIRING_CODE, sensitive(code.expose())?)
                .header(CONTENT_LENGTH, HeaderValue::from_static("0"));
            pairing(&deadline(within, answer(request, SMALL_ANSWER)).await?)
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
            let request = self.request(Method::GET, at, "/api/memory").header(AUTHORIZATION, bearer(token)?);
            let answer = deadline(within, answer(request, MEMORY)).await?;
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
            let request = self
                .request(Method::POST, at, "/api/memory")
                .header(AUTHORIZATION, bearer(token)?)
                .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
                .body(body);
            let answer = deadline(within, answer(request, SMALL_ANSWER)).await?;
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

/// With the embedded gateway compiled in, reqwest knows TLS and refuses to be built without a crypto provider, which only a
/// program may install for the whole process. Gateways are plain HTTP, so a configuration that trusts nobody does.
#[cfg(feature = "gateway")]
fn without_tls(builder: reqwest::ClientBuilder) -> Result<reqwest::ClientBuilder, GatewayError> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| GatewayError::NotSent(chain(&error)))?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Ok(builder.tls_backend_preconfigured(tls))
}

#[cfg(not(feature = "gateway"))]
fn without_tls(builder: reqwest::ClientBuilder) -> Result<reqwest::ClientBuilder, GatewayError> {
    Ok(builder)
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

/// Sends the request and reads an answer of at most `limit` bytes.
async fn answer(request: reqwest::RequestBuilder, limit: usize) -> Result<Answer, GatewayError> {
    let mut response = request.send().await.map_err(|error| failure(&error))?;
    let status = response.status();
    let content_type = response.headers().get(CONTENT_TYPE).cloned();
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failure(&error))? {
        if body.len() + chunk.len() > limit {
            return Err(GatewayError::Garbage(format!("{status} with more than {limit} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, content_type, body: body.freeze() })
}

async fn deadline<T>(within: Duration, call: impl Future<Output = Result<T, GatewayError>>) -> Result<T, GatewayError> {
    tokio::time::timeout(within, call).await.unwrap_or(Err(GatewayError::TimedOut))
}

fn failure(error: &reqwest::Error) -> GatewayError {
    let why = chain(error);
    if error.is_connect() { GatewayError::NotSent(why) } else { GatewayError::Unknown(why) }
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
    sensitive(Secret::new(format!("Bearer {}", token.expose())).expose())
}

fn sensitive(value: &str) -> Result<HeaderValue, GatewayError> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| GatewayError::NotSent("the secret cannot be sent in a header".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests;
