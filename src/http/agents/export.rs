//! An agent's workspace and memory as a file.

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::OwnedAgent;
use crate::control::DataError;
use crate::http::error::not_running;
use crate::http::problem::{Code, FieldError, Problem};
use crate::http::state::Api;
use crate::runtime::RuntimeError;

/// What an export is: no type is registered for tar archives.
pub(super) const TAR: &str = "application/x-tar";

/// The agent's workspace and memory as a tar archive of one moment. No key, token, channel or configuration file is in it.
#[utoipa::path(
    get, path = "/api/agents/{id}/export", tag = "agents",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 200, description = "`agent.json`, `memory.json`, `memory/…`, `workspace/…`",
        body = Vec<u8>, content_type = "application/x-tar"))
)]
pub async fn export(_: State<Api>, own: OwnedAgent) -> Result<Response, Problem> {
    let bundle = own.handle.export().await?;
    let archive = tokio::task::spawn_blocking(move || bundle.to_tar()).await;
    let archive = archive.ok().and_then(Result::ok).ok_or_else(|| {
        Problem::new(
            Code::Internal,
            "A path of the agent's files is too long for an archive; rename it, then try again.",
        )
    })?;
    let name = format!("attachment; filename=\"{}.tar\"", own.view.record.slug);
    let name = HeaderValue::try_from(name).map_err(|_| Problem::not_found())?;
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(TAR)), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, archive).into_response())
}

impl From<DataError> for Problem {
    fn from(error: DataError) -> Self {
        match error {
            DataError::Gone => Self::not_found(),
            DataError::Bundle(error) => Self::invalid(vec![FieldError::at("", format!("The archive {error}."))]),
            DataError::Create(error) => error.into(),
            DataError::Command(error) => error.into(),
            DataError::Runtime(RuntimeError::Conflict(why)) => Self::new(Code::Conflict, why),
            DataError::Runtime(RuntimeError::NotFound) => not_running(),
            DataError::Runtime(RuntimeError::Invalid(why)) => Self::new(Code::TooLarge, why),
            DataError::Runtime(error) => error.into(),
            DataError::NotPlaced(why) => {
                tracing::warn!(why, "an agent's data could not be brought in");
                Self::new(
                    Code::RuntimeUnavailable,
                    "The data could not be put in place; nothing is left of the new agent.",
                )
                .retry_after(5)
            }
        }
    }
}
