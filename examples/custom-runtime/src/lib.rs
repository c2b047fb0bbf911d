//! A runtime of one's own: a budget of memory in front of any engine.
//!
//! An engine starts whatever it is asked to start, until the machine swaps. This one counts what its running instances may
//! use, and answers a start beyond the budget with [`RuntimeError::Capacity`]: the agent is tried again later, and says why.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zeroone::domain::{AgentId, Origin, Software};
use zeroone::runtime::{
    BoxFuture, BoxStream, Caps, ContainerRuntime, DataPolicy, ImageChoice, InstanceKey, InstanceSpec, InstanceState,
    LeaseAnswer, LeaseRequest, LogLine, LogQuery, ObservedInstance, Progress, Resync, RuntimeCall, RuntimeError,
    RuntimeResult, StagedFile, Usage,
};

/// The budget of an engine's instances.
pub struct Budgeted {
    inner: Arc<dyn ContainerRuntime>,
    budget_mb: u64,
    /// What each instance may use. An instance that an earlier program left running is known once its agent is started or
    /// checked again, which the control plane does with each of them when it comes up.
    sizes: Mutex<HashMap<AgentId, u64>>,
}

impl Budgeted {
    pub fn new(inner: Arc<dyn ContainerRuntime>, budget_mb: u64) -> Self {
        Self { inner, budget_mb, sizes: Mutex::default() }
    }

    fn sizes(&self) -> MutexGuard<'_, HashMap<AgentId, u64>> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What instances that run may use, but for this one.
    async fn used_beside(&self, agent: AgentId) -> RuntimeResult<u64> {
        let running: Vec<AgentId> = self
            .inner
            .list_owned()
            .await?
            .into_iter()
            .filter(|seen| seen.run().is_some() && seen.key.agent != agent)
            .map(|seen| seen.key.agent)
            .collect();
        let sizes = self.sizes();
        Ok(running.iter().filter_map(|agent| sizes.get(agent)).sum())
    }
}

impl ContainerRuntime for Budgeted {
    fn caps(&self) -> Caps {
        self.inner.caps().with_name("budgeted")
    }

    fn ensure_created<'a>(&'a self, spec: &'a InstanceSpec) -> BoxFuture<'a, RuntimeResult<ObservedInstance>> {
        self.sizes().insert(spec.key.agent, spec.memory_mb.into());
        self.inner.ensure_created(spec)
    }

    fn start<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<InstanceState>> {
        Box::pin(async move {
            let wanted = self.sizes().get(&key.agent).copied().unwrap_or_default();
            let used = self.used_beside(key.agent).await?;
            if used + wanted > self.budget_mb {
                let budget = self.budget_mb;
                return Err(RuntimeError::Capacity(format!(
                    "{used} MB of {budget} MB are in use; it needs {wanted} MB"
                )));
            }
            self.inner.start(key).await
        })
    }

    fn remove<'a>(&'a self, key: &'a InstanceKey, data: DataPolicy) -> BoxFuture<'a, RuntimeResult<()>> {
        Box::pin(async move {
            self.inner.remove(key, data).await?;
            self.sizes().remove(&key.agent);
            Ok(())
        })
    }

    // Everything else is the engine's own. Methods with a default are passed on as well: the default would hide the engine's.

    fn ping(&self) -> BoxFuture<'_, RuntimeResult<()>> {
        self.inner.ping()
    }

    fn attach(&self) -> BoxFuture<'_, RuntimeResult<()>> {
        self.inner.attach()
    }

    fn longest(&self, call: RuntimeCall) -> Duration {
        self.inner.longest(call)
    }

    fn prepare<'a>(&'a self, key: &'a InstanceKey, progress: Progress) -> BoxFuture<'a, RuntimeResult<()>> {
        self.inner.prepare(key, progress)
    }

    fn software<'a>(
        &'a self,
        choice: ImageChoice<'a>,
        progress: Progress,
    ) -> BoxFuture<'a, RuntimeResult<Option<Software>>> {
        self.inner.software(choice, progress)
    }

    fn stage<'a>(&'a self, key: &'a InstanceKey, files: &'a [StagedFile]) -> BoxFuture<'a, RuntimeResult<()>> {
        self.inner.stage(key, files)
    }

    fn read_data<'a>(&'a self, key: &'a InstanceKey, folder: &'a str) -> BoxFuture<'a, RuntimeResult<Vec<StagedFile>>> {
        self.inner.read_data(key, folder)
    }

    fn write_data<'a>(&'a self, key: &'a InstanceKey, files: &'a [StagedFile]) -> BoxFuture<'a, RuntimeResult<()>> {
        self.inner.write_data(key, files)
    }

    fn stop<'a>(&'a self, key: &'a InstanceKey, grace: Duration) -> BoxFuture<'a, RuntimeResult<()>> {
        self.inner.stop(key, grace)
    }

    fn kill<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<()>> {
        self.inner.kill(key)
    }

    fn observe<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<Option<ObservedInstance>>> {
        self.inner.observe(key)
    }

    fn list_owned(&self) -> BoxFuture<'_, RuntimeResult<Vec<ObservedInstance>>> {
        self.inner.list_owned()
    }

    fn origin<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<Option<Origin>>> {
        self.inner.origin(key)
    }

    fn lease<'a>(&'a self, request: &'a LeaseRequest) -> BoxFuture<'a, RuntimeResult<LeaseAnswer>> {
        self.inner.lease(request)
    }

    fn watch(&self) -> BoxStream<'static, Resync> {
        self.inner.watch()
    }

    fn logs<'a>(
        &'a self,
        key: &'a InstanceKey,
        query: LogQuery,
    ) -> BoxFuture<'a, RuntimeResult<BoxStream<'static, RuntimeResult<LogLine>>>> {
        self.inner.logs(key, query)
    }

    fn usage<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<Usage>> {
        self.inner.usage(key)
    }
}
