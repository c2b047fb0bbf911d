//! `/api/agents/{id}/sessions`: the conversations that the agent's gateway keeps, in one form for all versions.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::uri::PathAndQuery;
use axum::http::{Extensions, HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::agents::OwnedAgent;
use super::error::gateway_refusal;
use super::params::{Params, page_of};
use super::pieces::MAX_ANSWER;
use super::problem::{Code, Problem};
use super::question::Question;
use super::request::{Trace, peer_of};
use super::state::Api;
use crate::domain::{SessionName, Timestamp};
use crate::zeroclaw::client::WebhookAnswer;

/// What the gateway keeps.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionPage {
    data: Vec<Session>,
    next_cursor: Option<String>,
}

/// A conversation.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// What `session` of a message names.
    id: String,
    #[schema(value_type = Option<String>, format = DateTime)]
    created_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    last_activity: Option<Timestamp>,
    message_count: u64,
}

/// A conversation with what was said, oldest first.
#[derive(Serialize, ToSchema)]
pub struct SessionDetail {
    id: String,
    messages: Vec<Said>,
}

#[derive(Serialize, ToSchema)]
pub struct Said {
    /// `user` or `assistant`.
    role: String,
    content: String,
    #[schema(value_type = Option<String>, format = DateTime)]
    time: Option<Timestamp>,
}

/// The conversations that the agent's gateway keeps, oldest first.
///
/// ZeroClaw 0.1 keeps none: 501 `not-supported`.
#[utoipa::path(
    get, path = "/api/agents/{id}/sessions", tag = "agents",
    params(
        ("id" = uuid::Uuid, Path),
        ("limit" = Option<u8>, Query, minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query)
    ),
    responses((status = 200, body = SessionPage))
)]
pub async fn list(
    state: State<Api>,
    own: OwnedAgent,
    trace: Trace,
    mut params: Params,
    headers: HeaderMap,
    extensions: Extensions,
) -> Result<Json<SessionPage>, Problem> {
    let (limit, after) = (params.limit(), params.cursor::<String>());
    params.finish()?;
    let question = question(&state, own, &trace, &headers, &extensions)?;
    let mut sessions = all(&question).await?;
    sessions.sort_by_cached_key(Session::place);
    let (data, next_cursor) = page_of(sessions, after, limit, Session::place);
    Ok(Json(SessionPage { data, next_cursor }))
}

