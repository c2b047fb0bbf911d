//! The outermost layer: gives every request its id, its span and its log line, catches panics, writes problems.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, OriginalUri, Request};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tracing::{Instrument, Level, Span};
use uuid::{NoContext, Uuid};

use super::problem::{self, Code, Problem};
use super::state::Api;
use crate::accounts::Caller;
use crate::domain::{KeyId, UserId};
use crate::forwarded::{Network, client_address};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Names and values together; every client's headers fit into a fraction of it.
const MAX_HEADERS: usize = 32 * 1024;
/// Routes by which messages reach agents.
const MESSAGES: [&str; 3] = ["/api/agents/{id}/message", "/v1/chat/completions", "/v1/responses"];
/// Where there is no route.
const UNMATCHED: Cow<'static, str> = Cow::Borrowed("unmatched");
/// In routes of what is passed on to agents.
const PASSED_ON: &str = "/gateway/";
/// Short beside the wait that a client is told, long beside the work of a refusal.
const REFUSAL_PAUSE: Duration = Duration::from_millis(250);
/// Longer ids are no ids.
const MAX_REQUEST_ID: usize = 128;

/// The request's id and trace, for logs and for the calls that it leads to.
#[derive(Debug, Clone)]
pub struct Trace {
    pub request_id: String,
    pub traceparent: Option<String>,
}

/// The address that the request came from.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// What is wrong with a request before any route is looked at; found where the connection is known.
#[derive(Debug, Clone, Copy)]
pub struct BadRequest(pub &'static str);

/// The address that the request came from, under our own listener or under `axum::serve` with `ConnectInfo`.
pub fn peer_of(extensions: &Extensions) -> Option<SocketAddr> {
    let ours = extensions.get::<Peer>().map(|peer| peer.0);
    ours.or_else(|| extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0))
}

/// The address of whoever is at the other end: for it failures are counted, and it is in the audit.
pub fn address_of(extensions: &Extensions) -> Option<IpAddr> {
    seen(extensions)?.address
}

/// The path below which an embedder has nested the router; empty where it is not nested.
pub fn prefix_of(extensions: &Extensions) -> &str {
    seen(extensions).map_or("", |seen| &seen.prefix)
}

/// What was noted of a request when it came.
pub fn seen(extensions: &Extensions) -> Option<&Arc<Seen>> {
    extensions.get()
}

/// A proxy on this machine is trusted in any case.
fn client_of(peer: SocketAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_proxy = |at: IpAddr| at.is_loopback() || trusted.iter().any(|network| network.contains(at));
    client_address(peer.ip(), headers, is_proxy)
}

/// What a request's log lines are found by. Of what is passed on to agents there are none at the usual level, so that this is
/// a debug span there: it costs a seventh of all that such a request does.
macro_rules! request_span {
    ($level:expr, $seen:expr) => {
        tracing::span!(
            $level, "request", id = %$seen.trace.request_id, method = %$seen.method, path = %shown(&$seen.path()),
            user = tracing::field::Empty, key = tracing::field::Empty
        )
    };
}

/// What is known of a request before anybody has looked into it: for the log, the figures, the audit and the handlers. It is
/// among the extensions of every request that goes through the router.
#[derive(Debug)]
pub struct Seen {
    began: Instant,
    pub trace: Trace,
    pub method: Method,
    pub uri: Uri,
    /// Below which the router is nested.
    pub prefix: String,
    /// The pattern, not the path: ids would make a time series each.
    route: Option<Cow<'static, str>>,
    meant_for: MeantFor,
    /// Whoever is at the other end, behind the proxies that are trusted.
    pub address: Option<IpAddr>,
    /// Where the connection comes from.
    pub peer: Option<SocketAddr>,
    bad: Option<BadRequest>,
}

/// Whose business a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MeantFor {
    Us,
    /// A message to an agent.
    Model,
    /// Passed on to an agent's gateway.
    Gateway,
}

impl MeantFor {
    /// By the route, without the path below which the router is nested.
    fn of(route: &str) -> Self {
        if MESSAGES.contains(&route) {
            Self::Model
        } else if route.contains(PASSED_ON) {
            Self::Gateway
        } else {
            Self::Us
        }
    }
}

/// Whose request failed, for the log line of one without a span.
#[derive(Debug, Clone, Copy)]
pub struct Whose {
    user: UserId,
    key: Option<KeyId>,
}

impl Whose {
    pub const fn of(caller: &Caller) -> Self {
        Self { user: caller.user, key: caller.key }
    }
}

