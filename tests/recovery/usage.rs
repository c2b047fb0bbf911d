//! Figures of agents that are not measured in full.

use zeroone::control::{Agents, ControlPlane, NewUser, Settings};
use zeroone::store::{Store, StoreOptions};
use zeroone::testkit::{Call, FakeDisk, Fakes, Fault, Faults};
use zeroone::usage::Ring;

use super::*;

#[tokio::test(start_paused = true)]
async fn cost_is_written_down_where_use_cannot_be_measured_and_nothing_where_there_is_none() {
    let (fakes, faults) = (Fakes::new(120), Faults::new(120));
    for _ in 0..100 {
        faults.next(Call::Usage, Fault::Fail);
    }
    let options = StoreOptions::default().with_installation(fakes.installation()).with_now(fakes.engine().now());
    let store = Store::in_memory(FakeDisk::new(), options).unwrap();
    let plane = ControlPlane::builder(store, testkit::vault(), faults.runtime(fakes.runtime()))
        .gateway(fakes.gateway())
        .clock(fakes.clock())
        .settings(Settings::default().with_record_usage(true))
        .start()
        .await
        .unwrap();
    let user = plane.create_user(NewUser::new("ada@example.com", Plan::Free)).await.unwrap().id;
    let agent = plane.create_agent(user, new_agent("Ada")).await.unwrap();
    agent.wait(&[Status::Running], PATIENCE).await.unwrap();
    tokio::time::sleep(Duration::from_secs(90)).await;
    // The gateway in memory counts a hundred tokens for each message.
    answered(&agent, "hi").await;
    tokio::time::sleep(Duration::from_secs(210)).await;
    let minutes = agent.figures(Ring::Minutes).await.unwrap();
    assert_eq!(minutes.iter().map(|(_, point)| point.tokens).collect::<Vec<_>>(), [Some(100)], "{minutes:?}");
    assert_eq!(minutes[0].1.memory_mb, None);
    assert_eq!(plane.figures(Ring::Minutes).await.unwrap(), minutes, "the service has no other agent");
}

#[tokio::test(start_paused = true)]
async fn hours_before_are_kept_when_another_begins_and_over_a_restart() {
    let (fakes, disk) = (Fakes::new(121), FakeDisk::new());
    let settings = Settings::default().with_record_usage(true);
    let mut plane = testkit::start(&fakes, &disk, settings.clone()).await.unwrap();
    let user = plane.create_user(NewUser::new("ada@example.com", Plan::Free)).await.unwrap().id;
    let agent = plane.create_agent(user, new_agent("Ada")).await.unwrap();
    agent.wait(&[Status::Running], PATIENCE).await.unwrap();
    let id = agent.id();
    drop(agent);
    for hour in 0..3 {
        let agent = plane.agent(id).unwrap();
        agent.note_message(true, Duration::from_millis(100));
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let answered = async |plane: &ControlPlane| {
            let hours = [agent.figures(Ring::Hours).await.unwrap(), plane.figures(Ring::Hours).await.unwrap()];
            hours.map(|points| points.iter().filter(|(_, point)| point.answered > 0).count())
        };
        assert_eq!(answered(&plane).await, [hour + 1; 2]);
        if hour == 1 {
            plane.shutdown(Agents::Leave).await;
            plane = testkit::start(&fakes, &disk, settings.clone()).await.unwrap();
        }
    }
}
