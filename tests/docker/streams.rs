//! What a user follows over HTTP while a real container goes its way: its log and its samples.

use bollard::query_parameters::KillContainerOptionsBuilder;
use serde_json::Value;

use crate::api::Api;
use crate::service::{PATIENCE, Service, container_name, restarts};
use crate::sse::{Event, Events};
use crate::world::{World, until};

pub(crate) async fn a_log_is_followed_over_a_restart_each_line_once(world: &World) {
    let service = Service::new(world).await;
    let api = Api::of(&service).await;
    let agent = service.running().await;
    let mut events = Events::open(api.get(&agent, "/logs?follow=true&tail=5000")).await;
    let mut seen = vec![next(&mut events).await];

    let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
    world.docker.kill_container(&container_name(&agent), Some(options)).await.unwrap();
    until("its next run", async || (restarts(&agent) == 1).then_some(())).await;
    service.runs(&agent).await;
    let all: Value = api.get(&agent, "/logs?tail=5000").send().await.unwrap().json().await.unwrap();
    let all = all["lines"].as_array().unwrap();
    while seen.last().is_none_or(|event| Some(&event.data) != all.last()) {
        seen.push(next(&mut events).await);
    }

    let lines: Vec<&Value> = seen.iter().filter(|event| event.kind == "line").map(|event| &event.data).collect();
    assert_eq!(lines, all.iter().collect::<Vec<_>>(), "each line once, in order, none left out");
    let runs: Vec<&[Event]> = seen.split(|event| event.kind == "restart").collect();
    let begins =
        |events: &[Event]| events.iter().any(|event| event.data["text"].as_str().unwrap().contains("listening on"));
    assert_eq!(runs.iter().map(|events| begins(events)).collect::<Vec<_>>(), [true, true], "a mark between two runs");
    let times: Vec<&str> = lines.iter().map(|line| line["time"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

async fn next(events: &mut Events) -> Event {
    tokio::time::timeout(PATIENCE, events.next()).await.expect("an event in time").expect("as long as its agent")
}

pub(crate) async fn samples_come_as_a_stream(world: &World) {
    let service = Service::new(world).await;
    let api = Api::of(&service).await;
    let agent = service.running().await;
    let mut events = Events::open(api.get(&agent, "/stats?stream=true")).await;
    let (first, second) = (next(&mut events).await, next(&mut events).await);
    for sample in [&first, &second] {
        assert_eq!(sample.kind, "usage");
        let number = |field: &str| sample.data[field].as_f64().unwrap();
        let limit = f64::from(service.plane.accounts().limits_of(service.user).memory_mb);
        assert_eq!(number("memoryLimitMb"), limit);
        assert!(number("memoryMb") > 1.0 && number("memoryMb") < limit, "{sample:?}");
        assert!(number("pids") >= 2.0, "its init and itself: {sample:?}");
    }
    assert!(first.data["at"].as_str() < second.data["at"].as_str());

    // Down and up again, the stream goes on.
    agent.restart().await.unwrap();
    service.runs(&agent).await;
    let at = zeroone::domain::Timestamp::now().to_string();
    while next(&mut events).await.data["at"].as_str().unwrap() < at.as_str() {}
}
