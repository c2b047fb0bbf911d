//! What runs instances: the one interface between the control plane and a container engine or the local system.
//!
//! Level-triggered: the control plane compares what it wants with what [`ContainerRuntime::observe`] shows, and acts until
//! they agree. Every call may be repeated: "already so" and "not there" are success. Every call ends within a bounded
//! time. Calls for one [`InstanceKey`] come one after the other; calls for different ones come side by side.
//!
//! No type of an engine's client library appears here, so that another engine needs another file and nothing else.

#[cfg(any(feature = "docker", feature = "kubernetes"))]
pub mod archive;
#[cfg(feature = "docker")]
pub mod docker;
pub mod fault;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod lease;
#[cfg(any(feature = "docker", feature = "kubernetes", feature = "process"))]
mod lines;
#[cfg(feature = "process")]
pub mod process;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use futures_util::future::BoxFuture;
pub use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

pub use self::lease::{LeaseAnswer, LeasePurpose, LeaseRecord, LeaseRequest};
use crate::domain::{AgentId, HostPort, ImageRef, Origin, Secret, Slug, Software, Timestamp};
pub use crate::domain::{Exit, RunId, StagedFile};

/// The name of an agent's instance: ours, known before it exists, never an engine's id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InstanceKey {
    /// Whose it is. At most one instance of it exists.
    pub agent: AgentId,
    /// The readable part of the name on the engine. It never changes.
    pub slug: Slug,
}

/// An instance as it should be. Two equal specs mean the same instance; [`InstanceSpec::hash`] tells them apart.
#[derive(Debug, Clone)]
pub struct InstanceSpec {
    /// Which instance; not part of the hash.
    pub key: InstanceKey,
    /// The agent's generation, for the ownership label; not part of the hash.
    pub generation: u64,
    /// Arguments after the program, e.g. `gateway`.
    pub command: Vec<String>,
    /// Environment of the instance. May hold the model's API key, so the values cannot be printed.
    pub env: Vec<(String, Secret<String>)>,
    /// Staged into a new instance before its first start.
    pub files: Vec<StagedFile>,
    /// Where its gateway is published on the host; none where the engine gives addresses of its own ([`Caps::host_ports`]).
    pub port: Option<HostPort>,
    /// What it is made from; `None` for what the runtime is set up with. Not part of the hash: see
    /// [`ContainerRuntime::ensure_created`].
    pub image: Option<ImageRef>,
    /// Most that it may use, in cores, e.g. 0.5.
    pub cpu: f64,
    /// Most that it may use, in MiB.
    pub memory_mb: u32,
    /// In a network of its own, also where instances share one; not part of the hash.
    pub own_network: bool,
    /// Public host name, for a reverse proxy's labels.
    pub host_name: Option<String>,
    /// Kept with the instance for those who lost their records; not part of the hash.
    pub origin: Option<Arc<Origin>>,
}

impl InstanceSpec {
    /// A digest of all that only a newly created instance can take on: command, environment, port, limits, host name.
    /// Files are not part of it: they can be staged again.
    pub fn hash(&self) -> String {
        use sha2::{Digest, Sha256};
        let mut digest = Sha256::new();
        let mut field = |text: &str| {
            digest.update((text.len() as u64).to_le_bytes());
            digest.update(text.as_bytes());
        };
        for argument in &self.command {
            field(argument);
        }
        for (name, value) in &self.env {
            field(name);
            field(value.expose());
        }
        for text in [
            self.port.map_or_else(String::new, |port| port.to_string()),
            self.cpu.to_string(),
            self.memory_mb.to_string(),
            self.host_name.clone().unwrap_or_default(),
        ] {
            field(&text);
        }
        data_encoding::HEXLOWER.encode(&digest.finalize()[..16])
    }
}

