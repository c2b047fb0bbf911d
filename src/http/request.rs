//! The outermost layer: gives every request its id, its span and its log line, catches panics, writes problems.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tracing::Instrument;
use uuid::Uuid;

use super::problem::{self, Code, Problem};
use super::state::Api;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Names and values together; every client's headers fit into a fraction of it.
const MAX_HEADERS: usize = 32 * 1024;
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
pub struct Peer(pub std::net::SocketAddr);

pub async fn observe(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let trace = Trace::of(request.headers());
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    // The pattern, not the path: ids would make a time series each.
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", |path| path.as_str()).to_owned();
    let span = tracing::info_span!("request", id = %trace.request_id, %method, path = %shown(&path));
    request.extensions_mut().insert(trace.clone());
    let response = async {
        let response = if size(request.headers()) > MAX_HEADERS {
            Problem::new(Code::HeadersTooLarge, format!("Send at most {MAX_HEADERS} bytes of headers.")).into_response()
        } else {
            match AssertUnwindSafe(next.run(request)).catch_unwind().await {
                Ok(response) => response,
                Err(_) => panicked(),
            }
        };
        tracing::debug!(status = response.status().as_u16(), took_ms = began.elapsed().as_millis(), "answered");
        response
    }
    .instrument(span)
    .await;
    api.metrics.count(&method, &route, response.status(), began.elapsed());
    let mut response = render(response, &path, &trace);
    if let Ok(id) = HeaderValue::try_from(&trace.request_id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// What is answered after a panic. Its message is in the log, by the panic hook; it never goes to a client.
pub fn panicked() -> Response {
    tracing::error!("a handler panicked");
    Problem::new(Code::Internal, "The service failed inside.").into_response()
}

/// Gives a problem its body; other answers stay as they are.
pub fn render(mut response: Response, path: &str, trace: &Trace) -> Response {
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return response };
    let body = problem.body(path, &trace.request_id).to_string();
    *response.body_mut() = body.into();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(problem::MEDIA_TYPE));
    // Set for the empty body that was there before.
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response
}

pub async fn no_such_path() -> Problem {
    Problem::not_found()
}

pub async fn no_such_method() -> Problem {
    Problem::new(Code::MethodNotAllowed, "The header Allow lists the methods of this path.")
}

impl Trace {
    fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| is_sane(id));
        Self {
            request_id: given.map_or_else(|| Uuid::now_v7().to_string(), ToOwned::to_owned),
            traceparent: headers
                .get(TRACEPARENT)
                .and_then(|parent| parent.to_str().ok())
                .filter(|parent| is_traceparent(parent))
                .map(ToOwned::to_owned),
        }
    }
}

fn is_sane(id: &str) -> bool {
    (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
}

/// `00-<32 hex>-<16 hex>-<2 hex>`, W3C Trace Context.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    lengths == [2, 32, 16, 2] && parts.iter().all(|part| part.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A path as it is logged: long ones are nobody's.
fn shown(path: &str) -> &str {
    path.get(..200).unwrap_or(path)
}

fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// For metrics: 2xx, 4xx and so on.
pub const fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sane_ids_and_traces_are_taken_over() {
        for (id, sane) in [("abc-1", true), ("", false), ("a b", false), ("é", false), (&"a".repeat(129), false)] {
            assert_eq!(is_sane(id), sane, "{id:?}");
        }
        assert!(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for odd in ["", "00", "00-x-y-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x"] {
            assert!(!is_traceparent(odd), "{odd:?}");
        }
    }
}
