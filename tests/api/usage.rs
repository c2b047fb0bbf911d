//! Figures over time.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use zeroone::control::{Agents, NewUser, Settings};
use zeroone::domain::{Plan, Status};
use zeroone::testkit::{self, FakeDisk, Fakes};
use zeroone::usage::Ring;

use crate::world::{World, answer};

#[tokio::test(start_paused = true)]
async fn each_minute_is_written_down_and_outlives_a_restart() {
    let (fakes, disk) = (Fakes::new(7), FakeDisk::new());
    let settings = Settings::default().with_record_usage(true);
    let plane = testkit::start(&fakes, &disk, settings.clone()).await.unwrap();
    let new = NewUser::new("ada@example.org", Plan::Pro);
    let user = plane.create_user(new).await.unwrap().id;
    let agent = plane.create_agent(user, testkit::new_agent("a")).await.unwrap();
    agent.wait(&[Status::Running], Duration::from_secs(60)).await.unwrap();
    for n in 1..=4 {
        agent.note_message(n != 4, Duration::from_millis(100 * n));
    }
    tokio::time::sleep(Duration::from_secs(150)).await;
    let minutes = agent.figures(Ring::Minutes).await.unwrap();
    assert!(minutes.len() >= 2, "the instance is measured in each minute: {minutes:?}");
    assert!(minutes.is_sorted_by_key(|(at, _)| *at));
    let (_, first) = minutes.iter().find(|(_, point)| point.answered > 0).unwrap();
    assert_eq!((first.answered, first.failed, first.p50_ms, first.p95_ms), (3, 1, Some(200), Some(300)));
    assert!(minutes.iter().all(|(_, point)| point.memory_mb.is_some()), "{minutes:?}");
    let hours = agent.figures(Ring::Hours).await.unwrap();
    assert_eq!(hours.iter().map(|(_, point)| point.answered).sum::<u64>(), 3);
    let service = plane.figures(Ring::Minutes).await.unwrap();
    assert_eq!(service.iter().map(|(_, point)| point.answered).sum::<u64>(), 3, "the only agent's: {service:?}");
    let id = agent.id();
    plane.shutdown(Agents::Leave).await;

    let plane = testkit::start(&fakes, &disk, settings).await.unwrap();
    let agent = plane.agent(id).unwrap();
    assert_eq!(agent.figures(Ring::Minutes).await.unwrap(), minutes);
    agent.wait(&[Status::Running], Duration::from_secs(60)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(90)).await;
    let later = agent.figures(Ring::Minutes).await.unwrap();
    assert!(later.len() > minutes.len() && later[..2] == minutes[..2], "what was written stays: {later:?}");
    agent.delete().await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(plane.store().usage(id).await.unwrap(), []);
    assert!(!plane.figures(Ring::Minutes).await.unwrap().is_empty(), "the service's stay");
}

#[tokio::test]
async fn a_request_says_what_it_wants_or_hears_what_is_wrong() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let path = format!("/api/agents/{id}/usage");
    let day = world.get(&format!("{path}?from=2020-01-01T00:00:00Z&to=2020-01-01T12:00:00Z&step=1h")).await;
    assert_eq!((day.status, &day.body["data"], &day.body["stepSecs"]), (200, &json!([]), &json!(3600)));
    for (query, name) in [
        ("from=2020-01-01T00:00:00Z&to=2019-01-01T00:00:00Z", "from"),
        ("from=2020-01-01T00:00:00Z&to=2021-01-01T00:00:00Z", "from"),
        ("step=", "step"),
        ("step=1s", "step"),
        ("from=soon", "from"),
    ] {
        let refused = world.get(&format!("{path}?{query}")).await;
        refused.problem(422, "invalid");
        assert_eq!(refused.body["errors"][0]["parameter"], name, "{query}");
    }
    answer(world.raw(Method::GET, &path).bearer_auth(world.stranger().await)).await.problem(404, "not-found");
}

#[tokio::test(start_paused = true)]
async fn tokens_and_cost_are_what_the_gateway_counted_in_each_minute() {
    let (fakes, disk) = (Fakes::new(8), FakeDisk::new());
    let settings = Settings::default().with_record_usage(true);
    let plane = testkit::start(&fakes, &disk, settings).await.unwrap();
    let new = NewUser::new("ada@example.org", Plan::Pro);
    let user = plane.create_user(new).await.unwrap().id;
    let mut agents = Vec::new();
    for name in ["a", "b"] {
        let agent = plane.create_agent(user, testkit::new_agent(name)).await.unwrap();
        agent.wait(&[Status::Running], Duration::from_secs(60)).await.unwrap();
        agents.push(agent);
    }
    // The gateway in memory counts a hundred tokens for each message.
    for _ in 0..3 {
        agents[0].deliver(testkit::message("hi")).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
    agents[1].deliver(testkit::message("hi")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
    let sums = async |figures: Vec<(zeroone::domain::Timestamp, zeroone::usage::Point)>| {
        let tokens: u64 = figures.iter().filter_map(|(_, point)| point.tokens).sum();
        let cost: f64 = figures.iter().filter_map(|(_, point)| point.cost_usd).sum();
        (tokens, (cost * 1000.0).round() as u64)
    };
    assert_eq!(sums(agents[0].figures(Ring::Minutes).await.unwrap()).await, (300, 3));
    assert_eq!(sums(agents[1].figures(Ring::Minutes).await.unwrap()).await, (100, 1));
    assert_eq!(sums(plane.figures(Ring::Minutes).await.unwrap()).await, (400, 4));
    assert_eq!(sums(plane.figures(Ring::Hours).await.unwrap()).await, (400, 4));
}
