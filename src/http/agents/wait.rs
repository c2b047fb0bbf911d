//! `GET /api/agents/{id}/wait`.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::{AgentDetail, OwnedAgent, answer_with};
use crate::control::WaitError;
use crate::domain::Status;
use crate::http::params::Params;
use crate::http::problem::Problem;
use crate::http::redact::Secrets;
use crate::http::state::Api;

const DEFAULT_SECS: u64 = 60;
const MAX_SECS: u64 = 300;

/// Waits until the agent has one of the statuses.
#[utoipa::path(
    get, path = "/api/agents/{id}/wait", tag = "agents",
    params(
        ("id" = uuid::Uuid, Path),
        ("status" = Option<String>, Query, description = "Statuses by comma, RUNNING by default"),
        ("timeout" = Option<u16>, Query, description = "Seconds, 60 by default", minimum = 1, maximum = 300)
    ),
    responses((status = 200, body = AgentDetail))
)]
pub async fn wait(state: State<Api>, own: OwnedAgent, mut params: Params) -> Result<Response, Problem> {
    let mut statuses = params.statuses("status");
    let secs = params.number("timeout", DEFAULT_SECS, 1..=MAX_SECS);
    params.finish()?;
    if statuses.is_empty() {
        statuses.push(Status::Running);
    }
    let _counted = state.open_stream(&own.caller)?;
    let waiting = own.handle.wait(&statuses, Duration::from_secs(secs));
    let view = tokio::select! {
        reached = waiting => reached.map_err(|error| unreached(&own, error))?,
        // The service goes down, or the key no longer works.
        () = state.over(own.caller.clone()) => return Err(crate::http::error::overloaded()),
    };
    answer_with(StatusCode::OK, &state, &own.caller, &own.handle, &view)
}

/// Why the status was not reached: what `explain` says of the agent now.
fn unreached(own: &OwnedAgent, error: WaitError) -> Problem {
    let why = own.handle.explain().map(|explanation| Secrets::of(&own.handle).mask(explanation.sentence()));
    let problem = Problem::from(error);
    match why {
        Some(why) => problem.because(&why),
        None => problem,
    }
}
