//! A new agent from an export.

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::Response;

use super::AgentDetail;
use super::create::{accepted, reserve};
use super::export::TAR;
use crate::control::NewAgent;
use crate::domain::{AgentSpec, Credentials, Patch, Secret, Slug, SpecPatch};
use crate::http::body::{MAX_ARCHIVE, read};
use crate::http::guard::Admitted;
use crate::http::idempotency::Reserved;
use crate::http::params::Params;
use crate::http::problem::{Code, FieldError, Problem};
use crate::http::provider_urls;
use crate::http::state::Api;
use crate::zeroclaw::bundle;

/// An export has no secrets, and a body that is an archive has no place for one.
const MODEL_KEY: HeaderName = HeaderName::from_static("x-model-api-key");

/// A new agent with the workspace and memory of an export. It has no channels. Where its model needs a key and none is
/// given, it stays STOPPED until it has one.
#[utoipa::path(
    post, path = "/api/agents/import", tag = "agents",
    params(
        ("name" = Option<String>, Query, description = "Another name than the exported agent's"),
        ("slug" = Option<String>, Query, description = "Exactly this slug"),
        ("X-Model-Api-Key" = Option<String>, Header, description = "The key of its model")
    ),
    request_body(content = Vec<u8>, content_type = "application/x-tar", description = "What an export gave, at most 128 MiB"),
    responses((status = 202, body = AgentDetail, headers(("Location" = String), ("ETag" = String))))
)]
pub async fn import(
    state: State<Api>,
    caller: Admitted,
    params: Params,
    reserved: Option<Extension<Reserved>>,
    request: Request,
) -> Result<Response, Problem> {
    let text = |name| params.text(name).map(str::to_owned);
    let (name, slug) = (text("name"), text("slug"));
    let (parts, body) = request.into_parts();
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(TAR) {
        return Err(Problem::new(Code::UnsupportedMediaType, "Send the archive as application/x-tar."));
    }
    let api_key = model_key(&parts.headers)?;
    let archive = read(&parts.headers, body, MAX_ARCHIVE).await?;
    let read = tokio::task::spawn_blocking(move || bundle::read(&archive)).await;
    let bundle = read.map_err(|_| Problem::new(Code::Malformed, "The archive cannot be read."))?;
    let bundle = bundle.map_err(|error| Problem::invalid(vec![FieldError::at("", format!("The archive {error}."))]))?;
    let mut new = checked(&bundle.about.agent, name, slug, api_key)?;
    reserve(&mut new, reserved);
    provider_urls::check(&state, &new.spec).await?;
    let agent = state.plane.import_agent(caller.0.user, new, &bundle).await?;
    accepted(&state, &caller.0, &agent)
}

fn model_key(headers: &HeaderMap) -> Result<Option<Secret<String>>, Problem> {
    let Some(key) = headers.get(MODEL_KEY) else { return Ok(None) };
    let key = key.to_str().map_err(|_| Problem::new(Code::Malformed, "X-Model-Api-Key must be visible ASCII."))?;
    Ok(Some(key.into()))
}

/// The configuration in an archive is as little trusted as any other.
fn checked(
    spec: &AgentSpec,
    name: Option<String>,
    slug: Option<String>,
    api_key: Option<Secret<String>>,
) -> Result<NewAgent, Problem> {
    let patch = SpecPatch {
        name: name.map_or(Patch::Keep, Patch::Set),
        api_key: api_key.map_or(Patch::Keep, Patch::Set),
        ..SpecPatch::default()
    };
    let applied = patch.like(spec)?;
    let slug = slug.map(|slug| Slug::parse(&slug)).transpose();
    let slug = slug.map_err(|remedy| Problem::invalid(vec![FieldError::at("/slug", remedy)]))?;
    let credentials = Credentials { api_key: applied.api_key.into_value(), ..Credentials::default() };
    Ok(NewAgent { slug, ..NewAgent::new(applied.spec, credentials) })
}
