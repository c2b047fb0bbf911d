//! `start`, `stop`, `restart` and `DELETE`: idempotent, answered when stored, done in the background.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::time::{Instant, sleep};

use super::etag::if_match;
use super::{AgentDetail, OwnedAgent, answer};
use crate::control::{AgentHandle, CommandError, CommandOutcome};
use crate::http::body::EmptyBody;
use crate::http::error::stale;
use crate::http::problem::Problem;
use crate::http::state::Api;

/// How long the answer to a deletion waits for its end.
const DELETED_WITHIN: Duration = Duration::from_secs(30);
/// How long a command is repeated whose actor was rebuilt in the middle of it.
const UP_WITHIN: Duration = Duration::from_secs(2);
const UP_POLL: Duration = Duration::from_millis(10);

/// Starts a stopped or failed agent.
#[utoipa::path(
    post, path = "/api/agents/{id}/start", tag = "agents",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 202, body = AgentDetail), (status = 200, body = AgentDetail, description = "Was running already"))
)]
pub async fn start(state: State<Api>, own: OwnedAgent, _: EmptyBody) -> Result<Response, Problem> {
    let _turn = state.turn().await?;
    let outcome = Command::Start.settle(&own.handle).await?;
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
    let outcome = Command::Stop.settle(&own.handle).await?;
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
    let outcome = Command::Restart.settle(&own.handle).await?;
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
        let command = Command::Delete { if_generation: wanted };
        match command.settle(&own.handle).await {
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

#[derive(Debug, Clone, Copy)]
enum Command {
    Start,
    Stop,
    Restart,
    Delete { if_generation: Option<u64> },
}

impl Command {
    /// Repeats a command whose outcome is unknown because its actor crashed; commands may be repeated.
    async fn settle(self, agent: &AgentHandle) -> Result<CommandOutcome, CommandError> {
        let deadline = Instant::now() + UP_WITHIN;
        loop {
            match self.send(agent).await {
                Err(CommandError::Unknown(_)) if Instant::now() < deadline => sleep(UP_POLL).await,
                outcome => return outcome,
            }
        }
    }

    async fn send(self, agent: &AgentHandle) -> Result<CommandOutcome, CommandError> {
        match self {
            Self::Start => agent.start().await,
            Self::Stop => agent.stop().await,
            Self::Restart => agent.restart().await,
            Self::Delete { if_generation: Some(generation) } => agent.delete_if(generation).await,
            Self::Delete { if_generation: None } => agent.delete().await,
        }
    }
}