/// What the engine shows of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedInstance {
    /// Which instance.
    pub key: InstanceKey,
    /// What it did when the engine was asked.
    pub state: InstanceState,
    /// The engine's own id, for people: a container id, a pid.
    pub engine_id: String,
    /// Hash of the spec it was created from.
    pub spec_hash: String,
    /// How its last run that is over ended: for an engine that starts another one at once. `None` where nobody can tell.
    pub died: Option<Exit>,
    /// Set by [`ContainerRuntime::ensure_created`] when that very call created it and so staged its files.
    pub created_now: bool,
    /// Set by the same call when it also made the place of its data, because there was none. Where the agent had data
    /// before, it was lost.
    pub data_created_now: bool,
}

/// What an instance does, as its engine shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstanceState {
    /// Exists and shows no run: it was never started, or its last run is forgotten ([`Caps::keeps_ended_runs`]).
    Created,
    /// Was started, and the engine is not done with it: it looks for a place, fetches the image, attaches the data. That may
    /// take minutes, and nobody has to do anything.
    Starting(Wait),
    /// Its processes run. Whether its gateway answers has to be asked there.
    Running(Run),
    /// Alive but not scheduled: a paused container, a stopped process.
    Paused(Run),
    /// It was asked to end, by whomever, and has not ended yet.
    Ending(Run),
    /// Its last run is over; how it ended is known as far as the engine tells.
    Exited(Exit),
    /// The engine has lost the machine that it runs on: whether it runs is unknown. Another one must not be started for it,
    /// however long that takes.
    Unreachable(Run),
}

/// What an engine is busy with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// When the wait began, by the engine's clock.
    pub since: Timestamp,
    /// For people, e.g. `0/3 nodes are available: insufficient memory`.
    pub why: Arc<str>,
    /// It tries and fails, and will until something is changed: an image that does not exist.
    pub stuck: bool,
}

/// A run of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Another one for each run: what was seen of one run is never taken for another.
    pub run_id: RunId,
    /// By the engine's clock; log lines of this run are not older.
    pub started_at: Timestamp,
    /// Where its gateway listens, as seen from the control plane.
    pub endpoint: SocketAddr,
}

impl ObservedInstance {
    /// The run, where it is [`InstanceState::Running`]; paused and ending ones are none.
    pub const fn run(&self) -> Option<&Run> {
        match &self.state {
            InstanceState::Running(run) => Some(run),
            InstanceState::Created
            | InstanceState::Starting(_)
            | InstanceState::Paused(_)
            | InstanceState::Ending(_)
            | InstanceState::Exited(_)
            | InstanceState::Unreachable(_) => None,
        }
    }
}

/// A wake-up from [`ContainerRuntime::watch`]: look again, here or everywhere. It carries no state on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resync {
    /// Something may have happened to the instance of this agent.
    Instance(AgentId),
    /// Something may have been missed: list everything again.
    All,
}

/// A call whose longest time is asked for, see [`ContainerRuntime::longest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeCall {
    /// [`ContainerRuntime::prepare`].
    Prepare,
    /// [`ContainerRuntime::ensure_created`].
    EnsureCreated,
    /// [`ContainerRuntime::stage`].
    Stage,
    /// [`ContainerRuntime::start`].
    Start,
    /// [`ContainerRuntime::stop`].
    Stop {
        /// How long the instance may take to end by itself.
        grace: Duration,
    },
    /// [`ContainerRuntime::kill`].
    Kill,
    /// [`ContainerRuntime::remove`].
    Remove,
    /// [`ContainerRuntime::observe`].
    Observe,
}

/// What happens to an instance's data when it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataPolicy {
    /// It stays, and the next instance of the same key gets it.
    Keep,
    /// It is deleted for good.
    Remove,
}

/// Where an instance wrote a line to. See [`Caps::splits_output`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output; all output where the engine does not tell them apart.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A place in an instance's output, right behind a line. Opaque: only the runtime that gave it out can read it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LogCursor(pub Arc<str>);

