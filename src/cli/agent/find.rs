//! An agent by what its user calls it: an id, a slug or a name.

use serde_json::Value;

use crate::cli::client::Client;
use crate::cli::outcome::Failure;
use crate::cli::output::{cell, plain};
use crate::domain::AgentId;

/// Which agent, and how messages call it.
#[derive(Debug, Clone)]
pub(super) struct Agent {
    pub(super) id: String,
    pub(super) name: String,
}

impl Agent {
    /// Of a record.
    pub(super) fn of(record: &Value) -> Self {
        Self { id: cell(&record["id"]), name: cell(&record["slug"]) }
    }

    /// `/api/agents/{id}`, and what follows it.
    pub(super) fn path(&self, rest: &str) -> String {
        format!("/api/agents/{}{rest}", self.id)
    }
}

pub(super) async fn find(client: &Client, called: &str) -> Result<Agent, Failure> {
    if called.parse::<AgentId>().is_ok() {
        return Ok(Agent { id: called.to_owned(), name: called.to_owned() });
    }
    let agents = client.list("/api/agents").await?;
    let by = |member: &str| agents.iter().filter(|found| found[member] == called).collect::<Vec<_>>();
    let found = match by("slug") {
        found if found.is_empty() => by("name"),
        found => found,
    };
    match found.as_slice() {
        [found] => Ok(Agent::of(found)),
        [] => Err(Failure::NotFound(format!("no agent of yours is called {}", plain(called)))),
        _ => Err(Failure::Usage(format!("several agents are called {}; use an id or a slug", plain(called)))),
    }
}

/// A value that may stand in a query.
pub(super) fn query(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b',' | b'-' | b'_' | b'.' => char::from(b).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}
