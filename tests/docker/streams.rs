//! What a user follows over HTTP while a real container goes its way: its log and its samples.

use bollard::query_parameters::KillContainerOptionsBuilder;
use reqwest::{Client, RequestBuilder};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use zeroone::control::{AgentHandle, NewKey};
use zeroone::domain::Scopes;
use zeroone::http::{HttpOptions, ServeOptions, router, serve};

use crate::http_client::http_client;
use crate::service::{PATIENCE, Service, container_name, restarts};
use crate::sse::{Event, Events};
use crate::world::{World, until};

/// The service's API on a loopback port, with a key of its user.
struct Api {
    url: String,
    key: String,
    client: Client,
    server: JoinHandle<std::io::Result<()>>,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Api {
    async fn of(service: &Service<'_>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/api/agents", listener.local_addr().unwrap());
        let http = HttpOptions::default();
        let closing = http.closing.clone();
        let app = router(service.plane.clone(), http);
        let server = tokio::spawn(serve(listener, app, closing, ServeOptions::default()));
        let key = NewKey::new(Scopes::user());
        let key = service.plane.create_key(service.user, key).await.unwrap().1.expose().clone();
        Self { url, key, client: http_client(PATIENCE), server }
    }

    fn get(&self, agent: &AgentHandle, path: &str) -> RequestBuilder {
        self.client.get(format!("{}/{}{path}", self.url, agent.id())).bearer_auth(&self.key)
    }
}

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