impl Seen {
    /// A request that the router has matched, or found no route for.
    pub fn routed(api: &Api, request: &Request) -> Arc<Self> {
        let route = request.extensions().get::<MatchedPath>();
        let route: Option<Cow<'static, str>> = route.map(|route| Cow::Owned(route.as_str().to_owned()));
        let (peer, bad) = (peer_of(request.extensions()), request.extensions().get::<BadRequest>().copied());
        let prefix = nested_below(request);
        let ours = route.as_deref().and_then(|route| route.strip_prefix(prefix.as_str()));
        let meant_for = ours.map_or(MeantFor::Us, MeantFor::of);
        Arc::new(Self { route, prefix, meant_for, ..Self::of(api, request, peer, bad) })
    }

    /// What was noted of the request when it came.
    pub fn noted(api: &Api, request: &Request) -> Arc<Self> {
        seen(request.extensions()).map_or_else(|| Self::routed(api, request), Arc::clone)
    }

    /// A request whose route is known without the router.
    pub fn direct(
        api: &Api,
        request: &Request,
        (route, meant_for): (&'static str, MeantFor),
        (peer, bad): (Peer, Option<BadRequest>),
    ) -> Arc<Self> {
        Arc::new(Self { route: Some(route.into()), meant_for, ..Self::of(api, request, Some(peer.0), bad) })
    }

    fn of(api: &Api, request: &Request, peer: Option<SocketAddr>, bad: Option<BadRequest>) -> Self {
        Self {
            began: Instant::now(),
            trace: Trace::of(request.headers()),
            method: request.method().clone(),
            uri: request.uri().clone(),
            prefix: String::new(),
            route: None,
            meant_for: MeantFor::Us,
            address: peer.map(|peer| client_of(peer, request.headers(), &api.options.trusted_proxies)),
            peer,
            bad,
        }
    }

    /// The route's pattern, where there is a route.
    pub fn matched(&self) -> Option<&str> {
        self.route.as_deref()
    }

    /// As the client knows it.
    fn path(&self) -> Cow<'_, str> {
        if self.prefix.is_empty() {
            self.uri.path().into()
        } else {
            format!("{}{}", self.prefix, self.uri.path()).into()
        }
    }

    fn is_message(&self) -> bool {
        self.meant_for == MeantFor::Model
    }

    /// Whether it is for an agent and not for us.
    fn is_passed_on(&self) -> bool {
        self.meant_for != MeantFor::Us
    }

    fn span(&self) -> Span {
        if self.is_passed_on() { request_span!(Level::DEBUG, self) } else { request_span!(Level::INFO, self) }
    }

    /// One line for each request: failures at WARN with their cause, changes at INFO, reads and what is passed on to agents
    /// at DEBUG. Its span says whose it is.
    fn log(&self, response: &Response, took: Duration, has_span: bool) {
        let (status, took_ms) = (response.status(), took.as_millis());
        let (code, cause) = response.extensions().get::<Problem>().map_or(("", ""), Problem::cause);
        if status.is_server_error() {
            let line = || tracing::warn!(status = status.as_u16(), took_ms, code, cause, "the request failed");
            if has_span { line() } else { self.late_span(response).in_scope(line) }
        } else if self.method.is_safe() || self.is_passed_on() {
            tracing::debug!(status = status.as_u16(), took_ms, code, "answered");
        } else {
            tracing::info!(status = status.as_u16(), took_ms, code, "answered");
        }
    }

    /// The span of a request that had none.
    fn late_span(&self, response: &Response) -> Span {
        let span = request_span!(Level::INFO, self);
        if let Some(whose) = response.extensions().get::<Whose>() {
            tracing::record_all!(span, user = %whose.user, key = whose.key.map(display));
        }
        span
    }
}

