//! Another version for an agent: tried on a copy, put in place, proven or taken back; whatever happens in between.

use std::sync::Arc;

use zeroone::control::{Agents, UpgradeError};
use zeroone::domain::{MemoryBackend, Profile, UpgradeStage};
use zeroone::runtime::ContainerRuntime;
use zeroone::testkit::FakeImage;
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
        world.plane = testkit::start(&world.fakes, &world.disk, zeroone::control::Settings::default()).await.unwrap();
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
    world.plane = testkit::start(&world.fakes, &world.disk, zeroone::control::Settings::default()).await.unwrap();
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
