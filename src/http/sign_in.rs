//! `/api/auth`: how people sign in and out, and make accounts where that is open to them.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{EmptyBody, JsonBody};
use super::problem::{FieldError, Problem};
use super::session::{FromHere, Outside};
use super::state::Api;
use super::users::{User, parse_email};
use crate::control::{SignInError, SignedIn};
use crate::domain::{Password, Problems, Secret};

/// Far more than an address and a password need.
const MAX_BODY: usize = 16 * 1024;

/// How people may come in.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ways {
    /// `closed`, `invite` or `open`.
    #[schema(value_type = String)]
    registration: &'static str,
    /// What the identity provider is called by which people can sign in, at `/api/auth/oidc/start`; null where there is none.
    provider: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoginBody {
    #[schema(required = true, max_length = 254)]
    email: Option<String>,
    #[schema(required = true, value_type = String, format = Password)]
    password: Option<Secret<String>>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LinkBody {
    /// `zt_…`, of a link that an administrator or the service's first start has given.
    #[schema(required = true, value_type = String, format = Password)]
    token: Option<Secret<String>>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegisterBody {
    #[schema(required = true, max_length = 254)]
    email: Option<String>,
    /// 12 characters or more.
    #[schema(required = true, value_type = String, format = Password, min_length = 12, max_length = 256)]
    password: Option<Secret<String>>,
    /// `zt_…`; needed where registration is by invitation.
    #[schema(required = false, value_type = Option<String>, format = Password)]
    invitation: Option<Secret<String>>,
}

/// How people may come in.
#[utoipa::path(get, path = "/api/auth", tag = "sign-in", responses((status = 200, body = Ways)))]
pub async fn ways(state: State<Api>) -> Json<Ways> {
    #[cfg(feature = "oidc")]
    let provider = state.options.oidc.as_ref().map(|provider| provider.options.name.clone());
    #[cfg(not(feature = "oidc"))]
    let provider = None;
    Json(Ways { registration: state.plane.registration().as_str(), provider })
}

/// Signs a person in: the answer sets the session's cookie. Failures slow down the next attempts, and do not tell whether
/// there is such an account.
#[utoipa::path(
    post, path = "/api/auth/login", tag = "sign-in",
    request_body = LoginBody,
    responses((status = 200, body = User, headers(("Set-Cookie" = String))))
)]
pub async fn login(
    state: State<Api>,
    FromHere(visitor, outside): FromHere,
    body: JsonBody<LoginBody, MAX_BODY>,
) -> Result<Response, Problem> {
    let LoginBody { email, password } = body.0;
    let mut problems = Problems::default();
    let email = problems.keep("/email", email.ok_or_else(|| "is required".to_owned()));
    let password = problems.keep("/password", password.ok_or_else(|| "is required".to_owned()));
    let (Some(email), Some(password)) = (email, password) else { return Err(problems.into()) };
    let signed_in = state.plane.sign_in(&email, password, visitor).await?;
    welcome(&state, StatusCode::OK, outside, signed_in).await
}

/// Signs a person in by a one-time link, as [login](#operation/login) does. Pages take the token from the fragment of
/// `/sign-in#link=zt_…`, which browsers send to no server.
#[utoipa::path(
    post, path = "/api/auth/link", tag = "sign-in",
    request_body = LinkBody,
    responses((status = 200, body = User, headers(("Set-Cookie" = String))))
)]
pub async fn link(
    state: State<Api>,
    FromHere(visitor, outside): FromHere,
    body: JsonBody<LinkBody, MAX_BODY>,
) -> Result<Response, Problem> {
    let wrong = |remedy: &str| Problem::invalid(vec![FieldError::at("/token", remedy)]);
    let token = body.0.token.ok_or_else(|| wrong("is required"))?;
    let signed_in = state.plane.sign_in_by_link(&token, visitor).await.map_err(|error| match error {
        SignInError::NoTicket => wrong("is not valid, or was used already; ask for a new link"),
        error => error.into(),
    })?;
    welcome(&state, StatusCode::OK, outside, signed_in).await
}

/// Makes an account and signs its person in, where the configuration (`accounts.registration`) allows it.
#[utoipa::path(
    post, path = "/api/auth/register", tag = "sign-in",
    request_body = RegisterBody,
    responses((status = 201, body = User, headers(("Set-Cookie" = String))))
)]
pub async fn register(
    state: State<Api>,
    FromHere(visitor, outside): FromHere,
    body: JsonBody<RegisterBody, MAX_BODY>,
) -> Result<Response, Problem> {
    let RegisterBody { email, password, invitation } = body.0;
    let mut problems = Problems::default();
    let email = email.ok_or_else(|| "is required".to_owned()).and_then(|email| parse_email(&email));
    let email = problems.keep("/email", email);
    let password = problems.keep("/password", parse_password(password));
    let (Some(email), Some(password)) = (email, password) else { return Err(problems.into()) };
    let signed_in = state.plane.register(email, password, invitation, visitor).await?;
    welcome(&state, StatusCode::CREATED, outside, signed_in).await
}

/// Ends the session of the cookie and takes the cookie away. One that has ended already is no fault.
#[utoipa::path(
    post, path = "/api/auth/logout", tag = "sign-in",
    responses((status = 204, headers(("Set-Cookie" = String))))
)]
pub async fn logout(
    state: State<Api>,
    FromHere(visitor, outside): FromHere,
    _: EmptyBody,
) -> Result<Response, Problem> {
    if let Some(token) = &visitor.session {
        state.plane.sign_out(token).await?;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().extend(outside.no_cookie().map(|cookie| (header::SET_COOKIE, cookie)));
    Ok(response)
}

/// A password that somebody wants to have.
pub fn parse_password(password: Option<Secret<String>>) -> Result<Password, String> {
    Password::parse(password.ok_or_else(|| "is required".to_owned())?)
}

async fn welcome(api: &Api, status: StatusCode, outside: Outside, signed_in: SignedIn) -> Result<Response, Problem> {
    let cookie = outside.cookie(&signed_in);
    let mut response = (status, Json(User::of(api, signed_in.user).await?)).into_response();
    response.headers_mut().extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
    Ok(response)
}
