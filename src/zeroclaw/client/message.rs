//! A message on its way to `/webhook`: the one call that must never be made twice.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::answer;
use super::connections::{Connections, Lease};
use super::expect::{Expectations, Sent};
use super::handover::HandedBody;
use super::{GatewayError, WebhookAnswer, WebhookCall};
use crate::domain::SessionName;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const SESSION: HeaderName = HeaderName::from_static("x-session-id");
const WEBHOOK: &str = "/webhook";
/// A model's longest answers are some hundred kilobytes.
const LONGEST: usize = 4 * 1024 * 1024;

type Body = HandedBody<Full<Bytes>>;

/// The way of messages to all gateways.
#[derive(Default)]
pub(super) struct Messages {
    connections: Connections<SocketAddr, Body>,
    expectations: Expectations,
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
        let mut head = Request::new(());
        *head.method_mut() = Method::POST;
        *head.uri_mut() = Uri::from_static(WEBHOOK);
        *head.headers_mut() = headers(lease.host().clone(), authorization, &call);
        let message = (head, Full::new(call.body));
        match self.expectations.send(at, &mut lease, message, |body| body, call.sent, deadline).await {
            Sent::Answered(response, handover) => {
                let answer =
                    timeout_at(deadline, whole(response, &mut lease)).await.unwrap_or(Err(GatewayError::TimedOut));
                match (handover.and_then(|handover| handover.withdraw()), answer) {
                    (Some(_), Err(error)) => Err(GatewayError::NotSent(error.to_string())),
                    // One that was answered without its body has left a connection on which that is still expected.
                    (Some(_), answer) => answer,
                    (None, answer) => {
                        if answer.is_ok() {
                            lease.give_back();
                        }
                        answer
                    }
                }
            }
            Sent::Not(_, why) => Err(GatewayError::NotSent(why)),
            Sent::Unknown(why) => Err(GatewayError::Unknown(why)),
            Sent::Late => Err(GatewayError::TimedOut),
        }
    }
}

/// The whole answer, if it is no longer than one may be.
async fn whole(response: Response<Incoming>, lease: &mut Lease<Body>) -> Result<WebhookAnswer, GatewayError> {
    let (head, body) = answer::read(response, lease, LONGEST).await?;
    Ok(WebhookAnswer::of(head.status, &head.headers, body))
}

fn headers(host: HeaderValue, authorization: HeaderValue, call: &WebhookCall) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(header::HOST, host);
    headers.insert(header::AUTHORIZATION, authorization);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
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
