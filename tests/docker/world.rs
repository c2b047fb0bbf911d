//! What every test has: an installation of its own on the real engine, short ways to say things, and the clean-up.

use std::collections::HashMap;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::query_parameters::{
    DownloadFromContainerOptionsBuilder, InspectNetworkOptions, ListContainersOptionsBuilder,
    ListNetworksOptionsBuilder, ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptionsBuilder,
};
use futures_util::{StreamExt, TryStreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zeroone::domain::{AgentId, HostPort, InstallationId, Plan, Secret, Slug, Software};
use zeroone::runtime::docker::{DockerOptions, DockerRuntime, Isolation, Subnets};
use zeroone::runtime::{
    ContainerRuntime, ImageChoice, InstanceKey, InstanceSpec, InstanceState, LogQuery, ObservedInstance, Run,
    RuntimeError, RuntimeResult, StagedFile,
};
use zeroone::zeroclaw::profile::DATA_DIR;

use crate::{real, standin};

/// The longest wait for a condition. The engine needs a few seconds for most things, an upgrade that is taken back some fifteen; a
/// busy machine three times as long.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct World {
    pub(crate) docker: Docker,
    pub(crate) options: DockerOptions,
    pub(crate) runtime: DockerRuntime,
    /// The image of the real ZeroClaw, for tests of it.
    pub(crate) zeroclaw: &'static str,
    /// Whether its agents have a channel, for which ZeroClaw runs as `daemon` rather than `gateway`.
    pub(crate) channels: bool,
    /// Where `host.docker.internal` leads to.
    pub(crate) host_gateway: Ipv4Addr,
    others: Mutex<Vec<InstallationId>>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let docker = Docker::connect_with_defaults().unwrap();
        let image = standin::Image::of_this_program().ensure(&docker).await;
        // The engine's default bridge, on this machine or not at all.
        let bridge = docker.inspect_network("bridge", None::<InspectNetworkOptions>).await.unwrap();
        let range = bridge.ipam.unwrap().config.unwrap().remove(0);
        // An engine that was started for the first time shows no gateway: it is the first address.
        let first = || range.subnet?.parse::<ipnet::Ipv4Net>().ok()?.hosts().next();
        let gateway = range.gateway.and_then(|gateway| gateway.parse().ok()).or_else(first).unwrap();
        let isolation = if is_podman(&docker).await {
            // The only one that it has.
            Isolation::PerAgent { joined: vec![], subnets: Subnets::parse("10.98.0.0/16").unwrap() }
        } else {
            Isolation::Bridge
        };
        Self::on(docker, host(), image, gateway, isolation)
    }

    /// A world on this engine.
    pub(crate) fn on(
        docker: Docker,
        host: String,
        image: String,
        host_gateway: Ipv4Addr,
        isolation: Isolation,
    ) -> Self {
        let installation = InstallationId::new();
        let network = format!("zeroone-test-{installation}");
        let options = DockerOptions::new(installation)
            .with_image(image)
            .with_network(network)
            .with_host(host)
            .with_isolation(isolation);
        let runtime = DockerRuntime::new(options.clone()).unwrap();
        Self {
            docker,
            options,
            runtime,
            zeroclaw: real::IMAGE,
            channels: false,
            host_gateway,
            others: Mutex::default(),
        }
    }

    /// A runtime of the same installation with other options.
    pub(crate) fn with(&self, change: impl FnOnce(&mut DockerOptions)) -> DockerRuntime {
        let mut options = self.options.clone();
        change(&mut options);
        DockerRuntime::new(options).unwrap()
    }

    /// A runtime of another installation.
    pub(crate) fn of_others(&self) -> DockerRuntime {
        let installation = InstallationId::new();
        self.others.lock().unwrap().push(installation);
        self.with(|options| options.installation = installation)
    }

    /// Creates and starts an instance. Its port may belong for a moment to a connection that someone opened just now.
    pub(crate) async fn launch(&self, spec: &InstanceSpec) -> Run {
        self.runtime.ensure_created(spec).await.unwrap();
        until("the port", async || match self.runtime.start(&spec.key).await {
            Err(RuntimeError::PortTaken(_)) => None,
            started => match started.unwrap() {
                InstanceState::Running(run) => Some(run),
                state => panic!("it was started and is {state:?}"),
            },
        })
        .await
    }

    pub(crate) async fn observed(&self, key: &InstanceKey) -> Option<ObservedInstance> {
        self.runtime.observe(key).await.unwrap()
    }

    /// Pauses a container. On a busy machine the kernel may need more than one attempt.
    pub(crate) async fn pause(&self, container: &str) {
        let began = Instant::now();
        while let Err(error) = self.docker.pause_container(container).await {
            assert!(began.elapsed() < PATIENCE, "{error}");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// A file of a container's data.
    pub(crate) async fn read(&self, container: &str, path: &str) -> Option<Vec<u8>> {
        let path = format!("{DATA_DIR}/{path}");
        let options = DownloadFromContainerOptionsBuilder::default().path(&path).build();
        let chunks = self.docker.download_from_container(container, Some(options));
        let archive = chunks.try_fold(Vec::new(), |all, chunk| async move { Ok([all, chunk.to_vec()].concat()) }).await;
        let archive = archive.ok()?;
        let mut archive = tar::Archive::new(archive.as_slice());
        let mut content = Vec::new();
        archive.entries().unwrap().next()?.unwrap().read_to_end(&mut content).unwrap();
        Some(content)
    }

    /// Waits until the instance's state is one that is wanted.
    pub(crate) async fn state_when<T>(&self, key: &InstanceKey, wanted: impl Fn(&InstanceState) -> Option<T>) -> T {
        until("the state", async || self.observed(key).await.and_then(|observed| wanted(&observed.state))).await
    }

    pub(crate) async fn lines(&self, key: &InstanceKey, query: LogQuery) -> Vec<String> {
        let lines = self.runtime.logs(key, query).await.unwrap();
        lines.map(|line| line.unwrap().text).collect().await
    }

    /// Waits until a line of the log is one that is wanted.
    pub(crate) async fn line_when(&self, key: &InstanceKey, wanted: impl Fn(&str) -> bool) -> String {
        until("the line", async || self.lines(key, LogQuery::default()).await.into_iter().find(|line| wanted(line)))
            .await
    }

    /// Removes all that this test made: what has its label or those of its installations, and the networks of its name.
    pub(crate) async fn clean_up(&self) {
        // The test's own connections ended with it.
        let docker = Docker::connect_with_defaults().unwrap();
        let mut labels = vec![format!("zeroone.test={}", self.options.installation)];
        let others = self.others.lock().unwrap().clone();
        for installation in others.into_iter().chain([self.options.installation]) {
            labels.push(format!("zeroone.installation={installation}"));
            // The lease is of the installation and of none of its agents.
            for slot in 0..8 {
                let force = RemoveVolumeOptionsBuilder::default().force(true).build();
                let _ = docker.remove_volume(&format!("zeroclaw-{installation}-{slot}"), Some(force)).await;
            }
        }
        for label in labels {
            let filter = HashMap::from([("label", vec![label])]);
            let all = ListContainersOptionsBuilder::default().all(true).filters(&filter).build();
            for container in docker.list_containers(Some(all)).await.unwrap_or_default() {
                let force = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
                let _ = docker.remove_container(&container.id.unwrap(), Some(force)).await;
            }
            let all = ListVolumesOptionsBuilder::default().filters(&filter).build();
            for volume in docker.list_volumes(Some(all)).await.ok().and_then(|all| all.volumes).unwrap_or_default() {
                let force = RemoveVolumeOptionsBuilder::default().force(true).build();
                let _ = docker.remove_volume(&volume.name, Some(force)).await;
            }
        }
        let filter = HashMap::from([("name", vec![self.options.network.clone()])]);
        let all = ListNetworksOptionsBuilder::default().filters(&filter).build();
        for network in docker.list_networks(Some(all)).await.unwrap_or_default() {
            let _ = docker.remove_network(&network.id.unwrap()).await;
        }
    }
}

/// What an image holds, as the runtime finds out.
pub(crate) async fn software(runtime: &DockerRuntime, choice: ImageChoice<'_>) -> RuntimeResult<Software> {
    runtime.software(choice, Arc::new(|_| ())).await.map(Option::unwrap)
}

/// An instance of the stand-in with this command. Its slug is its id, so that tests side by side do not meet.
pub(crate) fn spec(command: &[&str]) -> InstanceSpec {
    let agent = AgentId::new();
    let key = InstanceKey { agent, slug: Slug::parse(&format!("t-{agent}")).unwrap() };
    InstanceSpec::new(key, command.iter().map(ToString::to_string).collect(), Plan::Free.limits())
        .with_env(vec![("API_KEY".into(), "sk-test".into())])
        .with_port(free_port())
}

pub(crate) fn file(path: &'static str, content: &str, mode: u32) -> StagedFile {
    StagedFile { path: path.into(), content: Secret::new(content.as_bytes().to_vec()), mode }
}

/// A port of the lower half of the agents' range that nobody listens on now, and that this process did not give out
/// before. The upper half belongs to whole services, see `service`.
pub(crate) fn free_port() -> HostPort {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    const HALF: u16 = 5_000;
    let from = u16::try_from(std::process::id() % u32::from(HALF)).unwrap();
    std::iter::repeat_with(|| HostPort::RANGE.start() + (from + GIVEN.fetch_add(1, Ordering::Relaxed)) % HALF)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .map(|port| HostPort::try_from(port).unwrap())
        .unwrap()
}

/// Asks again and again until there is an answer.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

pub(crate) fn running(state: &InstanceState) -> Option<Run> {
    match state {
        InstanceState::Running(run) => Some(run.clone()),
        _ => None,
    }
}

pub(crate) fn exited(state: &InstanceState) -> Option<zeroone::runtime::Exit> {
    match state {
        InstanceState::Exited(exit) => Some(exit.clone()),
        _ => None,
    }
}

/// Whether a gateway answers there.
pub(crate) async fn answers(at: std::net::SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(at).await?;
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer.starts_with("HTTP/1.1 200"))
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), ask).await, Ok(Ok(true)))
}

