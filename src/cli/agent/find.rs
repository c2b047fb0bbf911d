//! An agent by what its user calls it: an id, a slug or a name. An administrator calls those of others by their slugs.

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
        [] => of_anybody(client, called).await,
        _ => Err(Failure::Usage(format!("several agents are called {}; use an id or a slug", plain(called)))),
    }
}

/// Another user's, for those with the admin scope: by its slug alone, which no other agent has.
async fn of_anybody(client: &Client, slug: &str) -> Result<Agent, Failure> {
    let agents = match client.list(&format!("/api/admin/agents?search={}", query(slug))).await {
        Err(failure) if failure.refusal("forbidden").is_some() => Vec::new(),
        agents => agents?,
    };
    let found = agents.iter().find(|found| found["slug"] == slug).map(Agent::of);
    found.ok_or_else(|| Failure::NotFound(format!("no agent of yours is called {}", plain(slug))))
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
