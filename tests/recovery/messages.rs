//! Messages and connections on their way to a gateway that refuses, hangs or fails.

use tokio::time::Instant;
use zeroone::control::Agents;
use zeroone::testkit::{API_KEY, Pace};

use super::*;

const HOLD: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn message_to_a_control_plane_that_has_ended_is_not_sent() {
    let world = testkit::plane(70, Plan::Free).await;
    let agent = world.running("Ada").await;
    // The end has begun, and the agent still runs.
    let (_, late) = tokio::join!(world.plane.shutdown(Agents::Leave), agent.deliver(message("late")));
    assert_eq!(late.err(), Some(DeliveryError::Closing));
    assert_eq!(agent.deliver(message("later")).await.err(), Some(DeliveryError::Closing));
    assert_eq!(world.fakes.engine().tally(agent.id()).messages, []);
}

#[tokio::test(start_paused = true)]
async fn message_that_is_refused_with_a_new_token_as_well_is_not_sent_a_third_time() {
    let world = testkit::plane(71, Plan::Free).await;
    let agent = world.running("Ada").await;
    let (engine, first) = (world.fakes.engine(), agent.view().unwrap().record.state.attempt);
    // Slow enough that the gateway can change its mind between the new pairing and the second try.
    engine.set_pace(Pace::new(Duration::from_millis(20)));
    engine.forget_tokens(agent.id());
    let sent = tokio::spawn({
        let agent = agent.clone();
        async move { agent.deliver(message("hi")).await }
    });
    let paired_again = || {
        let access = agent.view().and_then(|view| view.access.clone());
        access.is_some_and(|access| access.attempt > first)
    };
    until("it is paired again", paired_again).await;
    engine.set_gateway_fault_of(agent.id(), Some(GatewayFault::Forgetful));
    assert_eq!(sent.await.unwrap().err(), Some(DeliveryError::Unauthorized));
    assert_eq!(engine.tally(agent.id()).messages, []);
}

#[tokio::test(start_paused = true)]
async fn way_to_a_gateway_is_given_at_once_however_many_messages_wait() {
    let world = testkit::plane(72, Plan::Free).await;
    let agent = world.running("Ada").await;
    world.fakes.engine().set_gateway_fault(GatewayFault::Hung);
    let sent: Vec<_> = (0..256)
        .map(|n| {
            let agent = agent.clone();
            tokio::spawn(async move { agent.deliver(message(&format!("{n}"))).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(agent.deliver(message("one more")).await.err(), Some(DeliveryError::QueueFull));
    let deadline = Instant::now() + HOLD;
    let access = agent.access(deadline, HOLD, None).await.unwrap();
    let another = agent.access(deadline, HOLD, Some(access.attempt)).await;
    assert_eq!(another.err(), Some(DeliveryError::QueueFull), "for another one it would have to wait");
    sent.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn way_to_the_gateway_of_a_later_attempt_is_waited_for() {
    let world = testkit::plane(73, Plan::Free).await;
    let agent = world.running("Ada").await;
    let first = agent.access(Instant::now() + HOLD, HOLD, None).await.unwrap();
    let none = agent.access(Instant::now() + HOLD, HOLD, Some(first.attempt)).await;
    assert_eq!(none.err(), Some(DeliveryError::NotReady { status: Status::Running, held: HOLD }));
    assert!(world.fakes.engine().crash(agent.id()));
    let next = agent.access(Instant::now() + HOLD, HOLD, Some(first.attempt)).await.unwrap();
    assert_eq!(next.attempt, first.attempt + 1);
}

#[tokio::test(start_paused = true)]
async fn token_that_a_connection_was_refused_with_is_replaced() {
    let world = testkit::plane(74, Plan::Free).await;
    let agent = world.running("Ada").await;
    let first = agent.access(Instant::now() + HOLD, HOLD, None).await.unwrap();
    assert!(!agent.is_token_refused(&first).await);
    world.fakes.engine().forget_tokens(agent.id());
    assert!(agent.is_token_refused(&first).await);
    let next = agent.access(Instant::now() + HOLD, HOLD, Some(first.attempt)).await.unwrap();
    assert!(!agent.is_token_refused(&next).await);
}

/// As ZeroClaw before 0.8 writes it.
fn logged(status: &str, words: &str) -> String {
    format!("WARN reliable: error=Custom API error ({status}): {{\"error\": {{\"message\": \"{words}\"}}}}")
}

#[tokio::test(start_paused = true)]
async fn reason_of_a_failure_is_found_in_what_was_logged_since_the_message() {
    let world = testkit::plane(75, Plan::Free).await;
    let engine = world.fakes.engine();
    engine.set_behavior(GatewayBehavior::default().with_answers_in(Duration::from_secs(1)));
    let agent = world.running("Ada").await;
    engine.set_gateway_fault(GatewayFault::Fails(500));
    assert!(engine.print(agent.id(), &logged("429 Too Many Requests", "of an earlier message")));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let reason = async |lines: Vec<String>| {
        let sent = tokio::spawn({
            let agent = agent.clone();
            async move { agent.deliver(message("hi")).await.unwrap() }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(lines.iter().all(|line| engine.print(agent.id(), line)));
        let answer: serde_json::Value = serde_json::from_slice(&sent.await.unwrap().body).unwrap();
        answer["model"]["message"].as_str().map(str::to_owned)
    };
    assert_eq!(reason(Vec::new()).await, None, "what was logged before is of another message");
    let refused = logged("401 Unauthorized", &format!("no such key: {API_KEY}"));
    assert_eq!(reason(vec![refused.clone()]).await.as_deref(), Some("no such key: [redacted]"));
    let mut lines = vec![refused];
    lines.extend((0..40).map(|n| format!("something else {n}")));
    assert_eq!(reason(lines).await, None, "a chatty log is not read to its end");
}
