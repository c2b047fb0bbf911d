//! What runs instances: the one interface between the control plane and a container engine or the local system.
//!
//! Level-triggered: the control plane compares what it wants with what [`ContainerRuntime::observe`] shows, and acts until
//! they agree. Every call may be repeated: "already so" and "not there" are success. Every call ends within a bounded
//! time. Calls for one [`InstanceKey`] come one after the other; calls for different ones come side by side.
//!
//! No type of an engine's client library appears here, so that another engine needs another file and nothing else.

#[cfg(any(feature = "docker", feature = "kubernetes"))]
pub mod archive;
mod caps;
#[cfg(feature = "docker")]
pub mod docker;
pub mod fault;
mod instance;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod lease;
#[cfg(any(feature = "docker", feature = "kubernetes", feature = "process"))]
mod lines;
mod output;
#[cfg(feature = "process")]
pub mod process;
mod usage;

use std::sync::Arc;
use std::time::Duration;

pub use futures_util::future::BoxFuture;
pub use futures_util::stream::BoxStream;

pub use self::caps::{Caps, NetworkIsolation};
pub use self::instance::{InstanceKey, InstanceSpec, InstanceState, ObservedInstance, Run, Wait};
pub use self::lease::{LeaseAnswer, LeasePurpose, LeaseRecord, LeaseRequest};
pub use self::output::{LogCursor, LogLine, LogQuery, LogStream};
pub use self::usage::Usage;
use crate::domain::{AgentId, HostPort, Origin, Software};
pub use crate::domain::{Exit, RunId, StagedFile};

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
#[non_exhaustive]
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

/// Why a call could not be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
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
#[non_exhaustive]
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
