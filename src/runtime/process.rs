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
//!   instance    one agent: create, start, kill, remove, observe
//!     live      a run to its end; census: which process is the instance
//!     launch    fork and exec: session, limits, environment
//!     walls     what an instance may touch of the machine      users   a uid for each agent     cgroup   its memory
//!     folder    files on disk          marker    the environment variable
//!     pidfd     a process for sure     table     /proc
//!   logs        reading output         output    the file, kept from growing     output_watch    inotify
//!   usage       CPU and memory     hands     faults on purpose, from beside the service
//! ```
//!
//! Instances share the machine's network and its CPUs. Walls keep each of them to its own folder and from other processes, as
//! far as the kernel has them and the service may put them up: as root it makes each agent a user of its own. Docker gives more.

mod cgroup;
mod errors;
mod fault_injector;
mod folder;
mod instance;
mod launch;
mod lease;
mod live;
mod logs;
mod marker;
mod output;
mod output_watch;
mod pidfd;
mod readiness;
mod table;
mod usage;
mod users;
mod walls;

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{BoxStream, StreamExt};
use tokio::sync::{OwnedMutexGuard, broadcast};
use tokio_stream::wrappers::BroadcastStream;

use self::cgroup::{Cgroup, Cgroups};
use self::errors::failed;
pub use self::fault_injector::ProcessFaultInjector;
use self::folder::Folder;
use self::instance::{Host, Instance, Turn, end, kill_stray};
use self::launch::Program;
use self::lease::LeaseFile;
use self::output_watch::OutputWatch;
pub use self::users::Uids;
use self::users::Users;
use self::walls::Standing;
use super::{
    Caps, ContainerRuntime, DataPolicy, ImageChoice, InstanceKey, InstanceSpec, InstanceState, LeaseAnswer,
    LeasePurpose, LeaseRequest, LogLine, LogQuery, NetworkIsolation, ObservedInstance, Progress, Resync, RunId,
    RuntimeError, RuntimeResult, StagedFile, Usage,
};
use crate::domain::{AgentId, InstallationId, Origin, Software, Timestamp};

/// What a [`ProcessRuntime`] runs, and where.
#[derive(Debug, Clone)]
pub struct ProcessOptions {
    /// Only processes of this installation are seen or touched.
    pub installation: InstallationId,
    /// Holds a folder for each agent; made if missing.
    pub root: PathBuf,
    /// A path, or a name that is looked for in the `PATH` of `environment`.
    pub program: PathBuf,
    /// Arguments before those of the spec.
    pub args_prefix: Vec<String>,
    /// What every instance gets besides its spec's environment. Nothing else of the service's own environment reaches it.
    pub environment: Vec<(String, String)>,
    /// Bytes of output that are kept of each of the last five runs of an agent; up to a quarter more on disk.
    pub log_limit_bytes: u64,
    /// Whether instances are kept to their own folder and from other processes, as far as the kernel can.
    pub walls: bool,
    /// With walls, and where the service is root: uids of which each agent gets one for itself. They must be nobody else's, nor
    /// another installation's. Others must get through the folders above `root`.
    pub uids: Option<Uids>,
    /// Files and folders that instances may read and run besides the system's and their program.
    pub readable: Vec<PathBuf>,
}

impl ProcessOptions {
    /// Instances of this program, e.g. `zeroone`, whose folders are in `root`; with no environment of the service's.
    pub fn new(installation: InstallationId, root: impl Into<PathBuf>, program: impl Into<PathBuf>) -> Self {
        Self {
            installation,
            root: root.into(),
            program: program.into(),
            args_prefix: Vec::new(),
            environment: Vec::new(),
            log_limit_bytes: Self::LOG_LIMIT_BYTES,
            walls: true,
            uids: Some(Uids::default()),
            readable: Vec::new(),
        }
    }

    /// The variables of the service's own environment that instances need too: where programs and certificates are, and
    /// what language and time zone the machine has. Whoever reads the environment puts them into
    /// [`ProcessOptions::environment`].
    pub const INHERITED: [&str; 6] = ["PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR"];
    /// Some ten thousand lines.
    pub const LOG_LIMIT_BYTES: u64 = 2 * 1024 * 1024;
}

/// Variables that say where certificates are.
const CERTIFICATES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];
/// Wake-ups that a slow listener may fall behind before it is told to list everything.
const CHANGES: usize = 1024;

