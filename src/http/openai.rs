//! `/v1`: agents as OpenAI's clients see models. The `model` of a request is an agent's slug or id.
//!
//! ```text
//! request ─► request.rs: what is asked, what cannot be honoured
//!              ├─ the gateway has these endpoints itself ─► passed on, model replaced
//!              └─ else: prompt.rs ─► source.rs: /webhook, streamed where the version streams ─► chat.rs, responses.rs
//! ```
//! Errors have OpenAI's shape; [`super::request`] writes it for every path below `/v1`.

mod chat;
mod prompt;
mod request;
mod responses;
mod source;

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use self::request::{Ask, Kind};
use super::gateway::client;
use super::guard::Admitted;
use super::message::hold_secs;
use super::problem::{Code, Problem};
use super::request::{Trace, peer_of};
use super::state::Api;
use super::{body, sse};
use crate::accounts::Caller;
use crate::control::AgentHandle;
use crate::domain::AgentId;
use crate::proxy::{Call, Mount};
use crate::view::AgentView;
use crate::zeroclaw::profile::Profile;

/// Conversations are sent whole with every request; pictures, which make them large, are not taken.
const MAX_BODY: usize = 8 * 1024 * 1024;
/// Agents in the list; a client shows them in a menu.
const MAX_MODELS: usize = 1_000;
const SESSION: HeaderName = HeaderName::from_static("x-session-id");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_SESSION: usize = 128;

#[derive(Serialize, ToSchema)]
pub struct ModelList {
    object: &'static str,
    data: Vec<Model>,
}

/// An agent as a model.
#[derive(Serialize, ToSchema)]
pub struct Model {
    /// The agent's slug.
    id: String,
    object: &'static str,
    /// Seconds since 1970.
    created: i64,
    owned_by: &'static str,
}

impl Model {
    fn of(view: &AgentView) -> Self {
        Self {
            id: view.record.slug.to_string(),
            object: "model",
            created: view.record.created_at.as_second(),
            owned_by: "zeroone",
        }
    }
}

/// The caller's agents, as models.
#[utoipa::path(get, path = "/v1/models", tag = "openai", responses((status = 200, body = ModelList)))]
pub async fn models(state: State<Api>, caller: Admitted) -> Json<ModelList> {
    let page = state.plane.agents(Some(caller.0.user), None, MAX_MODELS, &[]);
    Json(ModelList { object: "list", data: page.agents.iter().map(|view| Model::of(view)).collect() })
}

/// One agent, as a model.
#[utoipa::path(
    get, path = "/v1/models/{model}", tag = "openai",
    params(("model" = String, Path, description = "The agent's slug or id")),
    responses((status = 200, body = Model))
)]
pub async fn model(state: State<Api>, caller: Admitted, model: Path<String>) -> Result<Json<Model>, Problem> {
    let (_, view) = agent(&state, &caller.0, &model)?;
    Ok(Json(Model::of(&view)))
}

/// A chat completion by an agent, whole or streamed.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "openai",
    request_body = Value,
    responses((status = 200, content((Value = "application/json"), (String = "text/event-stream"))))
)]
pub async fn chat(
    state: State<Api>,
    caller: Admitted,
    trace: Extension<Trace>,
    request: Request,
) -> Result<Response, Problem> {
    let question = Question::read(&state, &caller.0, &trace.0, request).await?;
    question.answer(Kind::Chat).await
}

/// A response by an agent, whole or streamed.
#[utoipa::path(
    post, path = "/v1/responses", tag = "openai",
    request_body = Value,
    responses((status = 200, content((Value = "application/json"), (String = "text/event-stream"))))
)]
pub async fn responses(
    state: State<Api>,
    caller: Admitted,
    trace: Extension<Trace>,
    request: Request,
) -> Result<Response, Problem> {
    let question = Question::read(&state, &caller.0, &trace.0, request).await?;
    question.answer(Kind::Responses).await
}

/// A request to an agent, as far as both endpoints have it in common.
struct Question<'a> {
    api: &'a Api,
    caller: &'a Caller,
    agent: AgentHandle,
    slug: String,
    fields: Map<String, Value>,
    session: Option<HeaderValue>,
    parts: axum::http::request::Parts,
    trace: &'a Trace,
}

