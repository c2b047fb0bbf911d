//! What a change of an agent leads to, and what a wait is told of a command.

use zeroone::control::WaitError;
use zeroone::domain::{Channels, Secret};

use super::*;

#[tokio::test(start_paused = true)]
async fn only_what_the_instance_must_see_restarts_it() {
    let world = testkit::plane(110, Plan::Free).await;
    let agent = world.running("Ada").await;
    let spec = AgentSpec::clone(&agent.view().unwrap().record.spec);
    let mut renamed = spec.clone();
    renamed.name = "Eve".into();
    let mut warmer = renamed.clone();
    warmer.temperature = Some(1.1);
    let patch = AgentPatch::default;
    let slack = || serde_json::from_str::<Channels>(r#"{"slack": {"botToken": "xoxb-1"}}"#).unwrap();
    for (what, patch, restarts) in [
        ("its name", patch().with_spec(renamed), false),
        ("its temperature", patch().with_spec(warmer), true),
        ("its key", patch().with_api_key(Secret::new("sk-another".to_owned())), true),
        ("the key that it has", patch().with_api_key(Secret::new("sk-another".to_owned())), false),
        ("the channels that it has", patch().with_channels(Channels::default()), false),
        ("its channels", patch().with_channels(slack()), true),
        ("these channels again", patch().with_channels(slack()), false),
        ("nothing", patch(), false),
    ] {
        let before = agent.view().unwrap().record.state.attempt;
        agent.update(patch).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        agent.wait(&[Status::Running], PATIENCE).await.unwrap();
        assert_eq!(agent.view().unwrap().record.state.attempt > before, restarts, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn former_keys_are_remembered_up_to_a_bound_the_newest_last() {
    let world = testkit::plane(111, Plan::Free).await;
    let agent = world.running("Ada").await;
    agent.stop().await.unwrap();
    agent.wait(&[Status::Stopped], PATIENCE).await.unwrap();
    let set = async |key: &str| {
        let patch = AgentPatch::default().with_api_key(Secret::new(key.to_owned()));
        agent.update(patch).await.unwrap();
    };
    let former = || agent.retired_secrets().iter().map(|key| key.expose().clone()).collect::<Vec<_>>();
    assert_eq!(former(), [""; 0]);
    set("sk-0").await;
    assert_eq!(former(), [testkit::API_KEY]);
    set("sk-0").await;
    assert_eq!(former(), [testkit::API_KEY], "it is in use still");
    for n in 1..18 {
        set(&format!("sk-{n}")).await;
    }
    assert_eq!(former(), (1..17).map(|n| format!("sk-{n}")).collect::<Vec<_>>());
    // One that was used again and is replaced again is the newest, and there once.
    set("sk-16").await;
    set("sk-18").await;
    let mut known: Vec<_> = (2..16).map(|n| format!("sk-{n}")).collect();
    known.extend(["sk-17".into(), "sk-16".into()]);
    assert_eq!(former(), known);
}

#[tokio::test(start_paused = true)]
async fn wait_that_a_stop_makes_hopeless_ends_with_the_stop_and_one_for_its_end_goes_on() {
    let world = testkit::plane(112, Plan::Free).await;
    world.fakes.engine().set_behavior(GatewayBehavior::default().with_ends_in(None));
    let agent = world.running("Ada").await;
    agent.stop().await.unwrap();
    let running = agent.wait(&[Status::Running], PATIENCE).await;
    assert!(matches!(running, Err(WaitError::OutOfReach { status: Status::Stopping, .. })), "{running:?}");
    let early = agent.wait(&[Status::Stopped], Duration::from_millis(1)).await;
    assert_eq!(early.err(), Some(WaitError::TimedOut), "a stop takes its time");
    let failed_stop = agent.wait(&[Status::Error], Duration::from_millis(1)).await;
    assert_eq!(failed_stop.err(), Some(WaitError::TimedOut), "a stop may fail");
    agent.wait(&[Status::Stopped], PATIENCE).await.unwrap();
    agent.start().await.unwrap();
    agent.wait(&[Status::Running], PATIENCE).await.unwrap();
    agent.restart().await.unwrap();
    assert_eq!(status(&agent), Some(Status::Stopping));
    agent.wait(&[Status::Running], PATIENCE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn change_of_an_agent_whose_actor_is_being_rebuilt_waits_for_it() {
    let world = testkit::plane(113, Plan::Free).await;
    let agent = world.running("Ada").await;
    // Each crash in a row makes the wait before the next actor longer.
    for _ in 0..2 {
        until("its actor is there", || world.plane.crash_actor(agent.id(), ActorCrash::Kill)).await;
        let is_gone = || !world.plane.crash_actor(agent.id(), ActorCrash::Kill);
        until("its actor is gone", is_gone).await;
    }
    let mut spec = AgentSpec::clone(&agent.view().unwrap().record.spec);
    spec.name = "Eve".into();
    assert_eq!(agent.update(AgentPatch::default().with_spec(spec)).await, Ok(CommandOutcome::Accepted));
}

#[tokio::test(start_paused = true)]
async fn command_behind_a_crash_of_its_actor_is_repeated() {
    let world = testkit::plane(114, Plan::Free).await;
    let agent = world.running("Ada").await;
    // The crash is before it in the actor's mailbox: nobody answers it.
    assert!(world.plane.crash_actor(agent.id(), ActorCrash::Panic));
    assert_eq!(agent.stop().await, Ok(CommandOutcome::Accepted));
    agent.wait(&[Status::Stopped], PATIENCE).await.unwrap();
}
