//! Another version for an agent: tried on a copy, put in place, proven or taken back; whatever happens in between.

use std::sync::Arc;

use zeroone::control::{Agents, ControlPlane, JobLimits, NewUser, Settings, UpgradeError};
use zeroone::domain::{Credentials, MemoryBackend, Profile, Provider, UpgradeStage};
use zeroone::runtime::ContainerRuntime;
use zeroone::store::{Store, StoreOptions};
use zeroone::testkit::{Call, FakeDisk, FakeImage, Fakes, Fault, Faults};
use zeroone::zeroclaw::client::Gateway;
use zeroone::zeroclaw::memory::MemoryEntry;

use super::*;

const OLD: &str = "zeroclaw:0.1.7";
const NEW: &str = "zeroclaw:0.8.7";
const WITHIN: Duration = Duration::from_secs(5);

async fn world(seed: u64) -> TestPlane {
    let world = testkit::plane(seed, Plan::Enterprise).await;
    world.fakes.engine().add_image(OLD, FakeImage::new(Profile::V01, "0.1.7"));
    world.fakes.engine().add_image(NEW, FakeImage::new(Profile::V08, "0.8.7"));
    world
}

/// A running agent that remembers some things.
async fn remembering(world: &TestPlane, entries: usize) -> AgentHandle {
    let mut new = new_agent("Ada");
    new.spec.memory_backend = MemoryBackend::Sqlite;
    let agent = world.plane.create_agent(world.user, new).await.unwrap();
    agent.wait(&[Status::Running], PATIENCE).await.unwrap();
    for number in 0..entries {
        remember(world, &agent, &format!("k{number}")).await;
    }
    agent
}

async fn remember(world: &TestPlane, agent: &AgentHandle, key: &str) {
    let access = agent.view().unwrap().access.clone().unwrap();
    let entry = MemoryEntry::new(key, format!("about {key}")).with_category("core");
    world.fakes.gateway().remember(access.endpoint, &access.token, &entry, WITHIN).await.unwrap();
}

async fn keys(world: &TestPlane, agent: &AgentHandle) -> BTreeSet<String> {
    let access = agent.view().unwrap().access.clone().unwrap();
    let entries = world.fakes.gateway().memory(access.endpoint, &access.token, WITHIN).await.unwrap();
    entries.into_iter().map(|entry| entry.key).collect()
}

fn image(agent: &AgentHandle) -> String {
    let view = agent.view().unwrap();
    view.record.software.as_ref().unwrap().image.as_ref().unwrap().name.clone()
}

async fn over(agent: &AgentHandle) -> LogEntry {
    until("the end of the upgrade", || agent.view().unwrap().record.upgrade.is_none()).await;
    let ends = ["upgraded", "rolled-back", "upgrade-refused"];
    timeline(agent).await.into_iter().rev().find(|entry| ends.contains(&entry.cause.as_str())).unwrap()
}

/// Nothing is left of a rehearsal.
async fn alone(world: &TestPlane, agent: &AgentHandle) {
    let owned = world.fakes.runtime().list_owned().await.unwrap();
    assert_eq!(owned.iter().map(|seen| seen.key.agent).collect::<Vec<_>>(), [agent.id()]);
    assert_eq!(world.fakes.engine().volumes(), [agent.id()]);
}

