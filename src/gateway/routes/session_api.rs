//! `/api/sessions`: the conversations that are kept.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use crate::gateway::auth::Paired;
use crate::gateway::conversation::on_disk;
use crate::gateway::reply::Refusal;
use crate::gateway::shared::App;

const FAILED: Refusal = Refusal::Failed("The sessions cannot be read; see the log");

pub(super) async fn list(_: Paired, State(app): State<App>) -> Result<Json<Value>, Refusal> {
    let sessions = on_disk(&app, |sessions| sessions.list()).await.ok_or(FAILED)?;
    Ok(Json(json!({ "sessions": sessions })))
}

pub(super) async fn messages(
    _: Paired,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let name = id.clone();
    let messages = on_disk(&app, move |sessions| sessions.messages(&name)).await.ok_or(FAILED)?;
    if messages.is_empty() {
        return Err(Refusal::NotFound);
    }
    Ok(Json(json!({ "session_id": id, "messages": messages })))
}

pub(super) async fn delete(_: Paired, State(app): State<App>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    let name = id.clone();
    let deleted = on_disk(&app, move |sessions| sessions.delete(&name)).await.ok_or(FAILED)?;
    if deleted { Ok(Json(json!({ "deleted": true, "session_id": id }))) } else { Err(Refusal::NotFound) }
}
