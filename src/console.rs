//! The web console: pages for people, on top of the public REST API alone.
//!
//! ```text
//! browser ─► a page's shell (this module: markup, no data) ─► its ES module ─► /api/… with the session's cookie
//! ```
//! The server knows nothing of who asks for a shell: it is the same for everybody, and what is in it comes over the API,
//! which decides who may see what. Scripts and styles are files of the binary; nothing comes from elsewhere, nothing is
//! inline, and markup is never made of what users, agents or models have written.

mod assets;
mod fields;
mod layout;
mod pages;
mod providers;
mod reference;

use axum::extract::{OriginalUri, RawPathParams, Request};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use maud::Markup;
use tower_http::compression::CompressionLayer;

use self::layout::View;
use self::pages::{PAGES, Page};

/// What a page may do: run and load its own files, and talk to its own server. Markup cannot be made of text at all.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
);

/// The console, to be put beside the API: [`HttpOptions::pages`](crate::http::HttpOptions::pages).
pub fn router() -> Router {
    let pages = PAGES.iter().fold(Router::new(), |router, page| {
        let handler = move |params: RawPathParams, uri: OriginalUri, request: Request| async move {
            let id = params.iter().next().map(|(_, id)| id.parse());
            let view = |agent| view(&uri, &request, agent);
            match id {
                Some(Err(_)) => answer(StatusCode::NOT_FOUND, &pages::not_found(&view(None))),
                Some(Ok(id)) => answer(StatusCode::OK, &show(page, &view(Some(id)))),
                None => answer(StatusCode::OK, &show(page, &view(None))),
            }
        };
        router.route(page.path, routing::get(handler))
    });
    pages
        .route("/assets/{version}/{file}", routing::get(assets::asset))
        .route("/favicon.ico", routing::get(assets::icon))
        .route("/api/docs", routing::get(docs))
        // Nothing here is a secret, so that the length of what is sent may tell of it.
        .layer(CompressionLayer::new())
}

async fn docs(uri: OriginalUri, request: Request) -> Response {
    answer(StatusCode::OK, &reference::page(&view(&uri, &request, None)))
}

fn show(page: &Page, view: &View) -> Markup {
    layout::shell(view, page.title, page.module, page.frame, &(page.body)(view))
}

fn view(original: &OriginalUri, request: &Request, agent: Option<uuid::Uuid>) -> View {
    let path = request.uri().path();
    // What an embedder's router has in front.
    let base = original.path().strip_suffix(path).unwrap_or_default().to_owned();
    View { base, path: path.to_owned(), agent }
}

fn answer(status: StatusCode, page: &Markup) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        // A shell names the files of its version.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
        (
            HeaderName::from_static("permissions-policy"),
            HeaderValue::from_static("camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
        ),
    ];
    (status, headers, page.0.clone()).into_response()
}
