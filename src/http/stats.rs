//! `GET /api/agents/{id}/stats`.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use tokio::time::{MissedTickBehavior, interval};

use super::agents::OwnedAgent;
use super::params::Params;
use super::problem::Problem;
use super::schema::shown;
use super::sse;
use super::state::Api;

/// Time between two samples of a stream.
const EVERY: Duration = Duration::from_secs(2);

/// What the agent uses now; with `stream` a sample every two seconds while it runs.
#[utoipa::path(
    get, path = "/api/agents/{id}/stats", tag = "agents",
    params(("id" = uuid::Uuid, Path), ("stream" = Option<bool>, Query, description = "Server-sent events `usage`")),
    responses((status = 200, content((shown::Usage = "application/json"), (String = "text/event-stream"))))
)]
pub async fn stats(
    state: State<Api>,
    own: OwnedAgent,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Problem> {
    let stream = params.boolean("stream") || sse::is_wanted(&headers);
    params.finish()?;
    if !stream {
        return Ok(Json(own.handle.usage().await?).into_response());
    }
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let samples = unfold((own.handle.clone(), ticks), |(agent, mut ticks)| async move {
        loop {
            ticks.tick().await;
            // Gone, so there is nothing to come; one that is only down may come up again.
            agent.view()?;
            if let Ok(usage) = agent.usage().await {
                return Some((sse::event("usage", &usage), (agent, ticks)));
            }
        }
    });
    sse::answer(&state, &own.caller, samples)
}