#[tokio::test(start_paused = true)]
async fn memory_goes_up_and_down_and_messages_are_held() {
    let world = world(41).await;
    let agent = remembering(&world, 3).await;
    let before = keys(&world, &agent).await;
    let pairings = world.fakes.engine().tally(agent.id()).pairings;
    assert_eq!(agent.upgrade(Some(OLD)).await.unwrap(), CommandOutcome::Unchanged);

    assert_eq!(agent.upgrade(Some(NEW)).await.unwrap(), CommandOutcome::Accepted);
    assert!(matches!(agent.upgrade(Some(NEW)).await, Err(UpgradeError::UnderWay)));
    let mut said = 0;
    while agent.view().unwrap().record.upgrade.is_some() {
        answered(&agent, "hi").await;
        said += 1;
    }
    assert!(said > 1, "messages go on");
    let end = over(&agent).await;
    assert_eq!((end.cause.as_str(), image(&agent).as_str()), ("upgraded", NEW), "{:?}", causes(&agent).await);
    assert_eq!(keys(&world, &agent).await, before);
    alone(&world, &agent).await;

    remember(&world, &agent, "learnt-later").await;
    agent.upgrade(Some(OLD)).await.unwrap();
    assert_eq!(over(&agent).await.cause, "upgraded");
    assert_eq!(image(&agent), OLD);
    let mut all = before;
    all.insert("learnt-later".into());
    assert_eq!(keys(&world, &agent).await, all, "what the newer one learnt is told to the older one");
    answered(&agent, "hi").await;
    assert!(!agent.view().unwrap().record.untold);
    assert_eq!(world.fakes.engine().tally(agent.id()).pairings, pairings, "its token is kept");
    alone(&world, &agent).await;
}

#[tokio::test(start_paused = true)]
async fn rehearsal_catches_bad_images_and_the_agent_notices_nothing() {
    let world = world(42).await;
    let engine = world.fakes.engine();
    let good = FakeImage::new(Profile::V08, "0.8.8");
    let bad = [
        ("ends", good.clone().with_exits((0, 3)), "exit code 3"),
        ("no-provider", good.clone().with_fault(GatewayFault::Unusable), "Add a model provider."),
        ("forgets", good.clone().with_forgets(true), "of 4 entries of memory it finds 0"),
        ("never-pairs", good.clone().with_fault(GatewayFault::Forgetful), "refused the token"),
        ("mute", good.clone().with_fault(GatewayFault::Fails(500)), "that the present version answers"),
        ("hangs", good.clone().with_fault(GatewayFault::Hung), "did not answer"),
    ];
    let agent = remembering(&world, 4).await;
    let before = (engine.tally(agent.id()), agent.view().unwrap().record.token.clone());
    for (name, image, _) in &bad {
        engine.add_image(name, image.clone());
    }
    for (name, _, reason) in &bad {
        agent.upgrade(Some(name)).await.unwrap();
        let end = over(&agent).await;
        let detail = end.detail.unwrap();
        assert_eq!(end.cause, "upgrade-refused", "{name}");
        assert!(detail.contains(reason) && detail.contains(name), "{name}: {detail}");
        assert!(!detail.contains(testkit::API_KEY));
        assert_eq!(status(&agent), Some(Status::Running));
        alone(&world, &agent).await;
    }
    let after = engine.tally(agent.id());
    assert_eq!((after.starts, after.creates, after.refusals), (before.0.starts, before.0.creates, before.0.refusals));
    assert_eq!((agent.view().unwrap().record.token.clone(), image(&agent).as_str()), (before.1, OLD));
    assert_eq!(keys(&world, &agent).await.len(), 4);
    answered(&agent, "hi").await;
}

/// It passes its rehearsal and fails in earnest.
#[tokio::test(start_paused = true)]
async fn version_that_fails_in_place_is_taken_back_with_its_memory() {
    let world = world(43).await;
    let fickle = FakeImage::new(Profile::V01, "0.1.8").with_exits((1, 9));
    world.fakes.engine().add_image("fickle", fickle);
    let agent = remembering(&world, 5).await;
    let (before, token) = (keys(&world, &agent).await, agent.view().unwrap().record.token.clone());
    agent.upgrade(Some("fickle")).await.unwrap();
    let held = tokio::spawn({
        let agent = agent.clone();
        async move { agent.deliver(message("held")).await.unwrap().status }
    });
    let end = over(&agent).await;
    assert_eq!(end.cause, "rolled-back", "{:?}", causes(&agent).await);
    assert!(end.detail.as_deref().unwrap().contains("exit code 9"), "{end:?}");
    assert_eq!((image(&agent).as_str(), status(&agent)), (OLD, Some(Status::Running)));
    assert_eq!((keys(&world, &agent).await, agent.view().unwrap().record.token.clone()), (before, token));
    assert_eq!(held.await.unwrap(), 200);
    alone(&world, &agent).await;
}

