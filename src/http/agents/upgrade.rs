//! Another version for an agent.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{AgentDetail, OwnedAgent, answer};
use crate::control::{CommandOutcome, UpgradeError};
use crate::http::body::Optional;
use crate::http::problem::{Code, FieldError, Problem};
use crate::http::state::Api;
use crate::runtime::RuntimeError;

const IMAGE_LENGTH: usize = 255;

/// What it shall run.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpgradeBody {
    /// By default what new agents run.
    image: Option<String>,
}

/// Exchanges what a running agent runs. The image is first tried on a copy of the agent's data; then it is put in place, its
/// memory is taken along, and a version that does not become usable is taken back.
#[utoipa::path(
    post, path = "/api/agents/{id}/upgrade", tag = "agents",
    params(("id" = uuid::Uuid, Path)),
    request_body = UpgradeBody,
    responses((status = 202, body = AgentDetail), (status = 200, body = AgentDetail, description = "It runs that already"))
)]
pub async fn upgrade(state: State<Api>, own: OwnedAgent, body: Optional<UpgradeBody>) -> Result<Response, Problem> {
    let image = body.0.image.as_deref();
    if let Some(image) = image {
        check(image).map_err(|remedy| Problem::invalid(vec![FieldError::at("/image", remedy)]))?;
    }
    let _turn = state.turn().await?;
    let status = match own.handle.upgrade(image).await? {
        CommandOutcome::Accepted => StatusCode::ACCEPTED,
        CommandOutcome::Unchanged => StatusCode::OK,
    };
    answer(status, &state, &own.caller, &own.handle)
}

fn check(image: &str) -> Result<(), &'static str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'/' | b':' | b'@');
    if image.is_empty() || image.len() > IMAGE_LENGTH || !image.bytes().all(plain) {
        return Err("must be the name of an image, such as registry.example/zeroclaw:0.8.7");
    }
    Ok(())
}

impl From<UpgradeError> for Problem {
    fn from(error: UpgradeError) -> Self {
        match error {
            UpgradeError::UnderWay => Self::new(Code::Conflict, error.to_string()),
            UpgradeError::NoImages => Self::new(Code::Conflict, error.to_string()).with("retryable", false),
            UpgradeError::Runtime(RuntimeError::Invalid(why)) => Self::invalid(vec![FieldError::at("/image", why)]),
            UpgradeError::Runtime(error) => error.into(),
            UpgradeError::Command(error) => error.into(),
        }
    }
}
