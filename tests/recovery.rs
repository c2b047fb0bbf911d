//! The whole control plane on fakes, under a paused clock.
#![cfg(feature = "testkit")]

use std::time::Duration;

use zeroone::domain::{Plan, Status};
use zeroone::testkit::{self, message, new_agent};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn an_agent_comes_up_and_answers() {
    let world = testkit::plane(1, Plan::Free).await;
    let agent = world.plane.create_agent(world.user, new_agent("Ada")).await.unwrap();
    agent.wait(&[Status::Running], PATIENCE).await.unwrap();
    let answer = agent.deliver(message("hi")).await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &br#"{"model":"fake","response":"echo: hi"}"#[..]));
}
