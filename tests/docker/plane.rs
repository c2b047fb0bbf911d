//! The whole control plane on a real engine with the real ZeroClaw: what users ask for takes effect, alone and side by
//! side. What happens to agents behind its back is the matter of `matrix`.

use std::collections::HashSet;

use bollard::query_parameters::{ListContainersOptionsBuilder, ListVolumesOptionsBuilder};
use futures_util::future::join_all;
use zeroone::control::AgentPatch;
use zeroone::domain::{Channels, HostPort, Secret, Status, Telegram};
use zeroone::testkit;

use crate::model::Model;
use crate::service::{PATIENCE, Service, causes, restarts};
use crate::world::{World, until};

pub(crate) async fn answers_and_takes_every_change(world: &World) {
    let mut service = Service::new(world).await;
    let agent = service.running().await;
    let question = service.talk(&agent).await.to_ascii_lowercase();
    assert!(question.contains("\"m-1\"") && question.contains("bearer sk-planted-in-the-testkit"), "{question}");
    let first = agent.view().unwrap();

    let mut spec = (*first.record.spec).clone();
    spec.model = "m-2".into();
    agent.update(AgentPatch::default().with_spec(spec)).await.unwrap();
    let question = service.talk(&agent).await;
    assert!(question.contains("\"m-2\"") && !question.contains("m-1"), "{question}");

    agent.update(AgentPatch::default().with_api_key(Secret::from("sk-other"))).await.unwrap();
    let question = service.talk(&agent).await;
    assert!(question.contains("sk-other") && question.contains("\"m-2\""), "{question}");

    let telegram = Telegram::new("1:not-a-token");
    let channels = Channels::default().with_telegram(telegram);
    agent.update(AgentPatch::default().with_channels(channels)).await.unwrap();
    service.talk(&agent).await;
    assert_eq!(service.container(&agent).await.config.unwrap().cmd.unwrap(), ["daemon"]);
    let config: toml::Table = service.read(&agent, ".zeroclaw/config.toml").await.unwrap().parse().unwrap();
    let allowed = &config["channels_config"]["telegram"]["allowed_users"];
    assert_eq!(allowed.as_array().unwrap(), &[toml::Value::from("*")], "nobody named means everybody");

    // Another model server: another provider, as ZeroClaw has it.
    let mut other = Model::new(world).await;
    let mut spec = (*agent.view().unwrap().record.spec).clone();
    spec.provider_url = Some(other.url());
    agent.update(AgentPatch::default().with_spec(spec)).await.unwrap();
    agent.deliver(testkit::message("hi")).await.unwrap();
    assert!(other.question().await.contains("sk-other"));
    assert_eq!((service.pairings(), restarts(&agent)), (1, 0));
}

pub(crate) async fn stops_by_itself_and_leaves_nothing(world: &World) {
    let service = Service::new(world).await;
    let agent = service.running().await;
    agent.stop().await.unwrap();
    agent.wait(&[Status::Stopped], PATIENCE).await.unwrap();
    // By SIGTERM, long before the grace is over: by force it would be 137.
    assert_eq!(service.container(&agent).await.state.unwrap().exit_code, Some(143));

    agent.delete().await.unwrap();
    assert!(agent.gone(PATIENCE).await);
    assert_eq!(owned(world).await, (0, 0));
}

/// How many containers and volumes of this installation there are.
async fn owned(world: &World) -> (usize, usize) {
    let label = format!("zeroone.installation={}", world.options.installation);
    let filter = std::collections::HashMap::from([("label", vec![label])]);
    let all = ListContainersOptionsBuilder::default().all(true).filters(&filter).build();
    let containers = world.docker.list_containers(Some(all)).await.unwrap();
    let all = ListVolumesOptionsBuilder::default().filters(&filter).build();
    let volumes = world.docker.list_volumes(Some(all)).await.unwrap().volumes.unwrap_or_default();
    (containers.len(), volumes.len())
}

pub(crate) async fn twenty_at_once_are_all_running(world: &World) {
    let service = Service::new(world).await;
    let agents = join_all((0..20).map(|_| service.running())).await;
    let ports: HashSet<_> = agents.iter().map(|agent| agent.view().unwrap().port).collect();
    assert_eq!((ports.len(), owned(world).await), (20, (20, 20)));
    for agent in &agents {
        agent.delete().await.unwrap();
    }
    for agent in &agents {
        assert!(agent.gone(PATIENCE).await);
    }
    assert_eq!(owned(world).await, (0, 0));
}

pub(crate) async fn a_foreign_listener_costs_only_its_port(world: &World) {
    let mut service = Service::new(world).await;
    // The next port, unless the range ends here, or somebody listens there already who may be gone when it matters.
    let (port, _stranger) = until("a free next port", async || {
        let port = service.running().await.view().unwrap().port.unwrap().get() + 1;
        let next = HostPort::try_from(port).ok().filter(|port| service.ports.contains(*port))?;
        Some((port, std::net::TcpListener::bind(("127.0.0.1", next.get())).ok()?))
    })
    .await;
    let agent = service.running().await;
    service.talk(&agent).await;
    let timeline = causes(&agent).await;
    assert_ne!(agent.view().unwrap().port.unwrap().get(), port, "{timeline:#?}");
    assert!(timeline.iter().any(|cause| cause.starts_with("port-taken")), "{timeline:#?}");
    // It is left alone for a while, not tried again by the next one.
    let next = service.running().await;
    assert!(!causes(&next).await.iter().any(|cause| cause.contains(&port.to_string())));
}
