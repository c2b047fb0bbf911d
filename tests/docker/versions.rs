//! What is particular to a version of the real ZeroClaw, and what happens between two of them.

use std::collections::BTreeSet;
use std::time::Duration;

use bollard::exec::StartExecResults;
use bollard::models::ExecConfig;
use bollard::query_parameters::{
    DownloadFromContainerOptionsBuilder, RemoveImageOptionsBuilder, RestartContainerOptionsBuilder,
    TagImageOptionsBuilder,
};
use futures_util::TryStreamExt;
use zeroone::control::{AgentHandle, AgentPatch};
use zeroone::domain::{
    AgentSpec, Channels, Credentials, Discord, MemoryBackend, Profile, Provider, Secret, Status, Telegram,
};
use zeroone::internal::store::{Batch, commit};
use zeroone::runtime::{ContainerRuntime, InstanceKey};
use zeroone::view::AgentView;
use zeroone::zeroclaw::client::{Gateway, HttpGateway, Pairing, WebhookCall};
use zeroone::zeroclaw::workspace::{Staging, files, token_hash};

use crate::real::{IMAGE, NATIVE};
use crate::service::{PATIENCE, Service, causes, container_name, restarts};
use crate::world::{World, file, spec, until};

const CONFIG: &str = ".zeroclaw/config.toml";

async fn restart(service: &Service<'_>, agent: &AgentHandle) {
    let options = RestartContainerOptionsBuilder::default().t(5).build();
    service.world.docker.restart_container(&container_name(agent), Some(options)).await.unwrap();
}

