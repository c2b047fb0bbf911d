//! Another version for an agent, and an agent's data in another version: real gateways, real containers.

use std::collections::{BTreeSet, HashMap};

use bollard::models::{ContainerConfig, ContainerCreateBody};
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, CreateContainerOptions, ListContainersOptionsBuilder, RemoveImageOptionsBuilder,
    TagImageOptionsBuilder,
};
use zeroone::control::{AgentHandle, AgentPatch, CommandOutcome, NewAgent};
use zeroone::domain::{Channels, Credentials, MemoryBackend, Secret, Slug, StagedFile, Telegram};
use zeroone::testkit;
use zeroone::zeroclaw::bundle;
use zeroone::zeroclaw::client::{Gateway, HttpGateway};
use zeroone::zeroclaw::memory::MemoryEntry;

use crate::own_engine::OwnEngine;
use crate::real::{IMAGE, IMAGES, NATIVE};
use crate::service::{PATIENCE, Service, causes};
use crate::world::{World, until};

/// What the upgrade's end says, once it is over.
async fn over(agent: &AgentHandle) -> String {
    let end = until("the end of the upgrade", async || {
        agent.view()?.record.upgrade.is_none().then_some(())?;
        let ends = ["upgraded", "rolled-back", "upgrade-refused"];
        causes(agent).await.into_iter().rev().find(|cause| ends.iter().any(|end| cause.starts_with(end)))
    })
    .await;
    eprintln!("{end} (without an answer for {:?})", down_time(agent).await);
    end
}

/// From the last stop of an upgrade to the agent's next RUNNING.
async fn down_time(agent: &AgentHandle) -> Option<std::time::Duration> {
    let timeline = agent.events(0, usize::MAX).await.unwrap();
    let began = timeline.iter().rposition(|entry| entry.cause == "upgrade-started")?;
    let back = timeline[began..].iter().find(|entry| entry.to.as_str() == "RUNNING")?;
    back.time.duration_since(timeline[began].time).try_into().ok()
}

fn version(agent: &AgentHandle) -> String {
    agent.view().unwrap().record.software.as_ref().unwrap().version.clone().unwrap()
}

async fn entries(agent: &AgentHandle) -> Vec<MemoryEntry> {
    let access = agent.view().unwrap().access.clone().unwrap();
    HttpGateway::new().memory(access.endpoint, &access.token, PATIENCE).await.unwrap()
}

async fn keys(agent: &AgentHandle) -> BTreeSet<String> {
    entries(agent).await.into_iter().map(|entry| entry.key).collect()
}

async fn remember(agent: &AgentHandle, key: &str) {
    let access = agent.view().unwrap().access.clone().unwrap();
    let entry = MemoryEntry::new(key, format!("about {key}")).with_category("core");
    HttpGateway::new().remember(access.endpoint, &access.token, &entry, PATIENCE).await.unwrap();
}

/// Containers of this world that are not the agent's own.
async fn others(world: &World, agent: &AgentHandle) -> Vec<String> {
    let label = format!("zeroone.installation={}", world.options.installation);
    let filters = HashMap::from([("label", vec![label.as_str()])]);
    let all = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let found = world.docker.list_containers(Some(all)).await.unwrap();
    let own = agent.id().to_string();
    let labels = found.into_iter().map(|container| container.labels.unwrap_or_default());
    labels.filter_map(|labels| labels.get("zeroone.agent").cloned()).filter(|id| *id != own).collect()
}

