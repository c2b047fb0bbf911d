//! Sessions: a user's own, and for administrators those of any user.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::guard::Admitted;
use super::params::{Params, page_of};
use super::problem::Problem;
use super::state::Api;
use super::users::parse;
use crate::domain::{SessionId, Timestamp, UserId};
use crate::store::{SessionRecord, SignInBy};

/// A browser in which a person is signed in.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserSession {
    #[schema(value_type = uuid::Uuid)]
    id: SessionId,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    last_used_at: Timestamp,
    /// It ends then; earlier when it is not used for long.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    /// Where it was opened from.
    #[schema(value_type = Option<String>)]
    address: Option<std::net::IpAddr>,
    /// What the browser called itself.
    client: Option<String>,
    /// How the person signed in: `password`, `link` or `registration`.
    #[schema(value_type = String)]
    by: SignInBy,
    /// Whether the request came with it.
    current: bool,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserSessionPage {
    data: Vec<UserSession>,
    next_cursor: Option<String>,
}

/// The caller's sessions, oldest first.
#[utoipa::path(
    get, path = "/api/me/sessions", tag = "account",
    params(("limit" = Option<u8>, Query, minimum = 1, maximum = 200), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = UserSessionPage))
)]
pub async fn list_sessions(
    state: State<Api>,
    caller: Admitted,
    params: Params,
) -> Result<Json<UserSessionPage>, Problem> {
    page(&state, caller.0.user, caller.0.session, params)
}

/// One of the caller's sessions.
#[utoipa::path(
    get, path = "/api/me/sessions/{id}", tag = "account",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = UserSession))
)]
pub async fn get_session(state: State<Api>, caller: Admitted, id: Path<String>) -> Result<Json<UserSession>, Problem> {
    let id = id.parse::<SessionId>().map_err(|_| Problem::not_found())?;
    let mut sessions = state.plane.accounts().sessions_of(caller.0.user, state.plane.now()).into_iter();
    let session = sessions.find(|session| session.id == id).ok_or_else(Problem::not_found)?;
    Ok(Json(UserSession::of(session, caller.0.session)))
}

/// Ends all of the caller's sessions but the one that asks.
#[utoipa::path(delete, path = "/api/me/sessions", tag = "account", responses((status = 204)))]
pub async fn delete_sessions(state: State<Api>, caller: Admitted) -> Result<StatusCode, Problem> {
    state.plane.end_sessions(caller.0.user, caller.0.session).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends a session at once. Streams that it has open end.
#[utoipa::path(
    delete, path = "/api/me/sessions/{id}", tag = "account",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 204))
)]
pub async fn delete_session(state: State<Api>, caller: Admitted, id: Path<String>) -> Result<StatusCode, Problem> {
    end(&state, caller.0.user, &id).await
}

/// A user's sessions, oldest first.
#[utoipa::path(
    get, path = "/api/admin/users/{id}/sessions", tag = "admin",
    params(
        ("id" = uuid::Uuid, Path),
        ("limit" = Option<u8>, Query, minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query)
    ),
    responses((status = 200, body = UserSessionPage))
)]
pub async fn list_user_sessions(
    state: State<Api>,
    caller: Admitted,
    id: Path<String>,
    params: Params,
) -> Result<Json<UserSessionPage>, Problem> {
    page(&state, known(&state, &id)?, caller.0.session, params)
}

/// Ends all of a user's sessions.
#[utoipa::path(
    delete, path = "/api/admin/users/{id}/sessions", tag = "admin",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 204))
)]
pub async fn delete_user_sessions(state: State<Api>, id: Path<String>) -> Result<StatusCode, Problem> {
    state.plane.end_sessions(known(&state, &id)?, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends one of a user's sessions.
#[utoipa::path(
    delete, path = "/api/admin/users/{id}/sessions/{session}", tag = "admin",
    params(("id" = uuid::Uuid, Path), ("session" = uuid::Uuid, Path)),
    responses((status = 204))
)]
pub async fn delete_user_session(state: State<Api>, ids: Path<(String, String)>) -> Result<StatusCode, Problem> {
    end(&state, known(&state, &ids.0.0)?, &ids.0.1).await
}

fn known(api: &Api, id: &str) -> Result<UserId, Problem> {
    api.plane.accounts().user(parse(id)?).map(|user| user.id).ok_or_else(Problem::not_found)
}

async fn end(api: &Api, user: UserId, session: &str) -> Result<StatusCode, Problem> {
    let session = session.parse().map_err(|_| Problem::not_found())?;
    api.plane.end_session(user, session).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn page(
    api: &Api,
    user: UserId,
    current: Option<SessionId>,
    mut params: Params,
) -> Result<Json<UserSessionPage>, Problem> {
    let (limit, after) = (params.limit(), params.cursor::<SessionId>());
    params.finish()?;
    let sessions = api.plane.accounts().sessions_of(user, api.plane.now());
    let (sessions, next_cursor) = page_of(sessions, after, limit, |session| session.id);
    let data = sessions.into_iter().map(|session| UserSession::of(session, current)).collect();
    Ok(Json(UserSessionPage { data, next_cursor }))
}

impl UserSession {
    fn of(it: SessionRecord, current: Option<SessionId>) -> Self {
        Self {
            current: Some(it.id) == current,
            id: it.id,
            created_at: it.created_at,
            last_used_at: it.seen_at,
            expires_at: it.expires_at,
            address: it.address,
            client: it.client,
            by: it.by,
        }
    }
}
