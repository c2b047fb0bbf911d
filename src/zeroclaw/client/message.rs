//! A message on its way to `/webhook`: the one call that must never be made twice.
//!
//! ```text
//! head, Expect: 100-continue ──► 100: it is being read ──► body ──► answer
//!   └─ connection lost, or no 100: certainly not delivered   └─ connection lost: unknown
//! ```
//! hyper, which ZeroClaw's gateways are built on, sends the 100 when its handler begins to read the body. So a body that was
//! never asked for was certainly not delivered, however far its head came: into the buffers of a process that was stopped,
//! or that died before it looked. A server that does not know the expectation gets the body after a second, and later at once.
//!
//! Asking first costs a way there and back. An agent that gave an answer a moment ago is not asked: under load that would cost
//! a third of the throughput, for the few messages that meet its death in just this moment.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use dashmap::DashMap;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep, timeout_at};

use super::cause::chain;
use super::connections::{Connections, Lease};
use super::handover::{HandedBody, Handover, Permission};
use super::{GatewayError, WebhookAnswer, WebhookCall};
use crate::domain::SessionName;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const SESSION: HeaderName = HeaderName::from_static("x-session-id");
const WEBHOOK: &str = "/webhook";
/// A model's longest answers are some hundred kilobytes.
const LONGEST: usize = 4 * 1024 * 1024;
/// How long a server of which nothing is known may take to ask for the body.
const FIRST_ASK: Duration = Duration::from_secs(1);
/// How long one that asks may take: a gateway that does not even read is not well.
const ASK: Duration = Duration::from_secs(5);
/// An answer so recent proves that the gateway is there.
const RECENT: Duration = Duration::from_millis(20);
/// Gateways of which it is kept in mind how they treat the expectation.
const KNOWN: usize = 4096;

/// What the last answers of a gateway told.
#[derive(Debug, Clone, Copy)]
struct Manners {
    /// Whether it asks for bodies.
    asks: bool,
    answered: Instant,
}

/// The way of messages to all gateways.
#[derive(Default)]
pub(super) struct Messages {
    connections: Connections<SocketAddr, HandedBody>,
    known: DashMap<SocketAddr, Manners>,
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").finish_non_exhaustive()
    }
}

impl Messages {
    /// Sends it, at most once.
    ///
    /// # Errors
    /// [`GatewayError::NotSent`] if and only if the body was never handed over.
    pub(super) async fn send(
        &self,
        at: SocketAddr,
        authorization: HeaderValue,
        call: WebhookCall,
        within: Duration,
    ) -> Result<WebhookAnswer, GatewayError> {
        let deadline = Instant::now() + within;
        let leased = self.connections.lease(at, at, 0).await;
        let mut lease = leased.map_err(|error| GatewayError::NotSent(error.to_string()))?;
        let known = self.known.get(&at).map(|manners| *manners);
        let asks = known.is_none_or(|known| known.asks && known.answered.elapsed() > RECENT);
        let headers = headers(at, authorization, &call, asks);
        let (handover, body, permission) = Handover::of(call.body, call.sent);
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(WEBHOOK);
        *request.headers_mut() = headers;
        if asks {
            let asked = permission.clone();
            hyper::ext::on_informational(&mut request, move |response| {
                if response.status() == StatusCode::CONTINUE {
                    asked.ask();
                }
            });
        } else {
            permission.grant();
        }
        let exchange = async {
            let patience = known.map_or(Patience::Grants(FIRST_ASK), |_| Patience::GivesUp(ASK));
            let response = begun(&mut lease, request, &permission, &handover, patience).await?;
            if response.status() == StatusCode::EXPECTATION_FAILED && handover.withdraw() {
                self.learn(at, Some(false));
                return Err(GatewayError::NotSent("it does not know the expectation".into()));
            }
            whole(response).await
        };
        let outcome = timeout_at(deadline, exchange).await.unwrap_or(Err(GatewayError::TimedOut));
        match outcome {
            Ok(answer) => {
                // One that was answered without its body has left a connection on which that is still expected.
                if !handover.withdraw() {
                    self.learn(at, asks.then(|| permission.was_asked()));
                    lease.give_back();
                }
                Ok(answer)
            }
            // Whether it was delivered is told by its body's fate, whatever the failure.
            Err(error) if handover.withdraw() => Err(GatewayError::NotSent(error.to_string())),
            Err(GatewayError::NotSent(why)) => Err(GatewayError::Unknown(why)),
            Err(error) => Err(error),
        }
    }

    /// Keeps in mind that it answered, and whether it asked where it could.
    fn learn(&self, at: SocketAddr, asked: Option<bool>) {
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        let now = Instant::now();
        let mut manners = self.known.entry(at).or_insert(Manners { asks: true, answered: now });
        manners.answered = now;
        manners.asks = asked.unwrap_or(manners.asks);
    }
}

/// What becomes of a body that is not asked for in this time.
#[derive(Clone, Copy)]
enum Patience {
    /// It is sent: the server may know no expectations.
    Grants(Duration),
    /// It is not: the server does know them, and does not read.
    GivesUp(Duration),
}

/// Sends the request, and gives the beginning of the answer.
async fn begun(
    lease: &mut Lease<HandedBody>,
    request: Request<HandedBody>,
    permission: &Permission,
    handover: &Handover,
    patience: Patience,
) -> Result<Response<Incoming>, GatewayError> {
    let sending = lease.sender.try_send_request(request);
    tokio::pin!(sending);
    let (Patience::Grants(limit) | Patience::GivesUp(limit)) = patience;
    let response = tokio::select! {
        response = &mut sending => response,
        () = sleep(limit), if !permission.is_given() => {
            if !permission.is_given() {
                match patience {
                    Patience::Grants(_) => permission.grant(),
                    Patience::GivesUp(_) if handover.withdraw() => {
                        return Err(GatewayError::NotSent("it does not read".into()));
                    }
                    Patience::GivesUp(_) => {}
                }
            }
            sending.await
        }
    };
    response.map_err(|error| GatewayError::Unknown(chain(error.error())))
}

/// The whole answer, if it is no longer than one may be.
async fn whole(response: Response<Incoming>) -> Result<WebhookAnswer, GatewayError> {
    let (head, mut body) = response.into_parts();
    let kind = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).map(ToOwned::to_owned);
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| GatewayError::Unknown(chain(&error)))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > LONGEST {
            return Err(GatewayError::Garbage(format!("{} with more than {LONGEST} bytes", head.status)));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(WebhookAnswer { status: head.status.as_u16(), content_type: kind, body: bytes.freeze() })
}

fn headers(at: SocketAddr, authorization: HeaderValue, call: &WebhookCall, asks: bool) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    if let Ok(host) = HeaderValue::try_from(at.to_string()) {
        headers.insert(header::HOST, host);
    }
    headers.insert(header::AUTHORIZATION, authorization);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if asks {
        headers.insert(header::EXPECT, HeaderValue::from_static("100-continue"));
    }
    let (id, traceparent) = (call.request_id.as_deref(), call.traceparent.as_deref());
    let session = call.session.as_ref().map(SessionName::as_str);
    for (name, value) in [(REQUEST_ID, id), (TRACEPARENT, traceparent), (SESSION, session)] {
        // A caller's odd tracing header is not worth its message.
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
    }
    headers
}