/// From 0.1.7 by 0.6.9, where that is there, to 0.8.7, and all the way back: what is remembered goes along each time, what
/// was learnt in between as well, and nothing is paired again.
pub(crate) async fn memory_goes_up_through_the_versions_and_down_again(world: &World) {
    let mut service = Service::new(world).await;
    for memory in [MemoryBackend::Sqlite, MemoryBackend::Markdown] {
        let agent = service.remembering(memory).await;
        service.talk(&agent).await;
        remember(&agent, "first").await;
        let (mut known, paired) = (keys(&agent).await, service.pairings());
        assert!(known.len() >= 2, "{known:?}");
        assert_eq!(agent.upgrade(Some(IMAGE)).await.unwrap(), CommandOutcome::Unchanged);
        let mut there = Vec::new();
        for image in IMAGES {
            there.extend(world.docker.inspect_image(image).await.is_ok().then_some(image));
        }
        let (up, down) = (there.iter().copied().skip(1), there.iter().copied().rev().skip(1));
        for (nth, image) in up.chain(down).enumerate() {
            assert_eq!(agent.upgrade(Some(image)).await.unwrap(), CommandOutcome::Accepted);
            let end = over(&agent).await;
            assert!(end.starts_with("upgraded"), "{memory:?} {image}: {:#?}", causes(&agent).await);
            assert_eq!(format!("zeroclaw:{}", version(&agent)), image);
            let now = keys(&agent).await;
            assert!(known.is_subset(&now), "{image}: {known:?} in {now:?}");
            service.talk(&agent).await;
            remember(&agent, &format!("learnt-{nth}")).await;
            known = keys(&agent).await;
            assert_eq!(service.pairings(), paired, "its token is kept");
            assert_eq!(service.container(&agent).await.config.unwrap().image.as_deref(), Some(image));
            assert_eq!(others(world, &agent).await, Vec::<String>::new());
        }
        agent.delete().await.unwrap();
        assert!(agent.gone(PATIENCE).await);
    }
}

pub(crate) async fn rehearsal_catches_bad_images_and_the_agent_notices_nothing(world: &World) {
    let mut service = Service::new(world).await;
    let agent = service.remembering(MemoryBackend::Sqlite).await;
    service.talk(&agent).await;
    let (container, known, paired) = (service.container_id(&agent).await, keys(&agent).await, service.pairings());
    for (kind, reason) in [
        ("ends", "it ended with exit code 3, and its last output was: cannot read what an older version wrote"),
        ("no-provider", "Add a model provider."),
        ("unpaired", "refused the token"),
        ("forgetful", "entries of memory it finds 0"),
        ("mute", "a message that the present version answers failed: the model failed"),
    ] {
        let image = BadImage::new(world, kind).await;
        agent.upgrade(Some(&image.name)).await.unwrap();
        let end = over(&agent).await;
        assert!(end.starts_with("upgrade-refused") && end.contains(reason), "{kind}: {end}");
        assert_eq!(service.container_id(&agent).await, container, "{kind}");
        assert_eq!(others(world, &agent).await, Vec::<String>::new(), "{kind}");
        image.remove(world).await;
    }
    assert_eq!((keys(&agent).await, service.pairings()), (known, paired));
    assert!(causes(&agent).await.iter().all(|cause| !cause.starts_with("health")), "{:#?}", causes(&agent).await);
    service.talk(&agent).await;
}

/// On an engine whose disk has no room for a copy of the agent's data.
pub(crate) async fn rehearsal_without_room_is_refused_and_the_agent_notices_nothing(world: &World) {
    const NOTES: usize = 24 << 20;
    let engine = OwnEngine::with_room(world, "1g").await;
    let world = engine.world();
    let mut service = Service::new(&world).await;
    let agent = service.remembering(MemoryBackend::Sqlite).await;
    service.talk(&agent).await;
    let own = StagedFile {
        path: ".zeroclaw/agents/default/workspace/large.bin".into(),
        content: Secret::new(vec![7; NOTES]),
        mode: 0o644,
    };
    service.write(&agent, own).await;
    let (container, known, paired) = (service.container_id(&agent).await, keys(&agent).await, service.pairings());
    let again = TagImageOptionsBuilder::default().repo("zeroclaw-again").tag("0.8.7").build();
    world.docker.tag_image(NATIVE, Some(again)).await.unwrap();
    engine.fill_up_to((NOTES / 2) as u64);
    agent.upgrade(Some("zeroclaw-again:0.8.7")).await.unwrap();
    let end = over(&agent).await;
    assert!(end.starts_with("upgrade-refused") && end.contains("no space left on device"), "{end}");
    assert_eq!(service.container_id(&agent).await, container);
    assert_eq!(others(&world, &agent).await, Vec::<String>::new());
    assert_eq!((keys(&agent).await, service.pairings()), (known, paired));
    service.talk(&agent).await;
}

