//! `/api/cron`: the agent's jobs.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::on_disk;
use crate::domain::Timestamp;
use crate::gateway::auth::Paired;
use crate::gateway::body::Limited;
use crate::gateway::jobs::{JobError, NewJob};
use crate::gateway::memory::Owner;
use crate::gateway::persona;
use crate::gateway::reply::Refusal;
use crate::gateway::shared::App;

const EXPECTED: &str = "Invalid JSON body. Expected: {\"command\": \"...\"} and one of {\"schedule\": \"30 9 * * *\"}, \
                        {\"at\": \"2026-12-24T18:00\"}, {\"in\": \"10 minutes\"}, {\"every\": \"90 minutes\"}; also \"name\", \
                        \"tz\", \"once\", \"expires_at\", \"catch_up\", \"delete_after_run\", \"deliver\"";

pub(super) async fn list(_: Paired, State(app): State<App>) -> Result<Json<Value>, Refusal> {
    let jobs = on_disk(&app, |app| app.jobs.list()).await?.map_err(refuse)?;
    Ok(Json(json!({ "jobs": jobs })))
}

pub(super) async fn add(_: Paired, State(app): State<App>, body: Limited) -> Result<Json<Value>, Refusal> {
    let new: NewJob = body.json(EXPECTED)?;
    let floor = app.config().cron.min_interval_secs;
    let add = move |app: &App| {
        let zone = persona::zone(&app.config(), app.workspace());
        app.jobs.add(new, &zone, &Owner::client(), Timestamp::now())
    };
    let job = on_disk(&app, add).await?.map_err(refuse)?;
    let mut answer = json!({ "status": "ok", "job": job });
    let shortest = job.when.shortest_interval(Timestamp::now());
    if shortest.is_some_and(|shortest| shortest.as_secs() < i64::from(floor)) {
        answer["warning"] =
            format!("it runs every {floor} seconds at most; [cron] min_interval_secs changes that").into();
    }
    Ok(Json(answer))
}

pub(super) async fn remove(_: Paired, State(app): State<App>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    let found = on_disk(&app, move |app| app.jobs.remove(&id)).await?.map_err(refuse)?;
    if found { Ok(Json(json!({ "status": "ok" }))) } else { Err(Refusal::NotFound) }
}

fn refuse(error: JobError) -> Refusal {
    match error {
        JobError::When(_) | JobError::TooMany | JobError::Command | JobError::Expired | JobError::TooOften(_) => {
            Refusal::Unusable(error.to_string())
        }
        JobError::Disk(_) | JobError::Broken => {
            tracing::error!(error = &error as &dyn std::error::Error, "cron failed");
            Refusal::Failed("The jobs cannot be read or saved; see the log")
        }
    }
}
