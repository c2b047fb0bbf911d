//! `/api/admin/audit` and `/api/audit`: who did what, newest first.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use utoipa::ToSchema;

use super::guard::Admitted;
use super::params::{Params, cursor};
use super::problem::{FieldError, Problem};
use super::sse::accepts;
use super::state::Api;
use crate::domain::{KeyId, SessionId, Timestamp, UserId};
use crate::store::{AuditFilter, AuditOutcome, AuditRecord};

const NDJSON: &str = "application/x-ndjson";
/// Records that an export reads at a time.
const CHUNK: usize = 1000;

/// Somebody did something, or was refused.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// Its place in the audit.
    id: u64,
    #[schema(value_type = String, format = DateTime)]
    time: Timestamp,
    /// Who; null for somebody who did not say, or whose key or password was wrong.
    #[schema(value_type = Option<uuid::Uuid>)]
    user: Option<UserId>,
    /// Their address, while there is such a user.
    email: Option<String>,
    /// The API key that they used.
    #[schema(value_type = Option<uuid::Uuid>)]
    key: Option<KeyId>,
    /// The session that they used.
    #[schema(value_type = Option<uuid::Uuid>)]
    session: Option<SessionId>,
    /// Where they were.
    #[schema(value_type = Option<String>)]
    address: Option<std::net::IpAddr>,
    /// `key`, `session`, or null for neither.
    #[schema(value_type = Option<String>)]
    via: Option<&'static str>,
    /// What: method and path of the API, as in the OpenAPI document.
    action: String,
    /// The path as it was.
    target: String,
    /// Whose it is, where it is another user's.
    #[schema(value_type = Option<uuid::Uuid>)]
    owner: Option<UserId>,
    /// `done`, `refused` (not allowed) or `failed`.
    #[schema(value_type = String)]
    outcome: &'static str,
    /// The problem's code, where there was one.
    code: Option<String>,
    request_id: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditPage {
    data: Vec<AuditEntry>,
    next_cursor: Option<String>,
}

/// Everybody's changes and refusals, newest first. With `Accept: application/x-ndjson` all that fit, one on each line.
#[utoipa::path(
    get, path = "/api/admin/audit", tag = "admin",
    params(
        ("limit" = Option<u8>, Query, minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query),
        ("user" = Option<String>, Query, description = "Only this user's, by id or e-mail address"),
        ("action" = Option<String>, Query, description = "A part of the action"),
        ("target" = Option<String>, Query, description = "A part of the target, such as an agent's id"),
        ("outcome" = Option<String>, Query, description = "`done`, `refused` or `failed`"),
        ("since" = Option<String>, Query),
        ("until" = Option<String>, Query)
    ),
    responses((status = 200, content((AuditPage = "application/json"), (String = "application/x-ndjson"))))
)]
pub async fn admin_audit(state: State<Api>, headers: HeaderMap, params: Params) -> Result<Response, Problem> {
    let by = params.part("user").map(|user| user_named(&state, &user)).transpose()?;
    answer(state.0, headers, params, AuditFilter { by, ..AuditFilter::default() }, None).await
}

/// What the caller did, and what others did to what is theirs, newest first.
#[utoipa::path(
    get, path = "/api/audit", tag = "account",
    params(
        ("limit" = Option<u8>, Query, minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query),
        ("action" = Option<String>, Query, description = "A part of the action"),
        ("target" = Option<String>, Query, description = "A part of the target, such as an agent's id"),
        ("outcome" = Option<String>, Query, description = "`done`, `refused` or `failed`"),
        ("since" = Option<String>, Query),
        ("until" = Option<String>, Query)
    ),
    responses((status = 200, content((AuditPage = "application/json"), (String = "application/x-ndjson"))))
)]
pub async fn own_audit(
    state: State<Api>,
    caller: Admitted,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    let user = caller.0.user;
    answer(state.0, headers, params, AuditFilter { about: Some(user), ..AuditFilter::default() }, Some(user)).await
}

fn user_named(api: &Api, user: &str) -> Result<UserId, Problem> {
    let known = || api.plane.accounts().user_by_email(&user.to_lowercase()).map(|user| user.id);
    user.parse().ok().or_else(known).ok_or_else(|| {
        Problem::invalid(vec![FieldError::parameter("user", "must be the id or the e-mail address of a user")])
    })
}

async fn answer(
    api: Api,
    headers: HeaderMap,
    mut params: Params,
    filter: AuditFilter,
    reader: Option<UserId>,
) -> Result<Response, Problem> {
    let (limit, before) = (params.limit(), params.cursor::<u64>());
    let (action, target) = (params.part("action"), params.part("target"));
    let outcomes = || AuditOutcome::ALL.iter().copied();
    let outcome = params.one_of("outcome", &outcomes().map(AuditOutcome::as_str).collect::<Vec<_>>());
    let outcome = outcome.and_then(|word| outcomes().find(|outcome| outcome.as_str() == word));
    let (since, until) = (params.time("since"), params.time("until"));
    params.finish()?;
    let filter = AuditFilter { action, target, outcome, since, until, ..filter };
    if accepts(&headers, NDJSON) {
        return Ok(export(api, before, filter, reader));
    }
    let page = api.plane.store().audit(before, limit, filter).await?;
    let data = page.records.into_iter().map(|record| AuditEntry::of(&api, record, reader)).collect();
    Ok(Json(AuditPage { data, next_cursor: page.next.map(cursor) }).into_response())
}

/// All that fits, read piece by piece as the client takes it.
fn export(api: Api, before: Option<u64>, filter: AuditFilter, reader: Option<UserId>) -> Response {
    let lines = stream::try_unfold(Some(before), move |place| {
        let (api, filter) = (api.clone(), filter.clone());
        async move {
            let Some(before) = place else { return Ok::<_, std::io::Error>(None) };
            let page = api.plane.store().audit(before, CHUNK, filter).await.map_err(std::io::Error::other)?;
            let mut text = Vec::new();
            for record in page.records {
                serde_json::to_writer(&mut text, &AuditEntry::of(&api, record, reader))
                    .map_err(std::io::Error::other)?;
                text.push(b'\n');
            }
            Ok(Some((Bytes::from(text), page.next.map(Some))))
        }
    });
    let mut response = Body::from_stream(lines).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    response
}

impl AuditEntry {
    /// Where a user reads of another, such as an administrator, how that one came in is not told.
    fn of(api: &Api, it: AuditRecord, reader: Option<UserId>) -> Self {
        let shown = reader.is_none_or(|reader| it.user.is_none_or(|user| user == reader));
        Self {
            id: it.offset,
            time: it.time,
            email: it.user.and_then(|user| api.plane.accounts().user(user)).map(|user| user.email),
            user: it.user,
            via: if it.session.is_some() { Some("session") } else { it.key.map(|_| "key") },
            key: it.key.filter(|_| shown),
            session: it.session.filter(|_| shown),
            address: it.address.filter(|_| shown),
            action: it.action,
            target: it.target,
            owner: it.owner,
            outcome: it.outcome.as_str(),
            code: it.code,
            request_id: it.request,
        }
    }
}
