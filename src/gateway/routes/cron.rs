//! `/api/cron`: the agent's timetable.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::on_disk;
use crate::domain::Timestamp;
use crate::gateway::auth::Paired;
use crate::gateway::body::Limited;
use crate::gateway::cron::{CronError, NewJob};
use crate::gateway::reply::Refusal;
use crate::gateway::shared::App;

const EXPECTED: &str = "Invalid JSON body. Expected: {\"schedule\": \"30 9 * * *\", \"command\": \"...\", \
                        \"name\": \"...\", \"tz\": \"Europe/Zurich\"}";

pub(super) async fn list(_: Paired, State(app): State<App>) -> Result<Json<Value>, Refusal> {
    let jobs = on_disk(&app, |app| app.cron.list()).await?.map_err(refuse)?;
    Ok(Json(json!({ "jobs": jobs })))
}

pub(super) async fn add(_: Paired, State(app): State<App>, body: Limited) -> Result<Json<Value>, Refusal> {
    let new: NewJob = body.json(EXPECTED)?;
    let job = on_disk(&app, move |app| app.cron.add(new, Timestamp::now())).await?.map_err(refuse)?;
    Ok(Json(json!({ "status": "ok", "job": job })))
}

pub(super) async fn remove(_: Paired, State(app): State<App>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    let found = on_disk(&app, move |app| app.cron.remove(&id)).await?.map_err(refuse)?;
    if found { Ok(Json(json!({ "status": "ok" }))) } else { Err(Refusal::NotFound) }
}

fn refuse(error: CronError) -> Refusal {
    match error {
        CronError::Schedule(_) | CronError::TooMany | CronError::Command => Refusal::Unusable(error.to_string()),
        CronError::Disk(_) | CronError::Broken => {
            tracing::error!(error = &error as &dyn std::error::Error, "cron failed");
            Refusal::Failed("The timetable cannot be read or saved; see the log")
        }
    }
}
