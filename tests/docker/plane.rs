//! The whole control plane on a real engine with the real ZeroClaw: what users ask for takes effect, and what is done to
//! containers behind its back is mended.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{
    InspectContainerOptions, KillContainerOptionsBuilder, ListContainersOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptions, RestartContainerOptionsBuilder, StopContainerOptionsBuilder,
    UploadToContainerOptionsBuilder,
};
use futures_util::future::{BoxFuture, join_all};
use tempfile::TempDir;
use zeroone::actor::Settings;
use zeroone::control::{AgentHandle, AgentPatch, ControlPlane, NewAgent, NewUser};
use zeroone::domain::{AgentId, AgentSpec, Channels, Plan, Secret, Slug, Status, Telegram, UserId};
use zeroone::lifecycle::Timing;
use zeroone::runtime::StagedFile;
use zeroone::store::{Batch, Store, StoreOptions};
use zeroone::testkit;
use zeroone::zeroclaw::client::{
    Gateway, GatewayError, HealthReport, HttpGateway, Pairing, WebhookAnswer, WebhookCall,
};
use zeroone::zeroclaw::profile::{DATA_DIR, Profile};
use zeroone::zeroclaw::workspace;

use crate::model::{self, Model};
use crate::real::IMAGE;
use crate::world::{World, file, until};

/// The longest wait for an agent to run: on a busy machine a start of ZeroClaw takes seconds, and some tests need two.
const PATIENCE: Duration = Duration::from_secs(90);

/// What an agent remembers, as a file of its workspace.
const MEMORY: &str = "workspace/kept.txt";

/// The real gateway, with a count of the pairings that were tried.
struct Counted {
    gateway: HttpGateway,
    pairings: AtomicUsize,
}

impl Gateway for Counted {
    fn health(&self, at: SocketAddr, within: Duration) -> BoxFuture<'_, Result<HealthReport, GatewayError>> {
        self.gateway.health(at, within)
    }

    fn accepts_token<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Result<bool, GatewayError>> {
        self.gateway.accepts_token(at, token, within)
    }

    fn pair<'a>(
        &'a self,
        at: SocketAddr,
        code: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Result<Pairing, GatewayError>> {
        self.pairings.fetch_add(1, Ordering::Relaxed);
        self.gateway.pair(at, code, within)
    }

    fn webhook<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        call: WebhookCall,
        within: Duration,
    ) -> BoxFuture<'a, Result<WebhookAnswer, GatewayError>> {
        self.gateway.webhook(at, token, call, within)
    }
}

/// A service with its data folder, one user and a model server.
struct Service<'a> {
    world: &'a World,
    data: TempDir,
    gateway: Arc<Counted>,
    plane: ControlPlane,
    user: UserId,
    model: Model,
}

impl<'a> Service<'a> {
    async fn new(world: &'a World) -> Self {
        let data = TempDir::new().unwrap();
        let gateway = Arc::new(Counted { gateway: HttpGateway::new().unwrap(), pairings: AtomicUsize::new(0) });
        let plane = start(world, &data, &gateway).await;
        let user = NewUser { email: "ada@example.com".into(), plan: Plan::Enterprise, limits: None };
        let user = plane.create_user(user).await.unwrap().id;
        Self { world, data, gateway, plane, user, model: Model::new(&world.docker).await }
    }

    /// Ends the service and starts it again on what `change` leaves of its store.
    async fn reopen(&mut self, change: impl AsyncFnOnce(&Store)) {
        self.plane.shutdown().await;
        let store = store(self.world, &self.data);
        change(&store).await;
        store.close().await;
        drop(store);
        self.plane = start(self.world, &self.data, &self.gateway).await;
    }

    async fn create(&self) -> AgentHandle {
        let id = AgentId::new();
        let new = testkit::new_agent("Ada");
        let spec = AgentSpec { model: "m-1".into(), provider_url: Some(self.model.url()), ..new.spec };
        // Container names are the engine's, and tests run side by side.
        let slug = Some(Slug::parse(&format!("t-{id}")).unwrap());
        self.plane.create_agent(self.user, NewAgent { id, spec, slug, ..new }).await.unwrap()
    }

    async fn running(&self) -> AgentHandle {
        let agent = self.create().await;
        self.runs(&agent).await;
        agent
    }

    async fn runs(&self, agent: &AgentHandle) {
        if let Err(error) = agent.wait(&[Status::Running], PATIENCE).await {
            panic!("{error}: {:#?}", causes(agent).await);
        }
    }

