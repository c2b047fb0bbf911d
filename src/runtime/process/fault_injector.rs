//! Faults by signals, from a program beside the service.
//!
//! It opens no runtime: two of them would both write down how runs end. The processes are found by their marker, and
//! signalled through descriptors, as the runtime itself does it. There is no [`Fault::Cut`]: processes share the machine's
//! network.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rustix::process::Signal;

use super::blocking;
use super::errors::failed;
use super::live::Census;
use super::pidfd::Process;
use super::table::{self, Marked};
use crate::domain::{AgentId, InstallationId};
use crate::runtime::fault::{Fault, FaultInjector};
use crate::runtime::{RuntimeError, RuntimeResult};

/// Faults for the processes of one installation.
#[derive(Debug, Clone, Copy)]
pub struct ProcessFaultInjector {
    installation: InstallationId,
}

impl ProcessFaultInjector {
    /// For the processes of this installation on this machine.
    pub const fn new(installation: InstallationId) -> Self {
        Self { installation }
    }

    async fn signal(self, agent: AgentId, signal: Signal) -> RuntimeResult<bool> {
        blocking(move || {
            let mut mine = self.marked()?;
            mine.retain(|found| found.marker.agent == agent);
            let Some(process) = Census::of(mine, |_| None).leader.as_ref().and_then(Process::found) else {
                return Ok(false);
            };
            process.signal(signal).map_err(failed("cannot signal the instance"))?;
            Ok(true)
        })
        .await
    }

    fn marked(self) -> RuntimeResult<Vec<Marked>> {
        table::marked(self.installation).map_err(failed("cannot read the process table"))
    }
}

impl FaultInjector for ProcessFaultInjector {
    fn faults(&self) -> &'static [Fault] {
        &[Fault::Kill, Fault::Pause, Fault::Stop]
    }

    fn inject(&self, agent: AgentId, fault: Fault) -> BoxFuture<'_, RuntimeResult<bool>> {
        async move {
            let signal = match fault {
                Fault::Kill => Signal::KILL,
                Fault::Pause => Signal::STOP,
                Fault::Stop => Signal::TERM,
                Fault::Cut => return Err(RuntimeError::Invalid("processes have no network of their own".into())),
            };
            self.signal(agent, signal).await
        }
        .boxed()
    }

    fn undo(&self, agent: AgentId, fault: Fault) -> BoxFuture<'_, RuntimeResult<()>> {
        async move {
            match fault {
                Fault::Pause => self.signal(agent, Signal::CONT).await.map(drop),
                Fault::Kill | Fault::Stop | Fault::Cut => Ok(()),
            }
        }
        .boxed()
    }

    /// Processes that lead a session of a run of their own: children of an instance count as part of it.
    fn alive(&self) -> BoxFuture<'_, RuntimeResult<BTreeMap<AgentId, usize>>> {
        let injector = *self;
        blocking(move || {
            let mut runs = BTreeMap::<AgentId, Vec<_>>::new();
            for found in injector.marked()? {
                let of_agent = runs.entry(found.marker.agent).or_default();
                if !of_agent.contains(&found.marker.started) {
                    of_agent.push(found.marker.started);
                }
            }
            Ok(runs.into_iter().map(|(agent, runs)| (agent, runs.len())).collect())
        })
        .boxed()
    }
}
