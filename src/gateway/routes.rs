//! The HTTP surface: which path is whose.

mod pair;
mod status;
mod webhook;

use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};

use super::reply::Refusal;
use super::shared::App;

/// The lines of the start banner.
pub(super) const SUMMARY: &[&str] = &[
    "POST /pair      — pair a new client (X-Pairing-Code header)",
    "POST /webhook   — {\"message\": \"your prompt\"}",
    "GET  /api/*     — REST API (bearer token required)",
    "GET  /health    — health check",
];

pub(super) fn router(app: App) -> Router {
    Router::new()
        .route("/health", get(status::health))
        .route("/pair", post(pair::pair))
        .route("/webhook", post(webhook::webhook))
        .route("/api/status", get(status::status))
        .with_state(app)
}

/// Gives the work as long as a request may take.
///
/// # Errors
/// [`Refusal::TookTooLong`]; the work is dropped.
async fn in_time<T>(app: &App, work: impl Future<Output = T>) -> Result<T, Refusal> {
    let limit = Duration::from_secs(app.config().gateway.request_timeout_secs);
    tokio::time::timeout(limit, work).await.map_err(|_| Refusal::TookTooLong)
}