/// One whole line of an instance's output, without its line break, at most [`LogLine::MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// For people; clocks are set back and lines without a time of their own have that of another. What to go on from is
    /// the cursor.
    pub time: Timestamp,
    /// The place right behind this line.
    pub cursor: LogCursor,
    /// Where it was written to.
    pub stream: LogStream,
    /// The line; bytes that are not UTF-8 are replaced.
    pub text: String,
}

impl LogLine {
    /// Longer lines are cut here: a line without an end must not fill the memory.
    pub const MAX: usize = 16 * 1024;
}

/// Which log lines are wanted.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// Only lines of this run.
    pub run_id: Option<RunId>,
    /// Only lines at or after this time, exact to the nanosecond.
    pub since: Option<Timestamp>,
    /// Only lines behind this place. One that cannot be read is as if it were not there.
    pub after: Option<LogCursor>,
    /// Only the last so many lines; `None` for all that is kept.
    pub tail: Option<usize>,
    /// Go on with new lines. The stream ends when the run ends.
    pub follow: bool,
}

/// What an instance uses now, as far as the engine can tell.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Percent of one core since the sample before; 0 in the first one.
    pub cpu_percent: f64,
    /// MiB in use, without the file cache that the kernel would give up first.
    pub memory_mb: f64,
    /// MiB that it may use; `None` where the engine tells none.
    pub memory_limit_mb: Option<f64>,
    /// Processes and threads; `None` where the engine does not count them.
    pub pids: Option<u64>,
    /// Bytes received in this run; `None` where the engine does not count them.
    pub network_rx_bytes: Option<u64>,
    /// Bytes sent in this run; `None` where the engine does not count them.
    pub network_tx_bytes: Option<u64>,
    /// When it was measured.
    pub at: Timestamp,
}

/// What an engine can promise, shown to operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Caps {
    /// `docker`, `kubernetes`, `process`, or a test's own.
    pub name: &'static str,
    /// Each instance takes a port of the host. Where not, there may be more agents than ports.
    pub host_ports: bool,
    /// [`InstanceSpec::cpu`] is a limit that holds, not a wish.
    pub enforces_cpu: bool,
    /// [`InstanceSpec::memory_mb`] is a limit that holds, not a wish.
    pub enforces_memory: bool,
    /// What keeps instances from each other's network.
    pub isolates_network: NetworkIsolation,
    /// An instance that is held without having ended shows as [`InstanceState::Paused`].
    pub sees_pauses: bool,
    /// What is written to stdout and to stderr is told apart.
    pub splits_output: bool,
    /// Output and exit code of a run are there after its end, until the instance is removed.
    pub keeps_ended_runs: bool,
    /// A kill does not wait for a stop that gives the instance its grace.
    pub kills_while_stopping: bool,
    /// Files that are staged are in the data when the next run begins, not before.
    pub stages_at_start: bool,
    /// It can tell what an instance uses.
    pub measures_usage: bool,
    /// Data can be read and written beside the instance, see [`ContainerRuntime::read_data`].
    pub carries_data: bool,
    /// What keeps an instance from the rest of the machine, by name.
    pub walls: Vec<&'static str>,
    /// Walls that the engine knows and that do not stand here, each with the reason.
    pub missing_walls: BTreeMap<&'static str, String>,
    /// The host name or address by which an instance reaches this machine, if it does.
    pub host: Option<&'static str>,
}

/// What keeps instances from each other's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkIsolation {
    /// Each has a network of its own.
    Own,
    /// A policy says so, which somebody else enforces or not.
    ByPolicy,
    /// Nothing does.
    None,
}

