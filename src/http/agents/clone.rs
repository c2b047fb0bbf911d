//! A second agent like one that is there.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;

use super::create::{accepted, reserve};
use super::{AgentDetail, OwnedAgent};
use crate::control::NewAgent;
use crate::domain::{Credentials, Patch, Slug, SpecPatch};
use crate::http::body::Optional;
use crate::http::idempotency::Reserved;
use crate::http::problem::{FieldError, Problem};
use crate::http::state::Api;

/// What the new agent is called.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CloneBody {
    /// By default that of the agent.
    #[schema(min_length = 1, max_length = 50)]
    name: Option<String>,
    /// By default one made from the name.
    slug: Option<String>,
}

/// A new agent with this one's configuration, key, workspace and memory. Its channels are left out: two agents cannot share
/// one bot.
#[utoipa::path(
    post, path = "/api/agents/{id}/clone", tag = "agents",
    params(("id" = uuid::Uuid, Path)),
    request_body = CloneBody,
    responses((status = 202, body = AgentDetail, headers(("Location" = String), ("ETag" = String))))
)]
pub async fn clone(
    state: State<Api>,
    own: OwnedAgent,
    reserved: Option<Extension<Reserved>>,
    body: Optional<CloneBody>,
) -> Result<Response, Problem> {
    let CloneBody { name, slug } = body.0;
    let slug = slug.map(|slug| Slug::parse(&slug)).transpose();
    let slug = slug.map_err(|remedy| Problem::invalid(vec![FieldError::at("/slug", remedy)]))?;
    let patch = SpecPatch { name: name.map_or(Patch::Keep, Patch::Set), ..SpecPatch::default() };
    let spec = patch.like(&own.view.record.spec)?.spec;
    let mut new = NewAgent { slug, ..NewAgent::new(spec, Credentials::default()) };
    reserve(&mut new, reserved);
    let agent = own.handle.duplicate(new).await?;
    accepted(&state, &own.caller, &agent)
}
