//! `GET /api/agents/{id}/logs`: what an agent printed, and what it prints.
//!
//! The agent's own secrets are masked on the way. A followed log goes on over the agent's restarts: each line once, with
//! a `restart` event between two runs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{BoxStream, Stream, StreamExt, unfold};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;
use utoipa::ToSchema;

use super::agents::OwnedAgent;
use super::params::Params;
use super::problem::Problem;
use super::redact::Secrets;
use super::state::Api;
use super::{schema, sse};
use crate::control::AgentHandle;
use crate::domain::{RunId, Timestamp};
use crate::runtime::{LogCursor, LogLine, LogQuery, LogStream, RuntimeError, RuntimeResult};
use crate::view::AgentView;

const DEFAULT_TAIL: usize = 200;
const MAX_TAIL: usize = 5000;
/// How long the reading of what is there already may take.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// Pause before a followed log that ended is opened again: by then it is known whether the agent runs again.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

#[derive(Serialize, ToSchema)]
pub struct Logs {
    lines: Vec<Line>,
}

#[derive(Serialize, ToSchema)]
pub struct Line {
    #[schema(value_type = String, format = DateTime)]
    time: Timestamp,
    #[schema(schema_with = schema::log_stream)]
    stream: LogStream,
    text: String,
}

/// What the agent printed: the last lines, or with `follow` all that comes.
#[utoipa::path(
    get, path = "/api/agents/{id}/logs", tag = "agents",
    params(
        ("id" = uuid::Uuid, Path),
        ("tail" = Option<u16>, Query, description = "How many lines, 200 by default", minimum = 1, maximum = 5000),
        ("since" = Option<String>, Query, description = "Only lines at or after this time (RFC 3339)"),
        ("follow" = Option<bool>, Query, description = "Server-sent events: `line`, and `restart` between two runs")
    ),
    responses((status = 200, content(
        (Logs = "application/json"), (String = "text/plain"), (String = "text/event-stream")
    )))
)]
pub async fn logs(
    state: State<Api>,
    own: OwnedAgent,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Problem> {
    let tail = params.number("tail", DEFAULT_TAIL, 1..=MAX_TAIL);
    let since = params.time("since");
    let follow = params.boolean("follow") || sse::is_wanted(&headers);
    params.finish()?;
    if follow {
        let resumed = sse::last_event_id(&headers).map(|id| LogCursor(id.into()));
        // Whoever resumes misses no line, unless there were more than may be read at once.
        let query = match resumed {
            Some(after) => LogQuery { after: Some(after), tail: Some(MAX_TAIL), ..LogQuery::default() },
            None => LogQuery { since, tail: Some(tail), ..LogQuery::default() },
        };
        let lines = read_by(&own.handle, query.clone()).await?;
        return sse::answer(&state, &own.caller, FollowedLog::new(own.handle, lines, query).events());
    }
    let secrets = Secrets::of(&own.handle);
    let lines = read(&own.handle, tail, since).await?;
    let lines: Vec<Line> = lines.into_iter().map(|line| Line::of(line, &secrets)).collect();
    if sse::accepts(&headers, "text/plain") {
        let text: String = lines.iter().map(|line| format!("{}\n", line.text)).collect();
        return Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response());
    }
    Ok(Json(Logs { lines }).into_response())
}

/// The last lines that there are by now; none of an agent that never ran.
pub async fn read(agent: &AgentHandle, tail: usize, since: Option<Timestamp>) -> RuntimeResult<Vec<LogLine>> {
    read_by(agent, LogQuery { since, tail: Some(tail), ..LogQuery::default() }).await
}

async fn read_by(agent: &AgentHandle, query: LogQuery) -> RuntimeResult<Vec<LogLine>> {
    let tail = query.tail.unwrap_or(MAX_TAIL);
    let reading = async {
        let mut stream = match agent.logs(query).await {
            Err(RuntimeError::NotFound) => return Ok(Vec::new()),
            stream => stream?,
        };
        let mut lines = VecDeque::new();
        while let Some(line) = stream.next().await {
            lines.push_back(line?);
            // Whatever the runtime made of the tail.
            if lines.len() > tail {
                lines.pop_front();
            }
        }
        Ok(lines.into())
    };
    let late = |_| Err(RuntimeError::Unavailable("the log did not come in time".into()));
    tokio::time::timeout(READ_WITHIN, reading).await.unwrap_or_else(late)
}

impl Line {
    pub fn of(line: LogLine, secrets: &Secrets) -> Self {
        Self { time: line.time, stream: line.stream, text: secrets.mask(line.text) }
    }
}

/// A log that is followed from run to run.
struct FollowedLog {
    agent: AgentHandle,
    changes: Option<watch::Receiver<Arc<AgentView>>>,
    secrets: Secrets,
    /// Lines that were there at the beginning, not sent yet.
    waiting: VecDeque<LogLine>,
    /// The run that is read, or was read last.
    run_id: Option<RunId>,
    open: Option<BoxStream<'static, RuntimeResult<LogLine>>>,
    /// What is wanted before any line was sent.
    since: Option<Timestamp>,
    /// The last line that was sent. Lines are told apart by their place: their times may be equal, or go back.
    after: Option<LogCursor>,
}

impl FollowedLog {
    fn new(agent: AgentHandle, lines: Vec<LogLine>, query: LogQuery) -> Self {
        Self {
            changes: agent.changes(),
            secrets: Secrets::of(&agent),
            run_id: agent.view().and_then(|view| view.record.state.run_id().cloned()),
            after: lines.last().map(|line| line.cursor.clone()).or(query.after),
            since: query.since,
            waiting: lines.into(),
            open: None,
            agent,
        }
    }

    fn events(self) -> impl Stream<Item = Event> + Send {
        unfold(self, |mut log| async move { log.next().await.map(|event| (event, log)) })
    }

    /// The next event; `None` once the agent is gone.
    async fn next(&mut self) -> Option<Event> {
        if let Some(line) = self.waiting.pop_front() {
            return Some(self.line(line));
        }
        loop {
            if let Some(open) = &mut self.open {
                if let Some(Ok(line)) = open.next().await {
                    return Some(self.line(line));
                }
                // The run ended, or the engine did: either way it is looked at again.
                self.open = None;
                self.pause().await?;
            }
            let view = self.agent.view()?;
            let Some(run_id) = view.record.state.run_id().cloned() else {
                self.pause().await?;
                continue;
            };
            let another = self.run_id.as_ref().is_some_and(|known| *known != run_id);
            let mut query = LogQuery { run_id: Some(run_id.clone()), follow: true, ..LogQuery::default() };
            if !another {
                query.after = self.after.clone();
                query.since = self.since.filter(|_| self.after.is_none());
            }
            let Ok(open) = self.agent.logs(query).await else {
                self.pause().await?;
                continue;
            };
            self.open = Some(open);
            self.run_id = Some(run_id);
            if another {
                // The new run has another token.
                self.secrets = Secrets::of(&self.agent);
                return Some(sse::event("restart", &json!({"attempt": view.record.state.attempt})));
            }
        }
    }

    fn line(&mut self, line: LogLine) -> Event {
        self.after = Some(line.cursor.clone());
        let id = line.cursor.0.to_string();
        sse::event("line", &Line::of(line, &self.secrets)).id(id)
    }

    /// Waits for a change of the agent, and not long without one; `None` once it is gone.
    async fn pause(&mut self) -> Option<()> {
        match tokio::time::timeout(REOPEN_AFTER, self.changes.as_mut()?.changed()).await {
            Ok(Err(_gone)) => None,
            Ok(Ok(())) | Err(_) => Some(()),
        }
    }
}
