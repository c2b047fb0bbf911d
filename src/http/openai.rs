//! `/v1`: agents as OpenAI's clients see models. The `model` of a request is an agent's slug or id.
//!
//! ```text
//! request ─► request.rs: what is asked, what cannot be honoured
//!              ├─ the gateway has these endpoints itself ─► passed on, model replaced
//!              └─ else: prompt.rs ─► question.rs: /webhook, streamed where the version streams ─► chat.rs, responses.rs
//! ```
//! Errors have OpenAI's shape; [`super::request`] writes it for every path below `/v1`.

mod chat;
mod prompt;
mod request;
mod responses;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use self::prompt::flatten;
use self::request::{Ask, Kind};
use super::error::bad_header;
use super::guard::Admitted;
use super::problem::{Code, Problem};
use super::question::{MAX_WEBHOOK, Question};
use super::request::{Trace, peer_of};
use super::state::Api;
use super::{body, pieces, sse};
use crate::accounts::Caller;
use crate::control::AgentHandle;
use crate::domain::{AgentId, SessionName};
use crate::view::AgentView;
use crate::zeroclaw::profile::Profile;

/// Conversations are sent whole with every request; pictures, which make them large, are not taken.
const MAX_BODY: usize = 8 * 1024 * 1024;
/// Agents in the list; a client shows them in a menu.
const MAX_MODELS: usize = 1_000;
const SESSION: HeaderName = HeaderName::from_static("x-session-id");

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
pub async fn chat(state: State<Api>, caller: Admitted, trace: Trace, request: Request) -> Result<Response, Problem> {
    let asked = Asked::read(&state, &caller.0, &trace, request).await?;
    asked.answer(Kind::Chat).await
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
    trace: Trace,
    request: Request,
) -> Result<Response, Problem> {
    let asked = Asked::read(&state, &caller.0, &trace, request).await?;
    asked.answer(Kind::Responses).await
}

/// A request to an agent, as far as both endpoints have it in common.
struct Asked {
    question: Question,
    slug: String,
    fields: Map<String, Value>,
}

impl Asked {
    async fn read(api: &Api, caller: &Caller, trace: &Trace, request: Request) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = body::read(&parts.headers, body, MAX_BODY).await?;
        body::check_kind(&parts.headers)?;
        let fields = request::fields(&bytes)?;
        let name = fields.get("model").and_then(Value::as_str);
        let name = name.ok_or_else(|| bad("model", "is required: the slug or the id of one of your agents"))?;
        let (agent, view) = agent(api, caller, name)?;
        let peer = peer_of(&parts.extensions);
        let mut question = Question::new(api, caller, agent, trace, &parts.headers, peer);
        question.session = session(&parts.headers, &fields)?;
        Ok(Self { question, slug: view.record.slug.to_string(), fields })
    }

    async fn answer(mut self, kind: Kind) -> Result<Response, Problem> {
        if self.question.agent.profile() == Profile::Embedded {
            // It takes this for its own configured model.
            self.fields.insert("model".into(), "default".into());
            let body = Value::Object(self.fields).to_string();
            return self.question.pass(PathAndQuery::from_static(kind.path()), body.into()).await;
        }
        let ask = Ask::read(kind, &self.fields)?;
        let pieces = self.question.ask(&flatten(&ask.lines), ask.stream).await.map_err(too_long)?;
        let Question { api, caller, .. } = &self.question;
        Ok(match (kind, ask.stream) {
            (Kind::Chat, false) => chat::whole(&self.slug, &pieces::collect(pieces).await?),
            (Kind::Chat, true) => sse::answer(api, caller, chat::streamed(&self.slug, pieces))?,
            (Kind::Responses, false) => responses::whole(&self.slug, &pieces::collect(pieces).await?),
            (Kind::Responses, true) => sse::answer(api, caller, responses::streamed(&self.slug, pieces))?,
        })
    }
}

/// A conversation that is too long in OpenAI's words, which clients know.
fn too_long(problem: Problem) -> Problem {
    match problem.code() {
        Code::TooLarge => {
            bad("messages", &format!("are longer than the {MAX_WEBHOOK} bytes that the agent's gateway takes"))
                .with("openaiCode", "context_length_exceeded")
        }
        _ => problem,
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
fn session(headers: &HeaderMap, fields: &Map<String, Value>) -> Result<Option<SessionName>, Problem> {
    if let Some(given) = headers.get(SESSION) {
        let name = SessionName::parse(given.to_str().unwrap_or_default());
        return name.map(Some).map_err(|remedy| bad_header(&SESSION, &remedy));
    }
    // A user name that cannot be a session's is no error: it is made for the caller's own records.
    match fields.get("user") {
        None => Ok(None),
        Some(user) => {
            let user = user.as_str().ok_or_else(|| bad("user", "must be text"))?;
            Ok(SessionName::parse(user).ok())
        }
    }
}

/// A field that is wrong, or cannot be honoured.
fn bad(param: &str, detail: &str) -> Problem {
    Problem::new(Code::Malformed, format!("{param}: {detail}")).with("param", param)
}

/// An error that comes when the answer has begun.
fn late_error(problem: &Problem) -> axum::response::sse::Event {
    axum::response::sse::Event::default().data(problem.openai_body().to_string())
}
