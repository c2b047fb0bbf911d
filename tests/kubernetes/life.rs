//! What users ask of an agent in a cluster, from its creation to its removal, by REST and with the real ZeroClaw.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::{Cluster, ZEROCLAW, ZEROONE};
use crate::model::{ANSWER, Model};
use crate::serve::{Service, command};
use crate::world::{World, until};

/// The program as a process of this machine, with its agents in the test's namespace.
pub(crate) struct Zeroone {
    data: TempDir,
    env: Vec<(&'static str, String)>,
    pub(crate) service: Service,
    pub(crate) model: Model,
}

impl Zeroone {
    pub(crate) async fn start(world: &World, image: &str) -> Self {
        Self::start_with(world, image, &[]).await
    }

    /// With these settings besides, or in place of the usual ones.
    pub(crate) async fn start_with(world: &World, image: &str, settings: &[(&'static str, &str)]) -> Self {
        let data = TempDir::new().unwrap();
        let mut env = vec![
            ("ZEROONE_KUBERNETES__KUBECONFIG", Cluster::kubeconfig().to_str().unwrap().to_owned()),
            ("ZEROONE_KUBERNETES__NAMESPACE", world.namespace.clone()),
            ("ZEROONE_KUBERNETES__IMAGE", image.to_owned()),
            ("ZEROONE_KUBERNETES__STAGE_IMAGE", ZEROONE.to_owned()),
            ("ZEROONE_KUBERNETES__REACH", "pod".to_owned()),
            ("ZEROONE_HEALTH__INTERVAL_SECS", "1".to_owned()),
            ("ZEROONE_START__START_SECS", "60".to_owned()),
        ];
        env.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let service = spawn(data.path(), &env);
        Self { data, env, service, model: Model::start().await }
    }

    /// Ends it as `kill -9` does, and starts it again.
    pub(crate) fn kill_and_start(&mut self) {
        let fresh = {
            signal_kill(self.service.pid());
            spawn(self.data.path(), &self.env)
        };
        self.service = fresh;
    }

    /// What another one says that is started with a copy of its data beside it.
    pub(crate) fn second(&self) -> String {
        let beside = TempDir::new().unwrap();
        let data = beside.path().join("data");
        let copied = std::process::Command::new("cp").arg("-a").arg(self.data.path()).arg(&data).status();
        assert!(copied.unwrap().success());
        let mut command = command(&data, "kubernetes");
        command.envs(self.env.iter().map(|(name, value)| (name, value.as_str())));
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    pub(crate) async fn export(&self, id: &str) -> Vec<u8> {
        let answer =
            self.service.request(reqwest::Method::GET, &format!("/api/agents/{id}/export")).send().await.unwrap();
        let (status, bundle) = (answer.status(), answer.bytes().await.unwrap());
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&bundle));
        bundle.to_vec()
    }

    pub(crate) async fn delete(&self, id: &str) {
        let path = format!("/api/agents/{id}");
        let answer = self.service.request(reqwest::Method::DELETE, &path).send().await.unwrap();
        assert!(answer.status().is_success());
    }

    pub(crate) async fn create(&self) -> String {
        let body = json!({ "name": "Ada", "provider": "openai", "model": "m", "apiKey": "sk-test",
            "providerUrl": self.model.url });
        let (status, agent) = self.service.post("/api/agents", &body).await;
        assert_eq!(status, 202, "{agent}");
        agent["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn agent(&self, id: &str) -> Value {
        self.service.get(&format!("/api/agents/{id}")).await.1
    }

    pub(crate) async fn becomes(&self, id: &str, status: &str) -> Value {
        let mut last = Value::Null;
        let found = tokio::time::timeout(crate::world::PATIENCE, async {
            loop {
                last = self.agent(id).await;
                if last["status"] == status {
                    return last.clone();
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        })
        .await;
        match found {
            Ok(agent) => agent,
            Err(_) => {
                panic!("never {status}: {last:#}\n{:#}", self.service.get(&format!("/api/agents/{id}/events")).await.1)
            }
        }
    }

    pub(crate) async fn running(&self) -> String {
        let id = self.create().await;
        self.becomes(&id, "RUNNING").await;
        id
    }

    pub(crate) async fn tell(&self, id: &str, what: &str) {
        let (status, answer) = self.service.post(&format!("/api/agents/{id}/{what}"), &json!({})).await;
        assert!(status < 300, "{what}: {status} {answer}");
    }

    pub(crate) async fn talk(&self, id: &str) {
        let (status, answer) =
            self.service.post(&format!("/api/agents/{id}/message"), &json!({ "message": "hi" })).await;
        assert_eq!((status, answer["response"].as_str()), (200, Some(ANSWER)), "{answer}");
    }
}

fn spawn(data: &Path, env: &[(&'static str, String)]) -> Service {
    let mut command = command(data, "kubernetes");
    command.envs(env.iter().map(|(name, value)| (name, value.as_str())));
    Service::spawn(command, data)
}

fn signal_kill(pid: u32) {
    crate::serve::signal(i32::try_from(pid).unwrap(), 9);
}

pub(crate) fn pod_of(id: &str) -> String {
    format!("zc-{}", id.replace('-', ""))
}

pub(crate) async fn from_creation_to_removal(world: &World) {
    life(world, ZEROCLAW[0]).await;
}

pub(crate) async fn of_an_older_zeroclaw(world: &World) {
    life(world, ZEROCLAW[1]).await;
}

async fn life(world: &World, image: &str) {
    let zeroone = Zeroone::start(world, image).await;
    let id = zeroone.create().await;
    let agent = zeroone.becomes(&id, "RUNNING").await;
    assert_eq!(agent["containerPort"], Value::Null);
    zeroone.talk(&id).await;

    let patch = zeroone.service.request(reqwest::Method::PATCH, &format!("/api/agents/{id}"));
    let patched = patch.json(&json!({ "model": "other" })).send().await.unwrap();
    assert!(patched.status().is_success(), "{}", patched.text().await.unwrap());
    zeroone.becomes(&id, "RUNNING").await;
    zeroone.talk(&id).await;

    zeroone.tell(&id, "restart").await;
    zeroone.becomes(&id, "RUNNING").await;
    zeroone.talk(&id).await;

    zeroone.tell(&id, "stop").await;
    zeroone.becomes(&id, "STOPPED").await;
    assert_eq!(world.names("pods"), Vec::<String>::new());
    zeroone.tell(&id, "start").await;
    zeroone.becomes(&id, "RUNNING").await;
    zeroone.talk(&id).await;

    let gone = zeroone.service.request(reqwest::Method::DELETE, &format!("/api/agents/{id}")).send().await.unwrap();
    assert!(gone.status().is_success());
    until("nothing is left", async || world.left().is_empty().then_some(())).await;
}

/// The exit of a run, its log, and the one after it.
pub(crate) async fn changes_of_one_run_wake_and_are_told(world: &World) {
    let zeroone = Zeroone::start(world, ZEROCLAW[0]).await;
    let id = zeroone.running().await;
    let (status, log) = zeroone.service.get(&format!("/api/agents/{id}/logs")).await;
    assert_eq!(status, 200, "{log}");
    let (status, stats) = zeroone.service.get(&format!("/api/agents/{id}/stats")).await;
    // This cluster measures nothing, and says so.
    assert!(status != 200 && stats["detail"].as_str().is_some_and(|why| why.contains("metrics")), "{status} {stats}");
}

/// What an agent has goes out of its volume while it runs and while it does not, and into the volume of another one.
pub(crate) async fn data_is_exported_copied_and_imported(world: &World) {
    let mut zeroone = Zeroone::start(world, ZEROCLAW[0]).await;
    let id = zeroone.running().await;
    zeroone.talk(&id).await;
    let workspace = world.volume(&pod_of(&id)).join(".zeroclaw/agents/default/workspace");
    std::fs::write(workspace.join("mine.md"), "mine").unwrap();
    let bundle = zeroone.export(&id).await;
    for name in ["memory/brain.db", "workspace/mine.md"] {
        assert!(names_in(&bundle).iter().any(|found| found == name), "{:?}", names_in(&bundle));
    }

    // What it leaves behind, killed now, ends by itself and is removed by whoever comes after it.
    zeroone.kill_and_start();
    zeroone.becomes(&id, "RUNNING").await;
    let (status, copy) = zeroone.service.post(&format!("/api/agents/{id}/clone"), &json!({ "name": "Copy" })).await;
    assert_eq!(status, 202, "{copy}");
    let copy = copy["id"].as_str().unwrap().to_owned();
    zeroone.becomes(&copy, "RUNNING").await;
    zeroone.talk(&copy).await;
    zeroone.tell(&copy, "stop").await;
    zeroone.becomes(&copy, "STOPPED").await;
    let bundle = zeroone.export(&copy).await;
    assert!(names_in(&bundle).iter().any(|name| name == "workspace/mine.md"), "{:?}", names_in(&bundle));

    // And into one that was not there, with the key of its model beside the archive.
    let request = zeroone.service.request(reqwest::Method::POST, "/api/agents/import?name=Import");
    let request = request.header("content-type", "application/x-tar").header("x-model-api-key", "sk-test");
    let answer = request.body(bundle).send().await.unwrap();
    let (status, import) = (answer.status(), answer.json::<Value>().await.unwrap());
    assert_eq!(status, 202, "{import}");
    let import = import["id"].as_str().unwrap().to_owned();
    zeroone.becomes(&import, "RUNNING").await;
    zeroone.talk(&import).await;
    let imported = world.volume(&pod_of(&import)).join(".zeroclaw/agents/default/workspace/mine.md");
    assert_eq!(std::fs::read_to_string(imported).unwrap(), "mine");
    zeroone.delete(&import).await;

    until("nothing is left of what reached the data", async || (world.names("pods") == [pod_of(&id)]).then_some(()))
        .await;
    zeroone.delete(&id).await;
    zeroone.delete(&copy).await;
    until("nothing is left", async || world.left().is_empty().then_some(())).await;
}

/// The other version is tried on a copy first, and takes what the agent knows along.
pub(crate) async fn an_upgrade_is_rehearsed_and_done(world: &World) {
    let zeroone = Zeroone::start(world, ZEROCLAW[1]).await;
    let id = zeroone.running().await;
    zeroone.talk(&id).await;
    let image = json!({ "image": ZEROCLAW[0] });
    let (status, answer) = zeroone.service.post(&format!("/api/agents/{id}/upgrade"), &image).await;
    assert_eq!(status, 202, "{answer}");
    let end = until("the upgrade ends", async || {
        let events = zeroone.service.get(&format!("/api/agents/{id}/events")).await.1.to_string();
        ["\"upgraded\"", "rolled-back", "upgrade-refused"].into_iter().any(|end| events.contains(end)).then_some(events)
    })
    .await;
    assert!(end.contains("\"upgraded\""), "{end}");
    zeroone.becomes(&id, "RUNNING").await;
    zeroone.talk(&id).await;
    assert!(world.volume(&pod_of(&id)).join(".zeroclaw/data/memory/brain.db").exists());
    zeroone.delete(&id).await;
    until("nothing is left", async || world.left().is_empty().then_some(())).await;
}

fn names_in(bundle: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(bundle);
    let names = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names
}

/// As a developer's machine reaches a cluster: through the API server alone.
pub(crate) async fn from_outside_by_forwarded_ports(world: &World) {
    let zeroone = Zeroone::start_with(world, ZEROCLAW[0], &[("ZEROONE_KUBERNETES__REACH", "port-forward")]).await;
    let id = zeroone.running().await;
    zeroone.talk(&id).await;
    assert!(!zeroone.export(&id).await.is_empty());
    zeroone.tell(&id, "restart").await;
    zeroone.becomes(&id, "RUNNING").await;
    zeroone.talk(&id).await;
}

pub(crate) async fn a_model_on_the_loopback_is_refused(world: &World) {
    let zeroone = Zeroone::start(world, ZEROCLAW[0]).await;
    let agent = |provider: &str, url: Option<&str>| json!({ "name": "Ada", "provider": provider, "model": "m", "apiKey": "sk-test", "providerUrl": url });
    for (provider, url) in
        [("openai", Some("http://localhost:8080/v1")), ("ollama", Some("http://127.0.0.1:11434")), ("ollama", None)]
    {
        let (status, problem) = zeroone.service.post("/api/agents", &agent(provider, url)).await;
        assert_eq!(status, 422, "{problem}");
        assert!(problem.to_string().contains("Service of the cluster"), "{problem}");
    }
    assert_eq!(world.left(), Vec::<String>::new());
}