/// Answers a request by `answer`, and does what every request needs. It is in a box because each future would else hold it twice.
pub async fn observe<F: Future<Output = Response>>(
    api: &Api,
    seen: &Seen,
    request: Box<Request>,
    answer: impl FnOnce(Box<Request>) -> F,
) -> Response {
    let span = seen.span();
    // Pinned where they are made: whatever waits for them would else copy them into itself.
    let answered = pin!(async move {
        if size(request.headers()) > MAX_HEADERS {
            Problem::new(Code::HeadersTooLarge, format!("Send at most {MAX_HEADERS} bytes of headers.")).into_response()
        } else if let Some(BadRequest(why)) = seen.bad {
            Problem::new(Code::Malformed, why).into_response()
        } else {
            let answering = pin!(answer(request));
            match AssertUnwindSafe(answering).catch_unwind().await {
                Ok(response) => response,
                Err(_) => panicked(),
            }
        }
    });
    let response = answered.instrument(span.clone()).await;
    let took = seen.began.elapsed();
    span.in_scope(|| seen.log(&response, took, !span.is_disabled()));
    let route = seen.route.clone().unwrap_or(UNMATCHED);
    api.metrics.count(&seen.method, route, response.status(), took);
    if let Some(pause) = pause(&response) {
        tokio::time::sleep(pause).await;
    }
    if seen.method == Method::POST && seen.is_message() {
        api.metrics.message(response.extensions().get::<Problem>().map_or("answered", |problem| problem.cause().0));
    }
    let mut response = match response.extensions().get::<Problem>() {
        Some(_) => render(response, &seen.path(), &seen.trace),
        None => response,
    };
    below(&seen.prefix, response.headers_mut());
    if let Ok(id) = HeaderValue::try_from(&seen.trace.request_id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// How long a refusal for too many requests is held back. Whoever asks again at once, on each of a thousand connections, would
/// else keep the service busy with nothing but refusals, and everybody else waiting behind them.
fn pause(response: &Response) -> Option<Duration> {
    // An agent's own refusals are passed on as they come.
    let ours = response.extensions().get::<Problem>().is_some();
    (ours && response.status() == StatusCode::TOO_MANY_REQUESTS).then_some(REFUSAL_PAUSE)
}

/// What the path had in front before the embedder's router took it away.
fn nested_below(request: &Request) -> String {
    let original = request.extensions().get::<OriginalUri>().map_or("", |uri| uri.0.path());
    original.strip_suffix(request.uri().path()).unwrap_or_default().to_owned()
}

/// Puts the prefix in front of a location of ours.
fn below(prefix: &str, headers: &mut HeaderMap) {
    if prefix.is_empty() {
        return;
    }
    let location = headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
    if let Some(location) = location.filter(|location| location.starts_with('/'))
        && let Ok(location) = HeaderValue::try_from(format!("{prefix}{location}"))
    {
        headers.insert(header::LOCATION, location);
    }
}

/// What is answered after a panic. Its message is in the log, by the panic hook; it never goes to a client.
pub fn panicked() -> Response {
    tracing::error!("a handler panicked");
    Problem::new(Code::Internal, "The service failed inside.").into_response()
}

/// Gives a problem its body; other answers stay as they are.
pub fn render(mut response: Response, path: &str, trace: &Trace) -> Response {
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return response };
    let (body, media_type) = if path.starts_with("/v1/") {
        (problem.openai_body(), "application/json")
    } else {
        (problem.body(path, &trace.request_id), problem::MEDIA_TYPE)
    };
    *response.body_mut() = body.to_string().into();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    // Set for the empty body that was there before.
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response
}

pub async fn no_such_path() -> Problem {
    Problem::not_found()
}

pub async fn no_such_method(method: Method, headers: HeaderMap) -> Problem {
    let preflight = method == Method::OPTIONS && headers.contains_key(header::ORIGIN);
    Problem::new(
        Code::MethodNotAllowed,
        if preflight {
            "Pages of other origins may not call this service from a browser (CORS); see `cors_origins` in [server]."
        } else {
            "The header Allow lists the methods of this path."
        },
    )
}

impl Trace {
    pub fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| is_request_id(id));
        Self {
            request_id: given.map_or_else(new_id, ToOwned::to_owned),
            traceparent: headers
                .get(TRACEPARENT)
                .and_then(|parent| parent.to_str().ok())
                .filter(|parent| is_traceparent(parent))
                .map(ToOwned::to_owned),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Trace {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(seen(&parts.extensions).map_or_else(|| Self::of(&parts.headers), |seen| seen.trace.clone()))
    }
}

/// An id that the client did not give. Written without the formatter, which at every request is more work than the id; and not
/// strictly in order, for which all threads would have to agree.
fn new_id() -> String {
    Uuid::new_v7(uuid::Timestamp::now(NoContext)).hyphenated().encode_lower(&mut Uuid::encode_buffer()).to_owned()
}

fn is_request_id(id: &str) -> bool {
    (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
}

/// `00-<32 hex>-<16 hex>-<2 hex>`, W3C Trace Context.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    lengths == [2, 32, 16, 2] && parts.iter().all(|part| part.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A path as it is logged: no longer than those of ours.
fn shown(path: &str) -> &str {
    path.get(..200).unwrap_or(path)
}

fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_speak_for_others() {
        let trusted: Vec<Network> = vec!["10.0.0.0/8".parse().unwrap()];
        for (peer, list, seen) in [
            ("192.0.2.1:1", Some("198.51.100.7"), "192.0.2.1"),
            ("127.0.0.1:1", None, "127.0.0.1"),
            ("127.0.0.1:1", Some("192.0.2.9, 198.51.100.7"), "198.51.100.7"),
            ("[::1]:1", Some("nonsense"), "::1"),
            ("[::ffff:127.0.0.1]:1", Some("198.51.100.7:4711"), "198.51.100.7"),
            ("10.3.2.1:1", Some("198.51.100.7"), "198.51.100.7"),
            // An Ingress before the router of cells: both are ours.
            ("10.3.2.1:1", Some("192.0.2.9, 198.51.100.7, 10.0.0.2"), "198.51.100.7"),
        ] {
            let mut headers = HeaderMap::new();
            headers
                .extend(list.map(|list| (HeaderName::from_static("x-forwarded-for"), HeaderValue::from_static(list))));
            let client = client_of(peer.parse().unwrap(), &headers, &trusted);
            assert_eq!(client, seen.parse::<IpAddr>().unwrap(), "{peer} {list:?}");
        }
    }

    /// What `write` leaves in the log at the usual level.
    #[cfg(feature = "cli")]
    fn logged(write: impl FnOnce()) -> Vec<serde_json::Value> {
        let (read, written) = std::io::pipe().unwrap();
        let writer = std::sync::Mutex::new(written);
        let subscriber = tracing_subscriber::fmt().json().with_writer(writer).finish();
        tracing::subscriber::with_default(subscriber, write);
        std::io::read_to_string(read).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_request_is_meant_for_an_agent_or_for_us_by_its_route() {
        for (route, meant_for) in [
            ("/api/agents/{id}/message", MeantFor::Model),
            ("/v1/chat/completions", MeantFor::Model),
            ("/v1/responses", MeantFor::Model),
            ("/v1/models", MeantFor::Us),
            ("/api/agents/{id}/gateway/{*path}", MeantFor::Gateway),
            ("/api/agents/{id}/gateway/", MeantFor::Gateway),
            ("/api/agents/{id}/messages", MeantFor::Us),
            ("/api/agents/{id}", MeantFor::Us),
        ] {
            assert_eq!(MeantFor::of(route), meant_for, "{route}");
        }
    }

    #[cfg(feature = "cli")]
    #[test]
    fn a_failure_is_told_with_whose_it_is_also_without_a_span() {
        let seen = Seen {
            began: Instant::now(),
            trace: Trace { request_id: "r-1".into(), traceparent: None },
            method: Method::POST,
            uri: Uri::from_static("/api/agents/1/message"),
            prefix: "/zeroone".into(),
            route: None,
            meant_for: MeantFor::Us,
            address: None,
            peer: None,
            bad: None,
        };
        let user = UserId::new();
        let lines = logged(|| {
            let mut failed = Problem::new(Code::Internal, "it broke").into_response();
            seen.log(&failed, Duration::ZERO, false);
            failed.extensions_mut().insert(Whose { user, key: None });
            seen.log(&failed, Duration::ZERO, false);
            seen.log(&failed, Duration::ZERO, true);
        });
        let span = |line: &serde_json::Value| line["span"].clone();
        let known = serde_json::json!({
            "name": "request", "id": "r-1", "method": "POST", "path": "/zeroone/api/agents/1/message"
        });
        assert_eq!(span(&lines[0]), known, "before anybody was let in");
        assert_eq!(span(&lines[1])["user"], user.to_string());
        assert_eq!(span(&lines[2]), serde_json::Value::Null, "whoever has a span is in it already");
        assert!(lines.iter().all(|line| line["level"] == "WARN" && line["fields"]["code"] == "internal"), "{lines:?}");
    }

    #[test]
    fn only_refusals_of_our_own_are_held_back() {
        assert_eq!(pause(&Problem::new(Code::RateLimited, "wait").into_response()), Some(REFUSAL_PAUSE));
        assert_eq!(pause(&Problem::new(Code::Unauthorized, "no").into_response()), None);
        assert_eq!(pause(&StatusCode::TOO_MANY_REQUESTS.into_response()), None, "an agent's own");
        assert_eq!(pause(&StatusCode::OK.into_response()), None);
    }

    #[test]
    fn only_valid_ids_and_traces_are_taken_over() {
        for (id, valid) in [("abc-1", true), ("", false), ("a b", false), ("é", false), (&"a".repeat(129), false)] {
            assert_eq!(is_request_id(id), valid, "{id:?}");
        }
        assert!(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for malformed in ["", "00", "00-x-y-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x"] {
            assert!(!is_traceparent(malformed), "{malformed:?}");
        }
    }
}
