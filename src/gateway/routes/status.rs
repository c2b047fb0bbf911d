//! `GET /health` and `GET /api/status`.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::gateway::auth::Paired;
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

pub(super) async fn status(_: Paired, State(app): State<App>) -> Json<Value> {
    let config = app.config();
    let health = app.health.snapshot();
    Json(json!({
        "provider": config.provider(),
        "model": config.default_model,
        "temperature": config.default_temperature,
        "uptime_seconds": health.uptime_seconds,
        "gateway_port": config.gateway.port,
        "locale": "en",
        "memory_backend": config.memory.backend.as_str(),
        "paired": app.pairing.is_paired(),
        "health": health,
    }))
}
