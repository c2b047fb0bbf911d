//! Instances as processes of this machine: the runtime that needs nothing installed.
//!
//! It runs any program that obeys ZeroClaw's environment contract, by default this binary's own `gateway`. What holds
//! whatever dies when:
//!
//! - **At most one process per agent.** A lock in the agent's folder is taken before the start and handed to the
//!   instance as its standard input. From then on the kernel holds it until that process is gone.
//! - **Instances outlive the service** and are found again by a marker in their environment, the same run with the same
//!   [`RunId`].
//! - **No signal to a stranger.** Signals go through descriptors that stay with one process; pids are only read.
//! - **Deaths are noticed at once**, by those descriptors too, for children and adopted ones alike.
//!
//! ```text
//! process.rs    the ContainerRuntime; takes turns, moves blocking work off the runtime's threads
//!   instances   all that are known, and the lease     host     what they share: the folder, the program, the walls
//!   instance    one agent: create, start, kill, remove, observe
//!     live      a run to its end; census: which process is the instance
//!     launch    fork and exec: session, limits, environment
//!     walls     what an instance may touch of the machine      users   a uid for each agent     cgroup   its memory
//!     folder    files on disk          marker    the environment variable
//!     data      those that are the agent's     record    what is written down of it and its runs
//!     pidfd     a process for sure     table     /proc
//!   logs        reading output         output    the file, kept from growing     output_watch    inotify
//!   usage       CPU and memory     fault_injector     faults on purpose, from beside the service
//! ```
//!
//! Instances share the machine's network and its CPUs. Walls keep each of them to its own folder and from other processes, as
//! far as the kernel has them and the service may put them up: as root it makes each agent a user of its own. Docker gives more.

mod cgroup;
mod data;
mod errors;
mod fault_injector;
mod folder;
mod host;
mod instance;
mod instances;
mod launch;
mod lease;
mod live;
mod logs;
mod marker;
mod options;
mod output;
mod output_watch;
mod pidfd;
mod readiness;
mod record;
mod table;
mod usage;
mod users;
mod walls;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{BoxStream, StreamExt};
use tokio::sync::OwnedMutexGuard;
use tokio_stream::wrappers::BroadcastStream;

use self::errors::failed;
pub use self::fault_injector::ProcessFaultInjector;
use self::folder::Folder;
use self::host::Host;
use self::instance::{Instance, Turn, end};
use self::instances::Instances;
use self::launch::{Program, executable};
pub use self::options::ProcessOptions;
pub use self::users::Uids;
use super::{
    Caps, ContainerRuntime, DataPolicy, ImageChoice, InstanceKey, InstanceSpec, InstanceState, LeaseAnswer,
    LeaseRequest, LogLine, LogQuery, NetworkIsolation, ObservedInstance, Progress, Resync, RunId, RuntimeError,
    RuntimeResult, StagedFile, Usage,
};
use crate::domain::{AgentId, InstallationId, Origin, Software};

/// Runs instances as local processes. Clones are the same runtime. Dropping it leaves the instances running.
#[derive(Debug, Clone)]
pub struct ProcessRuntime(Arc<Instances>);

impl ProcessRuntime {
    /// Opens the folder, adopts the instances that run, and ends what dead ones left behind. For a caller who knows that
    /// no other control plane has this installation. Must be called inside a tokio runtime; reads the process table once.
    ///
    /// # Errors
    /// The folder cannot be made or read, the kernel has no room for another watcher, or there is no tokio runtime.
    pub fn open(options: ProcessOptions) -> RuntimeResult<Self> {
        let runtime = Self::open_unclaimed(options)?;
        runtime.0.clean()?;
        Ok(runtime)
    }

    /// The same without changing anything: neither a folder nor a process, until [`ContainerRuntime::lease`] has said that
    /// this installation is ours alone.
    ///
    /// # Errors
    /// The kernel has no room for another watcher, or there is no tokio runtime.
    pub fn open_unclaimed(options: ProcessOptions) -> RuntimeResult<Self> {
        tokio::runtime::Handle::try_current().map_err(|error| RuntimeError::Invalid(error.to_string()))?;
        Ok(Self(Arc::new(Instances::open(options)?)))
    }

    /// The installations that have instances in this folder, and how many each. Whose run is not looked at: instances
    /// outlive runs.
    ///
    /// # Errors
    /// The folder cannot be read. One that is not there has none.
    pub fn installations(root: &Path) -> io::Result<BTreeMap<InstallationId, usize>> {
        let agents = match Folder::agents(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            agents => agents?,
        };
        let mut counts = BTreeMap::new();
        for agent in agents {
            if let Some(record) = Folder::of(root, agent).record()? {
                *counts.entry(record.installation).or_default() += 1;
            }
        }
        Ok(counts)
    }

    /// The pid of a run of this runtime, for people to look at. It may be over, and the number another process's.
    pub fn pid_of(run_id: &RunId) -> Option<u32> {
        live::pid_of(run_id)
    }
}

