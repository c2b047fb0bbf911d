//! Which pages of other origins may call the API from a browser. None, unless configured.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowHeaders, CorsLayer};

/// How long a browser may remember the answer to a preflight.
const MAX_AGE: Duration = Duration::from_secs(600);

/// Keys go in a header that a page must have been given; cookies are never allowed along.
pub fn layer(origins: &[String]) -> Option<CorsLayer> {
    let origins: Vec<HeaderValue> = origins.iter().filter_map(|origin| HeaderValue::try_from(origin).ok()).collect();
    if origins.is_empty() {
        return None;
    }
    let name = HeaderName::from_static;
    let shown = [
        header::ETAG,
        header::LOCATION,
        header::RETRY_AFTER,
        name("idempotent-replayed"),
        name("preference-applied"),
        name("ratelimit-limit"),
        name("ratelimit-remaining"),
        name("ratelimit-reset"),
        name("x-request-id"),
    ];
    Some(
        CorsLayer::new()
            .allow_origin(origins)
            .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::PUT, Method::DELETE])
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(shown)
            .max_age(MAX_AGE),
    )
}
