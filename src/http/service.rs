//! What machines ask: is it alive, is it ready, how does it do, what can it do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::admin::Runtime;
use super::guard::authenticate;
use super::params::Params;
use super::problem::{Code, Problem};
use super::request::Peer;
use super::state::Api;
use crate::domain::Scope;
use crate::store::Batch;

/// How long a commit may take before the store counts as away.
const COMMIT_WITHIN: Duration = Duration::from_secs(2);
/// For how long an answer holds: whoever asks all the time shall not write all the time.
const HOLDS_FOR: Duration = Duration::from_secs(1);
/// The text format that Prometheus asks for.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether the store could commit when it was last tried.
#[derive(Default)]
pub struct Writable(Mutex<Option<(Instant, bool)>>);

#[derive(Serialize, ToSchema)]
pub struct Alive {
    status: &'static str,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// `ready`, or `unavailable` where the store cannot commit.
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
    responses((status = 200, body = Ready), (status = 503, body = Ready, description = "The store cannot commit"))
)]
pub async fn readyz(state: State<Api>, params: Params) -> Response {
    let writable = state.writable.test(&state).await;
    let details = if params.flag("verbose") { Some(Details::look(&state, writable).await) } else { None };
    let (code, status) =
        if writable { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "unavailable") };
    (code, Json(Ready { status, details })).into_response()
}

/// For Prometheus, from this machine or with an administrator's key.
#[utoipa::path(
    get, path = "/metrics", tag = "service",
    responses((status = 200, body = String, content_type = "application/openmetrics-text"))
)]
pub async fn metrics(state: State<Api>, request: Request) -> Result<Response, Problem> {
    let admin = authenticate(&state, &request).is_some_and(|caller| caller.may(Scope::Admin));
    if !admin && !is_local(&request) {
        return Err(Problem::new(Code::Forbidden, "Ask from this machine, or with a key of scope admin."));
    }
    let stats = state.plane.store().stats().await.ok();
    let text = state.metrics.text(&state.plane, stats.as_ref()).map_err(|error| {
        tracing::error!(%error, "metrics cannot be encoded");
        Problem::new(Code::Internal, "The metrics cannot be written.")
    })?;
    Ok(([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response())
}

/// This interface, as OpenAPI 3.1.
#[utoipa::path(
    get, path = "/api/openapi.json", tag = "service",
    responses((status = 200, body = serde_json::Value, content_type = "application/json"))
)]
pub async fn openapi_json(document: axum::Extension<Arc<str>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document.0.to_string()).into_response()
}

/// Asked by a process of this machine, and not on behalf of somebody else.
fn is_local(request: &Request) -> bool {
    let local = request.extensions().get::<Peer>().is_some_and(|peer| peer.0.ip().to_canonical().is_loopback());
    local && !request.headers().contains_key("x-forwarded-for") && !request.headers().contains_key(header::FORWARDED)
}

impl Writable {
    async fn test(&self, api: &Api) -> bool {
        let mut last = self.0.lock().await;
        match *last {
            Some((at, writable)) if at.elapsed() < HOLDS_FOR => writable,
            _ => {
                let commit = tokio::time::timeout(COMMIT_WITHIN, api.plane.store().commit(Batch::touch())).await;
                let writable = matches!(commit, Ok(Ok(())));
                *last = Some((Instant::now(), writable));
                writable
            }
        }
    }
}

impl Details {
    async fn look(api: &Api, writable: bool) -> Self {
        let stats = api.plane.store().stats().await.ok();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            store: StoreDetails {
                writable,
                queued: stats.as_ref().map(|stats| stats.queued),
                bytes: stats.as_ref().map(|stats| stats.bytes),
            },
            runtime: Runtime::look(api).await,
            agents: api.plane.count_by_status().into_iter().map(|(status, count)| (status.as_str(), count)).collect(),
        }
    }
}
