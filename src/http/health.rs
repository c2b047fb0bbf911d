//! `GET /api/agents/{id}/health`: the agent's gateway itself, through us.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::agents::OwnedAgent;
use super::error::not_running;
use super::problem::Problem;

/// The health that the agent's own gateway tells, body and status as they are.
#[utoipa::path(
    get, path = "/api/agents/{id}/health", tag = "agents",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = serde_json::Value))
)]
pub async fn health(own: OwnedAgent) -> Result<Response, Problem> {
    let report = own.handle.health().await.ok_or_else(not_running)??;
    let status = StatusCode::from_u16(report.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = (status, report.body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
