//! `POST /api/agents/check`: whether a new agent would do, before it is made.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::create::NewAgentBody;
use crate::domain::{ModelQuestion, ModelRefusal, Provider};
use crate::http::body::JsonBody;
use crate::http::error::rate_limited;
use crate::http::guard::Admitted;
use crate::http::problem::{Code, Problem};
use crate::http::provider_urls::{self, ProviderUrls};
use crate::http::state::Api;

/// Asks a provider for its models, as an agent would: [`HttpOptions::list_models`](crate::http::HttpOptions::list_models).
pub type ListModels = fn(ModelQuestion) -> BoxFuture<'static, Result<Vec<String>, ModelRefusal>>;

/// Somebody waits for it in front of a form.
const WITHIN: Duration = Duration::from_secs(15);
/// Models that are named; a provider with more has a page for them.
const MAX_NAMED: usize = 500;
/// Names of models are short; what is longer is something else.
const MAX_NAME: usize = 200;

/// What the provider said.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelCheck {
    /// Whether the provider answers, and takes the key.
    ok: bool,
    /// The status of its answer, where it refused.
    status: Option<u16>,
    /// Why not, in a sentence.
    reason: Option<String>,
    /// Whether the model is among those that it names; null where it names none.
    model_known: Option<bool>,
    /// The models that it names, at most five hundred.
    models: Vec<String>,
}

/// Checks what a new agent is to be, as its creation would, and asks the provider for its models: that costs nothing, and
/// proves address and key. Nothing is made or kept. The provider is asked by the service, not by an agent.
#[utoipa::path(
    post, path = "/api/agents/check", tag = "agents",
    request_body = NewAgentBody,
    responses((status = 200, body = ModelCheck))
)]
pub async fn check(
    state: State<Api>,
    caller: Admitted,
    body: JsonBody<NewAgentBody>,
) -> Result<Json<ModelCheck>, Problem> {
    let new = body.0.check()?;
    let list = state.options.list_models.ok_or_else(|| {
        Problem::new(Code::NotFound, "This service asks no providers; create the agent, which tells how it does.")
    })?;
    state.checks.count(caller.0.user).map_err(|(wait, _)| rate_limited("checks of this user", wait))?;
    let (provider, url) = (new.spec.provider, new.spec.provider_url.clone());
    // Ollama's own address is that of this machine.
    let asked = url.as_deref().or_else(|| (provider == Provider::Ollama).then(|| provider.base_url()));
    provider_urls::check(&state, &new.spec).await?;
    state.options.provider_urls.check(asked).await?;
    let public_only = state.options.provider_urls == ProviderUrls::Public;
    let question = ModelQuestion { provider, url, key: new.credentials.api_key.clone(), public_only };
    let late = |_| ModelRefusal { status: None, reason: "the model's server does not answer in time".into() };
    let models = timeout(WITHIN, list(question)).await.map_err(late).flatten();
    Ok(Json(ModelCheck::of(models, &new.spec.model)))
}

impl ModelCheck {
    fn of(models: Result<Vec<String>, ModelRefusal>, wanted: &str) -> Self {
        match models {
            Ok(mut models) => {
                let model_known = (!models.is_empty()).then(|| models.iter().any(|known| is_same(known, wanted)));
                models.retain(|name| name.len() <= MAX_NAME);
                models.truncate(MAX_NAMED);
                Self { ok: true, status: None, reason: None, model_known, models }
            }
            Err(ModelRefusal { status, reason }) => {
                Self { ok: false, status, reason: Some(reason), model_known: None, models: Vec::new() }
            }
        }
    }
}

/// Local servers add a tag to names that have none.
fn is_same(known: &str, wanted: &str) -> bool {
    known == wanted || known.strip_suffix(":latest") == Some(wanted)
}
