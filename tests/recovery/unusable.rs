//! A gateway that is healthy and would answer no message: its agent is not RUNNING for long.

use super::*;

fn reason(agent: &AgentHandle) -> Option<(Code, String)> {
    let view = agent.view()?;
    view.record.state.reason.as_ref().map(|cause| (cause.code, cause.message()))
}

#[tokio::test(start_paused = true)]
async fn healthy_and_unusable_ends_in_error_with_the_gateways_words() {
    let world = testkit::plane(31, Plan::Pro).await;
    world.fakes.engine().set_gateway_fault(GatewayFault::Unusable);
    let agent = created(&world, "Ada").await;
    until("it is given up", || status(&agent) == Some(Status::Error)).await;
    let (code, message) = reason(&agent).unwrap();
    assert_eq!(code, Code::Unusable);
    assert!(message.contains("Add a model provider.") && message.contains("PATCH"), "{message}");
    assert!(!causes(&agent).await.contains(&"paired".to_owned()), "it was never RUNNING");
    assert_eq!(agent.view().unwrap().record.state.next_attempt_at(), None);
    assert_eq!(world.fakes.engine().tally(agent.id()).failed_pairings, 0);

    // Whoever changed what was wrong starts it.
    world.fakes.engine().set_gateway_fault(GatewayFault::Well);
    agent.start().await.unwrap();
    answered(&agent, "hi").await;
}

#[tokio::test(start_paused = true)]
async fn unusable_run_is_found_by_the_deep_check_and_mended_by_new_files() {
    let world = testkit::plane(32, Plan::Pro).await;
    let agent = world.running("Ada").await;
    let before = world.fakes.engine().tally(agent.id());
    world.fakes.engine().set_gateway_fault_of(agent.id(), Some(GatewayFault::Unusable));
    until("it is noticed", || matches!(reason(&agent), Some((Code::Unusable, _)))).await;
    world.fakes.engine().set_gateway_fault_of(agent.id(), None);
    until("it runs again", || status(&agent) == Some(Status::Running)).await;
    answered(&agent, "hi").await;
    let tally = world.fakes.engine().tally(agent.id());
    assert_eq!((tally.starts.len() - before.starts.len(), tally.pairings - before.pairings), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn message_that_no_model_can_answer_brings_new_files_before_the_next_deep_check() {
    let world = testkit::plane(33, Plan::Pro).await;
    let agent = world.running("Ada").await;
    world.fakes.engine().set_gateway_fault_of(agent.id(), Some(GatewayFault::Unusable));
    assert_eq!(agent.deliver(message("hi")).await.unwrap().status, 503);
    world.fakes.engine().set_gateway_fault_of(agent.id(), None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(causes(&agent).await.contains(&"unusable".to_owned()));
    answered(&agent, "hi").await;
}
