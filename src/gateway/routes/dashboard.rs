//! The page at `/`, and what is answered where nothing else is.

use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};

use crate::gateway::reply::Refusal;

const PAGE: &str = include_str!("dashboard.html");
/// The page loads nothing and talks to nobody but this gateway.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self' ws: wss:; \
     img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// Any GET is the page, as in ZeroClaw, but one that asks an API: a program cannot read a page.
pub(in crate::gateway) async fn fallback(method: Method, uri: Uri) -> Response {
    let is_api = ["/api", "/v1"]
        .iter()
        .any(|root| uri.path().strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    match (method, is_api) {
        (Method::GET | Method::HEAD, false) => page(),
        (Method::GET | Method::HEAD, true) => Refusal::NotFound.into_response(),
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (headers, PAGE).into_response()
}
