//! The agent in a request's path, if it is the caller's.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use crate::accounts::Caller;
use crate::control::AgentHandle;
use crate::domain::AgentId;
use crate::http::problem::Problem;
use crate::http::state::Api;
use crate::view::AgentView;

/// The caller's agent. One that does not exist, one of another user and an id that is none look the same.
pub struct Own {
    pub handle: AgentHandle,
    /// As it was when the request came.
    pub view: Arc<AgentView>,
}

impl FromRequestParts<Api> for Own {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let id = Path::<String>::from_request_parts(parts, api).await.map_err(|_| Problem::not_found())?;
        let caller = parts.extensions.get::<Caller>().ok_or_else(Problem::not_found)?;
        let handle = id.parse::<AgentId>().ok().and_then(|id| api.plane.agent(id)).ok_or_else(Problem::not_found)?;
        let view = handle.view().filter(|view| view.record.user == caller.user).ok_or_else(Problem::not_found)?;
        Ok(Self { handle, view })
    }
}
