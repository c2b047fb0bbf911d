//! A lost store, made anew from what the runtime still has.
//!
//! Instances carry whose they are and what they are to be ([`Origin`]); their data was never in the store. What is lost for
//! good are secrets: model keys and channel tokens, which were sealed in the store, and the users' own API keys. An agent
//! that needs such a secret is recorded as failed, with the reason `secrets-missing` and what its owner has to supply. An
//! agent that needs none starts by itself, and pairs anew.
//!
//! [`plan`] decides, [`write()`] writes; neither touches an instance.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::CreateError;
use crate::actor::CreateRefusal;
use crate::domain::{AgentId, AgentSpec, HostPort, Origin, Plan, Provider, Slug, Status, Timestamp, UserId};
use crate::ledger::{Allocation, Ledger, SlugRequest};
use crate::lifecycle::{AgentState, Cause, Code, Phase, RetryTarget};
use crate::runtime::{ContainerRuntime, InstanceState, ObservedInstance, RuntimeError};
use crate::store::{AgentRecord, Batch, LogEntry, Store, StoreError, UserRecord};

/// How long one call of the runtime may take.
const CALL: Duration = Duration::from_secs(30);

/// An instance without a record, and what it tells.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Found {
    /// What the engine shows of it.
    pub seen: ObservedInstance,
    /// Whose it was and what it was to be; `None` where it does not tell.
    pub origin: Option<Origin>,
}

/// All that is to be recorded.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Recovery {
    /// The owners of the agents.
    pub users: Vec<UserRecord>,
    /// One for each agent of which an instance was found, by id.
    pub agents: Vec<RecoveredAgent>,
}

/// An agent as it is to be recorded.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RecoveredAgent {
    /// Without any secret.
    pub record: AgentRecord,
    /// Its host port: the one that its instance uses, or a free one; `None` where it needs none.
    pub port: Option<HostPort>,
    /// What its owner has to supply, by the names of the API's fields.
    pub missing: Vec<&'static str>,
}