    /// Sends a message that the model answers, and gives what the model was asked.
    async fn talk(&mut self, agent: &AgentHandle) -> String {
        let answer = match agent.deliver(testkit::message("hi")).await {
            Ok(answer) => answer,
            Err(error) => panic!("{error}: {:#?}", causes(agent).await),
        };
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, body["response"].as_str()), (200, Some(model::ANSWER)), "{body}");
        self.model.question().await
    }

    fn pairings(&self) -> usize {
        self.gateway.pairings.load(Ordering::Relaxed)
    }

    async fn container(&self, agent: &AgentHandle) -> ContainerInspectResponse {
        let name = container_name(agent);
        self.world.docker.inspect_container(&name, None::<InspectContainerOptions>).await.unwrap()
    }

    async fn container_id(&self, agent: &AgentHandle) -> String {
        self.container(agent).await.id.unwrap()
    }

    /// A file of the agent's data.
    async fn read(&self, agent: &AgentHandle, path: &str) -> Option<String> {
        let content = self.world.read(&container_name(agent), path).await?;
        Some(String::from_utf8(content).unwrap())
    }

    /// Puts a file into the agent's data, behind the control plane's back.
    async fn write(&self, agent: &AgentHandle, file: StagedFile) {
        let options = UploadToContainerOptionsBuilder::default().path(DATA_DIR).build();
        let archive = bollard::body_full(workspace::tar(&[file]).unwrap().into());
        self.world.docker.upload_to_container(&container_name(agent), Some(options), archive).await.unwrap();
    }
}

fn store(world: &World, data: &TempDir) -> Store {
    let installation = world.options.installation;
    Store::open(data.path().join("zeroone.redb"), StoreOptions { installation, ..StoreOptions::default() }).unwrap()
}

async fn start(world: &World, data: &TempDir, gateway: &Arc<Counted>) -> ControlPlane {
    let runtime = Arc::new(world.with(|options| options.image = IMAGE.into()));
    // A hang is noticed in seconds, so that its test takes no longer.
    let timing = Timing { health_interval: Duration::from_secs(1), ..Timing::default() };
    ControlPlane::builder(store(world, data), testkit::vault(), runtime)
        .profile(Profile::V01)
        .gateway(Arc::clone(gateway) as Arc<dyn Gateway>)
        .settings(Settings { timing, ..Settings::default() })
        .start()
        .await
        .unwrap()
}

fn container_name(agent: &AgentHandle) -> String {
    format!("zeroclaw-t-{}", agent.id())
}

/// The timeline's causes, with their details.
async fn causes(agent: &AgentHandle) -> Vec<String> {
    let timeline = agent.events(0, usize::MAX).await.unwrap();
    timeline.into_iter().map(|entry| format!("{} {}", entry.cause, entry.detail.unwrap_or_default())).collect()
}

fn restarts(agent: &AgentHandle) -> u64 {
    agent.view().unwrap().record.life.restart_count
}

pub(crate) async fn answers_and_takes_every_change(world: &World) {
    let mut service = Service::new(world).await;
    let agent = service.running().await;
    let question = service.talk(&agent).await.to_ascii_lowercase();
    assert!(question.contains("\"m-1\"") && question.contains("bearer sk-planted-in-the-testkit"), "{question}");
    let first = agent.view().unwrap();

    let spec = AgentSpec { model: "m-2".into(), ..(*first.record.spec).clone() };
    agent.update(AgentPatch { spec: Some(spec), ..AgentPatch::default() }).await.unwrap();
    let question = service.talk(&agent).await;
    assert!(question.contains("\"m-2\"") && !question.contains("m-1"), "{question}");

    let key = Some(Some("sk-other".into()));
    agent.update(AgentPatch { api_key: key, ..AgentPatch::default() }).await.unwrap();
    let question = service.talk(&agent).await;
    assert!(question.contains("sk-other") && question.contains("\"m-2\""), "{question}");

    let telegram = Telegram { bot_token: "1:not-a-token".into(), allowed_users: vec![] };
    let channels = Channels { telegram: Some(telegram), ..Channels::default() };
    agent.update(AgentPatch { channels: Some(channels), ..AgentPatch::default() }).await.unwrap();
    service.talk(&agent).await;
    assert_eq!(service.container(&agent).await.config.unwrap().cmd.unwrap(), ["daemon"]);
    let config: toml::Table = service.read(&agent, ".zeroclaw/config.toml").await.unwrap().parse().unwrap();
    let allowed = &config["channels_config"]["telegram"]["allowed_users"];
    assert_eq!(allowed.as_array().unwrap(), &[toml::Value::from("*")], "nobody named means everybody");

    // Another model server: another provider, as ZeroClaw has it.
    let mut other = Model::new(&world.docker).await;
    let spec = AgentSpec { provider_url: Some(other.url()), ..(*agent.view().unwrap().record.spec).clone() };
    agent.update(AgentPatch { spec: Some(spec), ..AgentPatch::default() }).await.unwrap();
    agent.deliver(testkit::message("hi")).await.unwrap();
    assert!(other.question().await.contains("sk-other"));
    assert_eq!((service.pairings(), restarts(&agent)), (1, 0));
}