/// All files of an agent's data, one after the other.
async fn volume(service: &Service<'_>, agent: &AgentHandle) -> Vec<u8> {
    let options = DownloadFromContainerOptionsBuilder::default().path("/zeroclaw-data").build();
    let chunks = service.world.docker.download_from_container(&container_name(agent), Some(options));
    chunks.try_fold(Vec::new(), |all, chunk| async move { Ok([all, chunk.to_vec()].concat()) }).await.unwrap()
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

/// What an installation from before the native configuration left behind: healthy, and 503 for every message.
pub(crate) async fn configuration_of_an_older_schema_is_replaced_and_memory_kept(world: &World) {
    let mut service = Service::new(world).await;
    let agent = service.running().await;
    service.talk(&agent).await;
    let memory = service.read(&agent, ".zeroclaw/data/memory/brain.db-wal").await.is_some();
    let native: toml::Table = service.read(&agent, CONFIG).await.unwrap().parse().unwrap();
    let tokens = native["gateway"]["paired_tokens"].clone();
    let mut old = toml::toml! {
        schema_version = 3
        default_provider = "openrouter"
        default_model = "m-1"
        [gateway]
        host = "0.0.0.0"
        port = 42617
        allow_public_bind = true
        require_pairing = true
    };
    old["gateway"].as_table_mut().unwrap().insert("paired_tokens".into(), tokens);
    service.write(&agent, file(CONFIG, &old.to_string(), 0o600)).await;
    let paired = service.pairings();
    restart(&service, &agent).await;
    until("that it is found unusable", async || {
        causes(&agent).await.iter().any(|cause| cause.starts_with("unusable")).then_some(())
    })
    .await;
    service.runs(&agent).await;
    service.talk(&agent).await;
    assert_eq!(service.pairings(), paired, "its token is kept");
    assert!(!memory || service.read(&agent, ".zeroclaw/data/memory/brain.db-wal").await.is_some());
    let config = service.read(&agent, CONFIG).await.unwrap();
    assert!(config.contains("[providers.models.custom.default]"), "{config}");
}

/// An agent that zeroone deployed on 0.8.7 before it had a profile for it: the configuration of 0.1, which the version itself
/// spoils at a pairing. Made here as it was made then: by its files, its environment and a real pairing.
pub(crate) async fn installation_from_before_the_profile_is_healed_at_its_first_start(world: &World) {
    let mut service = Service::new(world).await;
    let agent = service.remembering(MemoryBackend::Sqlite).await;
    service.talk(&agent).await;
    let (known, paired, id) = (keys(&agent).await, service.pairings(), agent.id());
    assert!(!known.is_empty());
    let (view, credentials) = (agent.view().unwrap(), agent.credentials().unwrap());
    service
        .reopen(async |store| {
            spoil(world, &view, &credentials).await;
            // Records of that time did not say what an agent runs.
            let mut record = store.agent(id).await.unwrap().unwrap().record;
            record.software = None;
            record.state.revision += 1;
            commit(store, Batch::update_agent(&record, None)).await.unwrap();
        })
        .await;
    let agent = service.plane.agent(id).unwrap();
    until("that it is healed", async || {
        let config = service.read(&agent, CONFIG).await?;
        config.contains("[providers.models.custom.default]").then_some(())
    })
    .await;
    service.runs(&agent).await;
    service.talk(&agent).await;
    assert!(keys(&agent).await.is_superset(&known), "{:?}", keys(&agent).await);
    assert_eq!(service.pairings(), paired, "its token is kept: {:#?}", causes(&agent).await);
    assert_eq!(agent.view().unwrap().record.software.as_ref().unwrap().version.as_deref(), Some("0.8.7"));
}

async fn keys(agent: &AgentHandle) -> BTreeSet<String> {
    let access = agent.view().unwrap().access.clone().unwrap();
    let entries = HttpGateway::new().memory(access.endpoint, &access.token, PATIENCE).await.unwrap();
    entries.into_iter().map(|entry| entry.key).collect()
}

/// Puts a container with 0.1's configuration on the agent's data, and pairs once more with it.
async fn spoil(world: &World, view: &AgentView, credentials: &Credentials) {
    let (record, token) = (&view.record, &view.access.as_ref().unwrap().token);
    let runtime = world.with(|options| options.image = NATIVE.into());
    let (host, hash) = (runtime.caps().host.unwrap(), token_hash(token));
    let staging = Staging::new(host, 120).with_token_hash(hash.as_str());
    let key = InstanceKey { agent: record.id, slug: record.slug.clone() };
    let old = spec(&[])
        .with_key(key.clone())
        .with_command(Profile::V01.command(credentials))
        .with_env(Profile::V01.env(&record.spec, credentials, host, 120))
        .with_files(files(Profile::V01, &record.spec, credentials, &staging))
        .with_port(view.port);
    runtime.kill(&key).await.unwrap();
    runtime.ensure_created(&old).await.unwrap();
    let gateway = HttpGateway::new();
    let ask = async || {
        let run = zeroone::testkit::conformance::started(&runtime, &key).await;
        until("health", async || {
            gateway.health(run.endpoint, PATIENCE).await.is_ok_and(|it| it.healthy()).then_some(())
        })
        .await;
        let call = WebhookCall::new(r#"{"message":"hi"}"#);
        (run.endpoint, gateway.webhook(run.endpoint, token, call, PATIENCE).await.unwrap())
    };
    let (endpoint, answer) = ask().await;
    assert_eq!(answer.status, 200, "as long as nothing is saved: {answer:?}");
    let code = Secret::new(another_code(world, &format!("zeroclaw-{}", key.slug)).await);
    assert!(matches!(gateway.pair(endpoint, &code, PATIENCE).await.unwrap(), Pairing::Paired { .. }));
    runtime.stop(&key, Duration::from_secs(5)).await.unwrap();
    let (_, answer) = ask().await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(String::from_utf8_lossy(&answer.body).contains("needs_quickstart"));
    let config = world.read(&format!("zeroclaw-{}", key.slug), CONFIG).await.unwrap();
    let config: toml::Table = String::from_utf8(config).unwrap().parse().unwrap();
    assert_eq!(config["schema_version"].as_integer(), Some(3), "beside {:?}", config["default_provider"]);
}

/// A code for one more device, which the gateway gives within its container.
async fn another_code(world: &World, container: &str) -> String {
    let cmd = ["zeroclaw", "gateway", "get-paircode", "--new"].map(Into::into).into();
    let config = ExecConfig { cmd: Some(cmd), attach_stdout: Some(true), ..ExecConfig::default() };
    let exec = world.docker.create_exec(container, config).await.unwrap().id;
    let StartExecResults::Attached { output, .. } = world.docker.start_exec(&exec, None).await.unwrap() else {
        panic!("it has output")
    };
    let said: Vec<_> = output.try_collect().await.unwrap();
    let said = said.into_iter().map(|part| part.to_string()).collect::<String>();
    let code = said.split("X-Pairing-Code: ").nth(1).and_then(|rest| rest.split_whitespace().next());
    code.unwrap_or_else(|| panic!("{said}")).to_owned()
}

pub(crate) async fn each_setting_reaches_the_model_or_the_gateway(world: &World) {
    let mut service = Service::new(world).await;
    let agent = service.running().await;
    let base = AgentSpec::clone(&agent.view().unwrap().record.spec);
    service.talk(&agent).await;

    let mut spec = base.clone();
    spec.model = "m-2".into();
    spec.temperature = Some(0.25);
    spec.provider = Provider::Groq;
    spec.agent_name = "Robo".into();
    spec.communication_style = Some("In rhymes.".into());
    spec.user_name = Some("Grace".into());
    agent.update(AgentPatch::default().with_spec(spec.clone()).with_api_key(Secret::from("sk-changed"))).await.unwrap();
    service.runs(&agent).await;
    let question = service.talk(&agent).await;
    for part in ["\"m-2\"", "0.25", "sk-changed", "- Name: Robo", "In rhymes.", "- Name: Grace"] {
        assert!(question.contains(part), "{part} is not in {question}");
    }

    for backend in [MemoryBackend::Markdown, MemoryBackend::None, MemoryBackend::Sqlite] {
        let mut spec = spec.clone();
        (spec.memory_backend, spec.auto_save) = (backend, false);
        agent.update(AgentPatch::default().with_spec(spec)).await.unwrap();
        service.runs(&agent).await;
        service.talk(&agent).await;
        let config: toml::Table = service.read(&agent, CONFIG).await.unwrap().parse().unwrap();
        assert_eq!(config["memory"]["backend"].as_str(), Some(backend.as_str()));
        assert_eq!(config["memory"]["auto_save"].as_bool(), Some(false));
    }
    assert_eq!(restarts(&agent), 0, "each change is a restart on purpose");
}

pub(crate) async fn no_secret_is_on_the_volume_or_in_a_label(world: &World) {
    let mut service = Service::new(world).await;
    let agent = service.running().await;
    let channels = Channels::default()
        .with_telegram(Telegram::new("1:planted-telegram"))
        .with_discord(Discord::new("planted-discord"));
    let api_key = Secret::from("sk-planted-key");
    agent.update(AgentPatch::default().with_api_key(api_key).with_channels(channels)).await.unwrap();
    service.runs(&agent).await;
    service.talk(&agent).await;
    agent.restart().await.unwrap();
    service.runs(&agent).await;
    service.talk(&agent).await;
    let files = volume(&service, &agent).await;
    assert!(contains(&files, "[channels.telegram.default]"), "the channels are configured");
    let shown = service.container(&agent).await.config.unwrap();
    let labels = format!("{:?}", shown.labels);
    for secret in ["sk-planted-key", "planted-telegram", "planted-discord"] {
        assert!(!contains(&files, secret), "{secret} is on the volume");
        assert!(!labels.contains(secret), "{secret} is in a label");
    }
}

/// A name such as `latest` is moved from 0.1 to 0.8: agents keep what they run, new ones get the new version.
pub(crate) async fn a_moved_tag_changes_no_agent(world: &World) {
    let tag = world.options.installation.to_string();
    let name: &'static str = format!("zeroclaw-moved:{tag}").leak();
    let point = async |to: &str| {
        let options = TagImageOptionsBuilder::default().repo("zeroclaw-moved").tag(&tag).build();
        world.docker.tag_image(to, Some(options)).await.unwrap();
    };
    point(IMAGE).await;
    let mut service = Service::with_image(world, name).await;
    let old = service.running().await;
    service.talk(&old).await;
    let image = service.container(&old).await.image;

    point(NATIVE).await;
    restart(&service, &old).await;
    until("that it was missed", async || (restarts(&old) > 0).then_some(())).await;
    service.runs(&old).await;
    service.talk(&old).await;
    // Even where it has to be made again.
    let mut spec = AgentSpec::clone(&old.view().unwrap().record.spec);
    spec.model = "m-2".into();
    old.update(AgentPatch::default().with_spec(spec)).await.unwrap();
    old.wait(&[Status::Running], PATIENCE).await.unwrap();
    assert!(service.talk(&old).await.contains("\"m-2\""));
    assert_eq!(service.container(&old).await.image, image);

    let new = service.running().await;
    service.talk(&new).await;
    assert_ne!(service.container(&new).await.image, image);
    let version = |agent: &AgentHandle| agent.view().unwrap().record.software.as_ref().unwrap().version.clone();
    assert_eq!((version(&old).as_deref(), version(&new).as_deref()), (Some("0.1.7"), Some("0.8.7")));

    // The name alone: the content has others.
    let options = RemoveImageOptionsBuilder::default().force(true).noprune(true).build();
    let _ = world.docker.remove_image(name, Some(options), None).await;
}
