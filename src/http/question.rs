//! A question to an agent's gateway that we put ourselves, rather than pass on: by `/message`, `/v1` and for sessions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::ready;
use futures_util::stream::{self, StreamExt};
use serde_json::json;
use tokio::time::Instant;

use super::error::message_refusal;
use super::gateway::client;
use super::pieces::{self, Piece, Pieces, Unanswered};
use super::prefer::hold_secs;
use super::problem::{Code, Problem};
use super::request::Trace;
use super::state::Api;
use crate::accounts::Caller;
use crate::control::{AgentHandle, Turn};
use crate::domain::{SessionName, Timestamp};
use crate::proxy::{Call, Client, Mount};
use crate::zeroclaw::client::{ModelFailure, WebhookAnswer};

/// What ZeroClaw's gateway takes at most.
pub const MAX_WEBHOOK: usize = 65_536;
const WEBHOOK: &str = "/webhook";
const SESSION: HeaderName = HeaderName::from_static("x-session-id");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

/// Who asks which agent.
#[derive(Clone)]
pub struct Question {
    pub api: Api,
    pub caller: Caller,
    pub agent: AgentHandle,
    /// The conversation that it belongs to.
    pub session: Option<SessionName>,
    pub client: Client,
    /// How long it may wait for an agent that comes up.
    pub hold: Duration,
    pub deadline: Instant,
    pub trace: Trace,
}

/// A message that was put, and what its answer tells of the agent.
#[derive(Clone)]
pub struct Asked {
    api: Api,
    agent: AgentHandle,
    since: Timestamp,
}

impl Asked {
    pub fn now(question: &Question) -> Self {
        let Question { api, agent, .. } = question;
        Self { api: api.clone(), agent: agent.clone(), since: api.plane.now() }
    }

    /// The pieces as the caller gets them.
    pub fn judged(self, pieces: Pieces<Unanswered>) -> Pieces {
        let judged = pieces.then(move |piece| {
            let asked = self.clone();
            async move {
                match piece {
                    Ok(piece) => Ok(piece),
                    Err(why) => Err(asked.problem(why).await),
                }
            }
        });
        judged.boxed()
    }

    pub async fn problem(&self, why: Unanswered) -> Problem {
        match why {
            Unanswered::Problem(problem) => problem,
            Unanswered::Refused(answer) => self.refusal(answer).await,
        }
    }

    async fn refusal(&self, answer: WebhookAnswer) -> Problem {
        let attempt = self.agent.view().and_then(|view| Some(view.access.as_ref()?.attempt));
        let answer = match attempt {
            Some(attempt) => self.agent.heed(answer, self.since, attempt).await,
            None => answer,
        };
        message_refusal(&answer, self.api.options.answer_within)
    }
}

impl Question {
    /// A question that belongs to no conversation.
    pub fn new(
        api: &Api,
        caller: &Caller,
        agent: AgentHandle,
        trace: &Trace,
        headers: &HeaderMap,
        peer: Option<SocketAddr>,
    ) -> Self {
        let hold = Duration::from_secs(hold_secs(headers));
        Self {
            api: api.clone(),
            caller: caller.clone(),
            agent,
            session: None,
            client: client(headers, peer),
            hold,
            deadline: Instant::now() + hold,
            trace: trace.clone(),
        }
    }

    /// Puts a message, and gives the answer as it comes: in pieces where the gateway streams, else in one.
    ///
    /// # Errors
    /// The agent is not there to be asked, or refuses at once.
    pub async fn ask(&self, message: &str, stream: bool) -> Result<Pieces, Problem> {
        let began = Instant::now();
        let asked = self.put(message, stream).await;
        self.agent.note_message(asked.is_ok(), began.elapsed());
        if let Some(failure) = asked.as_ref().err().and_then(Problem::model_failure) {
            self.note_failure(failure);
        }
        Ok(self.noted(asked?))
    }