/// What a row of the restart matrix expects besides an agent that runs with a token that works.
struct Expected {
    pairings: usize,
    same_container: bool,
    memory: bool,
}

/// Does something to a running agent and sees to it that it answers again.
async fn mended(world: &World, expected: Expected, deed: impl AsyncFnOnce(&mut Service<'_>, &AgentHandle)) {
    let mut service = Service::new(world).await;
    let agent = service.running().await;
    service.talk(&agent).await;
    service.write(&agent, file(MEMORY, "I know you", 0o600)).await;
    let (before, port) = (service.container_id(&agent).await, agent.view().unwrap().port);
    let paired = service.pairings();

    deed(&mut service, &agent).await;
    let agent = service.plane.agent(agent.id()).unwrap();
    service.talk(&agent).await;
    service.runs(&agent).await;
    let timeline = causes(&agent).await;
    assert_eq!(service.pairings() - paired, expected.pairings, "{timeline:#?}");
    // A test beside this one may take the port of what was down, and then it is made anew with another one.
    let port_lost = agent.view().unwrap().port != port;
    let same_container = service.container_id(&agent).await == before;
    assert_eq!(same_container, expected.same_container && !port_lost, "{timeline:#?}");
    let memory = service.read(&agent, MEMORY).await;
    assert_eq!(memory.as_deref(), expected.memory.then_some("I know you"), "{timeline:#?}");
}

const NOTHING_LOST: Expected = Expected { pairings: 0, same_container: true, memory: true };

pub(crate) async fn comes_back_from_a_restart_by_the_api(world: &World) {
    // Asked for on purpose, it gives a new token.
    mended(world, Expected { pairings: 1, ..NOTHING_LOST }, async |_, agent| {
        agent.restart().await.unwrap();
    })
    .await;
}

pub(crate) async fn comes_back_from_a_restart_by_hand(world: &World) {
    mended(world, NOTHING_LOST, async |service, agent| restart(service, agent).await).await;
}

async fn restart(service: &Service<'_>, agent: &AgentHandle) {
    let options = RestartContainerOptionsBuilder::default().t(5).build();
    if let Err(error) = service.world.docker.restart_container(&container_name(agent), Some(options)).await {
        // Taken by a test beside this one in the moment between: then it stays down until it is mended.
        assert!(error.to_string().contains("port is already allocated"), "{error}");
    }
}

pub(crate) async fn comes_back_from_a_kill_by_hand(world: &World) {
    mended(world, NOTHING_LOST, async |service, agent| {
        let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
        service.world.docker.kill_container(&container_name(agent), Some(options)).await.unwrap();
    })
    .await;
}

pub(crate) async fn comes_back_from_the_death_of_its_first_process(world: &World) {
    mended(world, NOTHING_LOST, async |service, agent| {
        let process = service.container(agent).await.state.unwrap().pid.unwrap();
        let killed = std::process::Command::new("kill").args(["-9", &process.to_string()]).status().unwrap();
        assert!(killed.success());
        let ended = || async {
            let now = service.container(agent).await.state.unwrap().pid;
            (now != Some(process)).then_some(())
        };
        until("its end", async || ended().await).await;
    })
    .await;
}

pub(crate) async fn comes_back_from_a_stop_by_hand(world: &World) {
    mended(world, NOTHING_LOST, async |service, agent| {
        let options = StopContainerOptionsBuilder::default().t(5).build();
        service.world.docker.stop_container(&container_name(agent), Some(options)).await.unwrap();
    })
    .await;
}

pub(crate) async fn comes_back_from_a_removal_by_hand(world: &World) {
    mended(world, Expected { same_container: false, ..NOTHING_LOST }, async |service, agent| {
        remove(service, agent).await;
    })
    .await;
}

async fn remove(service: &Service<'_>, agent: &AgentHandle) {
    let options = RemoveContainerOptionsBuilder::default().force(true).build();
    service.world.docker.remove_container(&container_name(agent), Some(options)).await.unwrap();
}

pub(crate) async fn comes_back_from_a_pause_by_hand(world: &World) {
    mended(world, NOTHING_LOST, async |service, agent| {
        service.world.pause(&container_name(agent)).await;
        // A message would reach the paused one and be lost with it: only what comes after is for the next run.
        until("that it was missed", async || (restarts(agent) == 1).then_some(())).await;
    })
    .await;
}

pub(crate) async fn comes_back_from_an_emptied_config(world: &World) {
    mended(world, Expected { pairings: 0, ..NOTHING_LOST }, async |service, agent| {
        service.write(agent, file(".zeroclaw/config.toml", "", 0o600)).await;
        restart(service, agent).await;
    })
    .await;
}

pub(crate) async fn comes_back_from_lost_data(world: &World) {
    let expected = Expected { pairings: 0, same_container: false, memory: false };
    mended(world, expected, async |service, agent| {
        // It may be made anew between the two: then its new container holds the volume.
        until("a volume that nobody holds", async || {
            remove(service, agent).await;
            let volume = format!("zeroclaw-{}", agent.id());
            service.world.docker.remove_volume(&volume, None::<RemoveVolumeOptions>).await.ok()
        })
        .await;
    })
    .await;
}

pub(crate) async fn comes_back_from_a_token_that_is_lost(world: &World) {
    // The run's log still shows the code that was used up: it is tried once, then files without a token give a new one.
    mended(world, Expected { pairings: 2, ..NOTHING_LOST }, async |service, agent| {
        let id = agent.id();
        service
            .reopen(async |store| {
                let mut record = store.agent(id).await.unwrap().unwrap().record;
                record.token = None;
                record.life.revision += 1;
                store.commit(Batch::update_agent(&record, None)).await.unwrap();
            })
            .await;
    })
    .await;
}

pub(crate) async fn runs_on_while_the_service_restarts(world: &World) {
    mended(world, NOTHING_LOST, async |service, agent| {
        let before = service.container(agent).await.state.unwrap().started_at;
        for _ in 0..3 {
            service.reopen(async |_| {}).await;
            let agent = service.plane.agent(agent.id()).unwrap();
            service.talk(&agent).await;
            assert_eq!(restarts(&agent), 0);
        }
        assert_eq!(service.container(agent).await.state.unwrap().started_at, before);
    })
    .await;
}

pub(crate) async fn stops_by_itself_and_leaves_nothing(world: &World) {
    let service = Service::new(world).await;
    let agent = service.running().await;
    agent.stop().await.unwrap();
    agent.wait(&[Status::Stopped], PATIENCE).await.unwrap();
    // By SIGTERM, long before the grace is over: by force it would be 137.
    assert_eq!(service.container(&agent).await.state.unwrap().exit_code, Some(143));

    agent.delete().await.unwrap();
    assert!(agent.gone(PATIENCE).await);
    assert_eq!(owned(world).await, (0, 0));
}

/// How many containers and volumes of this installation there are.
async fn owned(world: &World) -> (usize, usize) {
    let label = format!("zeroone.installation={}", world.options.installation);
    let filter = std::collections::HashMap::from([("label", vec![label])]);
    let all = ListContainersOptionsBuilder::default().all(true).filters(&filter).build();
    let containers = world.docker.list_containers(Some(all)).await.unwrap();
    let all = ListVolumesOptionsBuilder::default().filters(&filter).build();
    let volumes = world.docker.list_volumes(Some(all)).await.unwrap().volumes.unwrap_or_default();
    (containers.len(), volumes.len())
}

pub(crate) async fn twenty_at_once_are_all_running(world: &World) {
    let service = Service::new(world).await;
    let agents = join_all((0..20).map(|_| service.running())).await;
    let ports: HashSet<_> = agents.iter().map(|agent| agent.view().unwrap().port).collect();
    assert_eq!((ports.len(), owned(world).await), (20, (20, 20)));
    for agent in &agents {
        agent.delete().await.unwrap();
    }
    for agent in &agents {
        assert!(agent.gone(PATIENCE).await);
    }
    assert_eq!(owned(world).await, (0, 0));
}

pub(crate) async fn a_foreign_listener_costs_only_its_port(world: &World) {
    let mut service = Service::new(world).await;
    // The next port, unless somebody listens there already who may be gone when it matters.
    let (port, _stranger) = until("a free next port", async || {
        let port = service.running().await.view().unwrap().port.get() + 1;
        Some((port, std::net::TcpListener::bind(("127.0.0.1", port)).ok()?))
    })
    .await;
    let agent = service.running().await;
    service.talk(&agent).await;
    let timeline = causes(&agent).await;
    assert!(agent.view().unwrap().port.get() > port, "{timeline:#?}");
    assert!(timeline.iter().any(|cause| cause.starts_with("port-taken")), "{timeline:#?}");
    // It is left alone for a while, not tried again by the next one.
    let next = service.running().await;
    assert!(!causes(&next).await.iter().any(|cause| cause.contains(&port.to_string())));
}
