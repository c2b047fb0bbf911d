//! One request through to a gateway, and its answer back.
//!
//! ```text
//! wait until RUNNING ──► a connection ──► send ──► answer begins: streamed from here on
//!       ▲                     │ none        │ certainly not sent
//!       └─────────────────────┴─────────────┘        otherwise: unknown, never again
//! ```

use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures_util::future::{BoxFuture, Either};
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep};

use super::Proxy;
use super::body::{Answer, Ends, Outgoing, Unusable};
use super::headers::{self, Client, Mount, SwappedProtocol};
use super::limits::{Bound, Limited, Meets as _, Place};
use super::tunnel::{self, Bounds};
use crate::control::{AgentHandle, DeliveryError, Turn};
use crate::domain::Secret;
use crate::view::Access;
use crate::zeroclaw::client::SentMark;
use crate::zeroclaw::client::connections;
use crate::zeroclaw::client::expect::Sent;
use crate::zeroclaw::client::handover::Handover;

type Lease = connections::Lease<Body>;

/// Pause before a request that could not be sent is tried again: by then a death is noticed, or the gateway is back.
const RESEND_PAUSE: Duration = Duration::from_millis(10);

/// How long a caller may send nothing of a body that is still to come, and how long all of a small one may take. Who sends
/// slowly holds a place meanwhile.
const SEND_WITHIN: Duration = Duration::from_secs(30);

/// A request on its way to an agent.
#[non_exhaustive]
pub struct Call {
    /// Whose gateway it is for.
    pub agent: AgentHandle,
    /// Method and headers as they came; an upgrade of theirs is still in the extensions.
    pub parts: Parts,
    /// Where it goes, as the gateway sees it.
    pub path: PathAndQuery,
    /// Read as the gateway takes it; a small one is read whole first.
    pub body: Body,
    /// Who calls, for the gateway's `Forwarded` headers.
    pub client: Client,
    /// Where the gateway appears to the caller.
    pub mount: Mount,
    /// How long it may wait for an agent that comes up, as a refusal tells it.
    pub hold: Duration,
    /// When that wait is over.
    pub deadline: Instant,
    /// The turn of a message among others to the agent; it ends when the message is on the wire.
    pub turn: Option<Turn>,
    /// Ends streams and WebSockets that would else go on for ever: the caller's key is revoked, or the service ends.
    pub until: BoxFuture<'static, ()>,
}

impl Call {
    /// A call that does not wait for its agent, and that nothing ends before its time.
    pub fn new(agent: AgentHandle, parts: Parts, path: PathAndQuery, body: Body, client: Client, mount: Mount) -> Self {
        let until = Box::pin(std::future::pending());
        let (hold, deadline) = (Duration::ZERO, Instant::now());
        Self { agent, parts, path, body, client, mount, hold, deadline, turn: None, until }
    }

    /// It may wait this long, from now on, for an agent that comes up.
    #[must_use]
    pub fn held_for(mut self, hold: Duration) -> Self {
        self.hold = hold;
        self.deadline = Instant::now() + hold;
        self
    }

