//! Who reads the log of an instance of the engine in memory: what is there, and what will be printed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::engine::FakeEngine;
use super::state::{Instance, Line};
use crate::domain::{AgentId, Timestamp};
use crate::runtime::{LogCursor, LogLine, LogQuery, RuntimeResult};

fn wanted(line: &Line, query: &LogQuery) -> bool {
    let number = |cursor: &LogCursor| cursor.0.parse::<u64>().ok();
    query.run_id.as_ref().is_none_or(|run_id| *run_id == line.run_id)
        && query.after.as_ref().and_then(number).is_none_or(|after| number(&line.line.cursor) > Some(after))
        && query.since.is_none_or(|since| line.line.time >= since)
}

/// The number of the first line that the query's tail leaves.
pub(super) fn first_of_tail(instance: &Instance, query: &LogQuery, now: Timestamp) -> u64 {
    let Some(tail) = query.tail else { return instance.first_line };
    let numbered = (instance.first_line..).zip(&instance.lines);
    let there: Vec<u64> =
        numbered.filter(|(_, line)| line.line.time <= now && wanted(line, query)).map(|(number, _)| number).collect();
    let end = instance.first_line + instance.lines.iter().filter(|line| line.line.time <= now).count() as u64;
    there.len().checked_sub(tail).map_or(instance.first_line, |skipped| there.get(skipped).copied().unwrap_or(end))
}

/// A reader of an instance's log.
pub(super) struct Follower {
    engine: FakeEngine,
    agent: AgentId,
    query: LogQuery,
    /// The number of the line that is read next.
    next: u64,
}

/// What a reader finds.
enum Found {
    Line(LogLine),
    /// Nothing more now; something will be printed at this time, or when the instance stirs.
    Later(Option<Duration>, Arc<Notify>),
    End,
}

impl Follower {
    pub(super) const fn new(engine: FakeEngine, agent: AgentId, query: LogQuery, next: u64) -> Self {
        Self { engine, agent, query, next }
    }

    pub(super) async fn next(mut self) -> Option<(RuntimeResult<LogLine>, Self)> {
        loop {
            if let Err(away) = self.engine.reach().await {
                self.query.follow = false;
                self.next = u64::MAX;
                return Some((Err(away), self));
            }
            match self.look() {
                Found::Line(line) => return Some((Ok(line), self)),
                Found::End => return None,
                Found::Later(wait, stirred) => {
                    let stirred = stirred.notified();
                    tokio::pin!(stirred);
                    // Registered before the second look, or what happens between would not wake it.
                    stirred.as_mut().enable();
                    if !matches!(self.look(), Found::Later(..)) {
                        continue;
                    }
                    match wait {
                        Some(wait) => tokio::select! {
                            biased;
                            () = stirred => {}
                            () = sleep(wait) => {}
                        },
                        None => stirred.await,
                    }
                }
            }
        }
    }

    fn look(&mut self) -> Found {
        let mut state = self.engine.lock();
        let now = state.now();
        let mut due = None;
        let Some(instance) = state.instances.get_mut(&self.agent) else { return Found::End };
        while let Some(index) = self.next.checked_sub(instance.first_line).or(Some(0)) {
            let Some(line) = usize::try_from(index).ok().and_then(|index| instance.lines.get(index)) else { break };
            if line.line.time > now {
                due = Some(line.line.time);
                break;
            }
            self.next = instance.first_line + index + 1;
            if wanted(line, &self.query) {
                return Found::Line(line.line.clone());
            }
        }
        let outcome = match instance.up() {
            Some(up) => self.query.run_id.as_ref().is_none_or(|run_id| *run_id == up.run.run_id),
            None => false,
        };
        if !self.query.follow || !outcome {
            return Found::End;
        }
        let stirred = Arc::clone(&instance.stirred);
        Found::Later(due.map(|due| state.until(due)), stirred)
    }
}
