//! What the API shows of an agent: never its key, its token or anything sealed.

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::accounts::Caller;
use crate::control::AgentHandle;
use crate::domain::{AgentId, AgentSpec, ChannelKind, Channels, HostPort, Scope, Slug, Status, Timestamp, UserId};
use crate::http::schema;
use crate::http::state::Api;
use crate::lifecycle::{Cause, Code, Phase, Step};
use crate::view::AgentView;

/// What every form of the record has.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    #[schema(value_type = uuid::Uuid)]
    id: AgentId,
    #[schema(value_type = uuid::Uuid)]
    user_id: UserId,
    /// Every field of the specification.
    #[serde(flatten)]
    spec: AgentSpec,
    #[schema(value_type = String)]
    slug: Slug,
    /// The engine's own id of the instance.
    container_id: Option<String>,
    /// The port of the host; none where agents are reached by addresses of their own.
    container_port: Option<u16>,
    #[schema(schema_with = schema::status)]
    status: Status,
    /// Why it is in its status, where something is to be said.
    status_reason: Option<StatusReason>,
    /// Public host name, where the service has a domain.
    subdomain: Option<String>,
    memory_mb: Option<f64>,
    /// Percent of one core.
    cpu_percent: Option<f64>,
    #[schema(value_type = Option<String>, format = DateTime)]
    last_health_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// Counts the changes of what the agent is; the ETag.
    generation: u64,
    /// Restarts by the service itself.
    restarts: u64,
    /// When something is tried again by itself.
    #[schema(value_type = Option<String>, format = DateTime)]
    next_attempt_at: Option<Timestamp>,
    has_api_key: bool,
    /// The version of ZeroClaw that runs, where it tells.
    version: Option<String>,
    /// The image that it runs, by name.
    image: Option<String>,
    /// `rehearsing`, `forward` while it is upgraded, `back` while that is taken back; `null` else.
    upgrade: Option<&'static str>,
}

/// A reason for programs and for people.
#[derive(Serialize, ToSchema)]
pub struct StatusReason {
    code: &'static str,
    message: String,
}

/// An agent with its channels.
#[derive(Serialize, ToSchema)]
pub struct AgentDetail {
    #[serde(flatten)]
    agent: Agent,
    /// With their tokens for the owner's keys with the scope agents:write; else which of them are configured. `null` where
    /// they cannot be opened.
    #[schema(value_type = Option<Channels>)]
    channels: Option<Value>,
}

/// An agent in a list.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentSummary {
    #[serde(flatten)]
    agent: Agent,
    #[schema(value_type = Vec<String>)]
    channel_kinds: Vec<ChannelKind>,
}

impl AgentDetail {
    pub fn of(api: &Api, caller: &Caller, handle: &AgentHandle, view: &AgentView) -> Self {
        let channels = if view.record.user == caller.user && caller.may(Scope::AgentsWrite) {
            handle.credentials().map(|credentials| credentials.channels.expose_json())
        } else {
            Some(configured(&view.record.channel_kinds))
        };
        Self { agent: Agent::of(api, view), channels }
    }
}

/// Which channels there are, without anything of theirs.
fn configured(kinds: &[ChannelKind]) -> Value {
    kinds.iter().map(|kind| (kind.as_str(), json!({"configured": true}))).collect()
}

impl AgentSummary {
    pub fn of(api: &Api, view: &AgentView) -> Self {
        Self { agent: Agent::of(api, view), channel_kinds: view.record.channel_kinds.clone() }
    }
}

impl Agent {
    fn of(api: &Api, view: &AgentView) -> Self {
        let (record, state) = (&view.record, &view.record.state);
        let vitals = api.plane.agent(record.id).map(|agent| agent.vitals()).unwrap_or_default();
        let waiting = matches!(state.phase, Phase::Starting { step: Step::Awaiting, .. })
            .then(|| vitals.waiting.clone().map(|why| Cause::because(Code::EngineBusy, why)))
            .flatten();
        Self {
            id: record.id,
            user_id: record.user,
            spec: record.spec.shown(),
            slug: record.slug.clone(),
            container_id: state.engine_id.as_ref().map(ToString::to_string),
            container_port: view.port.map(HostPort::get),
            status: view.status(),
            status_reason: waiting
                .as_ref()
                .or(state.reason.as_ref())
                .map(|cause| StatusReason { code: cause.code.as_str(), message: cause.message() }),
            subdomain: api.plane.host_of(&record.slug),
            memory_mb: vitals.usage.as_ref().map(|usage| usage.memory_mb),
            cpu_percent: vitals.usage.as_ref().map(|usage| usage.cpu_percent),
            last_health_at: vitals.last_health_at,
            created_at: record.created_at,
            updated_at: record.updated_at,
            generation: state.generation,
            restarts: state.restart_count,
            next_attempt_at: state.next_attempt_at(),
            has_api_key: record.api_key.is_some(),
            version: vitals.version.or_else(|| record.software.as_ref()?.version.clone()),
            upgrade: record.upgrade.as_ref().map(|upgrade| upgrade.stage.as_str()),
            image: record.software.as_ref().and_then(|software| Some(software.image.as_ref()?.name.clone())),
        }
    }
}