#[tokio::test(start_paused = true)]
async fn version_that_finds_no_memory_in_place_is_taken_back() {
    let world = world(50).await;
    let fine = FakeImage::new(Profile::V01, "0.1.8");
    world.fakes.engine().add_image("forgets-later", fine.clone());
    let agent = remembering(&world, 5).await;
    let before = keys(&world, &agent).await;
    agent.upgrade(Some("forgets-later")).await.unwrap();
    let stage = || agent.view().and_then(|view| view.record.upgrade.as_ref().map(|upgrade| upgrade.stage));
    until("it passed its rehearsal", || stage() == Some(UpgradeStage::Forward)).await;
    world.fakes.engine().add_image("forgets-later", fine.with_forgets(true));
    let end = over(&agent).await;
    let runs = image(&agent);
    assert_eq!((end.cause.as_str(), runs.as_str()), ("rolled-back", OLD), "{:?}", causes(&agent).await);
    assert!(end.detail.as_deref().unwrap().contains("of 5 entries of memory it finds 0"), "{end:?}");
    assert_eq!(keys(&world, &agent).await, before);
    alone(&world, &agent).await;
}

/// The service ends in every stage; the next one finishes what was begun.
#[tokio::test(start_paused = true)]
async fn upgrade_goes_on_after_the_service_was_restarted() {
    for stage in ["rehearsing", "forward"] {
        let mut world = world(44).await;
        let agent = remembering(&world, 2).await;
        agent.upgrade(Some(NEW)).await.unwrap();
        let at = || agent.view().and_then(|view| view.record.upgrade.as_ref().map(|upgrade| upgrade.stage.as_str()));
        until(stage, || at() == Some(stage)).await;
        if stage == "rehearsing" {
            let two = || world.fakes.engine().volumes().len() == 2;
            until("the rehearsal's instance", two).await;
        }
        let id = agent.id();
        world.plane.shutdown(Agents::Leave).await;
        drop(agent);
        world.plane = testkit::start(&world.fakes, &world.disk, Settings::default()).await.unwrap();
        let agent = world.plane.agent(id).unwrap();
        assert_eq!(over(&agent).await.cause, "upgraded", "{stage}: {:?}", causes(&agent).await);
        agent.wait(&[Status::Running], PATIENCE).await.unwrap();
        assert_eq!((image(&agent).as_str(), keys(&world, &agent).await.len()), (NEW, 2), "{stage}");
        alone(&world, &agent).await;
    }
}

#[tokio::test(start_paused = true)]
async fn agent_that_is_deleted_in_a_rehearsal_leaves_nothing() {
    let world = world(45).await;
    let agent = remembering(&world, 1).await;
    agent.upgrade(Some(NEW)).await.unwrap();
    let stage = || agent.view().map(|view| view.record.upgrade.as_ref().map(|upgrade| upgrade.stage));
    assert!(matches!(stage(), Some(Some(UpgradeStage::Rehearsing { .. }))));
    until("the rehearsal's instance", || world.fakes.engine().volumes().len() == 2).await;
    agent.delete().await.unwrap();
    assert!(agent.gone(PATIENCE).await);
    until("nothing is left", || world.fakes.engine().volumes().is_empty()).await;
}

/// Nobody is left who knows of the rehearsal, but that its instance was to go.
#[tokio::test(start_paused = true)]
async fn rehearsal_whose_agent_is_deleted_while_the_service_dies_leaves_nothing() {
    let mut world = world(48).await;
    let agent = remembering(&world, 1).await;
    agent.upgrade(Some(NEW)).await.unwrap();
    until("the rehearsal's instance", || world.fakes.engine().volumes().len() == 2).await;
    agent.delete().await.unwrap();
    assert!(agent.gone(PATIENCE).await);
    drop(agent);
    world.plane.shutdown(Agents::Leave).await;
    assert_eq!(world.fakes.engine().volumes().len(), 1, "it was cut off");
    world.plane = testkit::start(&world.fakes, &world.disk, Settings::default()).await.unwrap();
    until("nothing is left", || world.fakes.engine().volumes().is_empty()).await;
}

