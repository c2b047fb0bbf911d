//! An engine that is a cluster: it takes minutes for a start, gives addresses instead of ports, and loses machines.

use std::time::Duration;

use zeroone::control::{NewUser, Settings};
use zeroone::domain::{Plan, Status};
use zeroone::testkit::{self, FakeDisk, Fakes, GatewayFault, TestPlane};

use crate::{PATIENCE, answered, causes, created, status, until};

const MINUTES: Duration = Duration::from_secs(240);

#[tokio::test(start_paused = true)]
async fn a_start_that_takes_minutes_is_waited_for_and_told() {
    let world = testkit::plane(31, Plan::Pro).await;
    let engine = world.fakes.engine();
    engine.set_slow_start(Some((MINUTES, "0/3 nodes are available")));
    let agent = created(&world, "Ada").await;
    until("the reason shows", || agent.explain().is_some_and(|told| told.because.contains("0/3 nodes are available")))
        .await;
    assert_eq!(status(&agent), Some(Status::Starting));
    agent.wait(&[Status::Running], MINUTES + PATIENCE).await.unwrap();
    answered(&agent, "hi").await;
    assert_eq!(engine.tally(agent.id()).starts.len(), 1);
    assert!(causes(&agent).await.contains(&"engine-busy".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_the_engine_never_finishes_is_tried_again() {
    let world = testkit::plane(32, Plan::Pro).await;
    let engine = world.fakes.engine();
    engine.set_slow_start(Some((Duration::from_secs(3600), "it looks for a place")));
    let agent = created(&world, "Ada").await;
    until("it waits", || agent.explain().is_some_and(|told| told.because.contains("a place"))).await;
    engine.set_slow_start(None);
    agent.wait(&[Status::Running], Duration::from_secs(900)).await.unwrap();
    answered(&agent, "hi").await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_wait() {
    let world = testkit::plane(33, Plan::Pro).await;
    world.fakes.engine().set_slow_start(Some((MINUTES, "it looks for a place")));
    let agent = created(&world, "Ada").await;
    until("it waits", || agent.explain().is_some_and(|told| told.because.contains("a place"))).await;
    agent.stop().await.unwrap();
    agent.wait(&[Status::Stopped], PATIENCE).await.unwrap();
    tokio::time::sleep(MINUTES * 2).await;
    assert_eq!(world.fakes.engine().tally(agent.id()).starts.len(), 0);
    agent.delete().await.unwrap();
    assert!(agent.gone(PATIENCE).await);
}

#[tokio::test(start_paused = true)]
async fn without_ports_of_the_host_agents_have_none() {
    let (fakes, disk) = (Fakes::new(34), FakeDisk::new());
    fakes.engine().give_addresses();
    let plane = testkit::start(&fakes, &disk, Settings::default()).await.unwrap();
    let user = NewUser::new("ada@example.com", Plan::Pro);
    let user = plane.create_user(user).await.unwrap().id;
    let world = TestPlane::new(fakes, disk, plane, user);
    let (first, second) = (world.running("Ada").await, world.running("Bob").await);
    for agent in [&first, &second] {
        answered(agent, "hi").await;
        assert_eq!(agent.view().unwrap().port, None);
    }
    let at = |id| world.fakes.engine().observed(id).unwrap().run().unwrap().endpoint;
    assert_ne!(at(first.id()).ip(), at(second.id()).ip());
}

/// A machine that the engine has lost may run the agent all the same: nobody starts another one, however long it takes.
#[tokio::test(start_paused = true)]
async fn a_lost_machine_gets_no_second_run() {
    let world = testkit::plane(35, Plan::Pro).await;
    let engine = world.fakes.engine();
    let agent = world.running("Ada").await;
    assert!(engine.lose_machine(agent.id(), true));
    engine.set_gateway_fault_of(agent.id(), Some(GatewayFault::Hung));
    until("it is unknown", || agent.explain().is_some_and(|told| told.unknown_since.is_some())).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(engine.tally(agent.id()).starts.len(), 1);
    assert_eq!(status(&agent), Some(Status::Running), "it is what is wanted, and nobody knows better");
    engine.set_gateway_fault_of(agent.id(), None);
    engine.lose_machine(agent.id(), false);
    until("it is known again", || agent.explain().is_some_and(|told| told.unknown_since.is_none())).await;
    answered(&agent, "hi").await;
    assert_eq!(engine.tally(agent.id()).starts.len(), 1);
}