pub(crate) async fn answers_soon(at: std::net::SocketAddr) {
    until("an answer", async || answers(at).await.then_some(())).await;
}

/// Whether it is Podman that speaks Docker's API.
pub(crate) async fn is_podman(docker: &Docker) -> bool {
    let components = docker.version().await.unwrap().components.unwrap_or_default();
    components.iter().any(|component| component.name == "Podman Engine")
}

pub(crate) fn engine_answers() -> bool {
    ask_engine(async |docker| docker.ping().await.is_ok()) == Some(true)
}

pub(crate) fn image_is_there(image: &str) -> bool {
    ask_engine(async |docker| docker.inspect_image(image).await.is_ok()) == Some(true)
}

/// Asks outside of any test; `None` where no engine answers in time.
pub(crate) fn ask_engine<T>(ask: impl AsyncFn(&Docker) -> T) -> Option<T> {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio.block_on(async {
        let docker = Docker::connect_with_defaults().ok()?;
        tokio::time::timeout(Duration::from_secs(10), ask(&docker)).await.ok()
    })
}

/// Where bollard finds the engine.
pub(crate) fn host() -> String {
    std::env::var("DOCKER_HOST").unwrap_or_else(|_| DockerOptions::DEFAULT_HOST.into())
}

/// The engine's socket, for tests that stand between.
pub(crate) fn socket() -> Option<String> {
    let path = host().strip_prefix("unix://")?.to_owned();
    Path::new(&path).exists().then_some(path)
}

/// Whether a result is the given kind of error, with the result in the message if it is not.
#[macro_export]
macro_rules! assert_error {
    ($result:expr, $pattern:pat) => {
        match $result {
            Err($pattern) => {}
            other => panic!("expected {}, got {other:?}", stringify!($pattern)),
        }
    };
}

/// All that a runtime says while it prepares.
pub(crate) async fn prepare(runtime: &DockerRuntime) -> (RuntimeResult<()>, Vec<String>) {
    let said = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let hear = std::sync::Arc::clone(&said);
    let prepared =
        runtime.prepare(&spec(&[]).key, std::sync::Arc::new(move |text| hear.lock().unwrap().push(text))).await;
    let said = said.lock().unwrap().clone();
    (prepared, said)
}
