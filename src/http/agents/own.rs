//! The agent in a request's path, if the caller may act on it.

use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;

use crate::accounts::Caller;
use crate::control::AgentHandle;
use crate::domain::{AgentId, Scope};
use crate::http::problem::Problem;
use crate::http::state::Api;
use crate::view::AgentView;

/// An agent of the caller's, or any agent for an administrator. One that does not exist, one of another user and an id that
/// is none look the same.
pub struct OwnedAgent {
    pub caller: Caller,
    pub handle: AgentHandle,
    /// As it was when the request came.
    pub view: Arc<AgentView>,
}

impl FromRequestParts<Api> for OwnedAgent {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        // By name: some routes have more parameters than this one.
        let params = RawPathParams::from_request_parts(parts, api).await.map_err(|_| Problem::not_found())?;
        let id = params.iter().find(|(name, _)| *name == "id").map(|(_, id)| id).ok_or_else(Problem::not_found)?;
        let caller = parts.extensions.get::<Caller>().cloned().ok_or_else(Problem::not_found)?;
        Self::of(api, caller, id.parse().map_err(|_| Problem::not_found())?)
    }
}

impl OwnedAgent {
    pub fn of(api: &Api, caller: Caller, id: AgentId) -> Result<Self, Problem> {
        let handle = api.plane.agent(id).ok_or_else(Problem::not_found)?;
        let may = |view: &AgentView| view.record.user == caller.user || caller.may(Scope::Admin);
        let view = handle.view().filter(|view| may(view)).ok_or_else(Problem::not_found)?;
        Ok(Self { caller, handle, view })
    }
}