/// Its gateway passes the rehearsal; its daemon, which an agent with channels needs, ends at once.
pub(crate) async fn version_that_fails_in_place_is_taken_back_with_its_memory(world: &World) {
    let mut service = Service::new(world).await;
    let agent = service.remembering(MemoryBackend::Sqlite).await;
    let telegram = Telegram::new("1:planted");
    let channels = Channels::default().with_telegram(telegram);
    agent.update(AgentPatch::default().with_channels(channels)).await.unwrap();
    service.runs(&agent).await;
    service.talk(&agent).await;
    let (known, paired) = (keys(&agent).await, service.pairings());
    let image = BadImage::new(world, "fickle").await;
    agent.upgrade(Some(&image.name)).await.unwrap();
    let end = over(&agent).await;
    assert!(end.starts_with("rolled-back") && end.contains("exit code 3"), "{:#?}", causes(&agent).await);
    assert_eq!(version(&agent), "0.8.7");
    assert_eq!((keys(&agent).await, service.pairings()), (known, paired));
    service.talk(&agent).await;
    image.remove(world).await;
}

/// An export of 0.8.7 becomes an agent of 0.1.7 and that one's an agent of 0.8.7, each with what was remembered.
pub(crate) async fn export_is_brought_in_by_another_version(world: &World) {
    let mut service = Service::with_image(world, NATIVE).await;
    let agent = service.remembering(MemoryBackend::Sqlite).await;
    service.talk(&agent).await;
    remember(&agent, "first").await;
    let known = keys(&agent).await;
    service.write(&agent, crate::world::file(".zeroclaw/agents/default/workspace/notes.txt", "mine", 0o644)).await;
    let archive = agent.export().await.unwrap().to_tar().unwrap();
    let planted = testkit::API_KEY.as_bytes();
    assert!(!archive.windows(planted.len()).any(|window| window == planted));

    service.reopen_with(IMAGE).await;
    let down = brought_in(&service, &archive).await;
    assert_eq!(version(&down), "0.1.7");
    assert!(known.is_subset(&keys(&down).await), "{known:?} in {:?}", keys(&down).await);
    assert_eq!(service.read(&down, "workspace/notes.txt").await.as_deref(), Some("mine"));
    service.talk(&down).await;
    remember(&down, "second").await;

    let known = keys(&down).await;
    let archive = down.export().await.unwrap().to_tar().unwrap();
    service.reopen_with(NATIVE).await;
    let up = brought_in(&service, &archive).await;
    assert_eq!(version(&up), "0.8.7");
    assert!(known.is_subset(&keys(&up).await));
    let notes = ".zeroclaw/agents/default/workspace/notes.txt";
    assert_eq!(service.read(&up, notes).await.as_deref(), Some("mine"));
    service.talk(&up).await;
}

async fn brought_in(service: &Service<'_>, archive: &[u8]) -> AgentHandle {
    let bundle = bundle::read(archive).unwrap();
    let credentials = Credentials::default().with_api_key(testkit::API_KEY);
    let new = NewAgent::new(bundle.about.agent.clone(), credentials);
    let slug = Some(Slug::parse(&format!("t-{}", new.id)).unwrap());
    let agent = service.plane.import_agent(service.user, new.with_slug(slug), &bundle).await.unwrap();
    service.runs(&agent).await;
    agent
}

/// An image that says of itself to be ZeroClaw 0.8.7 and is not.
struct BadImage {
    name: String,
}

impl BadImage {
    async fn new(world: &World, kind: &str) -> Self {
        let (repo, tag) = ("zeroone-bad", format!("{}-{kind}", world.options.installation));
        let made = ContainerCreateBody {
            image: Some(world.options.image.clone()),
            labels: Some(HashMap::from([crate::containers::test_label(world)])),
            ..ContainerCreateBody::default()
        };
        let made = world.docker.create_container(None::<CreateContainerOptions>, made).await.unwrap().id;
        let labels = [("org.opencontainers.image.version", "0.8.7"), ("zeroone.profile", "0.8")];
        let config = ContainerConfig {
            entrypoint: Some(["/standin", crate::standin::WORD, "bad", kind].map(Into::into).into()),
            labels: Some(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
            ..ContainerConfig::default()
        };
        let options = CommitContainerOptionsBuilder::default().container(&made).repo(repo).tag(&tag).build();
        world.docker.commit_container(options, config).await.unwrap();
        Self { name: format!("{repo}:{tag}") }
    }

    async fn remove(&self, world: &World) {
        let options = RemoveImageOptionsBuilder::default().force(true).build();
        let _ = world.docker.remove_image(&self.name, Some(options), None).await;
    }
}
