//! Our side: a service of the control plane on a loopback port, on the Docker runtime.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptionsBuilder,
};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use zeroone::control::{Agents, ControlPlane, NewKey, NewUser, Settings};
use zeroone::domain::{HostPort, InstallationId, Plan, PortRange, Scopes};
use zeroone::http::{HttpOptions, ServeOptions, router, serve};
use zeroone::runtime::docker::{DockerOptions, DockerRuntime};
use zeroone::runtime::{ContainerRuntime, ImageChoice};
use zeroone::store::{Store, StoreOptions};
use zeroone::testkit;

use crate::bare::Bare;
use crate::http_client::http_client;
use crate::sse::Events;
use crate::{agent, image, other_image, profile};

/// Far longer than anything takes here, so that what hangs ends.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Ports of the agents' range where nobody else starts to look for one.
const PORTS: (u16, u16) = (47_000, 500);

#[derive(Clone)]
pub struct Ours {
    plane: ControlPlane,
    url: String,
    key: String,
    client: Client,
    network: String,
    installation: InstallationId,
    serving: Arc<JoinHandle<std::io::Result<()>>>,
    /// The store's folder: on a real disk, where commits cost what they cost.
    _data: Arc<TempDir>,
}

impl Ours {
    pub async fn start() -> Self {
        let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder on a real disk");
        let installation = InstallationId::new();
        let network = format!("zeroone-bench-{installation}");
        let options = DockerOptions::new(installation).with_image(image()).with_network(network.clone());
        let runtime = DockerRuntime::new(options).expect("the defaults can be meant");
        runtime.ping().await.expect("an engine answers (scripts/engine)");
        let present = runtime.software(ImageChoice::Present, Arc::new(|_| ())).await;
        present.expect("the image is there (scripts/zeroclaw-image)");
        let store =
            Store::open(data.path().join("zeroone.redb"), StoreOptions::default().with_installation(installation));
        let first = HostPort::try_from(PORTS.0).expect("a port of the range");
        let ports = PortRange::from(first, PORTS.1).expect("some ports");
        let plane = ControlPlane::builder(store.expect("a new store opens"), testkit::vault(), Arc::new(runtime))
            .profile(profile())
            .settings(Settings::default().with_ports(ports))
            .start()
            .await
            .expect("it comes up");
        let user = NewUser::new("bench@example.com", Plan::Enterprise);
        let user = plane.create_user(user).await.expect("a new store takes a user").id;
        let key = NewKey::new(Scopes::all());
        let key = plane.create_key(user, key).await.expect("and a key").1.expose().clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let http = HttpOptions::default();
        let app = router(plane.clone(), http.clone());
        let serving = Arc::new(tokio::spawn(serve(listener, app, http.closing, ServeOptions::default())));
        Self { plane, url, key, client: http_client(PATIENCE), network, installation, serving, _data: Arc::new(data) }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}/api/agents{path}", self.url)).bearer_auth(&self.key)
    }

    /// POST → RUNNING, and its agent's id.
    pub async fn deploy(&self) -> (String, Duration) {
        let (_, spec, credentials) = agent();
        let body = json!({
            "name": spec.name, "provider": spec.provider.as_str(), "model": spec.model,
            "apiKey": credentials.api_key.as_ref().map(|key| key.expose().clone()),
        });
        let began = Instant::now();
        let created = json_of(self.request(Method::POST, "").json(&body), StatusCode::ACCEPTED).await;
        let id = created["id"].as_str().expect("an id").to_owned();
        json_of(self.request(Method::GET, &format!("/{id}/wait?status=RUNNING&timeout=60")), StatusCode::OK).await;
        (id, began.elapsed())
    }

    /// Kills the process → RUNNING again. The timeline tells of it, so that nobody has to ask again and again.
    pub async fn recover(&self, id: &str, pid: i64) -> Duration {
        let mut timeline = Events::open(self.request(Method::GET, &format!("/{id}/events"))).await;
        running(&mut timeline).await;
        let began = Instant::now();
        crate::bare::kill(pid);
        let cause = running(&mut timeline).await;
        let took = began.elapsed();
        assert_eq!(cause, "token-valid", "the token that it had was tried");
        took
    }

    /// Exchanges the image; how long the agent was down for it.
    pub async fn upgrade(&self, id: &str) -> Duration {
        let mut timeline = Events::open(self.request(Method::GET, &format!("/{id}/events"))).await;
        let body = json!({"image": other_image()});
        json_of(self.request(Method::POST, &format!("/{id}/upgrade")).json(&body), StatusCode::ACCEPTED).await;
        let mut began = None;
        loop {
            let event = timeline.next().await.expect("as long as its agent");
            match event.data["cause"].as_str().unwrap_or_default() {
                "upgrade-started" => began = Some(Instant::now()),
                "token-valid" if began.is_some() => return began.map(|began| began.elapsed()).unwrap_or_default(),
                "upgrade-refused" | "upgrade-failed" => panic!("{}", event.data),
                _ => {}
            }
        }
    }

    /// An upgrade whose new version is killed as soon as it runs, until it is taken back: how long the agent was down.
    pub async fn roll_back(&self, id: &str, bare: &Bare) -> Duration {
        let mut timeline = Events::open(self.request(Method::GET, &format!("/{id}/events"))).await;
        let container = self.container_name(id);
        let body = json!({"image": other_image()});
        json_of(self.request(Method::POST, &format!("/{id}/upgrade")).json(&body), StatusCode::ACCEPTED).await;
        let (mut began, mut failed, mut took) = (None, false, None);
        loop {
            let event = tokio::select! {
                event = timeline.next() => event.expect("as long as its agent"),
                () = bare.kill_other(&container), if began.is_some() && !failed => continue,
            };
            match event.data["cause"].as_str().unwrap_or_default() {
                "upgrade-started" => began = Some(Instant::now()),
                "upgrade-failed" => failed = true,
                "token-valid" if failed => took = began.map(|began: Instant| began.elapsed()),
                "rolled-back" => return took.expect("it runs again"),
                "upgrade-refused" | "upgraded" => panic!("{}", event.data),
                _ => {}
            }
        }
    }

    pub async fn delete(&self, id: &str) {
        let deleted = self.request(Method::DELETE, &format!("/{id}")).send().await.expect("the service answers");
        assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    }

    pub fn container_name(&self, id: &str) -> String {
        let agent = self.plane.agent(id.parse().expect("an id")).and_then(|agent| agent.view());
        format!("zeroclaw-{}", agent.expect("it is there").record.slug)
    }

    /// Ends the service, so that it does not mend what is cleared away.
    pub async fn end(&self) {
        self.serving.abort();
        self.plane.shutdown(Agents::Leave).await;
    }

    /// Removes what a run that failed left of it, and its network.
    pub async fn clean_up(&self, docker: &Docker) {
        let label = format!("zeroone.installation={}", self.installation);
        remove_all(docker, &label).await;
        let _ = docker.remove_network(&self.network).await;
    }
}

/// Removes containers with this label and their volumes.
pub async fn remove_all(docker: &Docker, label: &str) {
    let filter = HashMap::from([("label", vec![label])]);
    let all = ListContainersOptionsBuilder::default().all(true).filters(&filter).build();
    for container in docker.list_containers(Some(all)).await.unwrap_or_default() {
        let force = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let _ = docker.remove_container(container.id.as_deref().unwrap_or_default(), Some(force)).await;
        for volume in container.mounts.into_iter().flatten().filter_map(|mount| mount.name) {
            let _ = docker.remove_volume(&volume, Some(RemoveVolumeOptionsBuilder::default().build())).await;
        }
    }
}

/// Reads on to the next time that the agent came to run, and why it did.
async fn running(timeline: &mut Events) -> Value {
    loop {
        let event = timeline.next().await.expect("as long as its agent");
        if event.kind == "transition" && event.data["to"] == "RUNNING" {
            return event.data["cause"].clone();
        }
    }
}

async fn json_of(request: RequestBuilder, expected: StatusCode) -> Value {
    let response = request.send().await.expect("the service answers");
    let status = response.status();
    let body = response.json().await.expect("with JSON");
    assert_eq!(status, expected, "{body}");
    body
}
