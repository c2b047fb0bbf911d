//! The real ZeroClaw in its container, driven by the files, profile and calls that the control plane uses.

use std::time::Duration;

use bollard::query_parameters::InspectContainerOptions;
use zeroone::domain::{AgentSpec, Channels, Credentials, Provider, Secret, Telegram};
use zeroone::runtime::docker::DockerRuntime;
use zeroone::runtime::{ContainerRuntime, ImageChoice, InstanceKey, InstanceSpec, LogQuery, Run, StagedFile};
use zeroone::testkit::conformance::started;
use zeroone::zeroclaw::client::{Gateway, HttpGateway, Pairing, WebhookCall};
use zeroone::zeroclaw::pairing::{Announcement, CodeScanner};
use zeroone::zeroclaw::profile::Profile;
use zeroone::zeroclaw::workspace::{self, Staging};

use crate::model::{self, Model};
use crate::world::{World, until};

/// Made by `scripts/zeroclaw-image 0.1.7`.
pub(crate) const IMAGE: &str = "zeroclaw:0.1.7";

/// The same for 0.8.7.
pub(crate) const NATIVE: &str = "zeroclaw:0.8.7";

/// One image for each family of versions.
pub(crate) const IMAGES: [&str; 3] = [IMAGE, "zeroclaw:0.6.9", NATIVE];

const CALL: Duration = Duration::from_secs(5);

/// How long the gateway may take for a message.
const ANSWER_SECS: u64 = 120;

/// One agent on the real image.
struct Agent {
    runtime: DockerRuntime,
    profile: Profile,
    spec: AgentSpec,
    credentials: Credentials,
    instance: InstanceSpec,
    gateway: HttpGateway,
}

impl Agent {
    async fn new(world: &World, spec: AgentSpec, credentials: Credentials) -> Self {
        let runtime = world.with(|options| options.image = IMAGE.into());
        let profile = crate::world::software(&runtime, ImageChoice::Default).await.unwrap().profile;
        assert_eq!(profile, Profile::V01);
        let instance = crate::world::spec(&[]).with_command(profile.command(&credentials)).with_env(profile.env(
            &spec,
            &credentials,
            runtime.caps().host.unwrap(),
            ANSWER_SECS,
        ));
        Self { runtime, profile, spec, credentials, instance, gateway: HttpGateway::new() }
    }

    async fn launch(&mut self, token: Option<&Secret<String>>) -> Run {
        let hash = token.map(workspace::token_hash);
        self.instance.files = self.files(hash.as_deref());
        self.runtime.ensure_created(&self.instance).await.unwrap();
        self.start().await
    }

    fn files(&self, token_hash: Option<&str>) -> Vec<StagedFile> {
        let staging = Staging::new(self.runtime.caps().host.unwrap(), ANSWER_SECS).with_token_hash(token_hash);
        workspace::files(self.profile, &self.spec, &self.credentials, &staging)
    }

    async fn start(&self) -> Run {
        let run = started(&self.runtime, self.key()).await;
        until("health", async || {
            let report = self.gateway.health(run.endpoint, Duration::from_secs(1)).await.ok()?;
            report.healthy().then_some(())
        })
        .await;
        run
    }

    const fn key(&self) -> &InstanceKey {
        &self.instance.key
    }

    /// What this run, and no other, says about pairing.
    async fn announcement(&self, run: &Run) -> Announcement {
        until("word about pairing", async || {
            use futures_util::StreamExt;
            let query = LogQuery::default().with_run_id(run.run_id.clone());
            let mut lines = self.runtime.logs(self.key(), query).await.unwrap();
            let mut scanner = CodeScanner::new();
            let mut latest = None;
            while let Some(line) = lines.next().await {
                latest = scanner.read(&line.unwrap().text).or(latest);
            }
            latest
        })
        .await
    }

    async fn pair(&self, run: &Run) -> Secret<String> {
        let Announcement::Code(code) = self.announcement(run).await else { panic!("it gave no code") };
        assert!(self.profile.is_code(code.expose()));
        match self.gateway.pair(run.endpoint, &code, CALL).await.unwrap() {
            Pairing::Paired { token, persisted: true } => token,
            other => panic!("{other:?}"),
        }
    }

    async fn takes(&self, run: &Run, token: &Secret<String>) -> bool {
        self.gateway.accepts_token(run.endpoint, token, CALL).await.unwrap()
    }
}

fn spec() -> AgentSpec {
    let mut spec = AgentSpec::new("test", Provider::Openai, "m\"\n[gateway]\nrequire_pairing = false");
    spec.agent_name = "Robo \"\"\"\n[gateway]\nrequire_pairing = false".into();
    spec
}

fn credentials() -> Credentials {
    Credentials::default().with_api_key("sk-test")
}