    setters! {
        with_turn(turn: impl Into<Option<Turn>> => turn.into());
        with_until(until: BoxFuture<'static, ()>);
    }
}

/// Why a request got no answer of the gateway.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// It says whether the request was sent.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    /// Too many calls are open already. It was not sent.
    #[error(transparent)]
    Limited(#[from] Limited),
    /// The body is larger than this, in bytes ([`ProxyOptions::max_body`](super::ProxyOptions::max_body)).
    #[error("the body may have at most {0} bytes")]
    TooLarge(u64),
    /// The caller went away in the middle of the body.
    #[error("the body ended before its end")]
    BrokenBody,
    /// The caller sent nothing of the body for too long.
    #[error("the body did not arrive in time")]
    LateBody,
}

impl Proxy {
    /// Passes the request on and gives the gateway's answer, whatever its status. Dropping the future, or the answer's
    /// body before its end, cancels the call at the gateway.
    ///
    /// # Errors
    /// See [`ForwardError`].
    pub fn forward(&self, call: Call) -> impl Future<Output = Result<Response<Body>, ForwardError>> {
        // In its parts: as one thing the future would hold it twice, as what was given and as what is worked with.
        let Call { agent, mut parts, path, body, client, mount, hold, deadline, mut turn, until } = call;
        async move {
            let user = agent.owner().ok_or(DeliveryError::Gone)?;
            let guest = matches!(mount, Mount::Host { visit: false });
            let place =
                if guest { self.limits.enter_guest(agent.id())? } else { self.limits.enter(agent.id(), user)? };
            let websocket = is_websocket(&parts.method, parts.version, &parts.headers);
            let caller = websocket.then(|| parts.extensions.remove::<hyper::upgrade::OnUpgrade>()).flatten();
            let (max, idle) = (self.options.max_body, self.options.idle.min(SEND_WITHIN));
            let outgoing = if websocket {
                Ok(Outgoing::Whole(bytes::Bytes::new()))
            } else {
                Outgoing::of(body, announced(&parts.headers), max, idle).await
            };
            let unusable = |place: &Place, unusable| match unusable {
                Unusable::TooLarge => {
                    place.meets(Bound::Body);
                    ForwardError::TooLarge(max)
                }
                Unusable::Broken => ForwardError::BrokenBody,
                Unusable::Late => {
                    place.meets(Bound::Idle);
                    ForwardError::LateBody
                }
            };
            let mut outgoing = outgoing.map_err(|why| unusable(&place, why))?;
            let pace = self.options.bytes_per_sec;
            let way = Way { proxy: self, agent: &agent, deadline, hold };
            let mut refused_in = None;
            loop {
                let (access, mut lease) = way.connection(refused_in).await?;
                let Some(body) = outgoing.take() else {
                    return Err(DeliveryError::Unknown("the body was given away".into()).into());
                };
                let (head, swapped) =
                    outbound(&parts, &path, &client, &mount, (lease.host(), &access.token), websocket);
                match way.send(&mut lease, &access, (head, body), &mut turn).await {
                    Sent::Answered(response, unread)
                        if response.status() == StatusCode::UNAUTHORIZED
                            && mount.adds_token()
                            && agent.is_token_refused(&access).await =>
                    {
                        // The agent's own token was refused, the request unread: one new pairing, then once more.
                        if let Some(unsent) = unread.and_then(|unread| unread.withdraw()) {
                            outgoing.put_back(unsent);
                        }
                        if refused_in.is_some() || !outgoing.can_repeat() {
                            return Err(DeliveryError::Unauthorized.into());
                        }
                        refused_in = Some(access.attempt);
                    }
                    Sent::Answered(response, unread) => {
                        let idle = self.options.idle;
                        let onward = Onward { lease, unread, place, caller, swapped, mount, access, idle, pace, until };
                        return Ok(onward.answer(response));
                    }
                    Sent::Not(unsent, why) => {
                        tracing::debug!(why, "a request did not reach its gateway");
                        outgoing.put_back(unsent);
                        way.pause().await?;
                    }
                    Sent::Late => return Err(DeliveryError::TimedOut.into()),
                    Sent::Unknown(why) => {
                        let fault = outgoing.fault().map(|fault| unusable(&place, fault));
                        return Err(fault.unwrap_or_else(|| DeliveryError::Unknown(why).into()));
                    }
                }
            }
        }
    }
}

/// The way to one agent's gateway, with how long may be waited for it.
pub(super) struct Way<'a> {
    pub(super) proxy: &'a Proxy,
    pub(super) agent: &'a AgentHandle,
    pub(super) deadline: Instant,
    pub(super) hold: Duration,
}

impl Way<'_> {
    /// A connection to the agent as soon as it runs, of a later attempt than `after`.
    pub(super) async fn connection(&self, after: Option<u64>) -> Result<(Arc<Access>, Lease), DeliveryError> {
        loop {
            let access = self.agent.access(self.deadline, self.hold, after).await?;
            match self.proxy.connections.lease(self.agent.id(), access.endpoint, access.attempt).await {
                Ok(lease) => return Ok((access, lease)),
                Err(error) => {
                    tracing::debug!(%error, "no connection to a gateway");
                    self.pause().await?;
                }
            }
        }
    }

    /// Waits a moment for an agent that could not be reached, unless its time is over.
    pub(super) async fn pause(&self) -> Result<(), DeliveryError> {
        self.agent.report_unreachable();
        if Instant::now() >= self.deadline {
            return Err(self.agent.not_ready(self.hold));
        }
        sleep(RESEND_PAUSE).await;
        Ok(())
    }

    /// Sends a request, at most once. The turn ends when it is on the wire.
    pub(super) fn send<'a>(
        &'a self,
        lease: &'a mut Lease,
        access: &'a Access,
        (head, body): (Request<()>, Body),
        turn: &'a mut Option<Turn>,
    ) -> impl Future<Output = Sent<Body>> {
        let deadline = Instant::now() + self.proxy.options.answer_within;
        if body.is_end_stream() {
            *turn = None;
            return Either::Left(async move {
                match lease.send_until(head.map(|()| body), deadline).await {
                    Some(Ok(response)) => Sent::Answered(response, None),
                    Some(Err(mut error)) => match error.take_message() {
                        Some(request) => Sent::Not(request.into_body(), "the connection was closed".into()),
                        None => Sent::Unknown(reason(&error.into_error())),
                    },
                    None => Sent::Late,
                }
            });
        }
        Either::Right(async move {
            let (mark, expectations) = (SentMark::default(), &self.proxy.expectations);
            let request = (head, body);
            let mut sending =
                pin!(expectations.send(access.endpoint, lease, request, Body::new, mark.clone(), deadline));
            if turn.is_none() {
                return sending.await;
            }
            tokio::select! {
                biased;
                sent = sending.as_mut() => sent,
                () = mark.wait() => {
                    *turn = None;
                    sending.await
                }
            }
        })
    }
}

