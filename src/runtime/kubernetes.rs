//! Instances as Pods of a Kubernetes cluster.
//!
//! An instance is an immutable Secret, a claim on a volume, and while it is to run a Pod of a fixed name that the Secret
//! owns (`objects`). The name is what keeps a second Pod away: the API server gives it out again only when the node has
//! confirmed the end of the first. So a Pod whose node is lost is left alone, for however long.
//!
//! A watch wakes whoever has to look again (`watch`), and keeps what they then look at (`reflector`); without it each look is a
//! question to the API server. An agent's volume is reached by a Pod of our own (`carriers`, `transfer`).

mod carriers;
mod cluster;
mod forward;
mod instance;
mod lease;
mod logs;
mod objects;
mod observe;
mod options;
mod permissions;
mod reflector;
mod transfer;
mod usage;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use kube::api::ListParams;

use self::carriers::Carriers;
pub use self::cluster::in_cluster;
use self::cluster::{Cluster, read};
use self::forward::Forwards;
use self::instance::Turns;
pub use self::options::{KubernetesOptions, Reach};
use self::reflector::Reflector;
use self::usage::Metrics;
use super::{
    BoxFuture, BoxStream, Caps, ContainerRuntime, DataPolicy, ImageChoice, InstanceKey, InstanceSpec, InstanceState,
    LeaseAnswer, LeaseRequest, LogLine, LogQuery, NetworkIsolation, ObservedInstance, Progress, Resync, RuntimeCall,
    RuntimeError, RuntimeResult, StagedFile, Usage,
};
use crate::domain::{AgentId, ImageRef, InstallationId, Origin, Profile, Software, Timestamp};
use crate::zeroclaw::software::ImageClues;

/// Objects that are asked for at once.
const PAGE: u32 = 500;

/// Runs instances in a cluster. See the module.
pub struct KubernetesRuntime {
    options: KubernetesOptions,
    cluster: Cluster,
    forwards: Option<Forwards>,
    carriers: Carriers,
    reflector: Reflector,
    turns: Turns,
    /// None where the cluster has no metrics server.
    metrics: Option<Metrics>,
    /// The permissions were all there when they were last asked for.
    permitted: AtomicBool,
}

impl KubernetesRuntime {
    /// Finds the cluster, and whether it measures what instances use.
    ///
    /// # Errors
    /// [`RuntimeError::Invalid`] where no cluster is configured. One that does not answer is no error.
    pub async fn open(options: KubernetesOptions) -> RuntimeResult<Self> {
        let cluster = Cluster::open(&options).await?;
        let forwards = match options.reach {
            Reach::Auto => !cluster.inside,
            Reach::Pod => false,
            Reach::PortForward => true,
        };
        let metrics = usage::is_measured(&cluster.client).await.then(Metrics::default);
        Ok(Self {
            options,
            cluster,
            forwards: forwards.then(Forwards::default),
            carriers: Carriers::default(),
            reflector: Reflector::default(),
            turns: Turns::default(),
            metrics,
            permitted: AtomicBool::new(false),
        })
    }

    /// The installations that have instances in the namespace, and how many each.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`] where the cluster does not answer.
    pub async fn installations(options: KubernetesOptions) -> RuntimeResult<BTreeMap<InstallationId, usize>> {
        let cluster = Cluster::open(&options).await?;
        let query = ListParams::default().labels(objects::AGENT);
        let secrets = read(cluster.secrets().list_metadata(&query)).await?;
        let mut found: BTreeMap<InstallationId, BTreeSet<AgentId>> = BTreeMap::new();
        for meta in secrets.items.iter().map(|secret| &secret.metadata) {
            if let (Some(owner), Some(agent)) = (objects::installation_of(meta), objects::agent_of(meta)) {
                found.entry(owner).or_default().insert(agent);
            }
        }
        Ok(found.into_iter().map(|(owner, agents)| (owner, agents.len())).collect())
    }

