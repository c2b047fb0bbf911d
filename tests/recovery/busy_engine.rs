//! An engine that is a cluster: it takes minutes for a start, gives addresses instead of ports, and loses machines.

use std::time::Duration;

use zeroone::control::{Agents, NewUser, Settings};
use zeroone::domain::{Plan, Status};
use zeroone::internal::lifecycle::Code;
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
async fn start_that_fails_for_a_moment_now_and_then_is_waited_for() {
    let world = testkit::plane(36, Plan::Pro).await;
    let engine = world.fakes.engine();
    engine.set_slow_start(Some((MINUTES, "it looks for a place")));
    let agent = created(&world, "Ada").await;
    until("it waits", || engine.set_wait(agent.id(), "it fetches the image", false)).await;
    for _ in 0..3 {
        assert!(engine.set_wait(agent.id(), "the registry does not answer", true));
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert!(engine.set_wait(agent.id(), "it fetches the image", false));
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    let told = agent.explain().unwrap().because;
    assert!(told.contains("it fetches the image"), "what it is busy with now: {told}");
    agent.wait(&[Status::Running], MINUTES).await.unwrap();
    assert_eq!(engine.tally(agent.id()).starts.len(), 1);
    let causes = causes(&agent).await;
    assert!(!causes.contains(&"cannot-run".to_owned()), "{causes:?}");
}

/// What is about to run may have its files open.
#[tokio::test(start_paused = true)]
async fn start_that_a_new_service_finds_under_way_is_ended_before_files_are_written() {
    let mut world = testkit::plane(38, Plan::Pro).await;
    let agent = world.running("Ada").await;
    let (engine, id) = (world.fakes.engine().clone(), agent.id());
    engine.set_slow_start(Some((MINUTES, "it looks for a place")));
    assert!(engine.remove_by_hand(id));
    until("it is being started", || engine.set_wait(id, "it fetches the image", false)).await;
    world.plane.shutdown(Agents::Leave).await;
    drop(agent);
    world.plane = testkit::start(&world.fakes, &world.disk, Settings::default()).await.unwrap();
    let agent = world.plane.agent(id).unwrap();
    agent.wait(&[Status::Running], MINUTES + PATIENCE).await.unwrap();
    answered(&agent, "hi").await;
    let causes = causes(&agent).await;
    assert!(!causes.contains(&"start-failed".to_owned()), "{causes:?}");
}

#[tokio::test(start_paused = true)]
async fn start_that_keeps_failing_is_given_up_with_the_engines_words() {
    let world = testkit::plane(37, Plan::Pro).await;
    let engine = world.fakes.engine();
    engine.set_slow_start(Some((MINUTES, "it looks for a place")));
    let agent = created(&world, "Ada").await;
    until("it fails", || engine.set_wait(agent.id(), "there is no such image", true)).await;
    let failing = tokio::time::Instant::now();
    let said = || agent.explain().is_some_and(|told| told.because.contains("there is no such image"));
    until("it says so while it waits", || said() && status(&agent) == Some(Status::Starting)).await;
    agent.wait(&[Status::Error], PATIENCE).await.unwrap();
    let waited = failing.elapsed().as_secs();
    assert!((19..=25).contains(&waited), "a registry may be away for a moment: {waited} s");
    assert!(said(), "{:?}", agent.explain());
    let reason = agent.view().unwrap().record.state.reason.as_ref().map(|reason| reason.code);
    assert_eq!(reason, Some(Code::CannotRun));
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