/// Why nothing was recovered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// The engine could not tell what it has, or does not answer.
    #[error("the runtime: {0}")]
    Runtime(#[from] RuntimeError),
    /// There is no slug or host port for an agent.
    #[error("no place for agent {agent}")]
    NoPlace {
        /// The agent.
        agent: AgentId,
        /// What it did not get.
        source: CreateError,
    },
    /// What it has might contradict what was found.
    #[error("the store has agents or users already: only an empty one can be filled")]
    NotEmpty,
    /// Its actors would not know of it.
    #[error("a control plane works on this store, or did: open it anew")]
    InUse,
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Everything that the runtime has of its installation.
///
/// # Errors
/// What the runtime says, or that it says nothing.
pub async fn find(runtime: &dyn ContainerRuntime) -> Result<Vec<Found>, RecoverError> {
    let silent = |_| RuntimeError::Unavailable("no answer in time".into());
    let mut found = Vec::new();
    for seen in timeout(CALL, runtime.list_owned()).await.map_err(silent)?? {
        let origin = match timeout(CALL, runtime.origin(&seen.key)).await.map_err(silent)? {
            Err(RuntimeError::NotFound) => None,
            origin => origin?,
        };
        found.push(Found { seen, origin });
    }
    Ok(found)
}

/// What is to be recorded. Pure.
///
/// `email` names the user who gets the agents that do not tell whose they are. Where all agents that tell it are one
/// user's, that is the user: the usual installation has one. Users whose names were lost get one made of their id.
///
/// # Errors
/// There are more agents than ports.
pub fn plan(found: Vec<Found>, email: &str, now: Timestamp) -> Result<Recovery, RecoverError> {
    let owners: BTreeSet<UserId> = found.iter().filter_map(|found| Some(found.origin.as_ref()?.user)).collect();
    let only = owners.first().copied().filter(|_| owners.len() == 1);
    let fallback = only.unwrap_or_else(UserId::new);
    let limits = Plan::Enterprise.limits();
    let mut ledger = Ledger::default();
    let mut agents = BTreeMap::new();
    for found in found {
        let user = found.origin.as_ref().map_or(fallback, |origin| origin.user);
        // An engine may show several instances of one agent, the one to go by first.
        agents.entry(found.seen.key.agent).or_insert((user, found));
    }
    // Ports that are in use stay with whom they are; what is left goes to the others.
    for (agent, (user, found)) in &agents {
        if let Some(port) = port_of(&found.seen) {
            // Where two claim the same, the second gets another seat below.
            let _ = ledger.restore(*agent, *user, found.seen.key.slug.clone(), Some(port));
        }
    }
    let mut recovered = Vec::new();
    for (agent, (user, found)) in agents {
        let wish = SlugRequest::Suggested(found.seen.key.slug.clone());
        let allocation = ledger.claim(agent, user, &limits, wish, now);
        let allocation = allocation.map_err(|refusal| {
            let source = CreateError::refused(CreateRefusal::Ledger(refusal));
            RecoverError::NoPlace { agent, source }
        })?;
        recovered.push(RecoveredAgent::of(found, user, allocation, now));
    }
    let mut users: BTreeSet<UserId> = recovered.iter().map(|agent| agent.record.user).collect();
    users.extend(only);
    let user = |id: UserId| {
        let email = if id == fallback { email.to_owned() } else { format!("{id}@recovered.invalid") };
        // What they had agreed on is lost: nobody's agents are to be refused for it.
        UserRecord::new(id, email, Plan::Enterprise, now)
    };
    Ok(Recovery { users: users.into_iter().map(user).collect(), agents: recovered })
}

/// Writes it into a store that has nothing yet.
///
/// # Errors
/// The store has something, a control plane has it, or it cannot be written. Some of it may be there then: recover into a new one.
pub async fn write(store: &Store, recovery: &Recovery) -> Result<(), RecoverError> {
    if store.is_taken() {
        return Err(RecoverError::InUse);
    }
    let there = store.load().await?;
    if !there.agents.is_empty() || !there.users.is_empty() {
        return Err(RecoverError::NotEmpty);
    }
    for user in &recovery.users {
        store.commit(Batch::put_user(user)).await?;
    }
    for RecoveredAgent { record, port, .. } in &recovery.agents {
        store.commit(Batch::create_agent(record, *port, &entry(record), None)).await?;
    }
    Ok(())
}

/// The first line of its new timeline.
fn entry(record: &AgentRecord) -> LogEntry {
    let reason = record.state.reason.clone().unwrap_or_else(|| Cause::new(Code::Recovered));
    LogEntry::new(Status::Pending, record, &reason)
}

/// The host port that an instance uses at this moment.
fn port_of(seen: &ObservedInstance) -> Option<HostPort> {
    let (InstanceState::Running(run) | InstanceState::Paused(run)) = &seen.state else { return None };
    // A container that is reached by its own address says nothing about the host's ports.
    Some(run.endpoint).filter(|at| at.ip().is_loopback()).and_then(|at| HostPort::try_from(at.port()).ok())
}

/// The record of an instance that a running control plane adopts; the registry assigns its slug and port.
pub(super) fn adopted(seen: ObservedInstance, origin: Option<Origin>, user: UserId, now: Timestamp) -> AgentRecord {
    let slug = seen.key.slug.clone();
    record(Found { seen, origin }, user, slug, now).0
}

impl RecoveredAgent {
    fn of(found: Found, user: UserId, allocation: Allocation, now: Timestamp) -> Self {
        let (record, missing) = record(found, user, allocation.slug, now);
        Self { record, port: allocation.port, missing }
    }
}

/// With what its owner has to supply.
fn record(found: Found, user: UserId, slug: Slug, now: Timestamp) -> (AgentRecord, Vec<&'static str>) {
    let missing = missing(found.origin.as_ref());
    let run = match &found.seen.state {
        InstanceState::Running(run) | InstanceState::Paused(run) => Some(run.run_id.clone()),
        InstanceState::Created
        | InstanceState::Starting(_)
        | InstanceState::Ending(_)
        | InstanceState::Exited(_)
        | InstanceState::Unreachable(_) => None,
    };
    let (phase, reason) = if !missing.is_empty() {
        let remedy = format!("supply {} by PATCH, then start the agent", missing.join(", "));
        let phase = Phase::Failed { resume: RetryTarget::Start, retry_at: None };
        (phase, Cause::because(Code::SecretsMissing, remedy))
    } else if run.is_some() {
        (Phase::Pending, Cause::new(Code::Recovered))
    } else {
        (Phase::Stopped, Cause::new(Code::Recovered))
    };
    let engine_id = Some(found.seen.engine_id.into());
    let state = AgentState { phase, reason: Some(reason), engine_id, leftover: run, ..AgentState::new() };
    let (created_at, spec) = match found.origin {
        Some(origin) => (origin.created_at, origin.spec),
        None => (now, Arc::new(unknown(slug.as_str()))),
    };
    let record = AgentRecord::new(found.seen.key.agent, user, slug, created_at, spec);
    (AgentRecord { updated_at: now, state, ..record }, missing)
}

/// What only its owner knows. The token is not in it: the agent pairs anew.
fn missing(origin: Option<&Origin>) -> Vec<&'static str> {
    let Some(origin) = origin else { return vec!["provider", "model", "apiKey"] };
    let key = origin.spec.provider.needs_key().then_some("apiKey");
    let channels = (!origin.channels.is_empty()).then_some("channels");
    key.into_iter().chain(channels).collect()
}

/// The specification of an agent whose instance does not tell its own: a place for what its owner supplies.
fn unknown(name: &str) -> AgentSpec {
    // A provider that needs a key, so that nothing runs before its owner looked at it.
    AgentSpec::new(name, Provider::Openai, "unknown")
}

#[cfg(test)]
mod tests;
