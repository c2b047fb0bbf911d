//! What an agent's actor is told, and what it answers.

use std::sync::Arc;

use ractor::RpcReplyPort;

use crate::actor::jobs;
use crate::domain::{AgentSpec, ChannelKind, HostPort, Status};
use crate::lifecycle::{Cause, Command, Job, Observation};
use crate::runtime::Run;
use crate::store::StoreError;
use crate::vault::Sealed;

pub enum AgentMsg {
    /// Take up the record; sent once, right after the actor began.
    Recover,
    Command(Command, Option<Box<Change>>, RpcReplyPort<CommandReply>),
    JobEnded {
        attempt: u64,
        job: Job,
        report: Box<jobs::JobReport>,
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
    /// A message was answered with 401.
    TokenRefused {
        attempt: u64,
    },
    Wake {
        revision: u64,
    },
    /// A bug, as chaos tests have it.
    #[cfg(feature = "testkit")]
    Panic,
}

/// A change of what the agent is, already valid and sealed.
pub struct Change {
    /// Only if the agent still has this generation.
    pub if_generation: u64,
    pub spec: Arc<AgentSpec>,
    pub api_key: Option<Sealed>,
    pub channels: Option<Sealed>,
    pub channel_kinds: Vec<ChannelKind>,
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
