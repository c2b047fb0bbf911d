//! The bearer token of a request.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

use super::reply::Refusal;
use super::shared::App;

/// Proof that the caller is paired, or that pairing is off. Taken before the body, so that a stranger's is never read.
pub(super) struct Paired;

impl FromRequestParts<App> for Paired {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        let token = bearer(&parts.headers).unwrap_or_default();
        if app.pairing.accepts(token) { Ok(Self) } else { Err(Refusal::Unauthorized) }
    }
}

/// `Bearer` is case-sensitive, as it is in ZeroClaw.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}
