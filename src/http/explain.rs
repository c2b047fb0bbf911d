//! `GET /api/agents/{id}/explain`: why it is as it is, and what can be done.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::agents::OwnedAgent;
use super::events::Entry;
use super::logs::{Line, read};
use super::problem::Problem;
use super::redact::Secrets;
use super::schema;
use super::state::Api;
use crate::domain::{Status, Timestamp};
use crate::lifecycle::Code;
use crate::store::LogEntry;

/// Lines of the log that are shown along.
const LOG_LINES: usize = 20;
/// How long the log may take; without it the rest is still worth telling.
const LOG_WITHIN: Duration = Duration::from_secs(2);
/// More than a timeline keeps.
const ALL_EVENTS: usize = 1000;

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExplanationBody {
    #[schema(schema_with = schema::status)]
    status: Status,
    because: String,
    /// What happens next by itself.
    next: String,
    #[schema(value_type = Option<String>, format = DateTime)]
    next_at: Option<Timestamp>,
    /// What can be done about it; `null` where nothing needs doing.
    remedy: Option<&'static str>,
    attempt: u64,
    restarts: u64,
    /// Since when the engine has not said anything about the instance.
    #[schema(value_type = Option<String>, format = DateTime)]
    unknown_since: Option<Timestamp>,
    /// The last time that it failed, fell back from RUNNING, or got no answer from its model.
    last_error: Option<Entry>,
    last_log_lines: Vec<Line>,
    /// The commands that would change something now.
    allowed: Vec<&'static str>,
    /// Where its user has more agents than the plan allows, after a change of the plan: they all stay, and no more can be
    /// added.
    over_limit: Option<OverLimit>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OverLimit {
    limit: u32,
    used: u32,
}

/// Why the agent is in its status, what happens next and when, and which commands are possible.
#[utoipa::path(
    get, path = "/api/agents/{id}/explain", tag = "agents",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = ExplanationBody))
)]
pub async fn explain(state: State<Api>, own: OwnedAgent) -> Result<Json<ExplanationBody>, Problem> {
    let explanation = own.handle.explain().ok_or_else(Problem::not_found)?;
    let failed = |entry: &LogEntry| match (entry.from, entry.to) {
        (_, Status::Error) | (Status::Running, Status::Starting) => true,
        _ => entry.cause == Code::ModelFailed.as_str(),
    };
    let entries = own.handle.events(0, ALL_EVENTS).await?;
    let last_error = entries.into_iter().rfind(failed).map(Entry::from);
    let secrets = Secrets::of(&own.handle);
    let lines = tokio::time::timeout(LOG_WITHIN, read(&own.handle, LOG_LINES, None)).await;
    let lines = lines.ok().and_then(Result::ok).unwrap_or_default();
    let owner = own.view.record.user;
    let (limit, used) = (state.plane.accounts().limits_of(owner).max_agents, state.plane.used(owner).await?);
    Ok(Json(ExplanationBody {
        status: explanation.status,
        because: secrets.mask(explanation.because),
        next: explanation.next,
        next_at: explanation.next_at,
        remedy: explanation.remedy,
        attempt: explanation.attempt,
        restarts: explanation.restarts,
        unknown_since: explanation.unknown_since,
        last_error,
        last_log_lines: lines.into_iter().map(|line| Line::of(line, &secrets)).collect(),
        allowed: explanation.allowed,
        over_limit: limit.filter(|limit| used > *limit).map(|limit| OverLimit { limit, used }),
    }))
}