/// An agent whose model fails is upgraded all the same: that is no fault of the new version.
#[tokio::test(start_paused = true)]
async fn model_that_fails_every_version_is_no_obstacle() {
    let world = world(49).await;
    let agent = remembering(&world, 1).await;
    world.fakes.engine().set_gateway_fault(GatewayFault::Fails(500));
    agent.upgrade(Some(NEW)).await.unwrap();
    let end = over(&agent).await;
    assert_eq!((end.cause.as_str(), image(&agent).as_str()), ("upgraded", NEW), "{end:?}");
}

/// A model that needs no key is asked as well.
#[tokio::test(start_paused = true)]
async fn version_that_answers_nobody_is_refused_for_an_agent_without_a_key() {
    let world = world(51).await;
    let mute = FakeImage::new(Profile::V08, "0.8.8").with_fault(GatewayFault::Fails(500));
    world.fakes.engine().add_image("mute", mute);
    let mut new = new_agent("Ada");
    new.spec.provider = Provider::Ollama;
    new.credentials = Credentials::default();
    let agent = world.plane.create_agent(world.user, new).await.unwrap();
    agent.wait(&[Status::Running], PATIENCE).await.unwrap();
    agent.upgrade(Some("mute")).await.unwrap();
    let end = over(&agent).await;
    assert_eq!(end.cause, "upgrade-refused");
    assert!(end.detail.as_deref().unwrap().contains("that the present version answers"), "{end:?}");
}

/// The instance of the rehearsal that is under way.
async fn rehearsal(world: &TestPlane, agent: &AgentHandle) -> AgentId {
    let other = || world.fakes.engine().volumes().into_iter().find(|id| *id != agent.id());
    until("the rehearsal's instance", || other().is_some()).await;
    other().unwrap()
}

#[tokio::test(start_paused = true)]
async fn rehearsal_waits_for_an_engine_that_is_busy_and_gives_up_with_its_words() {
    let (fakes, disk) = (Fakes::new(52), FakeDisk::new());
    fakes.engine().add_image(OLD, FakeImage::new(Profile::V01, "0.1.7"));
    fakes.engine().add_image(NEW, FakeImage::new(Profile::V08, "0.8.7"));
    let limits = JobLimits::default().with_engine_start(Duration::from_secs(60));
    let plane = testkit::start(&fakes, &disk, Settings::default().with_limits(limits)).await.unwrap();
    let user = plane.create_user(NewUser::new("ada@example.com", Plan::Enterprise)).await.unwrap().id;
    let world = TestPlane::new(fakes, disk, plane, user);
    let engine = world.fakes.engine();
    let agent = remembering(&world, 2).await;
    // Longer than it may take, and failing.
    for stuck in [false, true] {
        engine.set_slow_start(Some((Duration::from_secs(3600), "it looks for a place")));
        agent.upgrade(Some(NEW)).await.unwrap();
        let instance = rehearsal(&world, &agent).await;
        until("it waits", || engine.set_wait(instance, "there is no room", stuck)).await;
        let asked = tokio::time::Instant::now();
        let end = over(&agent).await;
        assert_eq!(end.cause, "upgrade-refused");
        assert!(end.detail.as_deref().unwrap().contains("there is no room"), "{end:?}");
        let waited = asked.elapsed().as_secs();
        assert!(if stuck { waited < 5 } else { (55..=65).contains(&waited) }, "{waited} s");
        alone(&world, &agent).await;
    }
    // No longer than it may take.
    engine.set_slow_start(Some((Duration::from_secs(20), "it looks for a place")));
    agent.upgrade(Some(NEW)).await.unwrap();
    assert_eq!(over(&agent).await.cause, "upgraded");
    agent.wait(&[Status::Running], PATIENCE).await.unwrap();
    assert_eq!((image(&agent).as_str(), keys(&world, &agent).await.len()), (NEW, 2));
}

