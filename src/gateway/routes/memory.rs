//! `/api/memory`: what the agent remembers.

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::in_time;
use crate::domain::Timestamp;
use crate::gateway::auth::Paired;
use crate::gateway::body::Limited;
use crate::gateway::memory::{CORE, KEY_LENGTH, Kind, MemoryError, Note, Owner};
use crate::gateway::reply::Refusal;
use crate::gateway::shared::App;

const EXPECTED: &str = "Invalid JSON body. Expected: {\"key\": \"...\", \"content\": \"...\", \"category\": \"...\"}";
/// Entries that a list and a search give.
const LIST: usize = 1_000;
const SEARCH: usize = 50;

#[derive(Deserialize)]
pub(super) struct Wanted {
    query: Option<String>,
    category: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Store {
    key: String,
    content: String,
    category: Option<String>,
}

pub(super) async fn list(
    _: Paired,
    State(app): State<App>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Value>, Refusal> {
    let category = wanted.category.as_deref();
    let entries = match &wanted.query {
        Some(query) => {
            let mut found = in_time(&app, app.memory.recall(query, None, SEARCH)).await?.map_err(failed)?;
            found.retain(|entry| category.is_none_or(|category| entry.category == category));
            found
        }
        None => in_time(&app, app.memory.list(category, LIST)).await?.map_err(failed)?,
    };
    Ok(Json(json!({ "entries": entries })))
}

pub(super) async fn store(_: Paired, State(app): State<App>, body: Limited) -> Result<Json<Value>, Refusal> {
    let store: Store = body.json(EXPECTED)?;
    if store.key.trim().is_empty() || store.key.chars().count() > KEY_LENGTH {
        return Err(Refusal::Unusable(format!("key must have 1 to {KEY_LENGTH} characters")));
    }
    let category = store.category.filter(|category| !category.is_empty()).unwrap_or_else(|| CORE.to_owned());
    let (at, owner, kind) = (Timestamp::now(), Owner::agent(), Kind::Told);
    let note = Note { key: store.key, content: store.content, category, at, owner, kind };
    in_time(&app, app.memory.store(note)).await?.map_err(failed)?;
    Ok(Json(json!({ "status": "ok" })))
}

pub(super) async fn forget(_: Paired, State(app): State<App>, Path(key): Path<String>) -> Result<Json<Value>, Refusal> {
    let deleted = in_time(&app, app.memory.forget(&key, None)).await?.map_err(failed)?;
    Ok(Json(json!({ "status": "ok", "deleted": deleted })))
}

fn failed(error: MemoryError) -> Refusal {
    tracing::error!(error = &error as &dyn std::error::Error, "memory failed");
    Refusal::Failed("The memory cannot be used; see the log")
}