/// Why a call could not be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    /// There is no such instance, or no such image where none is fetched.
    #[error("no such instance")]
    NotFound,
    /// The instance is in a state in which the call is not possible, e.g. it runs. The text is for people, as in all others.
    #[error("the instance is in the way of the call: {0}")]
    Conflict(String),
    /// The request can never succeed as it is: an image that does not exist, a program that cannot be run.
    #[error("cannot be done: {0}")]
    Invalid(String),
    /// Someone else listens on the port.
    #[error("port {0} is taken")]
    PortTaken(HostPort),
    /// The machine has no room: memory, processes, disk.
    #[error("no capacity: {0}")]
    Capacity(String),
    /// The engine answered that it could not do it now. It may be able to the next time.
    #[error("the engine could not do it: {0}")]
    Failed(String),
    /// The engine does not answer; says nothing about the instance. Never for an answer, however bad.
    #[error("the engine does not answer: {0}")]
    Unavailable(String),
    /// The call was sent and its answer lost.
    #[error("the outcome is unknown: {0}")]
    UnknownOutcome(String),
    /// Something of that name exists and is not ours.
    #[error("not ours: {0}")]
    NotOwned(String),
}

/// What calls of a runtime give.
pub type RuntimeResult<T> = Result<T, RuntimeError>;

/// Which image is meant.
#[derive(Debug, Clone, Copy)]
pub enum ImageChoice<'a> {
    /// What the runtime is set up with.
    Default,
    /// The same, but nothing is fetched: [`RuntimeError::NotFound`] where it is missing.
    Present,
    /// The content that the name has now.
    Named(&'a str),
    /// What the agent's instance was made from, whatever its name means by now.
    Kept {
        /// Whose instance.
        key: &'a InstanceKey,
        /// What the record of its agent has; `None` where it has nothing.
        known: Option<&'a Software>,
    },
}

/// Tells how the preparation goes on, for people, e.g. `pulling image 40%`.
pub type Progress = Arc<dyn Fn(String) + Send + Sync>;

/// Bytes of an instance's data that are read at once: what is carried between instances goes through the service's memory.
pub const MAX_DATA: usize = 128 * 1024 * 1024;

/// What is said of a folder that holds more.
#[cfg(any(feature = "process", feature = "docker", feature = "kubernetes"))]
pub(crate) fn too_much_data(folder: &str) -> RuntimeError {
    RuntimeError::Invalid(format!("{folder} holds more than {} MiB", MAX_DATA / (1024 * 1024)))
}

