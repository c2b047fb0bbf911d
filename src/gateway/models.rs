//! Which models a provider has, for whoever wants to make an agent: the question that an agent's own check asks.

use super::outbound::HttpClients;
use super::provider::{ModelError, Route};
use crate::domain::{ModelQuestion, ModelRefusal, Provider, Secret};

/// Asks the provider for its models: free of cost, and a proof of address and key.
///
/// # Errors
/// See [`ModelRefusal`]. The caller bounds the time.
pub async fn list_models(question: ModelQuestion) -> Result<Vec<String>, ModelRefusal> {
    let ModelQuestion { provider, url, key, public_only } = question;
    let clients = if public_only { HttpClients::public_only() } else { HttpClients::default() };
    let route = Route::parse(provider.as_str(), url.as_deref());
    let route = route.map_err(|reason| ModelRefusal { status: None, reason })?;
    // OpenRouter shows its models to everybody; what it says of a key proves the key.
    let shows_all = provider == Provider::Openrouter && url.is_none();
    let asked = ask(&route, &clients, key.as_ref(), shows_all).await;
    // What a server of the user's choice writes is not shown: it may be one that only this machine can ask.
    let chosen = url.is_some();
    let refused = |error: ModelError| {
        let reason = match (error.status, chosen) {
            (Some(status), true) => format!("{} answered {status}", route.host()),
            _ => error.to_string(),
        };
        ModelRefusal { status: error.status, reason }
    };
    asked.map_err(refused)
}

/// The models; where the list `shows_all` of them to everybody, only if the key is taken too.
async fn ask(
    route: &Route,
    clients: &HttpClients,
    key: Option<&Secret<String>>,
    shows_all: bool,
) -> Result<Vec<String>, ModelError> {
    let models = route.models(clients, key).await?;
    if shows_all {
        route.key_is_taken(clients, key).await?;
    }
    Ok(models)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_list_that_everybody_may_read_proves_no_key() {
        let taken = |headers: HeaderMap| async move {
            let good = headers.get("authorization").is_some_and(|key| key == "Bearer good");
            if good { StatusCode::OK } else { StatusCode::UNAUTHORIZED }
        };
        let models = Json(json!({ "data": [{ "id": "m" }] }));
        let server = Router::new().route("/v1/models", get(move || async move { models })).route("/v1/key", get(taken));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, server).await });

        let route = Route::parse("openai", Some(&url)).unwrap();
        let clients = HttpClients::default();
        for (key, shows_all, status) in [("good", true, None), ("bad", false, None), ("bad", true, Some(401))] {
            let asked = ask(&route, &clients, Some(&Secret::new(key.to_owned())), shows_all).await;
            assert_eq!(asked.as_ref().err().and_then(|error| error.status), status, "{key}");
            assert_eq!(asked.ok(), status.is_none().then(|| vec!["m".to_owned()]), "{key}");
        }
    }
}