impl ProcessRuntime {
    /// Does blocking work on an instance, without waiting for its turn.
    async fn look<T: Send + 'static>(
        &self,
        agent: AgentId,
        work: impl FnOnce(&Host, &Instance) -> RuntimeResult<T> + Send + 'static,
    ) -> RuntimeResult<T> {
        let instances = Arc::clone(&self.0);
        blocking(move || {
            let instance = instances.instance(agent);
            let done = work(&instances.host, &instance);
            instances.release(agent, instance);
            done
        })
        .await
    }

    /// Does blocking work that changes an instance, one after the other. The work goes on to its end also when the
    /// caller stops waiting: no step is left half done.
    async fn change<T: Send + 'static>(
        &self,
        agent: AgentId,
        work: impl FnOnce(&Host, &Instance, &mut Turn) -> RuntimeResult<T> + Send + 'static,
    ) -> RuntimeResult<T> {
        let (instance, mut turn) = self.turn(agent).await;
        let instances = Arc::clone(&self.0);
        blocking(move || {
            let done = work(&instances.host, &instance, &mut turn);
            drop(turn);
            instances.release(agent, instance);
            done
        })
        .await
    }

    async fn turn(&self, agent: AgentId) -> (Arc<Instance>, OwnedMutexGuard<Turn>) {
        let instance = self.0.instance(agent);
        let turn = Arc::clone(&instance.turn).lock_owned().await;
        (instance, turn)
    }

    async fn stop_gently(&self, agent: AgentId, grace: Duration) -> RuntimeResult<()> {
        // Held to the end: nobody starts the instance while it is being stopped.
        let (instance, turn) = self.turn(agent).await;
        let found = self.look(agent, |host, instance| instance.find(host)).await?;
        let Some(run) = found else {
            drop(turn);
            self.0.release(agent, instance);
            return Ok(());
        };
        run.ask_to_end().map_err(failed("cannot ask the instance to end"))?;
        // Over or not: what is left is killed next.
        let _ = tokio::time::timeout(grace, run.over()).await;
        blocking(move || end(&run)).await
    }
}

impl ContainerRuntime for ProcessRuntime {
    fn caps(&self) -> Caps {
        Caps {
            name: "process",
            host_ports: true,
            enforces_cpu: false,
            enforces_memory: true,
            isolates_network: NetworkIsolation::None,
            sees_pauses: true,
            splits_output: true,
            keeps_ended_runs: true,
            exact_log_times: true,
            kills_while_stopping: true,
            stages_at_start: false,
            carries_data: true,
            measures_usage: true,
            walls: self.0.standing.walls.clone(),
            missing_walls: self.0.standing.missing.clone(),
            host: Some("127.0.0.1"),
        }
    }

