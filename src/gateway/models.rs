//! Which models a provider has, for whoever wants to make an agent: the question that an agent's own check asks.

use super::outbound::HttpClients;
use super::provider::{ModelError, Route};
use crate::domain::{ModelQuestion, ModelRefusal, Provider};

/// Asks the provider for its models: free of cost, and a proof of address and key.
///
/// # Errors
/// See [`ModelRefusal`]. The caller bounds the time.
pub async fn list_models(question: ModelQuestion) -> Result<Vec<String>, ModelRefusal> {
    let ModelQuestion { provider, url, key, public_only } = question;
    let clients = if public_only { HttpClients::public_only() } else { HttpClients::default() };
    let route = Route::parse(provider.as_str(), url.as_deref());
    let route = route.map_err(|reason| ModelRefusal { status: None, reason })?;
    let asked = route.models(&clients, key.as_ref()).await;
    // OpenRouter shows its models to everybody; what it says of a key proves the key.
    let proven = match (provider, &url) {
        (Provider::Openrouter, None) if asked.is_ok() => route.key_is_taken(&clients, key.as_ref()).await,
        _ => Ok(()),
    };
    // What a server of the user's choice writes is not shown: it may be one that only this machine can ask.
    let chosen = url.is_some();
    let refused = |error: ModelError| {
        let reason = match (error.status, chosen) {
            (Some(status), true) => format!("{} answered {status}", route.host()),
            _ => error.to_string(),
        };
        ModelRefusal { status: error.status, reason }
    };
    proven.map_err(&refused)?;
    asked.map_err(&refused)
}