/// Runs instances as local processes. Clones are the same runtime. Dropping it leaves the instances running.
#[derive(Debug, Clone)]
pub struct ProcessRuntime(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    host: Host,
    instances: Mutex<HashMap<AgentId, Arc<Instance>>>,
    lease: Mutex<LeaseFile>,
    /// The walls that stand round instances.
    standing: Standing,
    /// Whether leftovers of earlier runs were ended.
    cleaned: AtomicBool,
}

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
        let root = std::path::absolute(&options.root).map_err(failed("cannot find the agents' folder"))?;
        let path = absolute_if_path(options.program).map_err(failed("cannot find the program"))?;
        for missing in options.readable.iter().filter(|path| !path.exists()) {
            tracing::warn!(path = %missing.display(), "process.readable names what is not there: agents cannot read it");
        }
        let readable = options.walls.then(|| {
            let certificates = options.environment.iter().filter(|(name, _)| CERTIFICATES.contains(&name.as_str()));
            let certificates = certificates.map(|(_, path)| PathBuf::from(path));
            executable(&path, &options.environment).into_iter().chain(options.readable).chain(certificates).collect()
        });
        let mut standing = if options.walls { walls::standing() } else { without_walls() };
        let runs = executable(&path, &options.environment);
        let users = options.walls.then(|| users(options.uids, &root, runs.as_deref()));
        let users = users.and_then(|users| noted(&mut standing, "users", users));
        let cgroups = noted(&mut standing, "memory", Cgroups::find(options.installation));
        let program = Program { path, readable, arguments: options.args_prefix, environment: options.environment };
        let lease = Mutex::new(LeaseFile::of(options.installation));
        let host = Host {
            installation: options.installation,
            root,
            program,
            log_limit: options.log_limit_bytes,
            kernel_boot: table::kernel_boot().map_err(failed("cannot read the kernel's boot id"))?,
            changes: broadcast::Sender::new(CHANGES),
            output_watch: OutputWatch::new().map_err(failed("cannot watch the agents' output"))?,
            launching: Mutex::default(),
            users,
            cgroups,
        };
        let (instances, cleaned) = (Mutex::default(), AtomicBool::new(false));
        Ok(Self(Arc::new(Inner { host, instances, lease, standing, cleaned })))
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

impl Inner {
    fn instances(&self) -> MutexGuard<'_, HashMap<AgentId, Arc<Instance>>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn instance(&self, agent: AgentId) -> Arc<Instance> {
        let folder = || Folder::of(&self.host.root, agent);
        Arc::clone(self.instances().entry(agent).or_insert_with(|| Arc::new(Instance::new(agent, folder()))))
    }

    /// Forgets an instance of which nothing is left. Two owners are the map and `instance` itself; a third one may be
    /// about to make something of it.
    fn release(&self, agent: AgentId, instance: Arc<Instance>) {
        let mut instances = self.instances();
        if Arc::strong_count(&instance) == 2 && instance.is_blank() {
            instances.remove(&agent);
        }
        drop(instance);
    }

    /// Makes the folder ready, adopts what runs and ends what earlier runs left behind; once.
    fn clean(&self) -> RuntimeResult<()> {
        if self.cleaned.load(Ordering::Acquire) {
            return Ok(());
        }
        self.host.open_root().map_err(failed("cannot open the agents' folder"))?;
        self.discover(|found| {
            let (agent, pid) = (found.marker.agent, found.pid);
            tracing::info!(%agent, pid, "ends a process of an earlier run, or of a run in another folder");
            kill_stray(found)
        })?;
        let groups = self.host.cgroups.as_ref().map(Cgroups::everywhere).unwrap_or_default();
        if self.host.users.is_some() || self.host.cgroups.is_some() {
            for agent in Folder::agents(&self.host.root).map_err(failed("cannot list the agents' folder"))? {
                let instance = self.instance(agent);
                if instance.live().is_none() {
                    instance.kill_leftovers(&self.host, &groups)?;
                }
                self.release(agent, instance);
            }
        }
        // The kernel refuses it for those that are in use.
        groups.iter().for_each(Cgroup::remove);
        self.cleaned.store(true, Ordering::Release);
        Ok(())
    }

    fn lease(&self, request: &LeaseRequest) -> RuntimeResult<LeaseAnswer> {
        let answer = self.lease.lock().unwrap_or_else(PoisonError::into_inner).ask(request, Timestamp::now())?;
        if matches!((request.purpose, &answer), (LeasePurpose::Claim { .. }, LeaseAnswer::Held { .. })) {
            self.clean()?;
        }
        Ok(answer)
    }

    /// Adopts every instance that runs and that we do not know, and gives what dead ones left behind to `stray`.
    fn discover(&self, stray: impl Fn(&table::Marked) -> io::Result<()>) -> RuntimeResult<()> {
        let marked = table::marked(self.host.installation).map_err(failed("cannot read the process table"))?;
        let mut agents = HashMap::<AgentId, Vec<_>>::new();
        for found in marked {
            agents.entry(found.marker.agent).or_default().push(found);
        }
        for (agent, found) in agents {
            let instance = self.instance(agent);
            let census = instance.census(&self.host, found);
            if let Some(leader) = &census.leader {
                instance.adopt(&self.host, leader);
            }
            for found in &census.strays {
                stray(found).map_err(failed("cannot end what an earlier run left behind"))?;
            }
        }
        Ok(())
    }

    fn list(&self) -> RuntimeResult<Vec<ObservedInstance>> {
        self.discover(|_| Ok(()))?;
        let mut agents = match Folder::agents(&self.host.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            agents => agents.map_err(failed("cannot list the agents' folder"))?,
        };
        agents.extend(self.instances().keys());
        agents.sort_unstable();
        agents.dedup();
        let mut owned = Vec::new();
        for agent in agents {
            let instance = self.instance(agent);
            match instance.observe(&self.host) {
                Ok(observed) => owned.extend(observed),
                // Somebody else's folder is none of our affair.
                Err(RuntimeError::NotOwned(_)) => {}
                Err(error) => return Err(error),
            }
            self.release(agent, instance);
        }
        Ok(owned)
    }
}

