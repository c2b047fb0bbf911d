//! A whole control plane on a real engine with the real ZeroClaw, and what its tests ask of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{InspectContainerOptions, UploadToContainerOptionsBuilder};
use tempfile::TempDir;
use zeroone::control::{AgentHandle, Agents, ControlPlane, NewAgent, NewUser, Settings, StartError, Timing};
use zeroone::domain::{AgentId, Channels, HostPort, MemoryBackend, Plan, PortRange, Slug, Status, Telegram, UserId};
use zeroone::runtime::StagedFile;
use zeroone::runtime::archive;
use zeroone::store::{Store, StoreOptions};
use zeroone::testkit::{self, Tap};
use zeroone::zeroclaw::client::HttpGateway;
use zeroone::zeroclaw::profile::DATA_DIR;

use crate::model::{self, Model};
use crate::world::World;

/// The longest wait for an agent to run: on a busy machine a start of ZeroClaw takes seconds, and some tests need two.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A service with its data folder, one user and a model server.
pub(crate) struct Service<'a> {
    pub(crate) world: &'a World,
    image: &'static str,
    data: TempDir,
    gateway: Tap,
    pub(crate) ports: PortRange,
    pub(crate) plane: ControlPlane,
    pub(crate) user: UserId,
    model: Model,
}

impl<'a> Service<'a> {
    pub(crate) async fn new(world: &'a World) -> Self {
        Self::with_image(world, world.zeroclaw).await
    }

    pub(crate) async fn with_image(world: &'a World, image: &'static str) -> Self {
        let data = TempDir::new().unwrap();
        let gateway = Tap::new(Arc::new(HttpGateway::new()));
        let ports = ports();
        let plane = start(world, image, &data, &gateway, ports).await;
        let user = NewUser::new("ada@example.com", Plan::Enterprise);
        let user = plane.create_user(user).await.unwrap().id;
        Self { world, image, data, gateway, ports, plane, user, model: Model::new(world).await }
    }

    /// Ends the service and starts it again on what `change` leaves of its store.
    pub(crate) async fn reopen(&mut self, change: impl AsyncFnOnce(&Store)) {
        self.plane.shutdown(Agents::Leave).await;
        let store = store(self.world, &self.data);
        change(&store).await;
        store.close().await;
        drop(store);
        self.plane = start(self.world, self.image, &self.data, &self.gateway, self.ports).await;
    }

    /// Ends the service and starts it again with another image for new agents.
    pub(crate) async fn reopen_with(&mut self, image: &'static str) {
        self.image = image;
        self.reopen(async |_| {}).await;
    }

    /// Starts another service on a copy of the data folder, beside this one.
    pub(crate) async fn start_copy(&self) -> Result<ControlPlane, StartError> {
        let copy = TempDir::new().unwrap();
        let file = "zeroone.redb";
        std::fs::copy(self.data.path().join(file), copy.path().join(file)).unwrap();
        try_start(self.world, self.image, &copy, &self.gateway, self.ports).await
    }

    async fn create(&self, memory: MemoryBackend) -> AgentHandle {
        let id = AgentId::new();
        let new = testkit::new_agent("Ada");
        let mut spec = new.spec;
        spec.model = "m-1".into();
        spec.auto_save = memory != MemoryBackend::None;
        spec.memory_backend = memory;
        spec.provider_url = Some(self.model.url());
        // Container names are the engine's, and tests run side by side.
        let slug = Slug::parse(&format!("t-{id}")).unwrap();
        let mut credentials = new.credentials;
        if self.world.channels {
            let telegram = Telegram::new("1:planted");
            credentials.channels = Channels::default().with_telegram(telegram);
        }
        self.plane.create_agent(self.user, NewAgent::new(spec, credentials).with_id(id).with_slug(slug)).await.unwrap()
    }

    pub(crate) async fn running(&self) -> AgentHandle {
        let agent = self.create(MemoryBackend::None).await;
        self.runs(&agent).await;
        agent
    }

    /// One that keeps what is said to it.
    pub(crate) async fn remembering(&self, memory: MemoryBackend) -> AgentHandle {
        let agent = self.create(memory).await;
        self.runs(&agent).await;
        agent
    }

