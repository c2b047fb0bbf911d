//! The store on a disk in memory and in real files.

mod decay;
mod failures;
mod files;
mod fixtures;
mod keys;
mod model;
mod rules;
mod threads;

use std::sync::Arc;

use crate::domain::{AgentId, AgentSpec, HostPort, KeyId, Plan, Provider, Scopes, Slug, Status, Timestamp, UserId};
use crate::lifecycle::AgentState;

use super::*;

/// Ids that are the same in every run.
fn agent_id(n: u8) -> AgentId {
    AgentId::from_bytes([n; 16])
}

fn user_id(n: u8) -> UserId {
    UserId::from_bytes([n; 16])
}

fn key_id(n: u8) -> KeyId {
    KeyId::from_bytes([n; 16])
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn port(n: u16) -> Option<HostPort> {
    HostPort::try_from(40_000 + n).ok()
}

fn agent(n: u8) -> AgentRecord {
    let spec = AgentSpec {
        timezone: "Europe/Zurich".into(),
        communication_style: Some("short \"and\" plain\n".into()),
        ..AgentSpec::new(format!("Agent {n}"), Provider::Ollama, "llama3")
    };
    let slug = Slug::parse(&format!("agent-{n}")).unwrap();
    AgentRecord::new(agent_id(n), user_id(1), slug, at(1), Arc::new(spec))
}

fn state(revision: u64) -> AgentState {
    AgentState { revision, ..AgentState::new() }
}

fn revised(agent: &AgentRecord, revision: u64) -> AgentRecord {
    AgentRecord { state: state(revision), updated_at: at(revision as i64), ..agent.clone() }
}

fn entry(seq: u64) -> LogEntry {
    LogEntry {
        seq,
        time: at(seq as i64),
        from: Status::Pending,
        to: Status::Starting,
        cause: format!("cause {seq}"),
        attempt: 1,
        detail: None,
        root: None,
        exit_code: None,
    }
}

fn user(n: u8) -> UserRecord {
    UserRecord::new(user_id(n), format!("{n}@example.org"), Plan::Free, at(1))
}

fn key(n: u8, owner: u8) -> KeyRecord {
    KeyRecord {
        id: key_id(n),
        user: user_id(owner),
        hash: [n; 32],
        name: Some(format!("key {n}")),
        scopes: Scopes::user(),
        expires_at: None,
        created_at: at(1),
        parent: None,
    }
}

fn create(n: u8) -> Batch {
    Batch::create_agent(&agent(n), port(n.into()), &entry(1), Some(100))
}

fn options() -> StoreOptions {
    StoreOptions { installation: InstallationId::from_bytes([7; 16]), now: at(1), ..StoreOptions::default() }
}

fn open(disk: &MemoryDisk) -> Store {
    Store::in_memory(disk.clone(), options()).unwrap()
}

fn fresh() -> Store {
    open(&MemoryDisk::new())
}

fn rejected(conflict: Conflict) -> Result<(), StoreError> {
    Err(StoreError::Rejected(conflict))
}
