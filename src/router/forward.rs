//! One request to one cell, and its answer back.
//!
//! ```text
//! a place ─► a connection ─► send ─► answer begins: streamed from here on, or two ends of a WebSocket joined
//!    └─ full    └─ none: certainly not sent   └─ lost: it may have been carried out, and is not sent again
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Request, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::answer::Answer;
use super::fleet::{Fleet, Place};
use super::metrics::{Figures, Outcome};
use super::way::CELL_HEADER;
use crate::domain::Cell;
use crate::http::{Code, Problem};
use crate::proxy::{is_websocket, remove_hop_by_hop, strip_connection, tunnel};
use crate::zeroclaw::client::connections::Lease;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// When a cell that is away may be back: a Pod is started again in seconds.
const AWAY_RETRY_SECS: u64 = 2;
/// Connections that turn out to be closed when they are used; each try takes another one, the last a new one.
const TRIES: u32 = 4;

/// How requests are passed on.
pub(super) struct Road {
    pub(super) fleet: Fleet,
    pub(super) figures: Figures,
    /// How long a cell may take until its answer begins.
    pub(super) answer_within: Duration,
    /// How long nothing may move in an answer or a WebSocket.
    pub(super) idle: Duration,
    pub(super) closing: CancellationToken,
}

/// The beginning of an answer.
pub(super) struct Received {
    cell: Cell,
    response: http::Response<Incoming>,
    lease: Lease<Body>,
    place: Place,
    idle: Duration,
    until: BoxFuture<'static, ()>,
}

/// Why there is none.
pub(super) enum Failure {
    /// Certainly nothing was done: here is the request again.
    Away(Box<Request<Body>>, Box<Problem>),
    /// It may have been carried out.
    Lost(Box<Problem>),
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Away(_, problem) | Failure::Lost(problem) => *problem,
        }
    }
}

impl Road {
    /// Sends a request, at most once, and counts how it went.
    pub(super) async fn send(&self, cell: Cell, request: Request<Body>) -> Result<Received, Failure> {
        let sent = self.send_once(cell, request).await;
        let outcome = match &sent {
            Ok(_) => Outcome::Answered,
            Err(Failure::Away(..)) => Outcome::Unavailable,
            Err(Failure::Lost(_)) => Outcome::Failed,
        };
        self.figures.count(cell, outcome);
        sent
    }

    async fn send_once(&self, cell: Cell, mut request: Request<Body>) -> Result<Received, Failure> {
        let Some(place) = self.fleet.enter(cell) else {
            return Err(Failure::Away(Box::new(request), Box::new(full(cell))));
        };
        let mut why = String::new();
        for _ in 0..TRIES {
            let mut lease = match self.fleet.connect(cell).await {
                Ok(lease) => lease,
                Err(why) => return Err(Failure::Away(Box::new(request), Box::new(away(cell, &why)))),
            };
            let sent = tokio::select! {
                biased;
                sent = timeout(self.answer_within, lease.send(request)) => sent,
                () = self.fleet.gone(cell) => return Err(lost(cell, "it does not answer its checks any more")),
            };
            match sent {
                Ok(Ok(response)) => {
                    let until = self.until(cell);
                    return Ok(Received { cell, response, lease, place, idle: self.idle, until });
                }
                Ok(Err(mut error)) => match error.take_message() {
                    Some(unsent) => {
                        request = unsent;
                        why = error.into_error().to_string();
                    }
                    None => return Err(lost(cell, &error.into_error().to_string())),
                },
                Err(_elapsed) => {
                    let secs = self.answer_within.as_secs();
                    return Err(lost(cell, &format!("it did not begin to answer within {secs} s")));
                }
            }
        }
        Err(Failure::Away(Box::new(request), Box::new(away(cell, &why))))
    }

    /// Sends what every cell would answer alike to the first of these that is there.
    pub(super) async fn send_to_any(
        &self,
        cells: impl Iterator<Item = Cell>,
        mut request: Request<Body>,
    ) -> Result<Received, Failure> {
        let mut first = None;
        for cell in cells {
            match self.send(cell, request).await {
                Err(Failure::Away(unsent, problem)) => {
                    request = *unsent;
                    first.get_or_insert(problem);
                }
                sent => return sent,
            }
        }
        let problem = first.unwrap_or_else(|| Box::new(Problem::new(Code::CellUnavailable, "There are no cells.")));
        Err(Failure::Away(Box::new(request), problem))
    }

    /// What ends a stream that would else go on for ever.
    fn until(&self, cell: Cell) -> BoxFuture<'static, ()> {
        let (gone, closing) = (self.fleet.gone(cell), self.closing.clone());
        Box::pin(async move {
            tokio::select! {
                () = gone => {}
                () = closing.cancelled() => {}
            }
        })
    }
}

impl Received {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The answer for the caller, who may have asked for another protocol.
    pub(super) fn into_response(self, caller: Option<OnUpgrade>) -> Response {
        let Self { cell, mut response, lease, place, idle, until } = self;
        let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let there = upgraded.then(|| hyper::upgrade::on(&mut response));
        let (mut head, body) = response.into_parts();
        head.version = Version::HTTP_11;
        remove_hop_by_hop(&mut head.headers);
        match (there, caller) {
            (Some(there), Some(caller)) => {
                upgrade(&mut head.headers);
                lease.release();
                tunnel::open(caller, there, tunnel::Bounds { place, idle, pace: None }, until);
                Response::from_parts(head, Body::empty())
            }
            (Some(_), None) => failed(cell, "it changed the protocol although nobody asked it to").into_response(),
            (None, _) => {
                let kind = head.headers.get(header::CONTENT_TYPE);
                let events = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
                Response::from_parts(head, Body::new(Answer::new(body, lease, place, idle, until, events)))
            }
        }
    }
}