/// Something that runs instances. See the module for the rules that all calls keep.
pub trait ContainerRuntime: Send + Sync + 'static {
    /// What this engine can promise. Does not ask the engine.
    fn caps(&self) -> Caps;

    /// Whether the engine answers now.
    fn ping(&self) -> BoxFuture<'_, RuntimeResult<()>>;

    /// Makes ready what this instance needs before it can be created: network, image. An instance that is there already
    /// needs no image. May take long.
    fn prepare<'a>(&'a self, key: &'a InstanceKey, progress: Progress) -> BoxFuture<'a, RuntimeResult<()>>;

    /// The control plane itself can reach its instances afterwards: it is in every network that it has to be in. Awaited
    /// at the start and after every gap, before instances are judged by their answers. Cheap where nothing is missing.
    fn attach(&self) -> BoxFuture<'_, RuntimeResult<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// The longest that a call takes by its own deadlines. Whoever waits for it gives it that much and a little more, so
    /// that the runtime's own answer, which says what was late, comes first.
    fn longest(&self, call: RuntimeCall) -> Duration {
        match call {
            RuntimeCall::Stop { grace } => grace + Duration::from_secs(25),
            RuntimeCall::Prepare
            | RuntimeCall::EnsureCreated
            | RuntimeCall::Stage
            | RuntimeCall::Start
            | RuntimeCall::Kill
            | RuntimeCall::Remove
            | RuntimeCall::Observe => Duration::from_secs(25),
        }
    }

    /// What an instance of this choice is made from: looked up, fetched if it is missing. `None` where the runtime cannot
    /// tell, because it has no images.
    fn software<'a>(
        &'a self,
        choice: ImageChoice<'a>,
        progress: Progress,
    ) -> BoxFuture<'a, RuntimeResult<Option<Software>>>;

    /// An instance with this spec exists afterwards. One with the same owner and hash is adopted as it is, running or
    /// not; one with another hash, or at rest and of another image, is removed (its data kept) and made anew. Files are staged only into a new one.
    fn ensure_created<'a>(&'a self, spec: &'a InstanceSpec) -> BoxFuture<'a, RuntimeResult<ObservedInstance>>;

    /// Replaces the given files of an instance that is not running.
    fn stage<'a>(&'a self, key: &'a InstanceKey, files: &'a [StagedFile]) -> BoxFuture<'a, RuntimeResult<()>>;

    /// The regular files in a folder of the instance's data, with what is below it, in the order of their paths, at most
    /// [`MAX_DATA`] bytes. None where there is no such folder. Links and devices are left out. Of an instance that runs the
    /// files may be of different moments. Paths are relative to the data folder, as in [`ContainerRuntime::stage`].
    fn read_data<'a>(&'a self, key: &'a InstanceKey, folder: &'a str) -> BoxFuture<'a, RuntimeResult<Vec<StagedFile>>>;

    /// Writes files into the instance's data, running or not: whoever calls it for one that runs knows that the instance
    /// does not use them.
    fn write_data<'a>(&'a self, key: &'a InstanceKey, files: &'a [StagedFile]) -> BoxFuture<'a, RuntimeResult<()>>;

    /// The instance runs afterwards, or will when the engine is done: the answer is [`InstanceState::Running`] or
    /// [`InstanceState::Starting`]. One that runs already goes on undisturbed.
    fn start<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<InstanceState>>;

    /// Asks the instance to end, and after `grace` makes it.
    fn stop<'a>(&'a self, key: &'a InstanceKey, grace: Duration) -> BoxFuture<'a, RuntimeResult<()>>;

    /// Ends the instance at once, paused or not, with all its processes.
    fn kill<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<()>>;

    /// Ends the instance if need be and removes it.
    fn remove<'a>(&'a self, key: &'a InstanceKey, data: DataPolicy) -> BoxFuture<'a, RuntimeResult<()>>;

    /// What is there of this instance. `Ok(None)` is certainty that nothing is; an engine that is away is an error.
    fn observe<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<Option<ObservedInstance>>>;

    /// All instances of this installation: the only truth to reconcile with.
    fn list_owned(&self) -> BoxFuture<'_, RuntimeResult<Vec<ObservedInstance>>>;

    /// What the instance was told about its agent when it was made; at the most as new as the last
    /// [`ContainerRuntime::ensure_created`]. `None` where it tells nothing, or nothing that can be read.
    fn origin<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<Option<Origin>>>;

    /// Claims, renews or releases the installation on this engine, by the rule of [`lease::decide`]: of any number of
    /// control planes with the same installation id one gets [`LeaseAnswer::Held`]. The record is kept by the engine, beside
    /// the instances, and outlives the control plane. Without a default on purpose: an engine whose runtime forgot it would
    /// let a copied store destroy the original's agents. A runtime whose engine no other process can reach answers with
    /// [`LeaseRequest::granted`].
    fn lease<'a>(&'a self, request: &'a LeaseRequest) -> BoxFuture<'a, RuntimeResult<LeaseAnswer>>;

    /// Wake-ups. The stream goes on for ever: an engine that went away shows as a [`Resync::All`] when it is back.
    fn watch(&self) -> BoxStream<'static, Resync>;

    /// The instance's output as the query asks for it, oldest first. A stream that is dropped ends what follows the output.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] where neither the instance nor output of it is there.
    fn logs<'a>(
        &'a self,
        key: &'a InstanceKey,
        query: LogQuery,
    ) -> BoxFuture<'a, RuntimeResult<BoxStream<'static, RuntimeResult<LogLine>>>>;

    /// What the instance uses now.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] where there is none, [`RuntimeError::Conflict`] where it does not run.
    fn usage<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<Usage>>;
}
