//! The page that an agent's gateway has of its own, for the agent's owner: see [`super::visits`].

use axum::Json;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::agents::OwnedAgent;
use super::audited;
use super::body::EmptyBody;
use super::guard::lacking;
use super::idempotency::HoldsSecret;
use super::problem::{Code, Problem};
use super::state::Api;
use crate::accounts::Caller;
use crate::control::AgentHandle;
use crate::domain::{Scope, Timestamp};
use crate::proxy::{Route, socket_credential};

/// A way into an agent's own page.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Invitation {
    /// Where the page is, behind whatever ends TLS.
    host: String,
    /// What to enter where the page asks for a pairing code; once.
    code: String,
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

/// A code for the page of the agent's own gateway at `<slug>.<domain>`: enter it where the page asks for a pairing code. It works
/// once, for five minutes; the page then works for twelve hours, as long as the key or the session works that asked.
#[utoipa::path(
    post, path = "/api/agents/{id}/dashboard", tag = "agents",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 201, body = Invitation))
)]
pub async fn dashboard(state: State<Api>, own: OwnedAgent, _: EmptyBody) -> Result<Response, Problem> {
    let host = state.plane.host_of(&own.view.record.slug).ok_or_else(|| {
        Problem::new(Code::NotFound, "Agents have no host names here; the operator sets `domain` in [proxy].")
    })?;
    let (code, expires_at) = state.visits.invite(own.handle.id(), own.caller, state.plane.now());
    let invitation = Invitation { host, code: code.expose().clone(), expires_at };
    let mut response = (StatusCode::CREATED, Json(invitation)).into_response();
    response.extensions_mut().insert(HoldsSecret);
    Ok(response)
}

/// Whether a page wants to pair, with a code of ours or of its gateway's.
pub fn pairs(parts: &Parts) -> bool {
    parts.method == Method::POST && parts.uri.path() == "/pair"
}

/// The answer to a page that pairs with a code of ours.
pub async fn pair(api: &Api, agent: &AgentHandle, parts: &Parts) -> Option<Response> {
    if !pairs(parts) {
        return None;
    }
    let code = parts.headers.get("x-pairing-code")?.to_str().ok()?;
    let (token, caller) = api.visits.enter(agent.id(), code, api.plane.now())?;
    audited::paired(api, agent, parts, Some(&caller)).await;
    let paired = json!({ "paired": true, "persisted": true, "token": token.expose(), "message": "Paired." });
    Some(Json(paired).into_response())
}

/// Who visits, by the token that the page was given.
pub fn visitor(api: &Api, agent: &AgentHandle, parts: &Parts) -> Option<Caller> {
    let known = |token: &str| api.visits.visitor(agent.id(), token, api.plane.now());
    let bearer = bearer(&parts.headers).and_then(known);
    bearer.or_else(|| known(socket_credential(&parts.headers, parts.uri.query())?.expose()))
}

/// The token that a request presents.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether a caller may do this at an agent's gateway.
///
/// # Errors
/// The scope is missing.
pub fn check_scope(caller: &Caller, route: Route) -> Result<(), Problem> {
    let scope = match route {
        Route::Read => Scope::AgentsRead,
        Route::Act => Scope::MessagesSend,
    };
    if caller.may(scope) || caller.may(Scope::Admin) { Ok(()) } else { Err(lacking(caller, scope)) }
}