/// The request as a cell gets it: the same, but for what belongs to the connection, and who calls.
pub(super) fn outbound(parts: &Parts, peer: Option<SocketAddr>, request_id: &str) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = parts.method.clone();
    if let Some(target) = parts.uri.path_and_query() {
        *request.uri_mut() = Uri::from(target.clone());
    }
    let mut headers = parts.headers.clone();
    strip_connection(&mut headers);
    // Answered by our own server, when the cell reads the body.
    headers.remove(header::EXPECT);
    headers.remove(CELL_HEADER);
    if let Some(host) = parts.uri.authority().and_then(|host| HeaderValue::try_from(host.as_str()).ok()) {
        headers.insert(header::HOST, host);
    }
    if let Ok(id) = HeaderValue::try_from(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    forwarded_for(&mut headers, peer);
    if is_websocket(&parts.method, parts.version, &parts.headers) {
        upgrade(&mut headers);
    }
    *request.headers_mut() = headers;
    request
}

fn upgrade(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

/// Puts who calls at the end of the list, which is what a cell looks at. A proxy on this machine has put it there itself.
fn forwarded_for(headers: &mut HeaderMap, peer: Option<SocketAddr>) {
    let Some(peer) = peer.map(|peer| peer.ip().to_canonical()) else { return };
    if peer.is_loopback() && headers.contains_key(FORWARDED_FOR) {
        return;
    }
    if let Ok(peer) = HeaderValue::try_from(peer.to_string()) {
        headers.append(FORWARDED_FOR, peer);
    }
}

fn away(cell: Cell, why: &str) -> Problem {
    Problem::new(Code::CellUnavailable, format!("Cell {cell} does not answer: {why}. Nothing was done."))
        .with("cell", cell.number())
        .retry_after(AWAY_RETRY_SECS)
}

fn full(cell: Cell) -> Problem {
    Problem::new(Code::Overloaded, format!("Too many requests to cell {cell} are open."))
        .with("cell", cell.number())
        .retry_after(AWAY_RETRY_SECS)
}

fn lost(cell: Cell, why: &str) -> Failure {
    Failure::Lost(Box::new(failed(cell, why)))
}

fn failed(cell: Cell, why: &str) -> Problem {
    let detail = format!("Cell {cell} ended the request without an answer: {why}. It may have been carried out.");
    Problem::new(Code::CellFailed, detail).with("cell", cell.number())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(target: &str, headers: &[(&'static str, &'static str)], peer: &str) -> Request<()> {
        let mut request = Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        outbound(&request.body(()).unwrap().into_parts().0, peer.parse().ok(), "r-1")
    }

    #[test]
    fn headers_of_the_connection_stay_here_and_the_rest_goes_on() {
        let request = sent(
            "https://zeroone.test/api/agents?limit=1",
            &[
                ("host", "other.test"),
                ("authorization", "Bearer k"),
                ("connection", "close, x-hop"),
                ("x-hop", "1"),
                ("keep-alive", "1"),
                ("upgrade", "h2c"),
                ("expect", "100-continue"),
                ("zeroone-cell", "1"),
                ("cookie", "a=b"),
            ],
            "192.0.2.1:9",
        );
        assert_eq!(request.uri(), "/api/agents?limit=1");
        let headers = request.headers();
        for gone in ["connection", "x-hop", "keep-alive", "upgrade", "expect", "zeroone-cell"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        for (name, value) in
            [("host", "zeroone.test"), ("authorization", "Bearer k"), ("cookie", "a=b"), ("x-request-id", "r-1")]
        {
            assert_eq!(headers[name], value);
        }
    }

    #[test]
    fn the_last_address_is_the_callers_whatever_it_claims() {
        let list = |claimed: &[(&'static str, &'static str)], peer| {
            let request = sent("/", claimed, peer);
            let all = request.headers().get_all(FORWARDED_FOR).iter().map(|value| value.to_str().unwrap().to_owned());
            all.collect::<Vec<_>>().join("; ")
        };
        let claim = [("x-forwarded-for", "198.51.100.7")];
        assert_eq!(list(&[], "192.0.2.1:9"), "192.0.2.1");
        assert_eq!(list(&claim, "192.0.2.1:9"), "198.51.100.7; 192.0.2.1");
        assert_eq!(list(&claim, "127.0.0.1:9"), "198.51.100.7", "the proxy of this machine knows it");
        assert_eq!(list(&[], "[::ffff:127.0.0.1]:9"), "127.0.0.1");
    }

    #[test]
    fn a_websocket_stays_one() {
        let upgrade = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "k")];
        let request = sent("/api/agents/1/gateway/ws", &upgrade, "127.0.0.1:9");
        assert_eq!(
            (&request.headers()["connection"], &request.headers()["upgrade"]),
            (&HeaderValue::from_static("Upgrade"), &HeaderValue::from_static("websocket"))
        );
        assert_eq!(request.headers()["sec-websocket-key"], "k");
    }
}
