//! `PATCH /api/agents/{id}`: absent stays, `null` removes what may be absent.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::etag::if_match;
use super::{AgentDetail, OwnedAgent, answer};
use crate::control::{AgentPatch, CommandError};
use crate::domain::{AgentSpec, AppliedPatch, SpecPatch};
use crate::http::body::JsonBody;
use crate::http::error::stale;
use crate::http::problem::Problem;
use crate::http::provider_urls;
use crate::http::state::Api;
use crate::store::AgentRecord;

/// How often a change without If-Match is repeated because another one came first.
const MAX_RACES: usize = 8;

/// Changes an agent: an absent field stays, `null` removes what may be absent. One that runs is restarted if it must see the change.
#[utoipa::path(
    patch, path = "/api/agents/{id}", tag = "agents",
    params(("id" = uuid::Uuid, Path), ("If-Match" = Option<String>, Header, description = "ETag that the change is based on")),
    request_body = SpecPatch,
    responses((status = 200, body = AgentDetail, headers(("ETag" = String))))
)]
pub async fn patch(
    state: State<Api>,
    own: OwnedAgent,
    headers: HeaderMap,
    body: JsonBody<SpecPatch>,
) -> Result<Response, Problem> {
    let _turn = state.turn().await?;
    let mut races = 0;
    loop {
        let view = own.handle.view().ok_or_else(Problem::not_found)?;
        let generation = view.record.state.generation;
        let wanted = if_match(&headers, generation)?;
        let change = change(body.0.clone(), &view.record)?;
        let server = |spec: &AgentSpec| (spec.provider, spec.provider_url.clone());
        if let Some(spec) = change.spec.as_ref().filter(|spec| server(spec) != server(&view.record.spec)) {
            provider_urls::check(&state, spec).await?;
        }
        let change = AgentPatch { if_generation: Some(generation), ..change };
        match own.handle.update(change).await {
            Ok(_) => return answer(StatusCode::OK, &state, &own.caller, &own.handle),
            Err(CommandError::Stale) if wanted.is_some() => return Err(stale(generation)),
            Err(CommandError::Stale) if races < MAX_RACES => races += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

fn change(patch: SpecPatch, record: &AgentRecord) -> Result<AgentPatch, Problem> {
    let AppliedPatch { spec, api_key, channels, .. } = patch.change(&record.spec, record.api_key.is_some())?;
    let api_key = api_key.into_option();
    let channels = channels.into_option().map(Option::unwrap_or_default);
    Ok(AgentPatch { if_generation: None, spec: Some(spec), api_key, channels })
}
