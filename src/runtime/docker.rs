//! Agents as containers of a Docker engine.
//!
//! ```text
//!   options     how it is set up              address     where the engine listens
//!   engine      the connection, deadlines     wire        reads, in types of ours (answers)
//!   failure     what a failed call means      container   what is asked for, labels
//!   observe     what is shown: state, run, endpoint
//!   image       there or pulled               network     isolation between neighbours, membership
//!   events      wake-ups                      suspects    agents that may have two containers
//!   instance    what is done to containers    data        files on their way out of one
//!   logs        lines                         usage       samples
//!   run_id      runs, told apart by time      exit_history  how runs ended that the engine replaced
//!   fault_injector  fault injection, from a separate process
//! ```
//!
//! What is ours is told by labels, never by a name: a container, volume or network without this installation's labels is
//! not touched, whatever it is called. Nothing here relies on the engine's restart policy or on its memory of events; the
//! policy is set, but what comes of it is only observed.

mod address;
mod answers;
mod container;
mod data;
mod engine;
mod events;
mod exit_history;
mod failure;
mod fault_injector;
mod image;
mod instance;
mod lease;
mod logs;
mod network;
mod observe;
mod options;
mod run_id;
mod software;
mod suspects;
mod usage;
mod wire;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::sync::Semaphore;

pub use self::fault_injector::DockerFaultInjector;
pub use self::options::{DockerOptions, Isolation, Reach, Subnets, Traefik};

use self::engine::Engine;
use self::events::Watcher;
use self::exit_history::ExitHistory;
use self::image::Images;
use self::instance::at_rest;
use self::network::Networks;
use self::run_id::Boots;
use self::software::Clues;
use self::suspects::Suspects;
use self::usage::Samples;
use super::{
    Caps, ContainerRuntime, DataPolicy, ImageChoice, InstanceKey, InstanceSpec, InstanceState, LeaseAnswer,
    LeaseRequest, LogLine, LogQuery, NetworkIsolation, ObservedInstance, Progress, Resync, RuntimeCall, RuntimeError,
    RuntimeResult, StagedFile, Usage,
};
use crate::domain::{InstallationId, Origin, Software, Timestamp};

/// A Docker engine as a runtime for agents.
pub struct DockerRuntime {
    options: DockerOptions,
    engine: Arc<Engine>,
    networks: Networks,
    samples: Samples,
    boots: Arc<Boots>,
    exits: Arc<ExitHistory>,
    suspects: Arc<Suspects>,
    images: Images,
    starts: Semaphore,
    clues: Clues,
}

impl DockerRuntime {
    /// The engine need not be there yet.
    ///
    /// # Errors
    /// [`RuntimeError::Invalid`] where the options cannot be meant.
    pub fn new(options: DockerOptions) -> RuntimeResult<Self> {
        if options.start_throttle == 0 {
            return Err(RuntimeError::Invalid("the start throttle must let at least one start through".into()));
        }
        Ok(Self {
            engine: Arc::new(Engine::new(&options.host)?),
            networks: Networks::new(),
            samples: Samples::default(),
            boots: Arc::default(),
            exits: Arc::default(),
            suspects: Arc::default(),
            images: Images::new(),
            starts: Semaphore::new(options.start_throttle),
            clues: Clues::default(),
            options,
        })
    }

    /// The installations that have containers on this engine, and how many each.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`] where the engine does not answer.
    pub async fn installations(options: &DockerOptions) -> RuntimeResult<BTreeMap<InstallationId, usize>> {
        instance::installations(&Engine::new(&options.host)?).await
    }
}

impl ContainerRuntime for DockerRuntime {
    fn caps(&self) -> Caps {
        Caps {
            name: "docker",
            host_ports: true,
            enforces_cpu: self.engine.enforces_cpu(),
            enforces_memory: self.engine.enforces_memory(),
            isolates_network: NetworkIsolation::Own,
            sees_pauses: true,
            splits_output: true,
            keeps_ended_runs: true,
            exact_log_times: !self.engine.tells_whole_seconds(),
            kills_while_stopping: true,
            stages_at_start: false,
            carries_data: true,
            measures_usage: true,
            walls: vec!["container"],
            missing_walls: BTreeMap::new(),
            host: Some(container::HOST),
        }
    }

