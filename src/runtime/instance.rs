//! An instance: as it should be, and as its engine shows it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::domain::{AgentId, Exit, HostPort, ImageRef, Limits, Origin, RunId, Secret, Slug, StagedFile, Timestamp};

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
#[non_exhaustive]
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
    /// Where its gateway is published on the host; none where the engine gives addresses of its own ([`Caps::host_ports`](super::Caps::host_ports)).
    pub port: Option<HostPort>,
    /// What it is made from; `None` for what the runtime is set up with. Not part of the hash: see
    /// [`ContainerRuntime::ensure_created`](super::ContainerRuntime::ensure_created).
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
    /// An instance of what the runtime is set up with, of generation 1, that may use what `limits` say; with neither files
    /// nor environment.
    pub fn new(key: InstanceKey, command: Vec<String>, limits: Limits) -> Self {
        Self {
            key,
            generation: 1,
            command,
            env: Vec::new(),
            files: Vec::new(),
            port: None,
            image: None,
            cpu: limits.cpu,
            memory_mb: limits.memory_mb,
            own_network: false,
            host_name: None,
            origin: None,
        }
    }

    setters! {
        with_key(key: InstanceKey);
        with_generation(generation: u64);
        with_command(command: Vec<String>);
        with_env(env: Vec<(String, Secret<String>)>);
        with_files(files: Vec<StagedFile>);
        with_port(port: impl Into<Option<HostPort>> => port.into());
        with_image(image: impl Into<Option<ImageRef>> => image.into());
        with_cpu(cpu: f64);
        with_memory_mb(memory_mb: u32);
        with_own_network(own_network: bool);
        with_host_name(host_name: impl Into<String> => Some(host_name.into()));
        with_origin(origin: impl Into<Option<Arc<Origin>>> => origin.into());
    }

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
#[non_exhaustive]
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
    /// Set by [`ContainerRuntime::ensure_created`](super::ContainerRuntime::ensure_created) when that very call created it and so staged its files.
    pub created_now: bool,
    /// Set by the same call when it also made the place of its data, because there was none. Where the agent had data
    /// before, it was lost.
    pub data_created_now: bool,
}

impl ObservedInstance {
    /// An instance that was there before, and of which no earlier end is known.
    pub fn new(
        key: InstanceKey,
        state: InstanceState,
        engine_id: impl Into<String>,
        spec_hash: impl Into<String>,
    ) -> Self {
        Self {
            key,
            state,
            engine_id: engine_id.into(),
            spec_hash: spec_hash.into(),
            died: None,
            created_now: false,
            data_created_now: false,
        }
    }

    setters! {
        with_died(died: impl Into<Option<Exit>> => died.into());
        with_created_now(created_now: bool);
        with_data_created_now(data_created_now: bool);
    }

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

/// What an instance does, as its engine shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstanceState {
    /// Exists and shows no run: it was never started, or its last run is forgotten ([`Caps::keeps_ended_runs`](super::Caps::keeps_ended_runs)).
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
#[non_exhaustive]
pub struct Wait {
    /// When the wait began, by the engine's clock.
    pub since: Timestamp,
    /// For people, e.g. `0/3 nodes are available: insufficient memory`.
    pub why: Arc<str>,
    /// It tries and fails, and will until something is changed: an image that does not exist.
    pub stuck: bool,
}

impl Wait {
    /// A wait that ends by itself.
    pub fn new(since: Timestamp, why: impl Into<Arc<str>>) -> Self {
        Self { since, why: why.into(), stuck: false }
    }

    setters! {
        with_stuck(stuck: bool);
    }
}

/// A run of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Run {
    /// Another one for each run: what was seen of one run is never taken for another.
    pub run_id: RunId,
    /// By the engine's clock; log lines of this run are not older.
    pub started_at: Timestamp,
    /// Where its gateway listens, as seen from the control plane.
    pub endpoint: SocketAddr,
}

impl Run {
    /// With all that is known of it.
    pub const fn new(run_id: RunId, started_at: Timestamp, endpoint: SocketAddr) -> Self {
        Self { run_id, started_at, endpoint }
    }
}
