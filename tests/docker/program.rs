//! The real program on a real engine, killed in each step of a deployment, and cut off from the engine.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use bollard::query_parameters::{KillContainerOptionsBuilder, ListContainersOptionsBuilder};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use zeroone::domain::AgentId;
use zeroone::store::{Store, StoreOptions};

use crate::model::{self, Model};
use crate::proxy::{Mode, Proxy};
use crate::real::IMAGE;
use crate::serve::{Service, command, log_of};
use crate::world::{World, host, until};

/// What the log tells of a deployment, in order; each is committed, and the step after it begins.
const DEPLOYMENT: [&str; 6] =
    ["created", "deploying", "instance-created", "instance-started", "instance-healthy", "paired"];

/// A place for the program with a store of this test's installation, so that the clean-up finds all that it makes.
struct Place {
    folder: TempDir,
    model: Model,
    /// Where it finds the engine.
    host: String,
    network: String,
}

impl Place {
    async fn new(world: &World, host: String) -> Self {
        let folder = TempDir::new().unwrap();
        let place = Self { folder, model: Model::new(world).await, host, network: world.options.network.clone() };
        fs::create_dir(place.data()).unwrap();
        let options = StoreOptions::default().with_installation(world.options.installation);
        Store::open(place.data().join("zeroone.redb"), options).unwrap().close().await;
        place
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn serve(&self) -> Service {
        self.serve_with(&[])
    }

    fn serve_with(&self, env: &[(&str, &str)]) -> Service {
        let mut command = command(&self.data(), "docker");
        command
            .envs(env.iter().copied())
            .env("ZEROONE_MASTER_KEY", "5".repeat(64))
            .env("ZEROONE_DOCKER__HOST", &self.host)
            .env("ZEROONE_DOCKER__IMAGE", IMAGE)
            .env("ZEROONE_DOCKER__NETWORK", &self.network);
        Service::spawn(command, &self.data())
    }

    /// An agent to be; container names are the engine's, and tests run side by side.
    fn agent(&self) -> Value {
        let slug = format!("t-{}", AgentId::new());
        let url = self.model.url();
        json!({"name": "Ada", "slug": slug, "provider": "openai", "model": "m", "apiKey": "sk-test", "providerUrl": url})
    }
}

/// Creates an agent and waits until it runs; gives its id and its container's name.
async fn running(service: &Service, place: &Place) -> (String, String) {
    let body = place.agent();
    let (status, agent) = service.post("/api/agents", &body).await;
    assert_eq!(status, 202, "{agent}");
    let id = agent["id"].as_str().unwrap().to_owned();
    let (status, agent) = service.get(&format!("/api/agents/{id}/wait?status=RUNNING&timeout=90")).await;
    assert_eq!(status, 200, "{agent}");
    (id, format!("zeroclaw-{}", body["slug"].as_str().unwrap()))
}

async fn kill(world: &World, container: &str) {
    let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
    // One that is down already, or not up yet, is killed the next time.
    let _ = world.docker.kill_container(container, Some(options)).await;
}

async fn talk(service: &Service, id: &str) {
    let (status, body) = service.post(&format!("/api/agents/{id}/message"), &json!({"message": "hi"})).await;
    assert_eq!((status, &body["response"]), (200, &json!(model::ANSWER)), "{body}");
}

async fn logged(data: &Path, from: usize, step: &str) {
    // A creation is no transition, and is logged with a message of its own.
    let sign = if step == "created" { "\"message\":\"created\"".to_owned() } else { format!("\"cause\":\"{step}\"") };
    until(step, async || {
        let log = fs::read(log_of(data)).unwrap();
        String::from_utf8_lossy(log.get(from..).unwrap_or_default()).contains(&sign).then_some(())
    })
    .await;
}

/// How many containers each agent of this installation has, whatever state they are in.
async fn containers(world: &World) -> BTreeMap<String, usize> {
    let label = format!("zeroone.installation={}", world.options.installation);
    let filter = HashMap::from([("label", vec![label])]);
    let all = ListContainersOptionsBuilder::default().all(true).filters(&filter).build();
    let mut count = BTreeMap::new();
    for container in world.docker.list_containers(Some(all)).await.unwrap() {
        let agent = container.labels.unwrap_or_default().remove("zeroone.agent").unwrap_or_default();
        *count.entry(agent).or_default() += 1;
    }
    count
}

pub(crate) async fn dies_in_any_step_of_a_deployment_and_leaves_one_agent_that_runs(world: &World) {
    let place = Place::new(world, host()).await;
    for (number, step) in DEPLOYMENT.into_iter().enumerate() {
        let service = place.serve();
        let from = usize::try_from(fs::metadata(log_of(&place.data())).unwrap().len()).unwrap();
        let create = service.request(Method::POST, "/api/agents").json(&place.agent());
        let create = tokio::spawn(create.send());
        logged(&place.data(), from, step).await;
        service.kill();
        // Acknowledged or not: what was logged as created is there.
        let _ = create.await.unwrap();

        let service = place.serve();
        let agents = service.settled().await;
        assert_eq!(agents.len(), number + 1, "{step}: {agents:#?}");
        assert!(agents.iter().all(|agent| agent["status"] == "RUNNING"), "{step}: {agents:#?}");
        let found = containers(world).await;
        let ids: Vec<&str> = agents.iter().filter_map(|agent| agent["id"].as_str()).collect();
        assert!(found.len() == ids.len() && ids.iter().all(|id| found.get(*id) == Some(&1)), "{step}: {found:?}");
        talk(&service, ids[number]).await;
        service.kill();
    }
    let service = place.serve();
    for agent in service.agents().await {
        let path = format!("/api/agents/{}", agent["id"].as_str().unwrap());
        talk(&service, agent["id"].as_str().unwrap()).await;
        let deleted = service.request(Method::DELETE, &path).send().await.unwrap();
        assert!(deleted.status().is_success(), "{deleted:?}");
    }
    until("nothing is left", async || containers(world).await.is_empty().then_some(())).await;
}

pub(crate) async fn is_cut_off_from_the_engine_and_loses_nobody(world: &World) {
    let proxy = Proxy::before(host().trim_start_matches("unix://").to_owned());
    let place = Place::new(world, proxy.host()).await;
    let service = place.serve();
    let (id, _) = running(&service, &place).await;
    for mode in [Mode::Cut, Mode::Hang] {
        proxy.set(mode.clone());
        // What runs is reached without the engine; what is new is taken, and waits for it.
        talk(&service, &id).await;
        let (status, new) = service.post("/api/agents", &place.agent()).await;
        assert_eq!(status, 202, "{new}");
        let path = format!("/api/agents/{}", new["id"].as_str().unwrap());
        until("it is tried", async || {
            let (_, new) = service.get(&path).await;
            (new["status"] == "STARTING").then_some(())
        })
        .await;
        let (_, old) = service.get(&format!("/api/agents/{id}")).await;
        assert_eq!((&old["status"], &old["restarts"]), (&json!("RUNNING"), &json!(0)), "{mode:?}: {old}");
        proxy.set(Mode::Pass);
        let (status, new) = service.get(&format!("{path}/wait?status=RUNNING&timeout=90")).await;
        assert_eq!(status, 200, "{mode:?}: {new}");
    }
    assert!(containers(world).await.values().all(|count| *count == 1));
}

pub(crate) async fn ten_fast_kills_leave_one_token_and_no_lockout(world: &World) {
    let place = Place::new(world, host()).await;
    let service = place.serve_with(&[("ZEROONE_RESTART__BASE_DELAY_MS", "10")]);
    let (id, container) = running(&service, &place).await;
    for restarts in 1..=10 {
        kill(world, &container).await;
        until("it is back", async || {
            let (_, agent) = service.get(&format!("/api/agents/{id}")).await;
            (agent["status"] == "RUNNING" && agent["restarts"].as_u64() >= Some(restarts)).then_some(())
        })
        .await;
    }
    talk(&service, &id).await;
    let config = world.read(&container, ".zeroclaw/config.toml").await.unwrap();
    let config: toml::Table = String::from_utf8(config).unwrap().parse().unwrap();
    assert_eq!(config["gateway"]["paired_tokens"].as_array().map(Vec::len), Some(1), "one token");
    let (_, events) = service.get(&format!("/api/agents/{id}/events?limit=200")).await;
    assert!(!events.to_string().contains("\"pairing-"), "{events:#}");
}

pub(crate) async fn a_crash_loop_ends_in_error_with_reason_count_and_next_attempt(world: &World) {
    let place = Place::new(world, host()).await;
    let service = place.serve_with(&[("ZEROONE_RESTART__BASE_DELAY_MS", "10"), ("ZEROONE_RESTART__MAX_RESTARTS", "3")]);
    let (id, container) = running(&service, &place).await;
    let agent = until("it is given up", async || {
        kill(world, &container).await;
        let (_, agent) = service.get(&format!("/api/agents/{id}")).await;
        (agent["status"] == "ERROR").then_some(agent)
    })
    .await;
    assert_eq!(agent["statusReason"]["code"], "crash-loop", "{agent}");
    assert!(agent["nextAttemptAt"].is_string() && agent["restarts"].as_u64() >= Some(1), "{agent}");
    // The engine's own policy must not bring it back behind our back.
    let answer = service.request(Method::POST, &format!("/api/agents/{id}/start")).send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
    talk(&service, &id).await;
}
