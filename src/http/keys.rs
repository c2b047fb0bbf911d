//! API keys: a user's own, and for administrators those of any user.
//!
//! A key never makes one that may do more or works longer than itself, and takes those that it made with it.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::JsonBody;
use super::guard::Admitted;
use super::idempotency::HoldsSecret;
use super::params::{Params, future, page_of};
use super::problem::{Code, Problem};
use super::state::Api;
use crate::accounts::Caller;
use crate::control::NewKey;
use crate::domain::{KeyId, Problems, Scope, Scopes, Timestamp, UserId, label};
use crate::store::KeyRecord;

const MAX_NAME: usize = 100;

/// A key, without its secret.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    #[schema(value_type = uuid::Uuid)]
    id: KeyId,
    name: Option<String>,
    #[schema(value_type = Vec<String>)]
    scopes: Scopes,
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// The key that made this one; its revocation ends this one too.
    #[schema(value_type = Option<uuid::Uuid>)]
    parent: Option<KeyId>,
    /// Since the service was started.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Timestamp>,
}

/// A new key: the only time that its secret is shown.
#[derive(Serialize, ToSchema)]
pub struct CreatedKey {
    /// `zo_…`
    key: String,
    #[serde(flatten)]
    record: Key,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyPage {
    data: Vec<Key>,
    next_cursor: Option<String>,
}

/// A key to be made.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewKeyBody {
    #[schema(max_length = 100)]
    name: Option<String>,
    /// All that a user may do with their own agents, by default.
    #[schema(value_type = Option<Vec<String>>)]
    scopes: Option<Vec<String>>,
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<String>,
}

/// The caller's keys.
#[utoipa::path(
    get, path = "/api/keys", tag = "account",
    params(("limit" = Option<u8>, Query, minimum = 1, maximum = 200), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = KeyPage))
)]
pub async fn list_keys(state: State<Api>, caller: Admitted, params: Params) -> Result<Json<KeyPage>, Problem> {
    page(&state, caller.0.user, params)
}

/// Makes a key that may do no more than the one that makes it, and works no longer.
#[utoipa::path(
    post, path = "/api/keys", tag = "account",
    request_body = NewKeyBody,
    responses((status = 201, body = CreatedKey))
)]
pub async fn create_key(state: State<Api>, caller: Admitted, body: JsonBody<NewKeyBody>) -> Result<Response, Problem> {
    let scopes = || Scopes::user().iter().filter(|scope| caller.0.may(*scope)).collect();
    let new = body.0.check(state.plane.now(), scopes)?;
    make(&state, &caller.0, caller.0.user, new).await
}

/// Revokes a key and those that were made with it, at once. Streams that they have open end.
#[utoipa::path(
    delete, path = "/api/keys/{id}", tag = "account",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 204))
)]
pub async fn delete_key(state: State<Api>, caller: Admitted, id: Path<String>) -> Result<StatusCode, Problem> {
    let caller = caller.0;
    let id: KeyId = id.parse().map_err(|_| Problem::not_found())?;
    let keys = state.plane.accounts().keys_of(caller.user);
    let (key, _) = keys.into_iter().find(|(key, _)| key.id == id).ok_or_else(Problem::not_found)?;
    if !caller.scopes.covers(&key.scopes) && !caller.may(Scope::Admin) {
        return Err(Problem::new(Code::Forbidden, "A key cannot revoke one that may do more than itself."));
    }
    let _turn = state.turn().await?;
    state.plane.remove_key(caller.user, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A user's keys.
#[utoipa::path(
    get, path = "/api/admin/users/{id}/keys", tag = "admin",
    params(
        ("id" = uuid::Uuid, Path),
        ("limit" = Option<u8>, Query, minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query)
    ),
    responses((status = 200, body = KeyPage))
)]
pub async fn list_user_keys(state: State<Api>, id: Path<String>, params: Params) -> Result<Json<KeyPage>, Problem> {
    page(&state, user(&state, &id)?, params)
}

/// Makes a key for a user. One with the scope admin belongs to the key that makes it, and goes with it.
#[utoipa::path(
    post, path = "/api/admin/users/{id}/keys", tag = "admin",
    params(("id" = uuid::Uuid, Path)),
    request_body = NewKeyBody,
    responses((status = 201, body = CreatedKey))
)]
pub async fn create_user_key(
    state: State<Api>,
    caller: Admitted,
    id: Path<String>,
    body: JsonBody<NewKeyBody>,
) -> Result<Response, Problem> {
    let owner = user(&state, &id)?;
    let new = body.0.check(state.plane.now(), Scopes::user)?;
    make(&state, &caller.0, owner, new).await
}

