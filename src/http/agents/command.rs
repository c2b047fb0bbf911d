//! `start`, `stop`, `restart` and `DELETE`: idempotent, answered when stored, done in the background.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::etag::if_match;
use super::{AgentDetail, OwnedAgent, answer};
use crate::control::{CommandError, CommandOutcome};
use crate::http::body::EmptyBody;
use crate::http::error::stale;
use crate::http::problem::Problem;
use crate::http::state::Api;

/// How long the answer to a deletion waits for its end.
const DELETED_WITHIN: Duration = Duration::from_secs(30);

/// Starts a stopped or failed agent.
#[utoipa::path(
    post, path = "/api/agents/{id}/start", tag = "agents",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 202, body = AgentDetail), (status = 200, body = AgentDetail, description = "Was running already"))
)]
pub async fn start(state: State<Api>, own: OwnedAgent, _: EmptyBody) -> Result<Response, Problem> {
    let _turn = state.turn().await?;
    let outcome = own.handle.start().await?;
    answer(accepted(outcome), &state, &own.caller, &own.handle)
}

/// Stops an agent.
#[utoipa::path(
    post, path = "/api/agents/{id}/stop", tag = "agents",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 202, body = AgentDetail), (status = 200, body = AgentDetail, description = "Was stopped already"))
)]
pub async fn stop(state: State<Api>, own: OwnedAgent, _: EmptyBody) -> Result<Response, Problem> {
    let _turn = state.turn().await?;
    let outcome = own.handle.stop().await?;
    answer(accepted(outcome), &state, &own.caller, &own.handle)
}

/// Restarts an agent with a new pairing code and a new token.
#[utoipa::path(
    post, path = "/api/agents/{id}/restart", tag = "agents",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 202, body = AgentDetail))
)]
pub async fn restart(state: State<Api>, own: OwnedAgent, _: EmptyBody) -> Result<Response, Problem> {
    let _turn = state.turn().await?;
    let outcome = own.handle.restart().await?;
    answer(accepted(outcome), &state, &own.caller, &own.handle)
}

/// Deletes an agent with its container, data and port.
#[utoipa::path(
    delete, path = "/api/agents/{id}", tag = "agents",
    params(("id" = uuid::Uuid, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 204), (status = 202, body = AgentDetail, description = "Still going on"))
)]
pub async fn delete(state: State<Api>, own: OwnedAgent, headers: HeaderMap) -> Result<Response, Problem> {
    let generation = own.view.record.state.generation;
    let wanted = if_match(&headers, generation)?;
    {
        let _turn = state.turn().await?;
        let asked = match wanted {
            Some(generation) => own.handle.delete_if(generation).await,
            None => own.handle.delete().await,
        };
        match asked {
            // It was changed after the header was compared with what readers see.
            Err(CommandError::Stale) => {
                return Err(stale(own.handle.view().map_or(generation, |view| view.record.state.generation)));
            }
            // Another deletion was faster.
            Err(CommandError::Gone) => return Ok(StatusCode::NO_CONTENT.into_response()),
            outcome => drop(outcome?),
        }
    }
    if own.handle.gone(DELETED_WITHIN).await {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    answer(StatusCode::ACCEPTED, &state, &own.caller, &own.handle)
        .or_else(|_| Ok(StatusCode::NO_CONTENT.into_response()))
}

const fn accepted(outcome: CommandOutcome) -> StatusCode {
    match outcome {
        CommandOutcome::Accepted => StatusCode::ACCEPTED,
        CommandOutcome::Unchanged => StatusCode::OK,
    }
}
