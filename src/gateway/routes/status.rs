//! How the gateway is doing: `/health`, `/metrics`, `/api/status`, `/api/health`, `/api/cost`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::on_disk;
use crate::gateway::agent::today;
use crate::gateway::auth::Paired;
use crate::gateway::client::Client;
use crate::gateway::exposition;
use crate::gateway::front;
use crate::gateway::reply::Refusal;
use crate::gateway::shared::App;

/// Open to all: says that the gateway lives, and nothing that is worth stealing.
pub(super) async fn health(State(app): State<App>) -> Json<Value> {
    Json(json!({
        "status": "ok",
        "paired": app.pairing.is_paired(),
        "require_pairing": app.pairing.required(),
        "runtime": app.health.snapshot(),
    }))
}

/// For a paired client, and for a scraper on this machine.
pub(super) async fn metrics(
    State(app): State<App>,
    client: Client,
    headers: HeaderMap,
    paired: Result<Paired, Refusal>,
) -> Result<Response, Refusal> {
    // A page of another server can make its own name mean this machine, and would be local then.
    let local_name = front::is_own_host(&app.config().gateway, &headers);
    if !local_name || !client.address.to_canonical().is_loopback() {
        paired?;
    }
    let text = app.metrics.render(app.health.snapshot().uptime_seconds);
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    Ok(match exposition::in_form(accept, text) {
        Some((kind, text)) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        None => StatusCode::NOT_ACCEPTABLE.into_response(),
    })
}

pub(super) async fn status(_: Paired, State(app): State<App>) -> Json<Value> {
    let config = app.config();
    let health = app.health.snapshot();
    let channels: BTreeMap<&str, bool> = config.channels_config.present().into_iter().collect();
    Json(json!({
        "provider": config.provider(),
        "model": config.default_model,
        "temperature": config.default_temperature,
        "uptime_seconds": health.uptime_seconds,
        "gateway_port": config.gateway.port,
        "locale": "en",
        "memory_backend": app.memory.name(),
        "paired": app.pairing.is_paired(),
        "channels": channels,
        "health": health,
    }))
}

pub(super) async fn components(_: Paired, State(app): State<App>) -> Json<Value> {
    Json(json!({ "health": app.health.snapshot() }))
}

pub(super) async fn cost(_: Paired, State(app): State<App>) -> Result<Json<Value>, Refusal> {
    let cost = on_disk(&app, |app| app.costs.summary(&today())).await?;
    Ok(Json(json!({ "cost": cost })))
}
