//! What a shutdown closes, and what becomes of the agents.

use std::time::Duration;

use zeroone::control::{Agents, DeliveryError, Settings};
use zeroone::domain::{Plan, Status};
use zeroone::runtime::InstanceState;
use zeroone::testkit::{self, Condition, Image, TestPlane, message};

use crate::{PATIENCE, answered, created, status};

const STOP: Agents = Agents::Stop { within: Duration::from_secs(30) };

fn runs(world: &TestPlane, agent: zeroone::domain::AgentId) -> bool {
    world.fakes.engine().observed(agent).is_some_and(|it| matches!(it.state, InstanceState::Running(_)))
}

async fn again(world: &mut TestPlane) {
    world.plane = testkit::start(&world.fakes, &world.disk, Settings::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn agents_that_are_left_run_on_and_are_taken_up_again() {
    let mut world = testkit::plane(41, Plan::Pro).await;
    let ada = world.running("Ada").await.id();
    let starts = world.fakes.engine().tally(ada).starts;
    assert_eq!(world.plane.shutdown(Agents::Leave).await, []);
    assert!(runs(&world, ada));
    again(&mut world).await;
    answered(&world.plane.agent(ada).unwrap(), "still here").await;
    assert_eq!(world.fakes.engine().tally(ada).starts, starts, "the same run");
}

#[tokio::test(start_paused = true)]
async fn agents_that_are_stopped_keep_their_data_and_stay_stopped() {
    let mut world = testkit::plane(42, Plan::Pro).await;
    let (ada, stopped) = (world.running("Ada").await.id(), world.running("Bob").await);
    stopped.stop().await.unwrap();
    world.fakes.engine().set_image(Image::Missing);
    let failed = created(&world, "Cleo").await;
    failed.wait(&[Status::Error], PATIENCE).await.unwrap();
    world.fakes.engine().put_file(ada, "notes.md", b"remember");

    assert_eq!(world.plane.shutdown(STOP).await, []);
    for agent in [ada, stopped.id(), failed.id()] {
        assert!(!runs(&world, agent));
    }
    assert_eq!(world.plane.shutdown(STOP).await, [], "a second one finds nothing to do");

    world.fakes.engine().set_image(Image::Present);
    again(&mut world).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    for agent in [ada, stopped.id(), failed.id()] {
        assert_eq!(status(&world.plane.agent(agent).unwrap()), Some(Status::Stopped));
    }
    let ada = world.plane.agent(ada).unwrap();
    ada.start().await.unwrap();
    answered(&ada, "back").await;
    assert_eq!(world.fakes.engine().file(ada.id(), "notes.md").as_deref(), Some(b"remember".as_slice()));
}

#[tokio::test(start_paused = true)]
async fn agents_that_cannot_be_stopped_in_time_are_named_and_stopped_by_the_next_control_plane() {
    let mut world = testkit::plane(43, Plan::Pro).await;
    let ada = world.running("Ada").await.id();
    world.fakes.engine().set_condition(Condition::Away);
    let began = tokio::time::Instant::now();
    assert_eq!(world.plane.shutdown(STOP).await, [ada]);
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert!(runs(&world, ada));

    world.fakes.engine().set_condition(Condition::Answers);
    again(&mut world).await;
    world.plane.agent(ada).unwrap().wait_through_retries(&[Status::Stopped], PATIENCE).await.unwrap();
    assert!(!runs(&world, ada));
}

#[tokio::test(start_paused = true)]
async fn a_message_on_hold_is_refused_and_was_never_read() {
    let world = testkit::plane(44, Plan::Pro).await;
    let ada = world.running("Ada").await;
    world.fakes.engine().set_image(Image::Slow(Duration::from_secs(3600)));
    world.fakes.engine().remove_by_hand(ada.id());
    while status(&ada) == Some(Status::Running) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let held = tokio::spawn({
        let ada = ada.clone();
        async move { ada.deliver(message("anyone?")).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.plane.shutdown(Agents::Leave).await;
    assert!(matches!(held.await.unwrap(), Err(DeliveryError::Closing)));
    assert!(world.fakes.engine().tally(ada.id()).messages.is_empty());
}
