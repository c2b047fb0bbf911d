//! `/api/me` and `/api/keys`: what a user sees and does of their own account.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::Strict;
use super::guard::Admitted;
use super::params::{Params, page_of};
use super::problem::{Code, Problem};
use super::state::Api;
use super::users::User;
use crate::accounts::Caller;
use crate::control::NewKey;
use crate::domain::{KeyId, Problems, Scope, Scopes, Timestamp, UserId};
use crate::store::KeyRecord;

/// A key, without what makes it one.
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
    /// Since the service was started.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Timestamp>,
}

/// A new key: the only time that it is seen.
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

/// What a key is to be.
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

/// The caller: plan, limits and what is used of them.
#[utoipa::path(get, path = "/api/me", tag = "account", responses((status = 200, body = User)))]
pub async fn me(state: State<Api>, caller: Admitted) -> Result<Json<User>, Problem> {
    User::find(&state, caller.0.user).await.map(Json)
}

/// The caller's keys.
#[utoipa::path(
    get, path = "/api/keys", tag = "account",
    params(("limit" = Option<u8>, Query, minimum = 1, maximum = 200), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = KeyPage))
)]
pub async fn list_keys(state: State<Api>, caller: Admitted, mut params: Params) -> Result<Json<KeyPage>, Problem> {
    let (limit, after) = (params.limit(), params.cursor::<KeyId>());
    params.finish()?;
    let keys = state.plane.accounts().keys_of(caller.0.user);
    let (keys, next_cursor) = page_of(keys, after, limit, |(key, _)| key.id);
    let data = keys.into_iter().map(|(key, used)| Key::of(key, used)).collect();
    Ok(Json(KeyPage { data, next_cursor }))
}

/// Makes a key that may do no more than the one that makes it.
#[utoipa::path(
    post, path = "/api/keys", tag = "account",
    request_body = NewKeyBody,
    responses((status = 201, body = CreatedKey))
)]
pub async fn create_key(
    state: State<Api>,
    caller: Admitted,
    body: Strict<NewKeyBody>,
) -> Result<(StatusCode, Json<CreatedKey>), Problem> {
    let now = state.plane.now();
    let new = body.0.check(now, || own_scopes(&caller.0))?;
    if let Some(scope) = new.scopes.iter().find(|scope| !caller.0.may(*scope)) {
        let detail = format!("The key that makes this one lacks the scope {} itself.", scope.as_str());
        return Err(Problem::new(Code::Forbidden, detail));
    }
    store_key(&state, caller.0.user, new).await
}

/// Revokes a key, at once.
#[utoipa::path(
    delete, path = "/api/keys/{id}", tag = "account",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 204))
)]
pub async fn delete_key(state: State<Api>, caller: Admitted, id: Path<String>) -> Result<StatusCode, Problem> {
    let key: KeyId = id.parse().map_err(|_| Problem::not_found())?;
    let _turn = state.turn().await?;
    state.plane.remove_key(caller.0.user, key).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a key for a user.
pub async fn store_key(api: &Api, user: UserId, new: NewKey) -> Result<(StatusCode, Json<CreatedKey>), Problem> {
    let _turn = api.turn().await?;
    let (record, secret) = api.plane.create_key(user, new).await?;
    let created = CreatedKey { key: secret.expose().clone(), record: Key::of(record, None) };
    Ok((StatusCode::CREATED, Json(created)))
}

/// What a new key may do if nothing is said: what a user may do, as far as the key that makes it may.
fn own_scopes(caller: &Caller) -> Scopes {
    Scopes::user().iter().filter(|scope| caller.may(*scope)).collect()
}

impl Key {
    fn of(key: KeyRecord, last_used_at: Option<Timestamp>) -> Self {
        Self {
            id: key.id,
            name: key.name,
            scopes: key.scopes,
            expires_at: key.expires_at,
            created_at: key.created_at,
            last_used_at,
        }
    }
}

impl NewKeyBody {
    pub fn check(self, now: Timestamp, default: impl FnOnce() -> Scopes) -> Result<NewKey, Problem> {
        let mut problems = Problems::default();
        if self.name.as_ref().is_some_and(|name| !(1..=100).contains(&name.chars().count())) {
            problems.push("/name", "must have 1 to 100 characters");
        }
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
        let expires_at = self.expires_at.and_then(|time| {
            let time = time.parse::<Timestamp>().map_err(|_| "must be a time such as 2030-01-31T12:00:00Z".to_owned());
            let time = time.and_then(|time| if time > now { Ok(time) } else { Err("must be in the future".into()) });
            problems.keep("/expiresAt", time)
        });
        if problems.is_empty() {
            Ok(NewKey { name: self.name, scopes: scopes.unwrap_or_else(default), expires_at })
        } else {
            Err(problems.into())
        }
    }
}
