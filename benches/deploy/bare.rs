//! The bare side: the engine's own calls, one after the other, and nothing else.

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::models::{ContainerCreateBody, HostConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder, EventsOptionsBuilder, InspectContainerOptions,
    LogsOptionsBuilder, RemoveContainerOptions, RemoveContainerOptionsBuilder, RemoveVolumeOptions,
    StartContainerOptions, StopContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use futures_util::{StreamExt, TryStreamExt};
use reqwest::Client;
use zeroone::runtime::archive;
use zeroone::zeroclaw::pairing::{Announcement, CodeScanner};
use zeroone::zeroclaw::profile::{DATA_DIR, GATEWAY_PORT};
use zeroone::zeroclaw::workspace::{self, Staging};

use crate::http_client::http_client;
use crate::ours::{PATIENCE, remove_all};
use crate::{agent, other_image, profile};

/// Marks what is to be cleared away.
const LABEL: &str = "zeroone.bench=bare";

pub struct Bare {
    docker: Docker,
    client: Client,
    /// What one of our containers was made from.
    body: ContainerCreateBody,
    host: HostConfig,
    archive: Vec<u8>,
}

/// A bare container: its name, which is its volume's too, and its published address.
pub struct Container {
    name: String,
    url: String,
    port: u16,
}

impl Bare {
    pub async fn new(docker: Docker, pattern: &str) -> Self {
        let shown = docker.inspect_container(pattern, None::<InspectContainerOptions>).await.expect("it is there");
        let (config, host) = (shown.config.expect("a config"), shown.host_config.expect("a host config"));
        let (label, value) = LABEL.split_once('=').expect("a label has a value");
        let body = ContainerCreateBody {
            image: config.image,
            user: config.user,
            cmd: config.cmd,
            env: config.env,
            exposed_ports: config.exposed_ports,
            labels: Some(HashMap::from([(label.into(), value.into())])),
            ..ContainerCreateBody::default()
        };
        let (_, spec, credentials) = agent();
        let files = workspace::files(profile(), &spec, &credentials, &Staging::new("host.docker.internal", 120));
        let archive = archive::tar(&files).expect("an archive");
        Self { docker, client: http_client(PATIENCE), body, host, archive }
    }

    pub async fn deploy(&self) -> (Container, Duration) {
        let name = format!("zeroclaw-bare-{}", agent().0);
        let port = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            listener.local_addr().expect("it is bound").port()
        };
        let container = Container { url: format!("http://127.0.0.1:{port}"), name, port };
        let body = self.body_for(&container.name, port);

        let began = Instant::now();
        let options = CreateContainerOptionsBuilder::default().name(&container.name).build();
        let id = self.docker.create_container(Some(options), body).await.expect("created").id;
        let options = UploadToContainerOptionsBuilder::default().path(DATA_DIR).build();
        let archive = bollard::body_full(self.archive.clone().into());
        self.docker.upload_to_container(&id, Some(options), archive).await.expect("uploaded");
        self.docker.start_container(&id, None::<StartContainerOptions>).await.expect("started");
        let code = self.code(&id).await;
        self.healthy(&container).await;
        let paired = self.client.post(format!("{}/pair", container.url)).header("x-pairing-code", code).send().await;
        let answer: serde_json::Value = paired.expect("an answer").json().await.expect("JSON");
        assert!(answer["token"].is_string(), "{answer}");
        (container, began.elapsed())
    }

    /// Ours as it is, with a name, a volume and a port of its own.
    fn body_for(&self, name: &str, port: u16) -> ContainerCreateBody {
        let mut host = self.host.clone();
        let binding = PortBinding { host_ip: Some("127.0.0.1".into()), host_port: Some(port.to_string()) };
        host.port_bindings = Some(HashMap::from([(format!("{GATEWAY_PORT}/tcp"), Some(vec![binding]))]));
        for mount in host.mounts.iter_mut().flatten() {
            mount.source = Some(name.to_owned());
        }
        // Only the bare start is to be measured, not a race of it with the engine's own.
        host.restart_policy = Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None });
        ContainerCreateBody { host_config: Some(host), ..self.body.clone() }
    }

    /// The first code in the log; a gateway is up when it prints it.
    async fn code(&self, id: &str) -> String {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).follow(true).build();
        let mut frames = self.docker.logs(id, Some(options));
        let mut scanner = CodeScanner::new();
        loop {
            let frame: LogOutput = frames.next().await.expect("a code before the log ends").expect("a log");
            let text = frame.into_bytes();
            for line in String::from_utf8_lossy(&text).lines() {
                if let Some(Announcement::Code(code)) = scanner.read(line) {
                    return code.expose().clone();
                }
            }
        }
    }

    /// Asked again at once: where the code is out, the first answer is the one.
    async fn healthy(&self, container: &Container) {
        let health = format!("{}/health", container.url);
        loop {
            // A probe that comes too early hangs; the next one would not.
            let probe = self.client.get(&health).timeout(Duration::from_millis(50)).send().await;
            if probe.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// kill -9 → `die` event → start → health.
    pub async fn recover(&self, container: &Container) -> Duration {
        let pid = self.pid(&container.name).await;
        #[expect(clippy::disallowed_methods, reason = "the engine's events are of the real time")]
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs().to_string();
        let filters = HashMap::from([("container", vec![container.name.as_str()]), ("event", vec!["die"])]);
        let options = EventsOptionsBuilder::default().since(&since).filters(&filters).build();
        let mut events = self.docker.events(Some(options));
        let began = Instant::now();
        let (death, ()) = tokio::join!(events.next(), async { kill(pid) });
        death.expect("an event").expect("a death");
        self.docker.start_container(&container.name, None::<StartContainerOptions>).await.expect("started");
        self.healthy(container).await;
        began.elapsed()
    }

    /// Another image on the same data, which is read and written as it is to be set aside.
    pub async fn upgrade(&self, container: &Container) -> Duration {
        let name = &container.name;
        let body = ContainerCreateBody { image: Some(other_image()), ..self.body_for(name, container.port) };
        let began = Instant::now();
        let grace = StopContainerOptionsBuilder::default().t(10).build();
        self.docker.stop_container(name, Some(grace)).await.expect("stopped");
        self.docker.remove_container(name, None::<RemoveContainerOptions>).await.expect("removed");
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        self.docker.create_container(Some(options), body).await.expect("created");
        let data = DownloadFromContainerOptionsBuilder::default().path(&format!("{DATA_DIR}/.zeroclaw")).build();
        let read = self.docker.download_from_container(name, Some(data));
        let data: Vec<_> = read.try_collect().await.expect("its data");
        for archive in [self.archive.clone(), data.concat()] {
            let options = UploadToContainerOptionsBuilder::default().path(DATA_DIR).build();
            let archive = bollard::body_full(archive.into());
            self.docker.upload_to_container(name, Some(options), archive).await.expect("uploaded");
        }
        self.docker.start_container(name, None::<StartContainerOptions>).await.expect("started");
        self.healthy(container).await;
        began.elapsed()
    }

    /// The container's first process, as the host counts.
    pub async fn pid(&self, container: &str) -> i64 {
        let shown = self.docker.inspect_container(container, None::<InspectContainerOptions>).await;
        let pid = shown.expect("it is there").state.and_then(|state| state.pid).expect("it runs");
        assert!(pid > 1, "{container} runs");
        pid
    }

    /// Kills the first process of this container as soon as it runs the other image.
    pub async fn kill_other(&self, container: &str) {
        loop {
            let shown = self.docker.inspect_container(container, None::<InspectContainerOptions>).await.ok();
            let other = shown
                .filter(|shown| shown.config.as_ref().and_then(|config| config.image.as_ref()) == Some(&other_image()));
            let pid = other.and_then(|other| other.state?.pid).filter(|pid| *pid > 1);
            if let Some(pid) = pid {
                // It may be gone already.
                let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn remove(&self, container: Container) {
        let force = RemoveContainerOptionsBuilder::default().force(true).build();
        self.docker.remove_container(&container.name, Some(force)).await.expect("removed");
        self.docker.remove_volume(&container.name, None::<RemoveVolumeOptions>).await.expect("removed");
    }
}

/// kill -9. Only root may do so to a container's process.
pub fn kill(pid: i64) {
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(killed.is_ok_and(|status| status.success()), "the process can be killed");
}

/// Removes what a run that failed left of it.
pub async fn clean_up(docker: &Docker) {
    remove_all(docker, LABEL).await;
}
