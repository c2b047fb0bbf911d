//! What is asked of the engine, and when.

use zeroone::control::{ControlPlane, NewUser};
use zeroone::domain::Profile;
use zeroone::runtime::RuntimeError;
use zeroone::store::{Store, StoreOptions};
use zeroone::testkit::{FakeDisk, FakeImage, Fakes, Faults, Odds};

use super::*;

#[tokio::test(start_paused = true)]
async fn networks_are_joined_again_after_a_gap_and_not_for_each_change() {
    let world = testkit::plane(100, Plan::Free).await;
    let agent = world.running("Ada").await;
    let before = world.fakes.engine().attached();
    assert!(world.fakes.engine().crash(agent.id()));
    answered(&agent, "hi").await;
    assert_eq!(world.fakes.engine().attached(), before);
    world.fakes.engine().gap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.fakes.engine().attached(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn what_new_agents_are_made_from_is_told_while_the_engine_answers() {
    let world = testkit::plane(101, Plan::Free).await;
    assert_eq!(world.plane.default_software().await, None, "it has no images");
    world.fakes.engine().add_image("zeroclaw:0.8.7", FakeImage::new(Profile::V08, "0.8.7"));
    let software = world.plane.default_software().await.unwrap();
    assert_eq!((software.profile, software.image.unwrap().name.as_str()), (Profile::V08, "zeroclaw:0.8.7"));
    for condition in [Condition::Away, Condition::Hangs] {
        world.fakes.engine().set_condition(condition);
        assert_eq!(world.plane.default_software().await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn gateway_that_a_proxy_did_not_reach_is_looked_at_before_its_next_health_check() {
    let (fakes, faults) = (Fakes::new(102), Faults::new(102));
    let options = StoreOptions::default().with_installation(fakes.installation()).with_now(fakes.engine().now());
    let store = Store::in_memory(FakeDisk::new(), options).unwrap();
    let plane = ControlPlane::builder(store, testkit::vault(), faults.runtime(fakes.runtime()))
        .gateway(fakes.gateway())
        .clock(fakes.clock())
        .start()
        .await
        .unwrap();
    let user = plane.create_user(NewUser::new("ada@example.com", Plan::Free)).await.unwrap().id;
    let agent = plane.create_agent(user, new_agent("Ada")).await.unwrap();
    agent.wait(&[Status::Running], PATIENCE).await.unwrap();
    faults.set_odds(Odds::default().with_lose_event(1000));
    assert!(fakes.engine().crash(agent.id()));
    let starts = || fakes.engine().tally(agent.id()).starts.len();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(starts(), 1, "the engine's event was lost");
    agent.report_unreachable();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(starts(), 2);
}

#[tokio::test(start_paused = true)]
async fn engine_that_is_away_or_says_nothing_is_not_there() {
    let world = testkit::plane(103, Plan::Free).await;
    assert_eq!(world.plane.ping_runtime().await, Ok(()));
    for condition in [Condition::Away, Condition::Hangs] {
        world.fakes.engine().set_condition(condition);
        assert!(matches!(world.plane.ping_runtime().await, Err(RuntimeError::Unavailable(_))), "{condition:?}");
    }
    world.fakes.engine().set_condition(Condition::Answers);
    assert_eq!(world.plane.ping_runtime().await, Ok(()));
}
