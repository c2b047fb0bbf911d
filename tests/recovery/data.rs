//! An agent's memory as its owner's, taken out and brought in.

use zeroone::control::{Agents, Settings};
use zeroone::domain::{MemoryBackend, Profile};
use zeroone::testkit::{FakeImage, Pace};
use zeroone::zeroclaw::client::Gateway;
use zeroone::zeroclaw::memory::MemoryEntry;

use super::*;

const WITHIN: Duration = Duration::from_secs(5);

/// A running agent of a version with files of its own, which remembers something.
async fn remembering(world: &TestPlane) -> AgentHandle {
    world.fakes.engine().add_image("zeroclaw:0.8.7", FakeImage::new(Profile::V08, "0.8.7"));
    let mut new = new_agent("Ada");
    new.spec.memory_backend = MemoryBackend::Sqlite;
    let agent = world.plane.create_agent(world.user, new).await.unwrap();
    let view = agent.wait(&[Status::Running], PATIENCE).await.unwrap();
    let access = view.access.clone().unwrap();
    let entry = MemoryEntry::new("colour", "blue").with_category("core");
    world.fakes.gateway().remember(access.endpoint, &access.token, &entry, WITHIN).await.unwrap();
    agent
}

#[tokio::test(start_paused = true)]
async fn import_has_the_memory_where_new_agents_look_for_it() {
    let world = testkit::plane(130, Plan::Pro).await;
    let agent = remembering(&world).await;
    // Its gateway can tell nothing then: all that there is of its memory is in its files.
    agent.stop().await.unwrap();
    agent.wait(&[Status::Stopped], PATIENCE).await.unwrap();
    let bundle = agent.export().await.unwrap();
    let mut new = new_agent("Eve");
    new.spec.memory_backend = MemoryBackend::Sqlite;
    let imported = world.plane.import_agent(world.user, new, &bundle).await.unwrap();
    let view = imported.wait(&[Status::Running], PATIENCE).await.unwrap();
    assert!(!imported.is_being_imported());
    let access = view.access.clone().unwrap();
    let entries = world.fakes.gateway().memory(access.endpoint, &access.token, WITHIN).await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.content.as_str()).collect::<Vec<_>>(), ["blue"]);
}

#[tokio::test(start_paused = true)]
async fn import_that_the_end_of_the_service_cut_short_leaves_nothing() {
    let mut world = testkit::plane(131, Plan::Pro).await;
    let agent = remembering(&world).await;
    let (id, bundle) = (agent.id(), agent.export().await.unwrap());
    world.fakes.engine().set_pace(Pace::new(Duration::from_millis(100)));
    let import = tokio::spawn({
        let (plane, user) = (world.plane.clone(), world.user);
        async move { plane.import_agent(user, new_agent("Eve"), &bundle).await.map(drop) }
    });
    let half = || world.plane.agent_by_slug("eve").filter(AgentHandle::is_being_imported).map(|agent| agent.id());
    until("it has begun", || half().is_some()).await;
    assert!(!agent.is_being_imported());
    let half = half().unwrap();
    drop(agent);
    world.plane.shutdown(Agents::Leave).await;
    assert!(import.await.unwrap().is_err());
    world.plane = testkit::start(&world.fakes, &world.disk, Settings::default()).await.unwrap();
    until("it is removed", || world.plane.agent(half).is_none()).await;
    assert_eq!(world.fakes.engine().volumes(), [id]);
}
