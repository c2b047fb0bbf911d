//! `/api/agents`: the records and the commands.

mod check;
mod clone;
mod command;
mod create;
mod etag;
mod export;
mod import;
mod own;
mod patch;
mod record;
mod upgrade;
mod wait;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

pub use check::{__path_check, ListModels, check};
pub use clone::{__path_clone, clone};
pub use command::{__path_delete, __path_restart, __path_start, __path_stop, delete, restart, start, stop};
pub use create::{__path_create, accepted, brought_in, create, created};
pub use export::{__path_export, export};
pub use import::{__path_import, import};
pub use own::OwnedAgent;
pub use patch::{__path_patch, patch};
pub use record::{AgentDetail, AgentSummary};
pub use upgrade::{__path_upgrade, upgrade};
pub use wait::{__path_wait, wait};

use super::guard::Admitted;
use super::params::{Params, cursor};
use super::problem::Problem;
use super::state::Api;
use crate::accounts::Caller;
use crate::control::AgentHandle;
use crate::domain::UserId;
use crate::view::AgentView;

/// A page of agents.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentPage {
    data: Vec<AgentSummary>,
    /// Where the next page begins.
    next_cursor: Option<String>,
}

/// The caller's agents, oldest first.
#[utoipa::path(
    get, path = "/api/agents", tag = "agents",
    params(
        ("limit" = Option<u8>, Query, description = "Agents in a page, 1 to 200", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
        ("status" = Option<String>, Query, description = "Only these statuses, by comma"),
        ("search" = Option<String>, Query, description = "Only those with this in their name, slug or model, whatever its case")
    ),
    responses((status = 200, body = AgentPage))
)]
pub async fn list(state: State<Api>, caller: Admitted, params: Params) -> Result<Json<AgentPage>, Problem> {
    page(&state, Some(caller.0.user), params).map(Json)
}

/// One user's agents, or everyone's.
pub fn page(api: &Api, user: Option<UserId>, mut params: Params) -> Result<AgentPage, Problem> {
    let (limit, after, statuses) = (params.limit(), params.cursor(), params.statuses("status"));
    let search = params.text("search").unwrap_or_default().to_lowercase();
    params.finish()?;
    let wanted = |view: &AgentView| (statuses.is_empty() || statuses.contains(&view.status())) && found(view, &search);
    let page = api.plane.agents_where(user, after, limit, wanted);
    let data = page.agents.iter().map(|view| AgentSummary::of(api, view)).collect();
    Ok(AgentPage { data, next_cursor: page.next.map(cursor) })
}

/// Whether what people call the agent, or its model, has these words in it.
fn found(view: &AgentView, search: &str) -> bool {
    let record = &view.record;
    let texts = [record.spec.name.as_str(), record.slug.as_str(), record.spec.model.as_str()];
    search.is_empty() || texts.iter().any(|text| text.to_lowercase().contains(search))
}

/// An agent.
#[utoipa::path(
    get, path = "/api/agents/{id}", tag = "agents",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = AgentDetail, headers(("ETag" = String, description = "The generation"))))
)]
pub async fn get(state: State<Api>, own: OwnedAgent) -> Result<Response, Problem> {
    answer(StatusCode::OK, &state, &own.caller, &own.handle)
}

/// The record as it is now, with its ETag.
fn answer(status: StatusCode, api: &Api, caller: &Caller, agent: &AgentHandle) -> Result<Response, Problem> {
    let view = agent.view().ok_or_else(Problem::not_found)?;
    answer_with(status, api, caller, agent, &view)
}

/// The record as this view has it, with its ETag.
fn answer_with(
    status: StatusCode,
    api: &Api,
    caller: &Caller,
    agent: &AgentHandle,
    view: &AgentView,
) -> Result<Response, Problem> {
    let detail = AgentDetail::of(api, caller, agent, view);
    let mut response = (status, Json(detail)).into_response();
    response.headers_mut().insert(header::ETAG, etag(view)?);
    Ok(response)
}

/// The record's strong entity tag: its generation.
fn etag(view: &AgentView) -> Result<HeaderValue, Problem> {
    HeaderValue::try_from(format!("\"{}\"", view.record.state.generation)).map_err(|_| Problem::not_found())
}