    fn ping(&self) -> BoxFuture<'_, RuntimeResult<()>> {
        self.engine.ping().boxed()
    }

    fn prepare<'a>(&'a self, key: &'a InstanceKey, progress: Progress) -> BoxFuture<'a, RuntimeResult<()>> {
        async move {
            // An engine that is away shows in the ping, long before the others give up.
            tokio::try_join!(self.engine.ping(), self.networks.prepare(&self.engine, &self.options))?;
            // What is there is started without its image, so that neither a registry nor a removed tag stands in the way.
            if !self.find_all(Some(key.agent)).await?.is_empty() {
                return Ok(());
            }
            self.images.ensure(&self.engine, &self.options, &self.options.image, &progress).await
        }
        .boxed()
    }

    fn lease<'a>(&'a self, request: &'a LeaseRequest) -> BoxFuture<'a, RuntimeResult<LeaseAnswer>> {
        lease::ask(&self.engine, self.options.installation, request, Timestamp::now()).boxed()
    }

    fn attach(&self) -> BoxFuture<'_, RuntimeResult<()>> {
        self.networks.attach(&self.engine, &self.options).boxed()
    }

    fn longest(&self, call: RuntimeCall) -> Duration {
        instance::longest(call, self.options.pull_deadline)
    }

    fn software<'a>(
        &'a self,
        choice: ImageChoice<'a>,
        progress: Progress,
    ) -> BoxFuture<'a, RuntimeResult<Option<Software>>> {
        async move { self.software_of(choice, &progress).await.map(Some) }.boxed()
    }

    fn ensure_created<'a>(&'a self, spec: &'a InstanceSpec) -> BoxFuture<'a, RuntimeResult<ObservedInstance>> {
        self.adopt_or_create(spec).boxed()
    }

    fn stage<'a>(&'a self, key: &'a InstanceKey, files: &'a [StagedFile]) -> BoxFuture<'a, RuntimeResult<()>> {
        async move {
            let found = self.get(key).await?;
            if at_rest(&found) {
                self.upload(&found.id, files).await
            } else {
                Err(RuntimeError::Conflict("it runs; its files can be replaced when it is stopped".into()))
            }
        }
        .boxed()
    }

    fn read_data<'a>(&'a self, key: &'a InstanceKey, folder: &'a str) -> BoxFuture<'a, RuntimeResult<Vec<StagedFile>>> {
        self.download(key, folder).boxed()
    }

    fn write_data<'a>(&'a self, key: &'a InstanceKey, files: &'a [StagedFile]) -> BoxFuture<'a, RuntimeResult<()>> {
        async move { self.upload(&self.get(key).await?.id, files).await }.boxed()
    }

    fn start<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<InstanceState>> {
        self.run(key).map(|run| run.map(InstanceState::Running)).boxed()
    }

    fn stop<'a>(&'a self, key: &'a InstanceKey, grace: Duration) -> BoxFuture<'a, RuntimeResult<()>> {
        async move {
            match self.find(key).await? {
                Some(found) if !at_rest(&found) => self.end(&found, grace).await,
                Some(_) | None => Ok(()),
            }
        }
        .boxed()
    }

    fn kill<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<()>> {
        self.kill_container(key).boxed()
    }

    fn remove<'a>(&'a self, key: &'a InstanceKey, data: DataPolicy) -> BoxFuture<'a, RuntimeResult<()>> {
        self.clear(key, data).boxed()
    }

    fn observe<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<Option<ObservedInstance>>> {
        self.look(key).boxed()
    }

    fn list_owned(&self) -> BoxFuture<'_, RuntimeResult<Vec<ObservedInstance>>> {
        async move {
            let all = self.find_all(None).await?;
            let ids: HashSet<&str> = all.iter().map(|found| found.id.as_str()).collect();
            self.samples.keep(&ids);
            self.boots.keep(&ids);
            Ok(all.into_iter().map(|found| found.observed).collect())
        }
        .boxed()
    }

    fn origin<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<Option<Origin>>> {
        async move { Ok(self.get(key).await?.origin) }.boxed()
    }

    fn watch(&self) -> BoxStream<'static, Resync> {
        events::watch(Watcher {
            engine: Arc::clone(&self.engine),
            history: Arc::clone(&self.exits),
            runs: Arc::clone(&self.boots),
            suspects: Arc::clone(&self.suspects),
            installation: self.options.installation,
        })
    }

    fn logs<'a>(
        &'a self,
        key: &'a InstanceKey,
        query: LogQuery,
    ) -> BoxFuture<'a, RuntimeResult<BoxStream<'static, RuntimeResult<LogLine>>>> {
        async move { logs::open(Arc::clone(&self.engine), &self.get(key).await?, query).await }.boxed()
    }

    fn usage<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<Usage>> {
        async move {
            let found = self.get(key).await?;
            if at_rest(&found) || found.waiting {
                return Err(RuntimeError::Conflict("it does not run".into()));
            }
            self.samples.take(&self.engine, &found.id).await
        }
        .boxed()
    }
}