impl<'a> Question<'a> {
    async fn read(api: &'a Api, caller: &'a Caller, trace: &'a Trace, request: Request) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = body::read(&parts.headers, body, MAX_BODY).await?;
        let fields = request::fields(&bytes)?;
        let name = fields.get("model").and_then(Value::as_str);
        let name = name.ok_or_else(|| bad("model", "is required: the slug or the id of one of your agents"))?;
        let (agent, view) = agent(api, caller, name)?;
        let session = session(&parts.headers, &fields)?;
        Ok(Self { api, caller, agent, slug: view.record.slug.to_string(), fields, session, parts, trace })
    }

    async fn answer(mut self, kind: Kind) -> Result<Response, Problem> {
        if self.agent.profile() == Profile::Embedded {
            // It takes this for its own configured model.
            self.fields.insert("model".into(), "default".into());
            let body = Value::Object(std::mem::take(&mut self.fields)).to_string();
            let path = PathAndQuery::from_static(kind.path());
            return Ok(self.api.proxy.forward(self.call(path, body.into(), None)).await?);
        }
        let ask = Ask::read(kind, &self.fields)?;
        let pieces = source::ask(&self, &ask).await?;
        let (api, caller) = (self.api, self.caller);
        Ok(match (kind, ask.stream) {
            (Kind::Chat, false) => chat::whole(&self.slug, &source::collect(pieces).await?),
            (Kind::Chat, true) => sse::answer(api, caller, chat::streamed(&self.slug, pieces))?,
            (Kind::Responses, false) => responses::whole(&self.slug, &source::collect(pieces).await?),
            (Kind::Responses, true) => sse::answer(api, caller, responses::streamed(&self.slug, pieces))?,
        })
    }

    /// A POST to the agent's gateway with what this request brings.
    fn call(&self, path: PathAndQuery, body: Bytes, accept: Option<&'static str>) -> Call {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        if let Some(accept) = accept {
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        }
        if let Some(session) = &self.session {
            headers.insert(SESSION, session.clone());
        }
        if let Ok(id) = HeaderValue::try_from(&self.trace.request_id) {
            headers.insert(REQUEST_ID, id);
        }
        let (mut parts, ()) = axum::http::Request::new(()).into_parts();
        parts.method = axum::http::Method::POST;
        parts.headers = headers;
        Call {
            agent: self.agent.clone(),
            parts,
            path,
            body: Body::from(body),
            client: client(&self.parts.headers, peer_of(&self.parts.extensions)),
            mount: Mount::Path(format!("/api/agents/{}/gateway", self.agent.id())),
            hold: Duration::from_secs(hold_secs(&self.parts.headers)),
            until: Box::pin(self.api.over(self.caller.clone())),
        }
    }
}

/// The caller's agent with this slug or id.
fn agent(api: &Api, caller: &Caller, name: &str) -> Result<(AgentHandle, std::sync::Arc<AgentView>), Problem> {
    let by_id = || name.parse::<AgentId>().ok().and_then(|id| api.plane.agent(id));
    let found = api.plane.agent_by_slug(name).or_else(by_id);
    let owned = found.and_then(|agent| {
        let view = agent.view().filter(|view| view.record.user == caller.user)?;
        Some((agent, view))
    });
    owned.ok_or_else(|| {
        Problem::new(Code::NotFound, "There is no such model; GET /v1/models lists your agents.")
            .with("param", "model")
            .with("openaiCode", "model_not_found")
    })
}

/// The conversation that the request belongs to, by header or by `user`.
fn session(headers: &HeaderMap, fields: &Map<String, Value>) -> Result<Option<HeaderValue>, Problem> {
    let valid = |text: &str| {
        (1..=MAX_SESSION).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    if let Some(given) = headers.get(SESSION) {
        return match given.to_str() {
            Ok(text) if valid(text) => Ok(Some(given.clone())),
            _ => Err(Problem::new(Code::Malformed, "X-Session-Id must be 1 to 128 of A-Z a-z 0-9 - _ .")),
        };
    }
    // A user name that cannot be a session's is no error: it is made for the caller's own records.
    let user = fields.get("user").and_then(Value::as_str).filter(|user| valid(user));
    Ok(user.and_then(|user| HeaderValue::try_from(user).ok()))
}

/// A field that is wrong, or cannot be honoured.
fn bad(param: &str, detail: &str) -> Problem {
    Problem::new(Code::Malformed, format!("{param}: {detail}")).with("param", param)
}

/// An error that comes when the answer has begun.
fn late_error(problem: &Problem) -> axum::response::sse::Event {
    axum::response::sse::Event::default().data(problem.openai_body().to_string())
}
