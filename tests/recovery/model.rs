//! How an agent's model does, as its timeline tells it.

use zeroone::control::{Agents, Settings};
use zeroone::zeroclaw::client::ModelFailure;

use super::*;

async fn told(agent: &AgentHandle) -> Vec<String> {
    let of_model = |cause: &String| cause.starts_with("model-");
    causes(agent).await.into_iter().filter(of_model).collect()
}

fn class(agent: &AgentHandle) -> Option<String> {
    let view = agent.view()?;
    view.record.state.failed_model.as_ref().map(|model| model.class.to_string())
}

#[tokio::test(start_paused = true)]
async fn failing_model_is_told_once_for_each_kind_of_failure_and_when_it_is_back() {
    let mut world = testkit::plane(80, Plan::Free).await;
    let agent = world.running("Ada").await;
    let answers = async |agent: &AgentHandle, status: u16| {
        agent.deliver(message("hi")).await.map(|answer| assert_eq!(answer.status, status)).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    world.fakes.engine().set_gateway_fault(GatewayFault::Fails(500));
    for _ in 0..3 {
        answers(&agent, 500).await;
        assert_eq!(told(&agent).await, ["model-failed"]);
        assert_eq!(class(&agent).as_deref(), Some("unknown"));
    }
    world.fakes.engine().set_gateway_fault(GatewayFault::Fails(408));
    for _ in 0..2 {
        answers(&agent, 408).await;
        assert_eq!(told(&agent).await, ["model-failed", "model-failed"]);
        assert_eq!(class(&agent).as_deref(), Some("timeout"));
    }
    // What says nothing about the model changes nothing.
    world.fakes.engine().set_gateway_fault(GatewayFault::Fails(404));
    answers(&agent, 404).await;
    assert_eq!(class(&agent).as_deref(), Some("timeout"));

    // Another service knows it from the store alone.
    let id = agent.id();
    drop(agent);
    world.plane.shutdown(Agents::Leave).await;
    world.plane = testkit::start(&world.fakes, &world.disk, Settings::default()).await.unwrap();
    let agent = world.plane.agent(id).unwrap();
    assert!(agent.explain().unwrap().because.contains("its model failed"));
    world.fakes.engine().set_gateway_fault(GatewayFault::Well);
    for _ in 0..2 {
        answers(&agent, 200).await;
        assert_eq!(told(&agent).await, ["model-failed", "model-failed", "model-back"]);
        assert_eq!(class(&agent), None);
    }
    assert!(!agent.explain().unwrap().because.contains("model"));
}

#[tokio::test(start_paused = true)]
async fn model_that_answers_before_its_failure_is_stored_is_back() {
    let world = testkit::plane(81, Plan::Free).await;
    let agent = world.running("Ada").await;
    world.fakes.engine().set_gateway_fault(GatewayFault::Fails(500));
    let answer = agent.deliver(message("hi")).await.unwrap();
    world.fakes.engine().set_gateway_fault(GatewayFault::Well);
    answered(&agent, "hi").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((told(&agent).await, class(&agent)), (vec!["model-failed".to_owned(), "model-back".into()], None));
    agent.note_model(Err(ModelFailure::read(&answer).unwrap()));
    agent.note_model(Ok(()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((told(&agent).await.len(), class(&agent)), (4, None));
}
