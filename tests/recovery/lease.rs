//! Two control planes with one installation id on one engine: a copied or restored store.

use std::time::Duration;

use zeroone::control::{Agents, Builder, ControlPlane, NewUser, StartError};
use zeroone::domain::{Plan, Status};
use zeroone::store::{Store, StoreOptions};
use zeroone::testkit::{self, Condition, FakeDisk, Fakes, TestPlane, new_agent};

use crate::{PATIENCE, answered, until};

/// The builder of a control plane on a copy of the store.
fn copy(fakes: &Fakes, disk: &FakeDisk, holder: &str) -> Builder {
    let options = StoreOptions::default().with_installation(fakes.installation()).with_now(fakes.engine().now());
    let store = Store::in_memory(disk.clone(), options).unwrap();
    ControlPlane::builder(store, testkit::vault(), fakes.runtime())
        .gateway(fakes.gateway())
        .clock(fakes.clock())
        .lease_holder(holder)
}

fn in_use(started: &Result<ControlPlane, StartError>) -> bool {
    matches!(started, Err(StartError::InUse(_)))
}

/// A copy of the store, made before the second of two agents.
async fn original(seed: u64) -> (TestPlane, FakeDisk) {
    let world = testkit::plane(seed, Plan::Pro).await;
    world.running("Old").await;
    let copied = world.disk.copied();
    world.running("New").await;
    (world, copied)
}

#[tokio::test(start_paused = true)]
async fn a_copy_beside_the_original_is_refused_and_changes_nothing() {
    let (world, copied) = original(121).await;
    let before: Vec<_> = world.fakes.engine().all().iter().map(|seen| seen.state.clone()).collect();
    assert!(in_use(&copy(&world.fakes, &copied, "the copy").start().await));
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(in_use(&copy(&world.fakes, &copied, "the copy").start().await), "the original renews its lease");
    let after: Vec<_> = world.fakes.engine().all().iter().map(|seen| seen.state.clone()).collect();
    assert_eq!((before, world.fakes.engine().volumes().len()), (after, 2));
}

#[tokio::test(start_paused = true)]
async fn after_an_orderly_end_a_copy_starts_at_once_and_adopts_what_is_newer() {
    let (world, copied) = original(122).await;
    world.plane.shutdown(Agents::Leave).await;
    let plane = copy(&world.fakes, &copied, "the copy").start().await.unwrap();
    until("both have records", || plane.agents(None, None, 10, &[]).agents.len() == 2).await;
    assert_eq!(world.fakes.engine().volumes().len(), 2, "no data was removed");
}

#[tokio::test(start_paused = true)]
async fn a_take_over_ends_the_other_control_plane() {
    let (world, copied) = original(123).await;
    let plane = copy(&world.fakes, &copied, "the copy").take_over(true).start().await.unwrap();
    let by = tokio::time::timeout(Duration::from_secs(30), world.plane.superseded()).await.unwrap();
    assert!(by.contains("store memory"), "{by}");
    until("the original decides nothing more", || world.plane.agents(None, None, 10, &[]).agents.len() == 2).await;
    assert!(world.plane.create_agent(world.user, new_agent("Late")).await.is_err());
    let old = plane.agents(None, None, 10, &[]).agents[0].record.id;
    answered(&plane.agent(old).unwrap(), "hi").await;
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_of_the_engine_nothing_is_changed_until_the_lease_is_held() {
    let (world, copied) = original(124).await;
    world.fakes.engine().set_condition(Condition::Away);
    // It cannot tell yet that the installation is in use: it starts, and changes nothing.
    let plane = copy(&world.fakes, &copied, "the copy").start().await.unwrap();
    let agent = plane.agents(None, None, 10, &[]).agents[0].record.id;
    plane.agent(agent).unwrap().stop().await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.fakes.engine().set_condition(Condition::Answers);
    tokio::time::timeout(PATIENCE, plane.superseded()).await.unwrap();
    tokio::time::sleep(PATIENCE).await;
    let runs = world.fakes.engine().all().iter().filter(|seen| seen.run().is_some()).count();
    assert_eq!(runs, 2, "the original's agents run on");
    let original = world.plane.agent(agent).unwrap();
    assert_eq!(original.view().unwrap().status(), Status::Running);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_refuses_the_lease_keeps_nobody_from_starting_and_is_what_agents_wait_for() {
    let fakes = Fakes::new(125);
    let disk = FakeDisk::default();
    fakes.engine().refuse_leases(true);
    let plane = copy(&fakes, &disk, "the first").start().await.unwrap();
    let user = plane.create_user(NewUser::new("ada@example.org", Plan::Pro)).await.unwrap().id;
    let agent = plane.create_agent(user, new_agent("Ada")).await.unwrap();
    let refused = |because: &str| because.contains("refuses") && because.contains("reading a volume is not allowed");
    agent.wait(&[Status::Error], Duration::from_secs(2)).await.unwrap();
    until("the reason shows", || agent.explain().is_some_and(|told| refused(&told.because))).await;
    tokio::time::sleep(PATIENCE).await;
    assert!(fakes.engine().all().is_empty(), "nothing was made");
    let told = agent.explain().unwrap();
    assert!(refused(&told.because) && told.remedy.unwrap().contains("allow"), "{}", told.because);

    // One that refused and is away now is away.
    fakes.engine().set_condition(Condition::Away);
    let away = |because: &str| because.contains("does not answer");
    until("it is away", || agent.explain().is_some_and(|told| away(&told.because))).await;
    fakes.engine().set_condition(Condition::Answers);
    fakes.engine().refuse_leases(false);
    until("it runs", || agent.view().is_some_and(|view| view.status() == Status::Running)).await;
}
