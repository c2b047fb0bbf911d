//! `PATCH /api/agents/{id}`: absent stays, `null` removes what may be absent.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;

use super::etag::if_match;
use super::{AgentDetail, OwnedAgent, answer};
use crate::control::{AgentPatch, CommandError};
use crate::domain::{AgentSpec, Channels, Problems, Secret, SpecDraft};
use crate::http::body::{JsonBody, Patch};
use crate::http::error::stale;
use crate::http::problem::Problem;
use crate::http::schema::shown;
use crate::http::state::Api;
use crate::store::AgentRecord;

/// What is to change. `null` removes `userName`, `communicationStyle`, `providerUrl`, `apiKey` and `channels`;
/// `channels` is replaced as a whole.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentPatchBody {
    #[serde(default)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 50)]
    name: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    agent_name: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    user_name: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    timezone: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    communication_style: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    provider: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    model: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    api_key: Patch<Secret<String>>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    provider_url: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<f64>)]
    temperature: Patch<f64>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    memory_backend: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    auto_save: Patch<bool>,
    #[serde(default)]
    #[schema(value_type = Option<shown::Channels>)]
    channels: Patch<Channels>,
}

/// How often a change without If-Match is built anew because someone else was faster.
const MAX_RACES: usize = 8;

/// Changes an agent. One that runs is restarted if it must see the change.
#[utoipa::path(
    patch, path = "/api/agents/{id}", tag = "agents",
    params(("id" = uuid::Uuid, Path), ("If-Match" = Option<String>, Header, description = "ETag that the change is based on")),
    request_body = AgentPatchBody,
    responses((status = 200, body = AgentDetail, headers(("ETag" = String))))
)]
pub async fn patch(
    state: State<Api>,
    own: OwnedAgent,
    headers: HeaderMap,
    body: JsonBody<AgentPatchBody>,
) -> Result<Response, Problem> {
    let _turn = state.turn().await?;
    let mut races = 0;
    loop {
        let view = own.handle.view().ok_or_else(Problem::not_found)?;
        let generation = view.record.state.generation;
        let wanted = if_match(&headers, generation)?;
        let change = body.0.clone().check(&view.record)?;
        if change.changes_nothing(&view.record) {
            return answer(StatusCode::OK, &state, &own.caller, &own.handle);
        }
        if let Some(spec) = change.spec.as_ref().filter(|spec| spec.provider_url != view.record.spec.provider_url) {
            state.options.provider_urls.check(spec.provider_url.as_deref()).await?;
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

impl AgentPatchBody {
    fn check(self, record: &AgentRecord) -> Result<AgentPatch, Problem> {
        let mut problems = Problems::default();
        let kept = SpecDraft::from(&*record.spec);
        let mut needed = |pointer: &str, removed: bool| {
            if removed {
                problems.push(pointer, "cannot be removed");
            }
        };
        needed("/name", self.name == Patch::Remove);
        needed("/agentName", self.agent_name == Patch::Remove);
        needed("/timezone", self.timezone == Patch::Remove);
        needed("/provider", self.provider == Patch::Remove);
        needed("/model", self.model == Patch::Remove);
        needed("/temperature", self.temperature == Patch::Remove);
        needed("/memoryBackend", self.memory_backend == Patch::Remove);
        needed("/autoSave", self.auto_save == Patch::Remove);
        if !problems.is_empty() {
            return Err(problems.into());
        }
        let draft = SpecDraft {
            name: self.name.or(kept.name),
            agent_name: self.agent_name.or(kept.agent_name),
            user_name: self.user_name.or(kept.user_name),
            timezone: self.timezone.or(kept.timezone),
            communication_style: self.communication_style.or(kept.communication_style),
            provider: self.provider.or(kept.provider),
            model: self.model.or(kept.model),
            provider_url: self.provider_url.or(kept.provider_url),
            temperature: self.temperature.or(kept.temperature),
            memory_backend: self.memory_backend.or(kept.memory_backend),
            auto_save: self.auto_save.or(kept.auto_save),
        };
        let spec = draft.check(&mut problems);
        if let Some(spec) = &spec {
            match &self.api_key {
                Patch::Keep if record.api_key.is_some() => {
                    if record.spec.sends_key_elsewhere(spec) {
                        problems.push("/apiKey", "is needed with another provider or origin of providerUrl: the stored key is not sent there");
                    }
                }
                Patch::Keep | Patch::Remove => AgentSpec::check_key(spec.provider, None, &mut problems),
                Patch::Set(key) => AgentSpec::check_key(spec.provider, Some(key), &mut problems),
            }
        }
        let channels = match self.channels {
            Patch::Keep => None,
            Patch::Remove => Some(Channels::default()),
            Patch::Set(channels) => Some(channels),
        };
        if let Some(channels) = &channels {
            channels.check(&mut problems);
        }
        if !problems.is_empty() {
            return Err(problems.into());
        }
        let api_key = match self.api_key {
            Patch::Keep => None,
            Patch::Remove => Some(None),
            Patch::Set(key) => Some(Some(key)),
        };
        Ok(AgentPatch { if_generation: None, spec, api_key, channels })
    }
}

impl AgentPatch {
    /// Whether the agent is so already; a restart for nothing would lose messages.
    fn changes_nothing(&self, record: &AgentRecord) -> bool {
        let same_spec = self.spec.as_ref().is_none_or(|spec| *spec == *record.spec);
        same_spec && self.api_key.is_none() && self.channels.is_none()
    }
}
