//! `/api/admin/orphans`: what the runtime has of this installation and no agent claims.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::agents::accepted;
use super::body::JsonBody;
use super::guard::Admitted;
use super::params::{Params, page_of};
use super::problem::{Code, FieldError, Problem};
use super::state::Api;
use crate::control::{CreateError, Orphan, OrphanError};
use crate::domain::{AgentId, Origin, Problems, Timestamp, UserId};
use crate::runtime::InstanceState;

/// When an engine that is away may be back.
const RETRY_SECS: u64 = 5;

/// An instance that belongs to no agent.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrphanInstance {
    /// Of the agent that it had, and will have once it is adopted.
    #[schema(value_type = uuid::Uuid)]
    id: AgentId,
    slug: String,
    /// `created`, `starting`, `running`, `paused`, `ending`, `exited` or `unreachable`.
    #[schema(value_type = String)]
    state: &'static str,
    /// The engine's own name for it: a container's id, a pid.
    engine_id: String,
    /// Whether this service deleted its agent. Else the agent is newer than the store, as after the restore of a backup.
    deleted_here: bool,
    /// What it tells of the agent that it had; null where it does not.
    origin: Option<OrphanOrigin>,
}

/// What an instance tells of its agent.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrphanOrigin {
    name: String,
    /// Whose it was.
    #[schema(value_type = uuid::Uuid)]
    user_id: UserId,
    /// Their address, while there is such a user.
    email: Option<String>,
    provider: String,
    model: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrphanPage {
    data: Vec<OrphanInstance>,
    next_cursor: Option<String>,
}

/// What to do with one.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrphanBody {
    /// Its id, as the list has it.
    #[schema(required = true, value_type = Option<uuid::Uuid>)]
    id: Option<String>,
    /// `adopt`: it is an agent again; its data is used as it is, and secrets are missing. `remove`: it goes, with its data.
    #[schema(required = true)]
    action: Option<String>,
    /// Who gets it, by `adopt`: the user whom it names by default.
    #[schema(value_type = Option<uuid::Uuid>)]
    user: Option<String>,
}

enum Action {
    Adopt(Option<UserId>),
    Remove,
}

/// Instances of this installation that belong to no agent, by id. Some are adopted or removed by the service itself, as
/// `[reconcile] orphans` says.
#[utoipa::path(
    get, path = "/api/admin/orphans", tag = "admin",
    params(
        ("limit" = Option<u8>, Query, minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query)
    ),
    responses((status = 200, body = OrphanPage))
)]
pub async fn list_orphans(state: State<Api>, mut params: Params) -> Result<Json<OrphanPage>, Problem> {
    let (limit, after) = (params.limit(), params.cursor::<AgentId>());
    params.finish()?;
    let (seen, next_cursor) = page_of(state.plane.orphaned().await?, after, limit, |seen| seen.key.agent);
    let mut data = Vec::with_capacity(seen.len());
    for seen in seen {
        data.push(OrphanInstance::of(&state, state.plane.describe_orphan(seen).await?));
    }
    Ok(Json(OrphanPage { data, next_cursor }))
}

/// Adopts or removes an instance that belongs to no agent.
#[utoipa::path(
    post, path = "/api/admin/orphans", tag = "admin",
    request_body = OrphanBody,
    responses(
        (status = 202, body = super::agents::AgentDetail, description = "Adopted: the agent", headers(("Location" = String))),
        (status = 204, description = "Removed, with its data")
    )
)]
pub async fn settle_orphan(
    state: State<Api>,
    caller: Admitted,
    body: JsonBody<OrphanBody>,
) -> Result<Response, Problem> {
    let (id, action) = body.0.check()?;
    let _turn = state.turn().await?;
    match action {
        Action::Adopt(user) => accepted(&state, &caller.0, &state.plane.adopt_orphan(id, user).await?),
        Action::Remove => {
            state.plane.remove_orphan(id).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
    }
}

impl OrphanInstance {
    fn of(api: &Api, Orphan { seen, origin, deleted_here }: Orphan) -> Self {
        Self {
            id: seen.key.agent,
            slug: seen.key.slug.to_string(),
            state: state_of(&seen.state),
            engine_id: seen.engine_id,
            deleted_here,
            origin: origin.map(|origin| OrphanOrigin::of(api, &origin)),
        }
    }
}

impl OrphanOrigin {
    fn of(api: &Api, origin: &Origin) -> Self {
        Self {
            name: origin.spec.name.clone(),
            user_id: origin.user,
            email: api.plane.accounts().user(origin.user).map(|user| user.email),
            provider: origin.spec.provider.to_string(),
            model: origin.spec.model.clone(),
            created_at: origin.created_at,
        }
    }
}

const fn state_of(state: &InstanceState) -> &'static str {
    match state {
        InstanceState::Created => "created",
        InstanceState::Starting(_) => "starting",
        InstanceState::Running(_) => "running",
        InstanceState::Paused(_) => "paused",
        InstanceState::Ending(_) => "ending",
        InstanceState::Exited(_) => "exited",
        InstanceState::Unreachable(_) => "unreachable",
    }
}

impl OrphanBody {
    fn check(self) -> Result<(AgentId, Action), Problem> {
        let mut problems = Problems::default();
        let no_id = |_| "must be a UUID".to_owned();
        let id = self.id.ok_or_else(|| "is required".to_owned());
        let id = id.and_then(|id| id.parse::<AgentId>().map_err(no_id));
        let user = self.user.map(|user| user.parse::<UserId>().map_err(no_id)).transpose();
        let (id, user) = (problems.keep("/id", id), problems.keep("/user", user).flatten());
        let action = match self.action.as_deref() {
            Some("adopt") => Ok(Action::Adopt(user)),
            Some("remove") => Ok(Action::Remove),
            Some(_) => Err("must be adopt or remove".to_owned()),
            None => Err("is required: adopt or remove".to_owned()),
        };
        match (id, problems.keep("/action", action)) {
            (Some(id), Some(action)) if problems.is_empty() => Ok((id, action)),
            _ => Err(problems.into()),
        }
    }
}

impl From<OrphanError> for Problem {
    fn from(error: OrphanError) -> Self {
        let user = |detail: &str| Self::invalid(vec![FieldError::at("/user", detail)]);
        match error {
            OrphanError::NotFound => Self::not_found(),
            OrphanError::NoOwner => user("is required: the instance does not tell whose it is"),
            OrphanError::Create(CreateError::NoSuchUser) => user("must be a user who is there and active"),
            OrphanError::NotHeld => {
                let detail = "Another service takes care of this installation's agents; ask it.";
                Self::new(Code::RuntimeUnavailable, detail).retry_after(RETRY_SECS)
            }
            OrphanError::Create(error) => error.into(),
            OrphanError::Runtime(error) => error.into(),
            OrphanError::Store(error) => error.into(),
        }
    }
}