    pub(crate) async fn runs(&self, agent: &AgentHandle) {
        if let Err(error) = agent.wait(&[Status::Running], PATIENCE).await {
            panic!("{error}: {:#?}", causes(agent).await);
        }
    }

    /// Sends a message that the model answers, and gives what the model was asked.
    pub(crate) async fn talk(&mut self, agent: &AgentHandle) -> String {
        let answer = match agent.deliver(testkit::message("hi")).await {
            Ok(answer) => answer,
            Err(error) => panic!("{error}: {:#?}", causes(agent).await),
        };
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, body["response"].as_str()), (200, Some(model::ANSWER)), "{body}");
        self.model.question().await
    }

    pub(crate) fn pairings(&self) -> usize {
        self.gateway.pairings()
    }

    pub(crate) async fn container(&self, agent: &AgentHandle) -> ContainerInspectResponse {
        let name = container_name(agent);
        self.world.docker.inspect_container(&name, None::<InspectContainerOptions>).await.unwrap()
    }

    pub(crate) async fn container_id(&self, agent: &AgentHandle) -> String {
        self.container(agent).await.id.unwrap()
    }

    /// A file of the agent's data.
    pub(crate) async fn read(&self, agent: &AgentHandle, path: &str) -> Option<String> {
        let content = self.world.read(&container_name(agent), path).await?;
        Some(String::from_utf8(content).unwrap())
    }

    /// Puts a file into the agent's data, behind the control plane's back.
    pub(crate) async fn write(&self, agent: &AgentHandle, file: StagedFile) {
        let options = UploadToContainerOptionsBuilder::default().path(DATA_DIR).build();
        let archive = bollard::body_full(archive::tar(&[file]).unwrap().into());
        self.world.docker.upload_to_container(&container_name(agent), Some(options), archive).await.unwrap();
    }
}

fn store(world: &World, data: &TempDir) -> Store {
    let installation = world.options.installation;
    Store::open(data.path().join("zeroone.redb"), StoreOptions::default().with_installation(installation)).unwrap()
}

async fn start(world: &World, image: &str, data: &TempDir, gateway: &Tap, ports: PortRange) -> ControlPlane {
    try_start(world, image, data, gateway, ports).await.unwrap()
}

async fn try_start(
    world: &World,
    image: &str,
    data: &TempDir,
    gateway: &Tap,
    ports: PortRange,
) -> Result<ControlPlane, StartError> {
    let runtime = Arc::new(world.with(|options| options.image = image.into()));
    // A hang is noticed in seconds, so that its test takes no longer.
    let timing = Timing::default().with_health_interval(Duration::from_secs(1));
    ControlPlane::builder(store(world, data), testkit::vault(), runtime)
        .gateway(Arc::new(gateway.clone()))
        .settings(Settings::default().with_timing(timing).with_ports(ports))
        .start()
        .await
}

pub(crate) fn container_name(agent: &AgentHandle) -> String {
    format!("zeroclaw-t-{}", agent.id())
}

/// The timeline's causes, with their details.
pub(crate) async fn causes(agent: &AgentHandle) -> Vec<String> {
    let timeline = agent.events(0, usize::MAX).await.unwrap();
    timeline.into_iter().map(|entry| format!("{} {}", entry.cause, entry.detail.unwrap_or_default())).collect()
}

pub(crate) fn restarts(agent: &AgentHandle) -> u64 {
    agent.view().unwrap().record.state.restart_count
}

/// Ports of the agents' range that no other service of this machine's tests has, as far as that can be had without asking
/// them: by this process and by how many it gave out. `world::free_port` keeps to the ports below.
fn ports() -> PortRange {
    const EACH: u16 = 50;
    const RANGES: u32 = 100;
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let nth = (std::process::id() * 16 + u32::from(GIVEN.fetch_add(1, Ordering::Relaxed))) % RANGES;
    let first = HostPort::RANGE.start() + 5_000 + u16::try_from(nth).unwrap() * EACH;
    PortRange::from(HostPort::try_from(first).unwrap(), EACH).unwrap()
}