/// An engine that restarts by itself what ended would otherwise hide it.
#[tokio::test(start_paused = true)]
async fn version_that_ends_in_its_rehearsal_and_is_restarted_by_the_engine_is_refused() {
    let world = world(53).await;
    let slow = GatewayBehavior::default().with_boots_in(Duration::from_secs(10));
    world.fakes.engine().add_image("slow", FakeImage::new(Profile::V08, "0.8.8").with_behavior(slow));
    let agent = remembering(&world, 1).await;
    agent.upgrade(Some("slow")).await.unwrap();
    let instance = rehearsal(&world, &agent).await;
    let up = || world.fakes.engine().observed(instance).is_some_and(|seen| seen.run().is_some());
    until("it runs", up).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(world.fakes.engine().restart_by_policy(instance, Exit::with_code(5)));
    let end = over(&agent).await;
    assert_eq!(end.cause, "upgrade-refused");
    assert!(end.detail.as_deref().unwrap().contains("exit code 5"), "{end:?}");
    alone(&world, &agent).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_new_version_wrote_is_not_overwritten_when_it_is_started_once_more() {
    const MEMORY: &str = ".zeroclaw/data/memory/brain.db";
    let mut world = world(54).await;
    let slow = GatewayBehavior::default().with_boots_in(Duration::from_secs(10));
    world.fakes.engine().add_image("slow", FakeImage::new(Profile::V08, "0.8.8").with_behavior(slow));
    let agent = remembering(&world, 2).await;
    let id = agent.id();
    agent.upgrade(Some("slow")).await.unwrap();
    let forward = || agent.view().unwrap().record.upgrade.as_ref().map(|it| it.stage) == Some(UpgradeStage::Forward);
    let up = || world.fakes.engine().observed(id).is_some_and(|seen| seen.run().is_some());
    until("the new version runs", || forward() && image(&agent) == "slow" && up()).await;
    // It learns something, and both it and the service end before it is proven.
    let mut known: Vec<serde_json::Value> =
        serde_json::from_slice(&world.fakes.engine().file(id, MEMORY).unwrap()).unwrap();
    let mut learnt = known[0].clone();
    learnt["key"] = "learnt-later".into();
    known.push(learnt);
    world.plane.shutdown(Agents::Leave).await;
    drop(agent);
    assert!(world.fakes.engine().crash(id));
    world.fakes.engine().put_file(id, MEMORY, &serde_json::to_vec(&known).unwrap());
    world.plane = testkit::start(&world.fakes, &world.disk, Settings::default()).await.unwrap();
    let agent = world.plane.agent(id).unwrap();
    assert_eq!(over(&agent).await.cause, "upgraded", "{:?}", causes(&agent).await);
    agent.wait(&[Status::Running], PATIENCE).await.unwrap();
    assert_eq!(keys(&world, &agent).await, ["k0", "k1", "learnt-later"].map(String::from).into());
}

/// Going down, memory is told to the older version: without it nothing could be carried.
#[tokio::test(start_paused = true)]
async fn memory_that_cannot_be_read_is_in_the_way_only_where_it_must_be_told() {
    let (fakes, faults, disk) = (Fakes::new(51), Faults::new(51), FakeDisk::new());
    fakes.engine().add_image(NEW, FakeImage::new(Profile::V08, "0.8.7"));
    fakes.engine().add_image(OLD, FakeImage::new(Profile::V01, "0.1.7"));
    fakes.engine().add_image("newer", FakeImage::new(Profile::V08, "0.8.8"));
    let options = StoreOptions::default().with_installation(fakes.installation()).with_now(fakes.engine().now());
    let store = Store::in_memory(disk.clone(), options).unwrap();
    let plane = ControlPlane::builder(store, testkit::vault(), fakes.runtime())
        .gateway(faults.gateway(fakes.gateway()))
        .clock(fakes.clock())
        .start()
        .await
        .unwrap();
    let user = plane.create_user(NewUser::new("ada@example.com", Plan::Pro)).await.unwrap().id;
    let world = TestPlane::new(fakes, disk, plane, user);
    let agent = remembering(&world, 3).await;
    faults.next(Call::Memory, Fault::Fail);
    agent.upgrade(Some(OLD)).await.unwrap();
    let end = over(&agent).await;
    assert_eq!((end.cause.as_str(), image(&agent).as_str()), ("upgrade-refused", NEW), "{end:?}");
    assert!(end.detail.unwrap().contains("what the agent remembers cannot be read"));
    faults.next(Call::Memory, Fault::Fail);
    agent.upgrade(Some("newer")).await.unwrap();
    let end = over(&agent).await;
    assert_eq!((end.cause.as_str(), image(&agent).as_str()), ("upgraded", "newer"), "{end:?}");
    assert_eq!(keys(&world, &agent).await.len(), 3);
}

/// The next service does not know at once where the gateway is that must tell what the agent remembers.
#[tokio::test(start_paused = true)]
async fn downgrade_goes_on_with_all_memory_after_the_service_was_restarted() {
    let mut world = world(52).await;
    let agent = remembering(&world, 2).await;
    agent.upgrade(Some(NEW)).await.unwrap();
    assert_eq!(over(&agent).await.cause, "upgraded");
    agent.upgrade(Some(OLD)).await.unwrap();
    until("the rehearsal's instance", || world.fakes.engine().volumes().len() == 2).await;
    let id = agent.id();
    world.plane.shutdown(Agents::Leave).await;
    drop(agent);
    world.plane = testkit::start(&world.fakes, &world.disk, Settings::default()).await.unwrap();
    let agent = world.plane.agent(id).unwrap();
    let end = over(&agent).await;
    assert_eq!((end.cause.as_str(), image(&agent).as_str()), ("upgraded", OLD), "{end:?}");
    agent.wait(&[Status::Running], PATIENCE).await.unwrap();
    assert_eq!(keys(&world, &agent).await.len(), 2);
}

/// An engine that does not come back does not hold an upgrade for ever.
#[tokio::test(start_paused = true)]
async fn downgrade_of_an_agent_that_is_not_found_again_is_refused() {
    let mut world = world(53).await;
    let agent = remembering(&world, 2).await;
    agent.upgrade(Some(NEW)).await.unwrap();
    assert_eq!(over(&agent).await.cause, "upgraded");
    agent.upgrade(Some(OLD)).await.unwrap();
    until("the rehearsal's instance", || world.fakes.engine().volumes().len() == 2).await;
    let id = agent.id();
    world.plane.shutdown(Agents::Leave).await;
    drop(agent);
    world.fakes.engine().set_condition(Condition::Away);
    world.plane = testkit::start(&world.fakes, &world.disk, Settings::default()).await.unwrap();
    let agent = world.plane.agent(id).unwrap();
    tokio::time::sleep(PATIENCE * 2).await;
    let end = over(&agent).await;
    assert!(
        end.cause == "upgrade-refused" && end.detail.as_deref().unwrap().ends_with("the agent does not run"),
        "{end:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_upgraded_says_so() {
    let world = world(46).await;
    let agent = remembering(&world, 0).await;
    assert!(matches!(agent.upgrade(Some("nowhere")).await, Err(UpgradeError::Runtime(_))));
    agent.stop().await.unwrap();
    agent.wait(&[Status::Stopped], PATIENCE).await.unwrap();
    assert!(matches!(agent.upgrade(Some(NEW)).await, Err(UpgradeError::Command(_))));
    let bare = testkit::plane(47, Plan::Pro).await;
    let agent = Arc::new(bare.running("Ada").await);
    assert!(matches!(agent.upgrade(None).await, Err(UpgradeError::NoImages)), "a runtime without images");
}
