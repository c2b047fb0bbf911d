//! `POST /api/agents`.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::{AgentDetail, answer};
use crate::accounts::Caller;
use crate::control::{AgentHandle, NewAgent};
use crate::domain::{AgentId, AppliedPatch, Credentials, SpecPatch};
use crate::http::body::JsonBody;
use crate::http::guard::Admitted;
use crate::http::idempotency::Reserved;
use crate::http::problem::{Code, Problem};
use crate::http::provider_urls;
use crate::http::state::Api;

/// What a new agent is to be: the patch that is applied to the defaults.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct NewAgentBody(SpecPatch);

/// Fields without a default.
const REQUIRED: [&str; 3] = ["name", "provider", "model"];

impl PartialSchema for NewAgentBody {
    fn schema() -> RefOr<Schema> {
        let mut schema = SpecPatch::schema();
        if let RefOr::T(Schema::Object(fields)) = &mut schema {
            fields.required.extend(REQUIRED.map(str::to_owned));
        }
        schema
    }
}

impl ToSchema for NewAgentBody {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        SpecPatch::schemas(schemas);
    }
}

/// Creates an agent. The deployment goes on in the background.
#[utoipa::path(
    post, path = "/api/agents", tag = "agents",
    request_body = NewAgentBody,
    responses((status = 202, body = AgentDetail, headers(("Location" = String), ("ETag" = String))))
)]
pub async fn create(
    state: State<Api>,
    caller: Admitted,
    reserved: Option<Extension<Reserved>>,
    body: JsonBody<NewAgentBody>,
) -> Result<Response, Problem> {
    let mut new = body.0.check()?;
    reserve(&mut new, reserved);
    provider_urls::check(&state, &new.spec).await?;
    let _turn = state.turn().await?;
    let agent = state.plane.create_agent(caller.0.user, new).await?;
    accepted(&state, &caller.0, &agent)
}

/// Gives the agent the id that a retry will look for.
pub(super) fn reserve(new: &mut NewAgent, reserved: Option<Extension<Reserved>>) {
    if let Some(Extension(Reserved { agent, claim })) = reserved {
        new.id = agent;
        new.idempotency = Some(claim);
    }
}

/// The answer to the creation of an agent that is there already.
pub fn created(api: &Api, caller: &Caller, agent: AgentId) -> Option<Response> {
    let agent = api.plane.agent(agent).ok_or_else(Problem::not_found);
    Some(agent.and_then(|agent| accepted(api, caller, &agent)).into_response())
}

/// The same for an agent that was to be made with data. One that was cut short is removed: then it is to be made again.
pub fn brought_in(api: &Api, caller: &Caller, agent: AgentId) -> Option<Response> {
    let agent = api.plane.agent(agent)?;
    let answer = if agent.is_being_imported() {
        let why = "What is left of the first try is being removed. Try again in a second.";
        Err(Problem::new(Code::InProgress, why).retry_after(1))
    } else {
        accepted(api, caller, &agent)
    };
    Some(answer.into_response())
}

pub fn accepted(api: &Api, caller: &Caller, agent: &AgentHandle) -> Result<Response, Problem> {
    let mut response = answer(StatusCode::ACCEPTED, api, caller, agent)?;
    if let Ok(location) = HeaderValue::try_from(format!("/api/agents/{}", agent.id())) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

impl NewAgentBody {
    pub(super) fn check(self) -> Result<NewAgent, Problem> {
        let AppliedPatch { spec, api_key, channels, slug, .. } = self.0.create()?;
        let credentials =
            Credentials { api_key: api_key.into_value(), channels: channels.into_value().unwrap_or_default() };
        Ok(NewAgent { slug, ..NewAgent::new(spec, credentials) })
    }
}