    /// Answers at all, and allows what is needed.
    async fn check(&self) -> RuntimeResult<()> {
        read(self.cluster.client.apiserver_version()).await?;
        if !self.permitted.load(Ordering::Relaxed) {
            permissions::check(&self.cluster, self.forwards.is_some()).await?;
            self.permitted.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Puts the address in by which this process reaches the run.
    async fn reached(&self, key: &InstanceKey, state: &mut InstanceState) -> RuntimeResult<()> {
        let Some(forwards) = &self.forwards else { return Ok(()) };
        match state {
            InstanceState::Running(run) => {
                run.endpoint = forwards.address(&self.cluster, &objects::name(key.agent), &run.run_id).await?;
            }
            InstanceState::Created | InstanceState::Exited(_) => forwards.close(&objects::name(key.agent)),
            _ => {}
        }
        Ok(())
    }

    async fn look(&self, key: &InstanceKey) -> RuntimeResult<Option<ObservedInstance>> {
        let mut seen = self.seen(key).await?;
        if let Some(seen) = &mut seen {
            self.reached(key, &mut seen.state).await?;
        }
        Ok(seen)
    }

    async fn list(&self) -> RuntimeResult<Vec<ObservedInstance>> {
        let now = Timestamp::now();
        let mut list = match self.reflector.instances(now) {
            Some(known) => known,
            None => watch::list(&self.cluster, &objects::selector(self.options.installation)).await?.0.instances(now),
        };
        for seen in &mut list {
            let key = seen.key.clone();
            self.reached(&key, &mut seen.state).await?;
        }
        Ok(list)
    }

    /// By the tag: a cluster tells nothing of an image before a node has it.
    fn software_named(&self, name: &str) -> Software {
        let clue = ImageClues { reference: name, ..ImageClues::default() }.probable();
        let profile = self.options.profile.or_else(|| clue.as_ref().map(|clue| clue.profile)).unwrap_or(Profile::V08);
        let image = ImageRef { name: name.to_owned(), id: name.to_owned() };
        Software { profile, version: clue.and_then(|clue| clue.version), image: Some(image) }
    }
}

impl ContainerRuntime for KubernetesRuntime {
    fn caps(&self) -> Caps {
        Caps {
            name: "kubernetes",
            host_ports: false,
            enforces_cpu: true,
            enforces_memory: true,
            isolates_network: NetworkIsolation::ByPolicy,
            sees_pauses: false,
            splits_output: false,
            keeps_ended_runs: false,
            exact_log_times: true,
            // Nodes before 1.22 finish what they have begun.
            kills_while_stopping: false,
            stages_at_start: true,
            carries_data: true,
            measures_usage: self.metrics.is_some(),
            walls: vec!["container"],
            missing_walls: BTreeMap::new(),
            host: None,
        }
    }

    fn ping(&self) -> BoxFuture<'_, RuntimeResult<()>> {
        self.check().boxed()
    }

    /// Images are the nodes' business.
    fn prepare<'a>(&'a self, _: &'a InstanceKey, _: Progress) -> BoxFuture<'a, RuntimeResult<()>> {
        std::future::ready(Ok(())).boxed()
    }

    fn longest(&self, call: RuntimeCall) -> Duration {
        // An end that a node confirms, and the calls around it.
        let ended = instance::QUEUE + instance::CONFIRMED + cluster::CALL * 3;
        match call {
            RuntimeCall::Stop { grace } => grace + ended,
            RuntimeCall::Kill => ended,
            RuntimeCall::EnsureCreated | RuntimeCall::Stage | RuntimeCall::Start => instance::QUEUE + ended,
            RuntimeCall::Remove => ended + instance::CONFIRMED * 2,
            RuntimeCall::Prepare | RuntimeCall::Observe => cluster::CALL * 2,
        }
    }

    fn software<'a>(&'a self, choice: ImageChoice<'a>, _: Progress) -> BoxFuture<'a, RuntimeResult<Option<Software>>> {
        let name = match choice {
            ImageChoice::Default | ImageChoice::Present => self.options.image.as_str(),
            ImageChoice::Named(name) => name,
            ImageChoice::Kept { known, .. } => {
                known.and_then(|known| known.image.as_ref()).map_or(self.options.image.as_str(), |image| &image.name)
            }
        };
        std::future::ready(Ok(Some(self.software_named(name)))).boxed()
    }

    fn ensure_created<'a>(&'a self, spec: &'a InstanceSpec) -> BoxFuture<'a, RuntimeResult<ObservedInstance>> {
        async move {
            let mut seen = self.adopt_or_create(spec).await?;
            self.reached(&spec.key, &mut seen.state).await?;
            Ok(seen)
        }
        .boxed()
    }

    fn stage<'a>(&'a self, key: &'a InstanceKey, files: &'a [StagedFile]) -> BoxFuture<'a, RuntimeResult<()>> {
        self.replace_files(key, files).boxed()
    }

    fn read_data<'a>(&'a self, key: &'a InstanceKey, folder: &'a str) -> BoxFuture<'a, RuntimeResult<Vec<StagedFile>>> {
        self.read_files(key, folder).boxed()
    }

    fn write_data<'a>(&'a self, key: &'a InstanceKey, files: &'a [StagedFile]) -> BoxFuture<'a, RuntimeResult<()>> {
        self.write_files(key, files).boxed()
    }

    fn start<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<InstanceState>> {
        async move {
            let mut state = self.launch(key).await?;
            self.reached(key, &mut state).await?;
            Ok(state)
        }
        .boxed()
    }

    fn stop<'a>(&'a self, key: &'a InstanceKey, grace: Duration) -> BoxFuture<'a, RuntimeResult<()>> {
        self.end(key, grace).boxed()
    }

    fn kill<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<()>> {
        self.kill_it(key).boxed()
    }

    fn remove<'a>(&'a self, key: &'a InstanceKey, data: DataPolicy) -> BoxFuture<'a, RuntimeResult<()>> {
        self.discard(key, data).boxed()
    }

    fn observe<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<Option<ObservedInstance>>> {
        self.look(key).boxed()
    }

    fn list_owned(&self) -> BoxFuture<'_, RuntimeResult<Vec<ObservedInstance>>> {
        self.list().boxed()
    }

    fn origin<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<Option<Origin>>> {
        async move {
            let secrets = self.secrets_of(key.agent).await?;
            secrets.first().map(instance::origin).ok_or(RuntimeError::NotFound)
        }
        .boxed()
    }

    fn lease<'a>(&'a self, request: &'a LeaseRequest) -> BoxFuture<'a, RuntimeResult<LeaseAnswer>> {
        self.ask_lease(request).boxed()
    }

    fn watch(&self) -> BoxStream<'static, Resync> {
        watch::watch(self.cluster.clone(), self.reflector.clone(), self.options.installation)
    }

    fn logs<'a>(
        &'a self,
        key: &'a InstanceKey,
        query: LogQuery,
    ) -> BoxFuture<'a, RuntimeResult<BoxStream<'static, RuntimeResult<LogLine>>>> {
        self.output(key, query).boxed()
    }

    fn usage<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<Usage>> {
        self.measured(key).boxed()
    }
}
