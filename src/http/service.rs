//! What machines ask: is it alive, is it ready, how does it do, what can it do.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{Extensions, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::admin::Runtime;
use super::guard::authenticate;
use super::host;
use super::metrics::text_format;
use super::params::Params;
use super::problem::{Code, Problem};
use super::readiness::Checked;
use super::request::{peer_of, prefix_of};
use super::sse::accepts;
use super::state::Api;
use crate::audit;
use crate::domain::Scope;

const OPENMETRICS: &str = "application/openmetrics-text";
const TEXT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The text format that Prometheus asks for.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Serialize, ToSchema)]
pub struct Alive {
    status: &'static str,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// `ready`, or `unavailable` where the store cannot commit or the actors do not answer.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    details: Option<Details>,
}

/// With `?verbose`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    version: &'static str,
    store: StoreDetails,
    runtime: Runtime,
    /// Whether the actors answer.
    actors: bool,
    /// How many agents are in each status.
    agents: BTreeMap<&'static str, usize>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreDetails {
    writable: bool,
    queued: Option<usize>,
    bytes: Option<u64>,
}

#[utoipa::path(get, path = "/livez", tag = "service", responses((status = 200, body = Alive)))]
pub async fn livez() -> Json<Alive> {
    Json(Alive { status: "ok" })
}

/// Whether the service can do its work.
#[utoipa::path(
    get, path = "/readyz", tag = "service",
    params(("verbose" = Option<String>, Query, description = "Say more")),
    responses((status = 200, body = Ready), (status = 503, body = Ready, description = "The store cannot commit, or the actors do not answer"))
)]
pub async fn readyz(state: State<Api>, params: Params, request: Request) -> Result<Response, Problem> {
    let verbose = params.flag("verbose");
    if verbose && !host::is_known(&state, &request) {
        return Err(host::unknown());
    }
    let checked = state.readiness.check(&state.plane).await;
    let details = if verbose { Some(Details::read(&state, checked).await) } else { None };
    let (code, status) =
        if checked.is_ready() { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "unavailable") };
    Ok((code, Json(Ready { status, details })).into_response())
}

/// For Prometheus, from this machine or with an administrator's key.
#[utoipa::path(
    get, path = "/metrics", tag = "service",
    responses((status = 200, body = String, content_type = "application/openmetrics-text"))
)]
pub async fn metrics(state: State<Api>, request: Request) -> Result<Response, Problem> {
    let caller = authenticate(&state, &request).ok();
    caller.iter().for_each(|caller| audit::identified(caller.user));
    let admin = caller.is_some_and(|caller| caller.may(Scope::Admin));
    if !admin && !is_local(&request) {
        return Err(Problem::new(Code::Forbidden, "Ask from this machine, or with a key of scope admin."));
    }
    if !admin && !host::is_known(&state, &request) {
        return Err(host::unknown());
    }
    state.metrics.refresh().await;
    let text = state.metrics.text().map_err(|error| {
        tracing::error!(%error, "metrics cannot be encoded");
        Problem::new(Code::Internal, "The metrics cannot be written.")
    })?;
    // Prometheus before 2.5 and many others know the older format alone.
    let older = accepts(request.headers(), "text/plain") && !accepts(request.headers(), OPENMETRICS);
    if older {
        return Ok(([(header::CONTENT_TYPE, TEXT_TYPE)], text_format(&text)).into_response());
    }
    Ok(([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response())
}

/// This interface, as OpenAPI 3.1.
#[utoipa::path(
    get, path = "/api/openapi.json", tag = "service",
    responses((status = 200, body = serde_json::Value, content_type = "application/json"))
)]
pub async fn openapi_json(state: State<Api>, extensions: Extensions) -> Response {
    let text = with_servers(&state.document, prefix_of(&extensions));
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// The document as it is where the router is nested below `prefix`.
fn with_servers(document: &str, prefix: &str) -> String {
    match serde_json::from_str::<serde_json::Value>(document) {
        Ok(mut document) if !prefix.is_empty() => {
            document["servers"] = serde_json::json!([{ "url": prefix }]);
            document.to_string()
        }
        _ => document.to_owned(),
    }
}

/// Headers that a proxy adds: with one of them, the request comes from somewhere else.
const FORWARDED: [&str; 7] =
    ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "cf-connecting-ip"];

/// Asked by a process of this machine, and not on behalf of somebody else.
fn is_local(request: &Request) -> bool {
    let local = peer_of(request.extensions()).is_some_and(|peer| peer.ip().to_canonical().is_loopback());
    local && FORWARDED.iter().all(|name| !request.headers().contains_key(*name))
}

impl Details {
    async fn read(api: &Api, checked: Checked) -> Self {
        let stats = api.plane.store().stats().await.ok();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            store: StoreDetails {
                writable: checked.store,
                queued: stats.as_ref().map(|stats| stats.queued),
                bytes: stats.as_ref().map(|stats| stats.bytes),
            },
            runtime: Runtime::look(api).await,
            actors: checked.actors,
            agents: api.plane.count_by_status().into_iter().map(|(status, count)| (status.as_str(), count)).collect(),
        }
    }
}
