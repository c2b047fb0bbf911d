//! The crate's own code against a control plane to which terrible things happen.

use std::time::Duration;

use chaos_kit::ask_any;
use zeroone::control::{ControlPlane, NewUser};
use zeroone::domain::{Plan, Status};
use zeroone::store::{Store, StoreOptions};
use zeroone::testkit::{self, Call, Condition, FakeDisk, Fakes, Fault, Faults, GatewayFault, Odds};

const QUESTION: &str = r#"{"message":"anyone?"}"#;

#[tokio::test(start_paused = true)]
async fn somebody_answers_as_long_as_one_agent_is_well() {
    let world = testkit::plane(1, Plan::Free).await;
    let agents = [world.running("First").await, world.running("Second").await, world.running("Third").await];
    let engine = world.fakes.engine();
    engine.set_gateway_fault_of(agents[0].id(), Some(GatewayFault::Fails(500)));
    engine.set_condition(Condition::Away);
    engine.crash(agents[1].id());
    let answer = ask_any(&agents, QUESTION).await;
    assert!(answer.is_some_and(|answer| answer.contains("echo: anyone?")));
    assert_eq!(engine.tally(agents[2].id()).messages.len(), 1);

    // Afterwards the engine is back, and all that must hold holds.
    engine.set_condition(Condition::Answers);
    engine.set_gateway_fault_of(agents[0].id(), None);
    tokio::time::sleep(Duration::from_secs(120)).await;
    let violations = testkit::check(&world.plane, &*world.fakes.runtime(), true).await;
    assert_eq!(violations, Ok(Vec::new()));
}

/// With faults by chance and by script: a control plane put together by hand.
#[tokio::test(start_paused = true)]
async fn a_fleet_comes_up_whatever_the_engine_does_to_calls() {
    for seed in 0..20 {
        let (fakes, faults, disk) = (Fakes::new(seed), Faults::new(seed), FakeDisk::new());
        faults.next(Call::Create, Fault::LoseAnswer);
        faults.next(Call::Start, Fault::Repeat);
        faults.set_odds(
            Odds::default()
                .with_fail(50)
                .with_delay(100)
                .with_hang(5)
                .with_repeat(50)
                .with_lose_answer(50)
                .with_lose_event(300)
                .with_repeat_event(300)
                .with_longest_delay(Duration::from_secs(3)),
        );
        let store = Store::in_memory(disk, StoreOptions::default().with_installation(fakes.installation()));
        let plane =
            ControlPlane::builder(store.expect("a new disk"), testkit::vault(), faults.runtime(fakes.runtime()))
                .gateway(faults.gateway(fakes.gateway()))
                .clock(fakes.clock())
                .start()
                .await
                .expect("it comes up");
        let user = NewUser::new("ada@example.com", Plan::Pro);
        let user = plane.create_user(user).await.expect("a new store takes a user").id;
        for n in 0..10 {
            plane.create_agent(user, fakes.new_agent(&format!("Agent {n}"))).await.expect("within the plan");
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(faults.injected() > 0);

        faults.set_odds(Odds::default());
        // Longer than the longest limit, that of a call that fetches an image and hangs.
        tokio::time::sleep(Duration::from_secs(1200)).await;
        let running = plane.agents(None, None, 100, &[Status::Running]).agents.len();
        assert_eq!(running, 10, "seed {seed}");
        let violations = testkit::check(&plane, &*fakes.runtime(), true).await;
        assert_eq!(violations, Ok(Vec::new()), "seed {seed}");
    }
}
