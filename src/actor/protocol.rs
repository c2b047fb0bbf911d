//! What the actors and their callers say to each other: messages, answers and the places where actors are found.
//!
//! Only data. The actors import this module and not each other; the supervisor alone knows them all.

use std::sync::Arc;

use arc_swap::ArcSwap;
use ractor::{ActorRef, RpcReplyPort};
use tokio::time::Instant;

use super::account_change::{AccountChange, AccountRefusal};
use super::creation_rule::Denied;
use super::jobs::JobReport;
use crate::audit::Acting;
use crate::by_id::ById;
use crate::domain::{AgentId, AgentSpec, ChannelKind, HostPort, Secret, Status, Upgrade, UserId};
use crate::ledger::{Refusal, SlugRequest};
use crate::lifecycle::{Cause, Command, Event, FailedModel, Job, Observation};
use crate::runtime::Run;
use crate::store::{AgentRecord, IdempotencyRecord, StoreError};
use crate::vault::Sealed;
use crate::view::AgentView;

/// What an agent's actor handles.
pub enum AgentMsg {
    /// Take up the record; sent once, right after the actor began.
    Recover,
    Command(Box<CommandMsg>),
    /// An event whose transition the store did not take, with the token that came with it.
    Again(Box<(Event, Option<Secret<String>>)>),
    JobEnded {
        attempt: u64,
        job: Job,
        report: Box<JobReport>,
    },
    /// The registry gave the agent another port, or could not.
    Rebound {
        attempt: u64,
        port: Result<HostPort, Cause>,
    },
    Observed {
        revision: u64,
        observation: Observation,
        run: Option<Run>,
    },
    HealthChecked {
        attempt: u64,
        alive: bool,
    },
    /// There was nothing to ask: the run is not known at present.
    HealthUnknown {
        attempt: u64,
    },
    /// The engine says that something happened.
    Resync,
    /// The gateway is healthy, but would answer no message.
    Unusable {
        attempt: u64,
        why: Arc<str>,
    },
    /// A message was answered with 401.
    TokenRefused {
        attempt: u64,
    },
    /// A message got no answer because the model failed.
    ModelFailed {
        attempt: u64,
        model: Arc<FailedModel>,
    },
    /// The model answered a message.
    ModelAnswered {
        attempt: u64,
    },
    Wake {
        revision: u64,
    },
    /// Seal the secrets with the active key, where another one sealed them. The answer is how many were.
    Reseal(RpcReplyPort<Result<usize, StoreError>>),
    /// Panics, for tests.
    #[cfg(feature = "testkit")]
    Panic,
}

/// What a user asks of an agent.
pub struct CommandMsg {
    pub command: Command,
    pub change: Option<Box<Change>>,
    /// Only if the agent still has this generation.
    pub if_generation: Option<u64>,
    /// When it was put into the mailbox.
    pub asked_at: Instant,
    /// Who asks.
    pub acting: Option<Arc<Acting>>,
    pub reply: RpcReplyPort<CommandReply>,
}

/// A change of what the agent is, already valid and sealed.
pub struct Change {
    pub spec: Arc<AgentSpec>,
    pub api_key: Option<Sealed>,
    pub channels: Option<Sealed>,
    pub channel_kinds: Vec<ChannelKind>,
    pub retired: Option<Sealed>,
    /// A step of an upgrade, stored with the rest.
    pub upgrade: Option<UpgradeStep>,
}

/// Where an upgrade or an import stands from now on, `None` when there is none or it is over, and why.
pub struct UpgradeStep {
    pub upgrade: Option<Arc<Upgrade>>,
    /// Entries of its memory wait in its data from now on.
    pub untold: bool,
    pub cause: Cause,
}

/// The answer to a command.
#[derive(Debug, Clone)]
pub enum CommandReply {
    /// Committed; the view shows it.
    Done,
    /// It was so before.
    Already,
    /// Not in this status.
    Refused { status: Status, allowed: Vec<&'static str> },
    /// The spec was changed by someone else meanwhile.
    Stale,
    /// Nothing was changed: the store did not take it.
    NotStored(StoreError),
}

/// What the registry handles.
pub enum RegistryMsg {
    Create {
        creation: Box<Creation>,
        reply: RpcReplyPort<Result<Arc<AgentView>, CreateRefusal>>,
    },
    /// Another port for an agent whose port a stranger holds.
    SwapPort {
        agent: AgentId,
        reply: RpcReplyPort<Result<HostPort, Cause>>,
    },
    /// The agent's instance is gone: its record and claims go, too.
    Retire {
        agent: AgentId,
        reply: RpcReplyPort<Result<(), StoreError>>,
    },
    /// A change of a user or a key.
    Account {
        change: AccountChange,
        acting: Option<Arc<Acting>>,
        reply: RpcReplyPort<Result<(), AccountRefusal>>,
    },
    Used {
        user: UserId,
        reply: RpcReplyPort<u32>,
    },
    /// Panics, for tests.
    #[cfg(feature = "testkit")]
    Panic,
}

/// A new agent, valid and sealed; the slug in the record is replaced by the one that is given out.
pub struct Creation {
    pub record: AgentRecord,
    pub slug: SlugRequest,
    /// Written in the same transaction, so that a retry after a crash finds the agent.
    pub idempotency: Option<IdempotencyClaim>,
    /// Its instance exists already and no record knows it: it is recorded beyond any quota.
    pub adopted: bool,
    /// Who asks.
    pub acting: Option<Arc<Acting>>,
}

/// What is written beside a new agent about the request that made it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct IdempotencyClaim {
    /// The key that the caller gave; one for each user and request.
    pub key: String,
    /// What a later request with the same key is compared with.
    pub record: IdempotencyRecord,
}

impl IdempotencyClaim {
    /// With both.
    pub fn new(key: impl Into<String>, record: IdempotencyRecord) -> Self {
        Self { key: key.into(), record }
    }
}

/// Why no agent was created.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CreateRefusal {
    #[error(transparent)]
    Ledger(#[from] Refusal),
    #[error("no such user")]
    NoSuchUser,
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the supervisor handles.
pub enum SupervisorMsg {
    /// Start an actor for a new agent.
    TakeUp {
        record: Box<AgentRecord>,
        port: Option<HostPort>,
    },
    /// Rebuild an agent's actor from the store.
    Rebuild(AgentId),
    RebuildRegistry,
    /// Tell every agent, or one, that the engine shows something new.
    Resync(Option<AgentId>),
    /// End all actors, in order.
    Shutdown(RpcReplyPort<()>),
}

/// Where the registry is at present: it changes when it is rebuilt.
pub type RegistrySlot = Arc<ArcSwap<ActorRef<RegistryMsg>>>;

/// Where the agents' actors are at present.
pub type Directory = Arc<ById<AgentId, ActorRef<AgentMsg>>>;

/// The reason with which an actor stops when its agent is gone: the one end after which it is not rebuilt.
pub const GONE: &str = "gone";