    fn ping(&self) -> BoxFuture<'_, RuntimeResult<()>> {
        let root = self.0.host.root.clone();
        blocking(move || match fs::read_dir(root) {
            // The first instance makes it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            read => read.map(drop).map_err(failed("cannot read the agents' folder")),
        })
        .boxed()
    }

    fn prepare<'a>(&'a self, _: &'a InstanceKey, progress: Progress) -> BoxFuture<'a, RuntimeResult<()>> {
        let instances = Arc::clone(&self.0);
        blocking(move || {
            let Program { path, environment, .. } = &instances.host.program;
            let found = executable(path, environment)
                .ok_or_else(|| RuntimeError::Invalid(format!("no program {} that can be run", path.display())))?;
            progress(format!("instances run {}", found.display()));
            Ok(())
        })
        .boxed()
    }

    /// An instance runs the program that is there when it starts.
    fn software<'a>(&'a self, _: ImageChoice<'a>, _: Progress) -> BoxFuture<'a, RuntimeResult<Option<Software>>> {
        std::future::ready(Ok(None)).boxed()
    }

    fn ensure_created<'a>(&'a self, spec: &'a InstanceSpec) -> BoxFuture<'a, RuntimeResult<ObservedInstance>> {
        let spec = spec.clone();
        self.change(spec.key.agent, move |host, instance, turn| instance.create(host, turn, &spec)).boxed()
    }

    fn stage<'a>(&'a self, key: &'a InstanceKey, files: &'a [StagedFile]) -> BoxFuture<'a, RuntimeResult<()>> {
        let files = files.to_vec();
        self.change(key.agent, move |host, instance, _| instance.stage(host, &files)).boxed()
    }

    fn read_data<'a>(&'a self, key: &'a InstanceKey, folder: &'a str) -> BoxFuture<'a, RuntimeResult<Vec<StagedFile>>> {
        let folder = folder.to_owned();
        self.look(key.agent, move |host, instance| instance.read_data(host, &folder)).boxed()
    }

    fn write_data<'a>(&'a self, key: &'a InstanceKey, files: &'a [StagedFile]) -> BoxFuture<'a, RuntimeResult<()>> {
        let files = files.to_vec();
        self.change(key.agent, move |host, instance, _| instance.write_data(host, &files)).boxed()
    }

    fn start<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<InstanceState>> {
        self.change(key.agent, |host, instance, turn| instance.start(host, turn).map(InstanceState::Running)).boxed()
    }

    fn stop<'a>(&'a self, key: &'a InstanceKey, grace: Duration) -> BoxFuture<'a, RuntimeResult<()>> {
        self.stop_gently(key.agent, grace).boxed()
    }

    fn kill<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<()>> {
        async move {
            // At once, also in the middle of a stop that waits; and then again in turn, for a start that was under way.
            self.look(key.agent, |host, instance| instance.kill(host)).await?;
            self.change(key.agent, |host, instance, _| instance.kill(host)).await
        }
        .boxed()
    }

    fn remove<'a>(&'a self, key: &'a InstanceKey, data: DataPolicy) -> BoxFuture<'a, RuntimeResult<()>> {
        self.change(key.agent, move |host, instance, turn| instance.remove(host, turn, data)).boxed()
    }

    fn observe<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<Option<ObservedInstance>>> {
        self.look(key.agent, |host, instance| instance.observe(host)).boxed()
    }

    fn list_owned(&self) -> BoxFuture<'_, RuntimeResult<Vec<ObservedInstance>>> {
        let instances = Arc::clone(&self.0);
        blocking(move || instances.list()).boxed()
    }

    fn origin<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<Option<Origin>>> {
        self.look(key.agent, |host, instance| {
            let record = instance.record(host)?.ok_or(RuntimeError::NotFound)?;
            // The folder was in other hands since.
            Ok(record.origin.and_then(|origin| Origin::parse(&origin.to_json())))
        })
        .boxed()
    }

    fn lease<'a>(&'a self, request: &'a LeaseRequest) -> BoxFuture<'a, RuntimeResult<LeaseAnswer>> {
        let (instances, request) = (Arc::clone(&self.0), request.clone());
        blocking(move || instances.lease(&request)).boxed()
    }

    fn watch(&self) -> BoxStream<'static, Resync> {
        // Falling behind is the only error.
        BroadcastStream::new(self.0.host.changes.subscribe()).map(|change| change.unwrap_or(Resync::All)).boxed()
    }

    /// Standard output and error are one file, so every line counts as [`LogStream::Stdout`](super::LogStream::Stdout).
    fn logs<'a>(
        &'a self,
        key: &'a InstanceKey,
        query: LogQuery,
    ) -> BoxFuture<'a, RuntimeResult<BoxStream<'static, RuntimeResult<LogLine>>>> {
        self.look(key.agent, move |host, instance| {
            let sources = instance.sources(host, query.run_id.as_ref())?;
            if sources.is_empty() && query.run_id.is_none() && instance.observe(host)?.is_none() {
                return Err(RuntimeError::NotFound);
            }
            logs::read(sources, &query)
        })
        .boxed()
    }

    fn usage<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<Usage>> {
        self.look(key.agent, |host, instance| {
            let record = instance.record(host)?.ok_or(RuntimeError::NotFound)?;
            let run = instance.find(host)?.ok_or_else(|| RuntimeError::Conflict("it is not running".into()))?;
            let mut sample = instance.sample.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(usage::measure(&run, record.memory_mb, &mut sample))
        })
        .boxed()
    }
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> RuntimeResult<T> + Send + 'static) -> RuntimeResult<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(RuntimeError::UnknownOutcome(format!("the call did not end: {error}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> (ProcessRuntime, tempfile::TempDir) {
        let root = tempfile::tempdir().unwrap();
        let runtime = ProcessRuntime::open(ProcessOptions {
            installation: InstallationId::new(),
            root: root.path().into(),
            program: "true".into(),
            args_prefix: Vec::new(),
            environment: Vec::new(),
            log_limit_bytes: ProcessOptions::LOG_LIMIT_BYTES,
            walls: true,
            uids: None,
            readable: Vec::new(),
        })
        .unwrap();
        (runtime, root)
    }

    #[tokio::test]
    async fn a_listener_that_fell_behind_is_told_to_list_everything() {
        let (runtime, _root) = runtime();
        let mut changes = runtime.watch();
        let agent = AgentId::new();
        for _ in 0..=instances::CHANGES {
            runtime.0.host.changes.send(Resync::Instance(agent)).unwrap();
        }
        assert_eq!(changes.next().await, Some(Resync::All));
        assert_eq!(changes.next().await, Some(Resync::Instance(agent)));
    }

    #[tokio::test]
    async fn what_was_only_looked_at_is_not_remembered() {
        let (runtime, _root) = runtime();
        let key = InstanceKey { agent: AgentId::new(), slug: crate::domain::Slug::parse("a").unwrap() };
        runtime.observe(&key).await.unwrap();
        runtime.stop(&key, Duration::ZERO).await.unwrap();
        runtime.kill(&key).await.unwrap();
        runtime.remove(&key, DataPolicy::Remove).await.unwrap();
        assert_eq!(runtime.0.known().len(), 0);
    }
}
