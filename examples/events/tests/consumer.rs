//! The consumer is stopped and late; its counts are right all the same.

use std::time::Duration;

use events::Counts;
use zeroone::domain::Plan;
use zeroone::testkit;

#[tokio::test(start_paused = true)]
async fn counts_are_right_after_every_stop() {
    let world = testkit::plane(1, Plan::Pro).await;
    let mut counts = Counts::default();
    for round in 0..5 {
        let kept = world.running(&format!("kept {round}")).await;
        let gone = world.running(&format!("gone {round}")).await;
        if round % 2 == 0 {
            // What is kept of the consumer between two runs.
            counts = counts.clone();
            counts.catch_up(&world.plane).await.unwrap();
        }
        gone.delete().await.unwrap();
        assert!(gone.gone(Duration::from_secs(60)).await);
        assert!(kept.view().is_some());
    }
    counts.catch_up(&world.plane).await.unwrap();
    assert_eq!(counts.agents[&world.user], 5);
    assert_eq!(counts.offset, world.plane.newest_event());
}

#[tokio::test(start_paused = true)]
async fn an_offset_of_another_store_is_noticed() {
    let world = testkit::plane(2, Plan::Pro).await;
    world.running("one").await;
    let mut counts = Counts { offset: world.plane.newest_event() + 100, ..Counts::default() };
    counts.catch_up(&world.plane).await.unwrap();
    assert_eq!(counts, Counts { agents: [(world.user, 1)].into(), offset: world.plane.newest_event() });
}
