//! Faults by the engine, from a program beside the service: as if somebody used the engine's own command line.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::models::{NetworkConnectRequest, NetworkDisconnectRequest};
use bollard::query_parameters::KillContainerOptionsBuilder;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::engine::{CHANGE, change};
use super::failure::Failure;
use super::network::Networks;
use super::observe::Found;
use super::{DockerOptions, DockerRuntime};
use crate::domain::AgentId;
use crate::runtime::fault::{Fault, FaultInjector};
use crate::runtime::{InstanceState, RuntimeResult};

/// What `docker stop` gives a container to end by itself.
const GRACE: Duration = Duration::from_secs(10);

/// Attempts to pause a container, and the wait between two.
const PAUSES: usize = 10;
const PAUSE_RETRY: Duration = Duration::from_millis(50);

/// Faults for the containers of one installation.
pub struct DockerFaultInjector(DockerRuntime);

impl DockerFaultInjector {
    /// For the containers of the installation in these options. The engine need not be there yet.
    ///
    /// # Errors
    /// As [`DockerRuntime::new`].
    pub fn new(options: DockerOptions) -> RuntimeResult<Self> {
        DockerRuntime::new(options).map(Self)
    }

    async fn running(&self, agent: AgentId) -> RuntimeResult<Option<Found>> {
        let found = self.0.find_all(Some(agent)).await?.into_iter().next();
        Ok(found.filter(|found| found.observed.run().is_some()))
    }

    async fn hurt(&self, agent: AgentId, fault: Fault) -> RuntimeResult<bool> {
        let Some(found) = self.running(agent).await? else { return Ok(false) };
        let docker = self.0.engine.docker().await?;
        let done = match fault {
            Fault::Kill => {
                let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
                change(CHANGE, "killing a container", docker.kill_container(&found.id, Some(options))).await
            }
            Fault::Pause => self.pause(&found.id).await?,
            Fault::Stop => return self.0.end(&found, GRACE).await.map(|()| true),
            Fault::Cut => {
                let network = Networks::name(&self.0.options, agent);
                let request = NetworkDisconnectRequest { container: found.id.clone(), force: Some(true) };
                change(CHANGE, "leaving a network", docker.disconnect_network(&network, request)).await
            }
        };
        match done {
            Ok(()) => Ok(true),
            // It ended, or was replaced, a moment after it was looked at.
            Err(Failure::Refused(404 | 409, _)) => Ok(false),
            Err(failure) => Err(failure.into()),
        }
    }

    /// On a busy machine the kernel may need more than one attempt.
    async fn pause(&self, container: &str) -> RuntimeResult<Result<(), Failure>> {
        let docker = self.0.engine.docker().await?;
        let mut paused = change(CHANGE, "pausing a container", docker.pause_container(container)).await;
        for _ in 1..PAUSES {
            if !matches!(paused, Err(Failure::Refused(500, _))) {
                break;
            }
            tokio::time::sleep(PAUSE_RETRY).await;
            paused = change(CHANGE, "pausing a container", docker.pause_container(container)).await;
        }
        Ok(paused)
    }

    async fn mend(&self, agent: AgentId, fault: Fault) -> RuntimeResult<()> {
        let Some(found) = self.0.find_all(Some(agent)).await?.into_iter().next() else { return Ok(()) };
        let docker = self.0.engine.docker().await?;
        let done = match fault {
            Fault::Pause if matches!(found.observed.state, InstanceState::Paused(_)) => {
                change(CHANGE, "unpausing a container", docker.unpause_container(&found.id)).await
            }
            Fault::Cut => {
                let network = Networks::name(&self.0.options, agent);
                let request = NetworkConnectRequest { container: found.id.clone(), endpoint_config: None };
                change(CHANGE, "joining a network", docker.connect_network(&network, request)).await
            }
            Fault::Pause | Fault::Kill | Fault::Stop => Ok(()),
        };
        match done {
            Err(Failure::Refused(403 | 409 | 500, why)) if why.contains("already exists in network") => Ok(()),
            Err(Failure::Refused(404 | 409, _)) | Ok(()) => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }
}

impl FaultInjector for DockerFaultInjector {
    fn faults(&self) -> &'static [Fault] {
        Fault::ALL
    }

    fn inject(&self, agent: AgentId, fault: Fault) -> BoxFuture<'_, RuntimeResult<bool>> {
        self.hurt(agent, fault).boxed()
    }

    fn undo(&self, agent: AgentId, fault: Fault) -> BoxFuture<'_, RuntimeResult<()>> {
        self.mend(agent, fault).boxed()
    }

    fn alive(&self) -> BoxFuture<'_, RuntimeResult<BTreeMap<AgentId, usize>>> {
        async move {
            let mut counts = BTreeMap::new();
            for found in self.0.find_all(None).await? {
                if matches!(found.observed.state, InstanceState::Running(_) | InstanceState::Paused(_)) {
                    *counts.entry(found.observed.key.agent).or_default() += 1;
                }
            }
            Ok(counts)
        }
        .boxed()
    }
}
