//! What the agent is connected to and can do: `/api/integrations`, `/api/tools`, `/api/cli-tools`.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::domain::Provider;
use crate::gateway::auth::Paired;
use crate::gateway::memory::Owner;
use crate::gateway::shared::App;
use crate::gateway::tools::specs;

pub(super) async fn tools(_: Paired, State(app): State<App>) -> Json<Value> {
    Json(json!({ "tools": specs(&app.config(), &Owner::client()) }))
}

/// Programs of this machine that the agent may run: none, it has no shell.
pub(super) async fn cli_tools(_: Paired) -> Json<Value> {
    Json(json!({ "cli_tools": [] }))
}

pub(super) async fn integrations(_: Paired, State(app): State<App>) -> Json<Value> {
    let config = app.config();
    let entry = |name: &str, category: &str, description: &str, active: bool| {
        let status = if active { "Active" } else { "Available" };
        json!({ "name": name, "category": category, "description": description, "status": status })
    };
    let providers = Provider::ALL
        .iter()
        .map(|provider| entry(provider.as_str(), "AiModel", "Model provider", config.provider() == provider.as_str()));
    let channels = config.channels_config.present().into_iter().map(|(name, present)| {
        let only_sends = name == "slack" && !config.channels_config.receives_slack();
        let description = if only_sends { "Messages out" } else { "Messages in and out" };
        entry(name, "Chat", description, present)
    });
    let memory = ["sqlite", "markdown"]
        .into_iter()
        .map(|name| entry(name, "Memory", "Where the agent remembers", app.memory.name() == name));
    let all: Vec<Value> = providers.chain(channels).chain(memory).collect();
    Json(json!({ "integrations": all }))
}
