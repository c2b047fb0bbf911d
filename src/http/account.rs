//! `/api/me`: what a user sees of their own account. Passwords, their own and for administrators those of any user.

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::Deserialize;
use utoipa::ToSchema;

use super::body::JsonBody;
use super::guard::Admitted;
use super::problem::{FieldError, Problem};
use super::request::address_of;
use super::sign_in::parse_password;
use super::state::Api;
use super::users::{User, parse};
use crate::control::SignInError;
use crate::domain::Secret;

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewPasswordBody {
    /// The present one; not needed by somebody who has none, or has just come by a one-time link.
    #[schema(required = false, value_type = Option<String>, format = Password)]
    current: Option<Secret<String>>,
    /// 12 characters or more.
    #[schema(required = true, value_type = String, format = Password, min_length = 12, max_length = 256)]
    password: Option<Secret<String>>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetPasswordBody {
    /// 12 characters or more.
    #[schema(required = true, value_type = String, format = Password, min_length = 12, max_length = 256)]
    password: Option<Secret<String>>,
}

/// The address that a request came from.
pub struct Address(Option<std::net::IpAddr>);

impl<S: Send + Sync> FromRequestParts<S> for Address {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self(address_of(&parts.extensions)))
    }
}

/// The caller: plan, limits and what is used of them.
#[utoipa::path(get, path = "/api/me", tag = "account", responses((status = 200, body = User)))]
pub async fn me(state: State<Api>, caller: Admitted) -> Result<Json<User>, Problem> {
    User::find(&state, caller.0.user).await.map(Json)
}

/// A new password. All other sessions of the caller end.
#[utoipa::path(
    post, path = "/api/me/password", tag = "account",
    request_body = NewPasswordBody,
    responses((status = 204))
)]
pub async fn change_password(
    state: State<Api>,
    caller: Admitted,
    address: Address,
    body: JsonBody<NewPasswordBody>,
) -> Result<StatusCode, Problem> {
    let NewPasswordBody { current, password } = body.0;
    let wrong = |pointer: &str, remedy: &str| Problem::invalid(vec![FieldError::at(pointer, remedy)]);
    let password = parse_password(password).map_err(|remedy| wrong("/password", &remedy))?;
    let changed = state.plane.change_password(caller.0.user, caller.0.session, current, password, address.0).await;
    match changed {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(SignInError::Wrong) => Err(wrong("/current", "is wrong")),
        Err(error) => Err(error.into()),
    }
}

/// Another password for a user, for one who has lost theirs. All their sessions end.
#[utoipa::path(
    post, path = "/api/admin/users/{id}/password", tag = "admin",
    params(("id" = uuid::Uuid, Path)),
    request_body = SetPasswordBody,
    responses((status = 204))
)]
pub async fn set_user_password(
    state: State<Api>,
    id: Path<String>,
    body: JsonBody<SetPasswordBody>,
) -> Result<StatusCode, Problem> {
    let password = parse_password(body.0.password)
        .map_err(|remedy| Problem::invalid(vec![FieldError::at("/password", remedy)]))?;
    state.plane.set_password(parse(&id)?, password).await?;
    Ok(StatusCode::NO_CONTENT)
}
