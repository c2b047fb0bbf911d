//! A runtime that is looked after: every call that changes something is held against the store at that very moment.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, pending};
use futures_util::stream::BoxStream;
use tokio_util::sync::CancellationToken;

use super::check::{Invariant, Violation};
use crate::domain::{AgentId, Origin, Software};
use crate::lifecycle::{AfterStop, AgentState, Phase, RetryTarget};
use crate::runtime::{
    Caps, ContainerRuntime, DataPolicy, ImageChoice, InstanceKey, InstanceSpec, InstanceState, LeaseAnswer,
    LeaseRequest, LogLine, LogQuery, ObservedInstance, Progress, Resync, RuntimeCall, RuntimeResult, StagedFile, Usage,
};
use crate::store::Store;

/// Any runtime, with [`Invariant::IntentFirst`] and [`Invariant::OneOperation`] checked at every call.
#[derive(Clone)]
pub struct Guard {
    inner: Arc<dyn ContainerRuntime>,
    store: Store,
    cut: CancellationToken,
    watch: Arc<Mutex<Watch>>,
}

#[derive(Default)]
struct Watch {
    under_way: BTreeMap<AgentId, &'static str>,
    violations: Vec<Violation>,
}

/// What a call does to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Raise,
    End,
    Remove,
}

/// An operation under way; over when dropped.
struct UnderWay {
    watch: Arc<Mutex<Watch>>,
    agent: AgentId,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        lock(&self.watch).under_way.remove(&self.agent);
    }
}

fn lock(watch: &Mutex<Watch>) -> MutexGuard<'_, Watch> {
    watch.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Guard {
    /// Looks after `runtime` for a control plane on `store`. When `cut` is cancelled no call has an effect any more: the
    /// service is dead.
    pub fn new(runtime: Arc<dyn ContainerRuntime>, store: Store, cut: CancellationToken) -> Self {
        Self { inner: runtime, store, cut, watch: Arc::default() }
    }

    /// What was violated since this was last asked.
    pub fn violations(&self) -> Vec<Violation> {
        std::mem::take(&mut lock(&self.watch).violations)
    }

    /// Begins an operation, if the service still lives.
    async fn begin(&self, key: &InstanceKey, name: &'static str, act: Act) -> UnderWay {
        if self.cut.is_cancelled() {
            pending::<()>().await;
        }
        let agent = key.agent;
        let stored = self.store.agent(agent).await;
        let mut watch = lock(&self.watch);
        // A store that cannot be read says nothing about intents.
        if let Ok(stored) = stored {
            let state = stored.as_ref().map(|stored| &stored.record.state);
            if !intended(state, act) {
                let phase = state.map(|state| &state.phase);
                watch.violations.push(Violation::new(Invariant::IntentFirst, agent, format!("{name} in {phase:?}")));
            }
        }
        if let Some(other) = watch.under_way.insert(agent, name) {
            watch.violations.push(Violation::new(Invariant::OneOperation, agent, format!("{name} beside {other}")));
        }
        drop(watch);
        UnderWay { watch: Arc::clone(&self.watch), agent }
    }

    async fn looked_after<T>(
        &self,
        key: &InstanceKey,
        name: &'static str,
        act: Act,
        work: BoxFuture<'_, RuntimeResult<T>>,
    ) -> RuntimeResult<T> {
        let _under_way = self.begin(key, name, act).await;
        work.await
    }
}

/// Whether what is stored allows for this. A job that was superseded while it waited still ends, so the record may be
/// further than the job; but it has a first attempt behind it, and an agent that is stored as RUNNING is touched by nobody.
fn intended(state: Option<&AgentState>, act: Act) -> bool {
    let Some(state) = state else {
        // Orphans are removed.
        return act == Act::Remove;
    };
    match (&state.phase, act) {
        (Phase::Running { .. }, _) => false,
        (Phase::Pending, Act::Raise) => state.attempt > 0,
        (Phase::Stopping { then: AfterStop::Delete, .. } | Phase::Failed { resume: RetryTarget::Delete, .. }, _) => {
            true
        }
        (_, Act::Remove) => false,
        (_, Act::Raise | Act::End) => true,
    }
}

impl ContainerRuntime for Guard {
    fn caps(&self) -> Caps {
        self.inner.caps()
    }

    fn ping(&self) -> BoxFuture<'_, RuntimeResult<()>> {
        self.inner.ping()
    }

    fn prepare<'a>(&'a self, key: &'a InstanceKey, progress: Progress) -> BoxFuture<'a, RuntimeResult<()>> {
        self.inner.prepare(key, progress)
    }

    fn attach(&self) -> BoxFuture<'_, RuntimeResult<()>> {
        self.inner.attach()
    }

    fn longest(&self, call: RuntimeCall) -> Duration {
        self.inner.longest(call)
    }

    fn software<'a>(
        &'a self,
        choice: ImageChoice<'a>,
        progress: Progress,
    ) -> BoxFuture<'a, RuntimeResult<Option<Software>>> {
        self.inner.software(choice, progress)
    }

    fn ensure_created<'a>(&'a self, spec: &'a InstanceSpec) -> BoxFuture<'a, RuntimeResult<ObservedInstance>> {
        self.looked_after(&spec.key, "create", Act::Raise, self.inner.ensure_created(spec)).boxed()
    }

    fn stage<'a>(&'a self, key: &'a InstanceKey, files: &'a [StagedFile]) -> BoxFuture<'a, RuntimeResult<()>> {
        self.looked_after(key, "stage", Act::Raise, self.inner.stage(key, files)).boxed()
    }

    fn read_data<'a>(&'a self, key: &'a InstanceKey, folder: &'a str) -> BoxFuture<'a, RuntimeResult<Vec<StagedFile>>> {
        self.inner.read_data(key, folder)
    }

    fn write_data<'a>(&'a self, key: &'a InstanceKey, files: &'a [StagedFile]) -> BoxFuture<'a, RuntimeResult<()>> {
        self.inner.write_data(key, files)
    }

    fn start<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<InstanceState>> {
        self.looked_after(key, "start", Act::Raise, self.inner.start(key)).boxed()
    }

    fn stop<'a>(&'a self, key: &'a InstanceKey, grace: Duration) -> BoxFuture<'a, RuntimeResult<()>> {
        self.looked_after(key, "stop", Act::End, self.inner.stop(key, grace)).boxed()
    }

    fn kill<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<()>> {
        self.looked_after(key, "kill", Act::End, self.inner.kill(key)).boxed()
    }

    fn remove<'a>(&'a self, key: &'a InstanceKey, data: DataPolicy) -> BoxFuture<'a, RuntimeResult<()>> {
        self.looked_after(key, "remove", Act::Remove, self.inner.remove(key, data)).boxed()
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