impl ProcessRuntime {
    /// Does blocking work on an instance, without waiting for its turn.
    async fn look<T: Send + 'static>(
        &self,
        agent: AgentId,
        work: impl FnOnce(&Host, &Instance) -> RuntimeResult<T> + Send + 'static,
    ) -> RuntimeResult<T> {
        let inner = Arc::clone(&self.0);
        blocking(move || {
            let instance = inner.instance(agent);
            let done = work(&inner.host, &instance);
            inner.release(agent, instance);
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
        let inner = Arc::clone(&self.0);
        blocking(move || {
            let done = work(&inner.host, &instance, &mut turn);
            drop(turn);
            inner.release(agent, instance);
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
        blocking(move || fs::read_dir(root).map(drop).map_err(failed("cannot read the agents' folder"))).boxed()
    }

    fn prepare<'a>(&'a self, _: &'a InstanceKey, progress: Progress) -> BoxFuture<'a, RuntimeResult<()>> {
        let inner = Arc::clone(&self.0);
        blocking(move || {
            let Program { path, environment, .. } = &inner.host.program;
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
        let inner = Arc::clone(&self.0);
        blocking(move || inner.list()).boxed()
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
        let (inner, request) = (Arc::clone(&self.0), request.clone());
        blocking(move || inner.lease(&request)).boxed()
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

impl Host {
    /// Makes the agents' folder ready, and learns which agent has which uid.
    fn open_root(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.root)?;
        if let Some(users) = &self.users {
            // Agents get through it to their own folders, and cannot list it.
            fs::set_permissions(&self.root, fs::Permissions::from_mode(0o711))?;
            for agent in Folder::agents(&self.root)? {
                if let Ok(owner) = Folder::of(&self.root, agent).owner() {
                    users.learn(agent, owner);
                }
            }
        }
        Folder::sweep(&self.root)
    }
}

/// The users of agents, or why they have none.
fn users(uids: Option<Uids>, root: &Path, program: Option<&Path>) -> Result<Users, String> {
    let range = uids.ok_or("process.uids is empty")?;
    users::hindrance(range, root, program).map_or_else(|| Ok(Users::new(range)), Err)
}

fn noted<T>(standing: &mut Standing, wall: &'static str, found: Result<T, String>) -> Option<T> {
    let (found, missing) = match found {
        Ok(found) => (Some(found), None),
        Err(why) => (None, Some(why)),
    };
    standing.note(wall, missing);
    found
}

/// What is left where the operator wants no walls.
fn without_walls() -> Standing {
    let mut standing = Standing::default();
    standing.note("limits", None);
    for wall in ["calls", "files", "privileges", "processes", "signals", "users"] {
        standing.note(wall, Some("process.walls is false".into()));
    }
    standing
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> RuntimeResult<T> + Send + 'static) -> RuntimeResult<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(RuntimeError::UnknownOutcome(format!("the call did not end: {error}"))))
}

/// A name stays a name, to be looked for in `PATH`. A path must not depend on the folder that an instance runs in.
fn absolute_if_path(program: PathBuf) -> io::Result<PathBuf> {
    if program.components().count() > 1 { std::path::absolute(program) } else { Ok(program) }
}

fn executable(program: &Path, environment: &[(String, String)]) -> Option<PathBuf> {
    let runs =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    let folders = environment.iter().find(|(name, _)| name == "PATH").map_or("", |(_, folders)| folders);
    if program.is_absolute() {
        Some(program.to_owned()).filter(runs)
    } else {
        std::env::split_paths(folders).map(|folder| folder.join(program)).find(runs)
    }
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
        for _ in 0..=CHANGES {
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
        assert_eq!(runtime.0.instances().len(), 0);
    }
}