/// Revokes a user's key and those that were made with it.
#[utoipa::path(
    delete, path = "/api/admin/users/{id}/keys/{key}", tag = "admin",
    params(("id" = uuid::Uuid, Path), ("key" = uuid::Uuid, Path)),
    responses((status = 204))
)]
pub async fn delete_user_key(state: State<Api>, ids: Path<(String, String)>) -> Result<StatusCode, Problem> {
    let owner = user(&state, &ids.0.0)?;
    let key: KeyId = ids.0.1.parse().map_err(|_| Problem::not_found())?;
    let _turn = state.turn().await?;
    state.plane.remove_key(owner, key).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn user(api: &Api, id: &str) -> Result<UserId, Problem> {
    let id = id.parse().map_err(|_| Problem::not_found())?;
    api.plane.accounts().user(id).map(|user| user.id).ok_or_else(Problem::not_found)
}

fn page(api: &Api, user: UserId, mut params: Params) -> Result<Json<KeyPage>, Problem> {
    let (limit, after) = (params.limit(), params.cursor::<KeyId>());
    params.finish()?;
    let keys = api.plane.accounts().keys_of(user);
    let (keys, next_cursor) = page_of(keys, after, limit, |(key, _)| key.id);
    let data = keys.into_iter().map(|(key, used)| Key::new(key, used)).collect();
    Ok(Json(KeyPage { data, next_cursor }))
}

/// Makes a key, bounded by the one that makes it.
async fn make(api: &Api, maker: &Caller, owner: UserId, new: NewKey) -> Result<Response, Problem> {
    let new = bounded(maker, owner, new)?;
    let _turn = api.turn().await?;
    let (record, secret) = api.plane.create_key(owner, new).await?;
    let created = CreatedKey { key: secret.expose().clone(), record: Key::new(record, None) };
    let mut response = (StatusCode::CREATED, Json(created)).into_response();
    response.extensions_mut().insert(HoldsSecret);
    Ok(response)
}

fn bounded(maker: &Caller, owner: UserId, new: NewKey) -> Result<NewKey, Problem> {
    // An administrator may do to any agent what these scopes allow, so they are no more than admin.
    let lacking = new.scopes.iter().find(|scope| !maker.may(*scope) && !maker.may(Scope::Admin));
    if let Some(scope) = lacking {
        let detail = format!("The key that makes this one lacks the scope {} itself.", scope.as_str());
        return Err(Problem::new(Code::Forbidden, detail));
    }
    // A person's session ends by itself; the keys that they make in it do not.
    let bound = maker.expires_at.filter(|_| maker.session.is_none());
    let expires_at = match (bound, new.expires_at) {
        (Some(bound), Some(wanted)) => Some(bound.min(wanted)),
        (bound, wanted) => wanted.or(bound),
    };
    let descends = owner == maker.user || new.scopes.contains(Scope::Admin);
    Ok(NewKey { expires_at, parent: maker.key.filter(|_| descends), ..new })
}

impl Key {
    fn new(key: KeyRecord, last_used_at: Option<Timestamp>) -> Self {
        Self {
            id: key.id,
            name: key.name,
            scopes: key.scopes,
            expires_at: key.expires_at,
            created_at: key.created_at,
            parent: key.parent,
            last_used_at,
        }
    }
}

impl NewKeyBody {
    fn check(self, now: Timestamp, default: impl FnOnce() -> Scopes) -> Result<NewKey, Problem> {
        let mut problems = Problems::default();
        let name = self.name.and_then(|name| problems.keep("/name", label(&name, MAX_NAME)));
        let scopes = self.scopes.map(|scopes| {
            if scopes.is_empty() {
                problems.push("/scopes", "must have at least one scope");
            }
            let mut kept = Vec::new();
            for (index, scope) in scopes.iter().enumerate().take(Scope::ALL.len()) {
                kept.extend(problems.keep(&format!("/scopes/{index}"), Scope::parse(scope)));
            }
            if scopes.len() > Scope::ALL.len() {
                problems.push("/scopes", "has more entries than there are scopes");
            }
            kept.into_iter().collect()
        });
        let expires_at = self.expires_at.and_then(|time| problems.keep("/expiresAt", future(&time, now)));
        if problems.is_empty() {
            Ok(NewKey { name, scopes: scopes.unwrap_or_else(default), expires_at, parent: None })
        } else {
            Err(problems.into())
        }
    }
}
