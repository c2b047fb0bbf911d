//! Faults on purpose: what an accident or an operator does to instances behind the service's back.
//!
//! No part of [`ContainerRuntime`](super::ContainerRuntime): the control plane itself never does any of it. These hands
//! belong to another program on the same machine, and touch only instances of the installation that they were made for.

use std::collections::BTreeMap;
use std::fmt;

use futures_util::future::BoxFuture;

use super::RuntimeResult;
use crate::domain::AgentId;

/// One thing that can be done to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// SIGKILL.
    Kill,
    /// It is there, and gets no processor.
    Pause,
    /// It is asked to end, and ends in order.
    Stop,
    /// Its network is taken away.
    Cut,
}

impl Fault {
    /// All faults, those that last and those that do not.
    pub const ALL: &'static [Self] = &[Self::Kill, Self::Pause, Self::Stop, Self::Cut];

    /// The name that [`Fault::parse`] reads.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Stop => "stop",
            Self::Cut => "cut",
        }
    }

    /// Reads the name of a fault.
    ///
    /// # Errors
    /// A sentence that lists the faults.
    pub fn parse(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().copied().find(|fault| fault.as_str() == text);
        known.ok_or_else(|| "must be one of kill, pause, stop, cut".into())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Does them.
pub trait FaultInjector: Send + Sync {
    /// Those that are possible here.
    fn faults(&self) -> &'static [Fault];

    /// Does it to the agent's instance. `false`, and nothing done, where none runs.
    fn inject(&self, agent: AgentId, fault: Fault) -> BoxFuture<'_, RuntimeResult<bool>>;

    /// Takes back what lasts: a pause, a cut. What is over, or was mended by the service, is no error.
    fn undo(&self, agent: AgentId, fault: Fault) -> BoxFuture<'_, RuntimeResult<()>>;

    /// How many instances of each agent are alive, paused ones too.
    fn alive(&self) -> BoxFuture<'_, RuntimeResult<BTreeMap<AgentId, usize>>>;
}
