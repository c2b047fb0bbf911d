//! The HTTP surface: which path is whose.

mod chat;
mod config;
mod cron;
mod dashboard;
mod doctor;
mod events;
mod integrations;
mod memory;
mod openai;
mod pair;
mod session_api;
mod sessions;
mod status;
mod webhook;
mod webhook_stream;

use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{delete, get, post};

use super::front;
use super::incoming;
use super::reply::Refusal;
use super::shared::App;

/// The lines of the start banner.
pub(super) const SUMMARY: &[&str] = &[
    "POST /pair      — pair a new client (X-Pairing-Code header)",
    "POST /webhook   — {\"message\": \"your prompt\"}",
    "POST /api/chat  — {\"message\": \"...\", \"context\": [...]}",
    "POST /v1/chat/completions, /v1/responses — OpenAI-compatible",
    "GET  /api/*     — REST API (bearer token required)",
    "GET  /ws/chat   — WebSocket agent chat",
    "GET  /health    — health check",
    "GET  /metrics   — Prometheus metrics",
];

pub(super) fn router(app: App) -> Router {
    Router::new()
        .route("/health", get(status::health))
        .route("/metrics", get(status::metrics))
        .route("/pair", post(pair::pair))
        .route("/api/pairing/initiate", post(pair::initiate))
        .route("/admin/paircode/new", post(pair::by_command))
        .route("/webhook", post(webhook::webhook))
        .route("/whatsapp", get(incoming::whatsapp_verify).post(incoming::whatsapp))
        .route("/github", post(incoming::github))
        .route("/nextcloud-talk", post(incoming::nextcloud_talk))
        .route("/slack", post(incoming::slack))
        .route("/v1/models", get(openai::models))
        .route("/v1/models/{*id}", get(openai::model))
        .route("/v1/chat/completions", post(openai::chat_completions))
        .route("/v1/responses", post(openai::responses))
        .route("/ws/chat", get(sessions::websocket))
        .route("/api/chat", post(chat::chat))
        .route("/api/status", get(status::status))
        .route("/api/health", get(status::components))
        .route("/api/config", get(config::show).put(config::replace))
        .route("/api/tools", get(integrations::tools))
        .route("/api/cli-tools", get(integrations::cli_tools))
        .route("/api/integrations", get(integrations::integrations))
        .route("/api/doctor", get(doctor::doctor).post(doctor::doctor))
        .route("/api/memory", get(memory::list).post(memory::store))
        .route("/api/memory/{key}", delete(memory::forget))
        .route("/api/cron", get(cron::list).post(cron::add))
        .route("/api/cron/{id}", delete(cron::remove))
        .route("/api/cost", get(status::cost))
        .route("/api/sessions", get(session_api::list))
        .route("/api/sessions/{id}", get(session_api::messages).delete(session_api::delete))
        .route("/api/sessions/{id}/messages", get(session_api::messages))
        .route("/api/events", get(events::events))
        .route("/_app/{file}", get(dashboard::asset))
        .fallback(dashboard::fallback)
        .layer(middleware::from_fn_with_state(app.clone(), front::check))
        .layer(middleware::from_fn_with_state(app.clone(), count))
        .with_state(app)
}

async fn count(State(app): State<App>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = match request.method().as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        _ => "other",
    };
    let response = next.run(request).await;
    app.metrics.request(route.as_ref().map(MatchedPath::as_str), method, response.status().as_u16());
    response
}

/// Gives work that must not take long as long as a request may.
///
/// # Errors
/// [`Refusal::Failed`]; the work is dropped.
async fn in_time<T>(app: &App, work: impl Future<Output = T>) -> Result<T, Refusal> {
    let limit = Duration::from_secs(app.config().gateway.request_timeout_secs);
    tokio::time::timeout(limit, work).await.map_err(|_| Refusal::Failed("The work took too long"))
}

/// Does what blocks on the disk where it keeps nobody waiting.
async fn on_disk<T: Send + 'static>(app: &App, work: impl FnOnce(&App) -> T + Send + 'static) -> Result<T, Refusal> {
    let app = app.clone();
    tokio::task::spawn_blocking(move || work(&app)).await.map_err(|_| Refusal::Failed("The work was interrupted"))
}