pub(crate) async fn pairs_once_and_keeps_its_token(world: &World) {
    let mut agent = Agent::new(world, spec(), credentials()).await;
    let first = agent.launch(None).await;
    let token = agent.pair(&first).await;
    assert!(agent.takes(&first, &token).await);
    assert!(!agent.takes(&first, &"zc_wrong".into()).await, "what was typed into the spec did not turn pairing off");

    // By a stop, by force, and from outside: the same token, and no new code.
    agent.runtime.stop(agent.key(), Duration::from_secs(2)).await.unwrap();
    let second = agent.start().await;
    agent.runtime.kill(agent.key()).await.unwrap();
    let third = agent.start().await;
    world.docker.restart_container(&format!("zeroclaw-{}", agent.key().slug), None).await.unwrap();
    let fourth = agent.start().await;
    crash(world, &agent).await;
    let fifth = until("the engine's restart", async || {
        let run = agent.runtime.observe(agent.key()).await.unwrap()?.run()?.clone();
        (run.run_id != fourth.run_id).then_some(run)
    })
    .await;
    agent.start().await;
    for run in [&second, &third, &fourth, &fifth] {
        assert_eq!(agent.announcement(run).await, Announcement::Active);
    }
    assert!(agent.takes(&fifth, &token).await);

    // Another container on the same data, with the held token in its files.
    agent.instance.memory_mb = 160;
    let sixth = agent.launch(Some(&token)).await;
    assert!(agent.takes(&sixth, &token).await);

    // Files without it: the old token is forgotten, a code is given.
    agent.runtime.stop(agent.key(), Duration::from_secs(2)).await.unwrap();
    agent.runtime.stage(agent.key(), &agent.files(None)).await.unwrap();
    let seventh = agent.start().await;
    assert!(!agent.takes(&seventh, &token).await);
    let renewed = agent.pair(&seventh).await;
    assert!(agent.takes(&seventh, &renewed).await);
}

/// Ends the container's first process from the host, where that is allowed, which its restart policy undoes; else has the
/// engine restart it.
async fn crash(world: &World, agent: &Agent) {
    let name = format!("zeroclaw-{}", agent.key().slug);
    let shown = world.docker.inspect_container(&name, None::<InspectContainerOptions>).await.unwrap();
    let pid = shown.state.unwrap().pid.unwrap().to_string();
    // Only what is surely the container's own: the engine may count processes elsewhere.
    let ours =
        std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|group| group.contains(&shown.id.unwrap()));
    let killed =
        ours && std::process::Command::new("kill").args(["-9", &pid]).status().is_ok_and(|kill| kill.success());
    if !killed {
        world.docker.restart_container(&name, None).await.unwrap();
    }
}

pub(crate) async fn a_known_token_needs_no_pairing(world: &World) {
    let mut agent = Agent::new(world, spec(), credentials()).await;
    let token: Secret<String> = "zc_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef".into();
    let run = agent.launch(Some(&token)).await;
    assert_eq!(agent.announcement(&run).await, Announcement::Active);
    assert!(agent.takes(&run, &token).await);
}

pub(crate) async fn answers_through_a_model_of_our_own(world: &World) {
    let mut model = Model::new(world).await;
    let mut spec = AgentSpec::new("test", Provider::Openai, "m-1");
    spec.agent_name = "Robo".into();
    spec.provider_url = Some(model.url());
    let mut agent = Agent::new(world, spec, credentials()).await;
    let run = agent.launch(None).await;
    let token = agent.pair(&run).await;
    assert_eq!(ask(&agent, &run, &token).await, model::ANSWER);
    let question = model.question().await;
    assert!(question.starts_with("POST /v1/chat/completions "), "{question}");
    assert!(question.to_ascii_lowercase().contains("authorization: bearer sk-test"), "{question}");
    assert!(question.contains("\"m-1\"") && question.contains("- Name: Robo"), "{question}");

    // A change of model, key and provider takes effect on data that has been paired.
    agent.spec.model = "m-2".into();
    agent.spec.provider = Provider::Groq;
    agent.credentials = Credentials::default().with_api_key("sk-other");
    agent.instance.env =
        agent.profile.env(&agent.spec, &agent.credentials, agent.runtime.caps().host.unwrap(), ANSWER_SECS);
    let run = agent.launch(Some(&token)).await;
    ask(&agent, &run, &token).await;
    let question = model.question().await;
    assert!(question.contains("\"m-2\"") && question.contains("sk-other"), "{question}");
}

async fn ask(agent: &Agent, run: &Run, token: &Secret<String>) -> String {
    let call = WebhookCall::new(r#"{"message":"hi"}"#);
    let answer = agent.gateway.webhook(run.endpoint, token, call, Duration::from_secs(20)).await.unwrap();
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(answer.status, 200, "{body}");
    body["response"].as_str().unwrap().to_owned()
}

pub(crate) async fn channels_run_in_its_daemon(world: &World) {
    let telegram = Telegram::new("1:not-a-token");
    let channels = Channels::default().with_telegram(telegram);
    let mut agent = Agent::new(world, spec(), credentials().with_channels(channels)).await;
    assert_eq!(agent.instance.command, ["daemon"]);
    let run = agent.launch(None).await;
    let token = agent.pair(&run).await;
    assert!(agent.takes(&run, &token).await);
    // The daemon, unlike the gateway alone, tells of its channels.
    until("the channels", async || {
        let report = agent.gateway.health(run.endpoint, CALL).await.ok()?;
        let body: serde_json::Value = serde_json::from_slice(&report.body).ok()?;
        body["runtime"]["components"].get("channels").map(drop)
    })
    .await;
}