/// Forgets all conversations that the agent's gateway keeps. One that is begun meanwhile stays.
#[utoipa::path(
    delete, path = "/api/agents/{id}/sessions", tag = "agents",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 204, description = "They are forgotten"))
)]
pub async fn delete_all(
    state: State<Api>,
    own: OwnedAgent,
    trace: Trace,
    headers: HeaderMap,
    extensions: Extensions,
) -> Result<StatusCode, Problem> {
    let question = question(&state, own, &trace, &headers, &extensions)?;
    for session in all(&question).await? {
        // One whose name is none of ours cannot be asked for by it, neither here nor alone.
        let Ok(name) = SessionName::parse(&session.id) else { continue };
        match forget(&question, &name).await {
            Err(problem) if problem.code() != Code::NotFound => return Err(problem),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

/// All that the gateway tells of.
async fn all(question: &Question) -> Result<Vec<Session>, Problem> {
    #[derive(Deserialize)]
    struct Answer {
        sessions: Vec<Listed>,
    }
    #[derive(Deserialize)]
    struct Listed {
        session_id: String,
        created_at: Option<String>,
        last_activity: Option<String>,
        #[serde(default)]
        message_count: u64,
    }
    let body = ask(question, Method::GET, "/api/sessions").await?;
    let Answer { sessions } = serde_json::from_slice(&body).map_err(|_| unusable())?;
    let sessions = sessions.into_iter().map(|listed| Session {
        id: listed.session_id,
        created_at: time(listed.created_at),
        last_activity: time(listed.last_activity),
        message_count: listed.message_count,
    });
    Ok(sessions.collect())
}

impl Session {
    /// Where it stands in the list: by its beginning, in microseconds, and where that is not known before all others.
    fn place(&self) -> String {
        let began = self.created_at.map_or(0, |time| time.as_microsecond().max(0));
        format!("{began:020} {}", self.id)
    }
}

/// What was said in a conversation.
#[utoipa::path(
    get, path = "/api/agents/{id}/sessions/{session}", tag = "agents",
    params(("id" = uuid::Uuid, Path), ("session" = String, Path, description = "What `session` of a message names")),
    responses((status = 200, body = SessionDetail))
)]
pub async fn get(
    state: State<Api>,
    own: OwnedAgent,
    path: Path<(String, String)>,
    trace: Trace,
    headers: HeaderMap,
    extensions: Extensions,
) -> Result<Json<SessionDetail>, Problem> {
    #[derive(Deserialize)]
    struct Answer {
        messages: Vec<Kept>,
    }
    #[derive(Deserialize)]
    struct Kept {
        role: String,
        content: String,
        #[serde(alias = "created_at")]
        timestamp: Option<String>,
    }
    let name = named(&path.1)?;
    let question = question(&state, own, &trace, &headers, &extensions)?;
    let body = ask(&question, Method::GET, &format!("/api/sessions/{name}/messages")).await?;
    let Answer { messages } = serde_json::from_slice(&body).map_err(|_| unusable())?;
    if messages.is_empty() {
        // ZeroClaw answers so for a name that it does not know.
        return Err(Problem::not_found());
    }
    let said =
        messages.into_iter().map(|kept| Said { role: kept.role, content: kept.content, time: time(kept.timestamp) });
    Ok(Json(SessionDetail { id: name.to_string(), messages: said.collect() }))
}

/// Forgets a conversation.
#[utoipa::path(
    delete, path = "/api/agents/{id}/sessions/{session}", tag = "agents",
    params(("id" = uuid::Uuid, Path), ("session" = String, Path, description = "What `session` of a message names")),
    responses((status = 204, description = "It is forgotten"))
)]
pub async fn delete(
    state: State<Api>,
    own: OwnedAgent,
    path: Path<(String, String)>,
    trace: Trace,
    headers: HeaderMap,
    extensions: Extensions,
) -> Result<StatusCode, Problem> {
    let name = named(&path.1)?;
    let question = question(&state, own, &trace, &headers, &extensions)?;
    forget(&question, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn forget(question: &Question, name: &SessionName) -> Result<(), Problem> {
    ask(question, Method::DELETE, &format!("/api/sessions/{name}")).await.map(drop)
}

/// A question to a gateway that keeps conversations.
fn question(
    api: &Api,
    own: OwnedAgent,
    trace: &Trace,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Result<Question, Problem> {
    if !own.handle.profile().lists_sessions() {
        let detail = "This version of the agent's gateway keeps no conversations that it could tell of; ZeroClaw does from 0.6 on.";
        return Err(Problem::new(Code::NotSupported, detail));
    }
    Ok(Question::new(api, &own.caller, own.handle, trace, headers, peer_of(extensions)))
}

/// One that cannot be a conversation's name is one that is not there.
fn named(id: &str) -> Result<SessionName, Problem> {
    SessionName::parse(id).map_err(|_| Problem::not_found())
}

async fn ask(question: &Question, method: Method, path: &str) -> Result<Bytes, Problem> {
    let path = PathAndQuery::try_from(path).map_err(|_| Problem::not_found())?;
    let response = question.send(method, path, Bytes::new()).await?;
    let json = is_json(&response);
    let (head, body) = response.into_parts();
    let body = axum::body::to_bytes(body, MAX_ANSWER).await.map_err(|_| unusable())?;
    match head.status {
        StatusCode::OK if json => Ok(body),
        StatusCode::NOT_FOUND => Err(Problem::not_found()),
        StatusCode::OK => Err(unusable()),
        status => Err(gateway_refusal(&WebhookAnswer::of(status, &head.headers, body))),
    }
}

fn is_json(response: &Response) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
}

fn time(text: Option<String>) -> Option<Timestamp> {
    text?.parse().ok()
}

fn unusable() -> Problem {
    Problem::new(Code::GatewayError, "The agent's gateway gave an answer that tells of no conversations.")
}
