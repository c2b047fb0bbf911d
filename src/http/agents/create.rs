//! `POST /api/agents`.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{AgentDetail, answer};
use crate::accounts::Caller;
use crate::control::{AgentHandle, NewAgent};
use crate::domain::{AgentId, AgentSpec, Channels, Credentials, Problems, Secret, Slug, SpecDraft};
use crate::http::body::JsonBody;
use crate::http::guard::Admitted;
use crate::http::idempotency::Reserved;
use crate::http::problem::Problem;
use crate::http::schema::{self, shown};
use crate::http::state::Api;

/// What an agent is to be.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewAgentBody {
    #[schema(required = true, min_length = 1, max_length = 50)]
    name: Option<String>,
    #[schema(required = true, schema_with = schema::provider)]
    provider: Option<String>,
    #[schema(required = true, min_length = 1, max_length = 200)]
    model: Option<String>,
    /// Needed by all providers but ollama.
    #[schema(value_type = Option<String>)]
    api_key: Option<Secret<String>>,
    /// Made from the name by default.
    #[schema(max_length = 40, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    slug: Option<String>,
    /// Instead of the provider's own base URL.
    provider_url: Option<String>,
    #[schema(minimum = 0, maximum = 2, default = 0.7)]
    temperature: Option<f64>,
    #[schema(default = "ZeroClaw", min_length = 1, max_length = 50)]
    agent_name: Option<String>,
    user_name: Option<String>,
    /// An IANA name.
    #[schema(default = "UTC")]
    timezone: Option<String>,
    #[schema(max_length = 500)]
    communication_style: Option<String>,
    #[schema(default = "sqlite")]
    memory_backend: Option<String>,
    #[schema(default = true)]
    auto_save: Option<bool>,
    #[schema(value_type = Option<shown::Channels>)]
    channels: Option<Channels>,
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
    if let Some(Extension(Reserved { agent, claim })) = reserved {
        new.id = agent;
        new.idempotency = Some(claim);
    }
    state.options.provider_urls.check(new.spec.provider_url.as_deref()).await?;
    let _turn = state.turn().await?;
    let agent = state.plane.create_agent(caller.0.user, new).await?;
    accepted(&state, &caller.0, &agent)
}

/// The answer to the creation of an agent that is there already.
pub fn created(api: &Api, caller: &Caller, agent: AgentId) -> Response {
    let agent = api.plane.agent(agent).ok_or_else(Problem::not_found);
    agent.and_then(|agent| accepted(api, caller, &agent)).into_response()
}

fn accepted(api: &Api, caller: &Caller, agent: &AgentHandle) -> Result<Response, Problem> {
    let mut response = answer(StatusCode::ACCEPTED, api, caller, agent)?;
    if let Ok(location) = HeaderValue::try_from(format!("/api/agents/{}", agent.id())) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

impl NewAgentBody {
    fn check(self) -> Result<NewAgent, Problem> {
        let mut problems = Problems::default();
        let draft = SpecDraft {
            name: self.name,
            agent_name: self.agent_name,
            user_name: self.user_name,
            timezone: self.timezone,
            communication_style: self.communication_style,
            provider: self.provider,
            model: self.model,
            provider_url: self.provider_url,
            temperature: self.temperature,
            memory_backend: self.memory_backend,
            auto_save: self.auto_save,
        };
        let provider = draft.provider.as_deref().and_then(|name| crate::domain::Provider::parse(name).ok());
        let spec = draft.check(&mut problems);
        if let Some(provider) = provider {
            AgentSpec::check_key(provider, self.api_key.as_ref(), &mut problems);
        }
        let slug = self.slug.and_then(|slug| problems.keep("/slug", Slug::parse(&slug)));
        let channels = self.channels.unwrap_or_default();
        channels.check(&mut problems);
        match spec {
            Some(spec) if problems.is_empty() => {
                let credentials = Credentials { api_key: self.api_key, channels };
                Ok(NewAgent { slug, ..NewAgent::new(spec, credentials) })
            }
            _ => Err(problems.into()),
        }
    }
}
