//! `GET /api/agents/{id}/incidents`: what went wrong, and how long each step back took.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use super::agents::OwnedAgent;
use super::params::{Params, cursor};
use super::problem::Problem;
use super::schema;
use crate::domain::Timestamp;
use crate::incident::{Incident, Kind, State};

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct IncidentPage {
    data: Vec<IncidentBody>,
    next_cursor: Option<String>,
}

/// One incident. The times are in order; those of start, health and pairing belong to the last attempt.
#[derive(Serialize, ToSchema)]
#[schema(as = Incident)]
#[serde(rename_all = "camelCase")]
pub struct IncidentBody {
    /// Of the timeline's entry that it was found with.
    seq: u64,
    #[schema(schema_with = schema::incident_kind)]
    cause: Kind,
    /// What exactly, as in the timeline.
    code: String,
    detail: Option<String>,
    /// Exit status of the run that ended; 128 and the signal's number for one that a signal ended.
    exit_code: Option<i32>,
    #[schema(schema_with = schema::incident_state)]
    state: State,
    /// The attempt that it ended with, or that is under way.
    attempt: u64,
    /// The first sign of it.
    #[schema(value_type = String, format = DateTime)]
    detected_at: Timestamp,
    /// When the last wait before an attempt began; nothing where it was tried at once.
    #[schema(value_type = Option<String>, format = DateTime)]
    back_off_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    started_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    healthy_at: Option<Timestamp>,
    /// RUNNING again.
    #[schema(value_type = Option<String>, format = DateTime)]
    paired_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    ended_at: Option<Timestamp>,
}

/// What went wrong with the agent and how it recovered, newest first, as far back as its timeline goes.
#[utoipa::path(
    get, path = "/api/agents/{id}/incidents", tag = "agents",
    params(
        ("id" = uuid::Uuid, Path),
        ("limit" = Option<u8>, Query, minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query)
    ),
    responses((status = 200, body = IncidentPage))
)]
pub async fn incidents(own: OwnedAgent, mut params: Params) -> Result<Json<IncidentPage>, Problem> {
    let (limit, before) = (params.limit(), params.cursor::<u64>());
    params.finish()?;
    let mut older = own.handle.incidents().await?;
    older.retain(|incident| before.is_none_or(|before| incident.seq < before));
    let mut older = older.into_iter().rev();
    let data: Vec<IncidentBody> = older.by_ref().take(limit).map(IncidentBody::from).collect();
    let next_cursor = older.next().and_then(|_| data.last().map(|last| cursor(last.seq)));
    Ok(Json(IncidentPage { data, next_cursor }))
}

impl From<Incident> for IncidentBody {
    fn from(incident: Incident) -> Self {
        let Incident { seq, kind, code, detail, exit_code, state, attempt, .. } = incident;
        let Incident { detected_at, back_off_at, started_at, healthy_at, paired_at, ended_at, .. } = incident;
        Self {
            seq,
            cause: kind,
            code,
            detail,
            exit_code,
            state,
            attempt,
            detected_at,
            back_off_at,
            started_at,
            healthy_at,
            paired_at,
            ended_at,
        }
    }
}