fn reason(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// How long the body will be, where the caller says so.
fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok())
}

/// The request as the gateway gets it.
fn outbound(
    parts: &Parts,
    path: &PathAndQuery,
    client: &Client,
    mount: &Mount,
    (host, token): (&HeaderValue, &Secret<String>),
    websocket: bool,
) -> (Request<()>, Option<SwappedProtocol>) {
    let mut request = Request::new(());
    *request.method_mut() = parts.method.clone();
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers::to_gateway(&parts.headers, client, mount, host, token);
    let headers = request.headers_mut();
    let mut path = path.clone();
    let mut swapped = None;
    if websocket {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        if mount.adds_token() {
            (path, swapped) = headers::replace_socket_token(headers, &path, token);
        }
    } else if mount.adds_token() {
        path = headers::remove_credentials(headers, &path);
    }
    *request.uri_mut() = Uri::from(path);
    (request, swapped)
}

/// What becomes of a gateway's answer.
struct Onward {
    lease: Lease,
    unread: Option<Handover<Body>>,
    place: Place,
    /// The caller's end of an upgrade.
    caller: Option<hyper::upgrade::OnUpgrade>,
    swapped: Option<SwappedProtocol>,
    mount: Mount,
    access: Arc<Access>,
    idle: Duration,
    pace: Option<NonZeroU32>,
    until: BoxFuture<'static, ()>,
}

impl Onward {
    fn answer(self, mut response: Response<Incoming>) -> Response<Body> {
        let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let gateway = upgraded.then(|| hyper::upgrade::on(&mut response));
        let (mut parts, body) = response.into_parts();
        headers::to_client(&mut parts.headers, &self.mount, self.access.endpoint);
        let (Some(gateway), Some(caller)) = (gateway, self.caller) else {
            if upgraded {
                // The gateway changed the protocol although nobody asked it to.
                parts.status = StatusCode::BAD_GATEWAY;
                return Response::from_parts(parts, Body::empty());
            }
            let events = parts
                .headers
                .get(header::CONTENT_TYPE)
                .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
            let ends = Ends { idle: self.idle, until: self.until };
            let body = Answer::new(body, self.lease, self.unread, self.place, ends, self.pace, events);
            return Response::from_parts(parts, Body::new(body));
        };
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        parts.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        if let Some(swapped) = &self.swapped {
            swapped.restore(&mut parts.headers);
        }
        self.lease.release();
        tunnel::open(caller, gateway, Bounds { place: self.place, idle: self.idle, pace: self.pace }, self.until);
        Response::from_parts(parts, Body::empty())
    }
}

/// Whether the caller asks for a WebSocket. Other upgrades are not passed on: the request goes on without them. So does one with
/// a body: a handshake has none, and its length would be taken for that of what follows on the connection.
pub fn is_websocket(method: &Method, version: Version, headers: &HeaderMap) -> bool {
    let names = |name: &header::HeaderName, wanted: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(wanted))
    };
    method == Method::GET
        && version == Version::HTTP_11
        && !headers.contains_key(header::TRANSFER_ENCODING)
        && headers.get(header::CONTENT_LENGTH).is_none_or(|length| length == "0")
        && names(&header::CONNECTION, "upgrade")
        && names(&header::UPGRADE, "websocket")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_websocket_is_asked_for_by_all_of_its_signs() {
        let asks = |method: Method, version, more: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("WebSocket"));
            for (name, value) in more {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            is_websocket(&method, version, &headers)
        };
        assert!(asks(Method::GET, Version::HTTP_11, &[]));
        assert!(asks(Method::GET, Version::HTTP_11, &[("content-length", "0")]));
        assert!(!asks(Method::POST, Version::HTTP_11, &[]));
        assert!(!asks(Method::GET, Version::HTTP_10, &[]));
        assert!(!asks(Method::GET, Version::HTTP_2, &[]));
        for more in [
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("connection", "keep-alive"),
            ("upgrade", "h2c"),
        ] {
            assert!(!asks(Method::GET, Version::HTTP_11, &[more]), "{more:?}");
        }
    }
}