    /// Watches an answer for what it says about the model.
    pub fn noted(&self, pieces: Pieces) -> Pieces {
        let (watching, ending) = (self.clone(), self.agent.clone());
        let failed = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&failed);
        let watched = pieces.inspect(move |piece| {
            if let Err(problem) = piece {
                seen.store(true, Ordering::Relaxed);
                if let Some(failure) = problem.model_failure() {
                    watching.note_failure(failure);
                }
            }
        });
        let end = stream::once(async move {
            if !failed.load(Ordering::Relaxed) {
                ending.note_model(Ok(()));
            }
        });
        watched.map(Some).chain(end.map(|()| None)).filter_map(ready).boxed()
    }

    fn note_failure(&self, failure: &ModelFailure) {
        self.api.metrics.model_failed(failure.class());
        self.agent.note_model(Err(failure.clone()));
    }

    async fn put(&self, message: &str, stream: bool) -> Result<Pieces, Problem> {
        let streams = stream && self.agent.profile().streams();
        let body = if streams { json!({"message": message, "stream": true}) } else { json!({"message": message}) };
        let body = Bytes::from(body.to_string());
        if body.len() > MAX_WEBHOOK {
            return Err(Problem::new(Code::TooLarge, format!("The message may have at most {MAX_WEBHOOK} bytes.")));
        }
        let path = PathAndQuery::from_static(WEBHOOK);
        let accept = if streams { EVENTS } else { JSON };
        let call = Call { turn: Some(self.turn().await?), ..self.call(Method::POST, path, body, accept) };
        let asked = Asked::now(self);
        if stream && !streams {
            // The answer comes late and whole: signs of life go out meanwhile, once it is sure that there is an agent to ask.
            self.agent.access(self.deadline, self.hold, None).await?;
            let api = self.api.clone();
            let whole = async move {
                let answered = api.proxy.forward(call).await.map_err(Problem::from)?;
                Ok(Piece::Text(pieces::text(answered).await?))
            };
            return Ok(asked.judged(stream::once(whole).boxed()));
        }
        match pieces::of(self.api.proxy.forward(call).await?).await {
            Ok(pieces) => Ok(asked.judged(pieces)),
            Err(why) => Err(asked.problem(why).await),
        }
    }

    /// Waits for the turn of a message among those to the agent.
    ///
    /// # Errors
    /// It was certainly not sent.
    pub async fn turn(&self) -> Result<Turn, Problem> {
        Ok(self.agent.turn(self.deadline, self.hold).await?)
    }

    /// The gateway's answer to a message in its own words.
    ///
    /// # Errors
    /// See [`crate::proxy::ForwardError`].
    pub async fn pass(&self, path: PathAndQuery, body: Bytes) -> Result<Response, Problem> {
        let call = Call { turn: Some(self.turn().await?), ..self.call(Method::POST, path, body, JSON) };
        Ok(self.api.proxy.forward(call).await?)
    }

    /// The gateway's answer to a request of ours.
    ///
    /// # Errors
    /// See [`crate::proxy::ForwardError`].
    pub async fn send(&self, method: Method, path: PathAndQuery, body: Bytes) -> Result<Response, Problem> {
        Ok(self.api.proxy.forward(self.call(method, path, body, JSON)).await?)
    }

    /// A request to the agent's gateway.
    fn call(&self, method: Method, path: PathAndQuery, body: Bytes, accept: &'static str) -> Call {
        let mut headers = HeaderMap::new();
        if !body.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
        }
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        let session = self.session.as_ref().map(SessionName::as_str);
        let id = Some(self.trace.request_id.as_str());
        for (name, value) in [(SESSION, session), (REQUEST_ID, id), (TRACEPARENT, self.trace.traceparent.as_deref())] {
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                headers.insert(name, value);
            }
        }
        let (mut parts, ()) = axum::http::Request::new(()).into_parts();
        parts.method = method;
        parts.headers = headers;
        Call {
            agent: self.agent.clone(),
            parts,
            path,
            body: Body::from(body),
            client: self.client.clone(),
            mount: Mount::Path(format!("/api/agents/{}/gateway", self.agent.id())),
            hold: self.hold,
            deadline: self.deadline,
            turn: None,
            until: Box::pin(self.api.over(self.caller.clone())),
        }
    }
}
