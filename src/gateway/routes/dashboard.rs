//! The page at `/`, and what is answered where nothing else is.

use axum::extract::Path;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};

use crate::gateway::reply::Refusal;

const PAGE: Asset = Asset { kind: "text/html; charset=utf-8", content: include_str!("dashboard/index.html") };
const SCRIPT: Asset = Asset { kind: "text/javascript; charset=utf-8", content: include_str!("dashboard/app.js") };
const CHAT: Asset = Asset { kind: "text/javascript; charset=utf-8", content: include_str!("dashboard/chat.js") };
const DOM: Asset = Asset { kind: "text/javascript; charset=utf-8", content: include_str!("dashboard/dom.js") };
const STYLE: Asset = Asset { kind: "text/css; charset=utf-8", content: include_str!("dashboard/style.css") };
/// The page loads and runs its own files only, and connects to this gateway only.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws: wss:; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'",
);

struct Asset {
    kind: &'static str,
    content: &'static str,
}

/// `GET /_app/{file}`.
pub(super) async fn asset(Path(file): Path<String>) -> Response {
    match file.as_str() {
        "app.js" => SCRIPT.respond(),
        "chat.js" => CHAT.respond(),
        "dom.js" => DOM.respond(),
        "style.css" => STYLE.respond(),
        _ => Refusal::NotFound.into_response(),
    }
}

/// Any GET is the page, as in ZeroClaw, but one that asks an API: a program cannot read a page.
pub(super) async fn fallback(method: Method, uri: Uri) -> Response {
    let below = |root| uri.path().strip_prefix(root).is_some_and(|rest: &str| rest.is_empty() || rest.starts_with('/'));
    match method {
        Method::GET | Method::HEAD if below("/api") || below("/v1") => Refusal::NotFound.into_response(),
        Method::GET | Method::HEAD => PAGE.respond(),
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

impl Asset {
    fn respond(&self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(self.kind)),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        ];
        (headers, self.content).into_response()
    }
}
