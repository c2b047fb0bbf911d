//! Timelines: one agent's, from the store, and all of a caller's agents', as it happens.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{Stream, unfold};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;
use utoipa::ToSchema;

use super::agents::OwnedAgent;
use super::guard::Admitted;
use super::params::{Params, cursor};
use super::problem::Problem;
use super::state::Api;
use super::{schema, sse};
use crate::control::{AgentHandle, EventsError};
use crate::domain::{AgentId, Status, Timestamp};
use crate::store::{Event as LoggedEvent, EventKind, LogEntry, StoreError};
use crate::view::AgentView;

/// Entries that a stream reads at once.
const BATCH: usize = 200;

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventPage {
    data: Vec<Entry>,
    next_cursor: Option<String>,
}

/// One line of a timeline.
#[derive(Serialize, ToSchema)]
pub struct Entry {
    seq: u64,
    #[schema(value_type = String, format = DateTime)]
    time: Timestamp,
    #[schema(schema_with = schema::status)]
    from: Status,
    #[schema(schema_with = schema::status)]
    to: Status,
    cause: String,
    attempt: u64,
    detail: Option<String>,
}

/// The same, of one agent among many.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AgentEntry {
    agent_id: AgentId,
    #[serde(flatten)]
    entry: Entry,
}

/// The agent's timeline, oldest first: a page, or all of it and what comes. Where a stream cannot go on after the given event,
/// because the timeline does not reach back that far or was put back by a restore, it begins with a `gap` event.
#[utoipa::path(
    get, path = "/api/agents/{id}/events", tag = "agents",
    params(
        ("id" = uuid::Uuid, Path),
        ("limit" = Option<u8>, Query, minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query),
        ("Last-Event-ID" = Option<u64>, Header, description = "Of a stream: go on after this `seq`")
    ),
    responses((status = 200, content((EventPage = "application/json"), (String = "text/event-stream"))))
)]
pub async fn agent_events(
    state: State<Api>,
    own: OwnedAgent,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Problem> {
    let (limit, after) = (params.limit(), params.cursor::<u64>());
    params.finish()?;
    if sse::is_wanted(&headers) {
        let after = sse::last_event_id(&headers).and_then(|id| id.parse().ok()).or(after).unwrap_or(0);
        return sse::answer(&state, &own.caller, Timeline::resumed(own.handle, after).await?.events());
    }
    // One more than asked for tells whether there is a next page.
    let mut entries = own.handle.events(after.unwrap_or(0), limit + 1).await?;
    let more = entries.len() > limit;
    entries.truncate(limit);
    let next_cursor = entries.last().filter(|_| more).map(|last| cursor(last.seq));
    Ok(Json(EventPage { data: entries.into_iter().map(Entry::from).collect(), next_cursor }).into_response())
}

/// Every change of the caller's agents: `transition`, and `removed` when one is gone. Ids are offsets of the event log:
/// a client that comes back with `Last-Event-ID` misses nothing. Where the log does not reach back that far, a `gap` event
/// says so: read the records then.
#[utoipa::path(
    get, path = "/api/events", tag = "agents",
    params(("Last-Event-ID" = Option<u64>, Header, description = "Go on after this event; by default with what comes")),
    responses((status = 200, body = String, content_type = "text/event-stream"))
)]
pub async fn all_events(state: State<Api>, caller: Admitted, headers: HeaderMap) -> Result<Response, Problem> {
    let user = caller.0.user;
    let resumed = sse::last_event_id(&headers).and_then(|id| id.parse().ok());
    let after = resumed.unwrap_or_else(|| state.plane.newest_event());
    let start = (state.plane.clone(), state.plane.events(after));
    let events = unfold(start, move |(plane, mut events)| async move {
        loop {
            let go_on_after = match events.next().await {
                Ok(Some(event)) if event.user == user => return Some((line(event), (plane, events))),
                Ok(Some(_)) => continue,
                // The client comes back.
                Ok(None) | Err(EventsError::Store(_)) => return None,
                Err(EventsError::Expired { oldest }) => oldest.saturating_sub(1),
                Err(EventsError::Ahead { newest }) => newest,
            };
            let events = plane.events(go_on_after);
            return Some((gap(go_on_after), (plane, events)));
        }
    });
    sse::answer(&state, &caller.0, events)
}

/// Events may be missing: the stream goes on after this one.
fn gap(go_on_after: u64) -> Event {
    sse::event("gap", &json!({"resumedAfter": go_on_after})).id(go_on_after.to_string())
}

fn line(event: LoggedEvent) -> Event {
    let id = event.offset.to_string();
    let line = match event.kind {
        EventKind::Created { entry } | EventKind::Changed { entry } => {
            sse::event("transition", &AgentEntry { agent_id: event.agent, entry: entry.into() })
        }
        EventKind::Removed => sse::event("removed", &json!({"agentId": event.agent, "time": event.time})),
    };
    line.id(id)
}

/// One agent's timeline that goes on. What is new is read from the store, which a change of the agent only says to do:
/// nothing can be missed.
struct Timeline {
    agent: AgentHandle,
    changes: Option<watch::Receiver<Arc<AgentView>>>,
    waiting: VecDeque<LogEntry>,
    /// The last entry that was read.
    after: u64,
    /// It goes on elsewhere than it was to, and that is not told yet.
    gap: bool,
}

impl Timeline {
    /// From the entry after this one on; 0 for all.
    async fn resumed(agent: AgentHandle, after: u64) -> Result<Self, StoreError> {
        let changes = agent.changes();
        let kept = if after > 0 { agent.events(0, usize::MAX).await? } else { Vec::new() };
        let go_on_after = match (kept.first(), kept.last()) {
            (_, Some(newest)) if after > newest.seq => newest.seq,
            (Some(oldest), _) if after < oldest.seq => oldest.seq.saturating_sub(1),
            _ => after,
        };
        Ok(Self { changes, waiting: VecDeque::new(), after: go_on_after, gap: go_on_after != after, agent })
    }

    fn events(self) -> impl Stream<Item = Event> + Send {
        unfold(self, |mut timeline| async move { timeline.next().await.map(|event| (event, timeline)) })
    }

    /// The next entry; `None` once the agent is gone, or the store does not answer (the client comes back).
    async fn next(&mut self) -> Option<Event> {
        if std::mem::take(&mut self.gap) {
            return Some(gap(self.after));
        }
        loop {
            if let Some(entry) = self.waiting.pop_front() {
                let id = entry.seq.to_string();
                return Some(sse::event("transition", &Entry::from(entry)).id(id));
            }
            // Marked as seen before the store is read: what comes in between wakes us again.
            self.changes.as_mut()?.mark_unchanged();
            self.waiting = self.agent.events(self.after, BATCH).await.ok()?.into();
            match self.waiting.back() {
                Some(last) => self.after = last.seq,
                None => self.changes.as_mut()?.changed().await.ok()?,
            }
        }
    }
}

impl From<LogEntry> for Entry {
    fn from(entry: LogEntry) -> Self {
        let LogEntry { seq, time, from, to, cause, attempt, detail, .. } = entry;
        Self { seq, time, from, to, cause, attempt, detail }
    }
}
