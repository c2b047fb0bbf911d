//! What operators see of the whole installation.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use tracing::Instrument;
use utoipa::ToSchema;

use super::agents::{self, AgentPage};
use super::body::EmptyBody;
use super::params::Params;
use super::problem::{FieldError, Problem};
use super::state::Api;
use crate::audit::{acting, current};
use crate::control::RotateError;
use crate::domain::{ImageRef, InstallationId, Software, UserId};
use crate::runtime::{Caps, NetworkIsolation};

/// What runs the agents.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Runtime {
    #[schema(value_type = String)]
    name: &'static str,
    /// Whether it answers now, and lets the service do what it needs.
    reachable: bool,
    /// Why not.
    problem: Option<String>,
    enforces_cpu: bool,
    enforces_memory: bool,
    /// What keeps agents from each other's network: `own`, `by-policy` or `none`.
    #[schema(value_type = String)]
    isolates_network: NetworkIsolation,
    /// What keeps an agent from the rest of the machine: `container`, or of a process `calls`, `files`, `limits`,
    /// `memory`, `privileges`, `processes`, `signals`, `users`.
    #[schema(value_type = Vec<String>)]
    walls: Vec<&'static str>,
    /// Walls that do not stand, each with the reason.
    #[schema(value_type = BTreeMap<String, String>)]
    missing_walls: BTreeMap<&'static str, String>,
    /// What new agents are made from, where the runtime has images and has this one.
    image: Option<Image>,
}

/// An image of ZeroClaw.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    name: String,
    /// The digest of its content.
    id: String,
    /// The family of versions that behave alike: `0.1`, `0.6`, `0.8` or `embedded`.
    family: String,
    version: Option<String>,
}

/// The same with whose agents they are, as their labels and markers say it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OwnRuntime {
    #[schema(value_type = uuid::Uuid)]
    installation: InstallationId,
    #[serde(flatten)]
    runtime: Runtime,
}

/// Everyone's agents.
#[utoipa::path(
    get, path = "/api/admin/agents", tag = "admin",
    params(
        ("limit" = Option<u8>, Query, minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query),
        ("status" = Option<String>, Query, description = "Only these statuses, by comma"),
        ("search" = Option<String>, Query, description = "Only those with this in their name, slug or model, whatever its case"),
        ("user" = Option<uuid::Uuid>, Query, description = "Only this user's")
    ),
    responses((status = 200, body = AgentPage))
)]
pub async fn list_agents(state: State<Api>, params: Params) -> Result<Json<AgentPage>, Problem> {
    let user = params.text("user").map(str::parse::<UserId>).transpose();
    let user = user.map_err(|remedy| Problem::invalid(vec![FieldError::parameter("user", remedy)]))?;
    agents::page(&state, user, params).map(Json)
}

#[utoipa::path(get, path = "/api/admin/runtime", tag = "admin", responses((status = 200, body = OwnRuntime)))]
pub async fn runtime(state: State<Api>) -> Json<OwnRuntime> {
    let installation = state.plane.store().installation();
    Json(OwnRuntime { installation, runtime: Runtime::look(&state).await })
}

impl Image {
    fn of(software: Software) -> Option<Self> {
        let ImageRef { name, id } = software.image?;
        Some(Self { name, id, family: software.profile.to_string(), version: software.version })
    }
}

/// A new master key that seals everything.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotatedKey {
    /// Names the key that seals now.
    key: String,
    /// How many values were sealed again.
    resealed: usize,
}

/// Makes a new master key and seals everything with it, while agents run on. The old one is then refused. Keep a copy of the
/// new one; backups that were made before need the old one.
#[utoipa::path(post, path = "/api/admin/keys/rotate", tag = "admin", responses((status = 200, body = RotatedKey)))]
pub async fn rotate_key(state: State<Api>, _: EmptyBody) -> Result<Json<RotatedKey>, Problem> {
    let plane = state.plane.clone();
    // To its end, whether or not the caller stays.
    let rotation =
        tokio::spawn(acting(current(), async move { plane.rotate_master_key().await }).in_current_span()).await;
    let rotation = rotation.unwrap_or(Err(RotateError::Interrupted))?;
    Ok(Json(RotatedKey { key: rotation.key.to_string(), resealed: rotation.resealed }))
}

impl Runtime {
    pub async fn look(api: &Api) -> Self {
        let Caps { name, enforces_cpu, enforces_memory, isolates_network, walls, missing_walls, .. } = api.plane.caps();
        let problem = api.plane.ping_runtime().await.err().map(|error| error.to_string());
        let reachable = problem.is_none();
        let image = if reachable { api.plane.default_software().await.and_then(Image::of) } else { None };
        Self { name, reachable, problem, enforces_cpu, enforces_memory, isolates_network, walls, missing_walls, image }
    }
}
