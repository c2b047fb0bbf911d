//! The restart matrix: whatever happens to an agent's container, its data, its engine or its service, the agent answers again,
//! with a token that works, in the same container where none had to be made anew, and with what it remembers.

use std::collections::HashMap;

use bollard::errors::Error;
use bollard::exec::StartExecOptions;
use bollard::models::{ContainerCreateBody, ExecConfig, HostConfig, Mount, MountType};
use bollard::query_parameters::{
    CreateContainerOptions, KillContainerOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions,
    RestartContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder,
};
use zeroone::control::AgentHandle;
use zeroone::domain::Secret;
use zeroone::internal::store::{Batch, commit};
use zeroone::runtime::StagedFile;

use crate::containers::test_label;
use crate::own_engine::OwnEngine;
use crate::real::NATIVE;
use crate::service::{Service, causes, container_name, restarts};
use crate::world::{World, file, until};

/// What an agent remembers, as a file of its workspace.
const MEMORY: &str = "workspace/kept.txt";

const CONFIG: &str = ".zeroclaw/config.toml";

/// What a row of the restart matrix expects besides an agent that runs with a token that works.
struct Expected {
    pairings: usize,
    same_container: bool,
    memory: bool,
}

/// Does something to a running agent and sees to it that it answers again.
async fn mended(world: &World, expected: Expected, deed: impl AsyncFnOnce(&mut Service<'_>, &AgentHandle)) {
    let mut service = Service::new(world).await;
    let agent = service.running().await;
    service.talk(&agent).await;
    service.write(&agent, file(MEMORY, "I know you", 0o600)).await;
    let (before, port) = (service.container_id(&agent).await, agent.view().unwrap().port);
    let paired = service.pairings();
    let config = configuration(&service, &agent).await;

    deed(&mut service, &agent).await;
    let agent = service.plane.agent(agent.id()).unwrap();
    service.talk(&agent).await;
    service.runs(&agent).await;
    let timeline = causes(&agent).await;
    assert_eq!(service.pairings() - paired, expected.pairings, "{timeline:#?}");
    // A stranger's connection may get the port of what was down, and then it is made anew with another one.
    let port_lost = agent.view().unwrap().port != port;
    let same_container = service.container_id(&agent).await == before;
    assert_eq!(same_container, expected.same_container && !port_lost, "{timeline:#?}");
    let memory = service.read(&agent, MEMORY).await;
    assert_eq!(memory.as_deref(), expected.memory.then_some("I know you"), "{timeline:#?}");
    let now = configuration(&service, &agent).await;
    assert_eq!(changed(&config, &now), Vec::<String>::new(), "{timeline:#?}");
}

/// Keys that two configurations disagree about. ZeroClaw writes down every default when it pairs, so that one may say more.
fn changed(before: &toml::Table, now: &toml::Table) -> Vec<String> {
    let both = before.iter().filter_map(|(key, before)| Some((key, before, now.get(key)?)));
    let changed = both.flat_map(|(key, before, now)| match (before, now) {
        (toml::Value::Table(before), toml::Value::Table(now)) => changed(before, now),
        (before, now) if before != now => vec![format!("{key}: {before}, now {now}")],
        _ => vec![],
    });
    changed.collect()
}

/// What the agent's config.toml says, but for what ZeroClaw writes there: tokens, and the key and the channel's token as it
/// encrypted them.
async fn configuration(service: &Service<'_>, agent: &AgentHandle) -> toml::Table {
    let mut config: toml::Table = service.read(agent, CONFIG).await.unwrap().parse().unwrap();
    config["gateway"].as_table_mut().unwrap().remove("paired_tokens");
    config.remove("api_key");
    let channel = config.get_mut("channels_config").and_then(|channels| channels.get_mut("telegram"));
    if let Some(channel) = channel.and_then(toml::Value::as_table_mut) {
        channel.remove("bot_token");
    }
    config
}

const NOTHING_LOST: Expected = Expected { pairings: 0, same_container: true, memory: true };

pub(crate) async fn comes_back_from_a_restart_by_the_api(world: &World) {
    // Asked for on purpose, it gives a new token.
    mended(world, Expected { pairings: 1, ..NOTHING_LOST }, async |_, agent| {
        agent.restart().await.unwrap();
    })
    .await;
}

pub(crate) async fn comes_back_from_a_restart_by_hand(world: &World) {
    mended(world, NOTHING_LOST, async |service, agent| restart(service, agent).await).await;
}

async fn restart(service: &Service<'_>, agent: &AgentHandle) {
    let options = RestartContainerOptionsBuilder::default().t(5).build();
    if let Err(error) = service.world.docker.restart_container(&container_name(agent), Some(options)).await {
        // Taken by a stranger's connection in the moment between: then it stays down until it is mended.
        assert!(error.to_string().contains("address already in use"), "{error}");
    }
}

pub(crate) async fn comes_back_from_a_kill_by_hand(world: &World) {
    mended(world, NOTHING_LOST, async |service, agent| {
        let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
        service.world.docker.kill_container(&container_name(agent), Some(options)).await.unwrap();
        told(agent, "ended-outside").await;
    })
    .await;
}

pub(crate) async fn comes_back_from_the_death_of_its_first_process(world: &World) {
    mended(world, NOTHING_LOST, async |service, agent| {
        let init = first_process(service, agent).await;
        kill_process(&init.to_string());
        until("its end", async || (first_process(service, agent).await != init).then_some(())).await;
    })
    .await;
}

/// The gateway itself, as the child of the container's init, whose end is the container's.
pub(crate) async fn comes_back_from_the_death_of_its_gateway(world: &World) {
    mended(world, NOTHING_LOST, async |service, agent| {
        let init = first_process(service, agent).await;
        let children = std::fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap();
        kill_process(children.split_whitespace().next().unwrap());
        until("its end", async || (first_process(service, agent).await != init).then_some(())).await;
    })
    .await;
}

/// The host's number of the container's first process.
async fn first_process(service: &Service<'_>, agent: &AgentHandle) -> i64 {
    service.container(agent).await.state.unwrap().pid.unwrap()
}

fn kill_process(process: &str) {
    assert!(std::process::Command::new("kill").args(["-9", process]).status().unwrap().success());
}

pub(crate) async fn comes_back_from_too_much_memory(world: &World) {
    mended(world, NOTHING_LOST, async |service, agent| {
        // Of all in the container the kernel shall choose this one.
        let init = first_process(service, agent).await;
        std::fs::write(format!("/proc/{init}/oom_score_adj"), "1000").unwrap();
        // A zero is no end of a line, so that all of them are kept.
        let program = Secret::new(std::fs::read("/usr/bin/tail").unwrap());
        service.write(agent, StagedFile { path: "eater".into(), content: program, mode: 0o755 }).await;
        let config =
            ExecConfig { cmd: Some(vec!["/zeroclaw-data/eater".into(), "/dev/zero".into()]), ..ExecConfig::default() };
        let docker = &service.world.docker;
        let eater = docker.create_exec(&container_name(agent), config).await.unwrap().id;
        let detached = StartExecOptions { detach: true, ..StartExecOptions::default() };
        docker.start_exec(&eater, Some(detached)).await.unwrap();
        until("its end", async || (first_process(service, agent).await != init).then_some(())).await;
        assert_eq!(service.container(agent).await.state.unwrap().oom_killed, Some(true));
        // It may have been up again, by the engine's own policy, before anybody looked. The engine may also say that it
        // ended before it says why.
        until("that it is told", async || {
            let told = |cause: &String| cause.starts_with("oom-killed") || cause.starts_with("exited signal 9");
            causes(agent).await.iter().any(told).then_some(())
        })
        .await;
    })
    .await;
}

pub(crate) async fn comes_back_from_a_stop_by_hand(world: &World) {
    mended(world, NOTHING_LOST, async |service, agent| {
        let options = StopContainerOptionsBuilder::default().t(5).build();
        service.world.docker.stop_container(&container_name(agent), Some(options)).await.unwrap();
        told(agent, "ended-outside").await;
    })
    .await;
}

/// Waits until the timeline says this; whatever else it says of that is wrong.
async fn told(agent: &AgentHandle, cause: &str) {
    until(cause, async || {
        let causes = causes(agent).await;
        assert!(causes.iter().all(|cause| !cause.starts_with("exited")), "{causes:#?}");
        causes.iter().any(|told| told.starts_with(cause)).then_some(())
    })
    .await;
}

pub(crate) async fn comes_back_from_a_removal_by_hand(world: &World) {
    mended(world, Expected { same_container: false, ..NOTHING_LOST }, async |service, agent| {
        remove(service, agent).await;
    })
    .await;
}

async fn remove(service: &Service<'_>, agent: &AgentHandle) {
    let options = RemoveContainerOptionsBuilder::default().force(true).build();
    match service.world.docker.remove_container(&container_name(agent), Some(options)).await {
        // The service is about to make it anew, so there is nothing to remove.
        Ok(()) | Err(Error::DockerResponseServerError { status_code: 404, .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

pub(crate) async fn comes_back_from_a_pause_by_hand(world: &World) {
    mended(world, NOTHING_LOST, async |service, agent| {
        service.world.pause(&container_name(agent)).await;
        // A message would reach the paused one and be lost with it: only what comes after is for the next run.
        until("that it was missed", async || (restarts(agent) == 1).then_some(())).await;
    })
    .await;
}

pub(crate) async fn comes_back_from_an_emptied_config(world: &World) {
    // 0.6 needs nothing in it: it starts without any token, and is found out by that. The others are not even to be reached.
    let pairings = usize::from(world.zeroclaw == "zeroclaw:0.6.9");
    mended(world, Expected { pairings, ..NOTHING_LOST }, async |service, agent| {
        service.write(agent, file(CONFIG, "", 0o600)).await;
        restart(service, agent).await;
        noticed(service, agent).await;
    })
    .await;
}

pub(crate) async fn comes_back_from_a_deleted_config(world: &World) {
    // ZeroClaw makes itself another one, which knows no token: by that it is found out and replaced. The one that 0.8
    // makes itself is not even to be reached.
    let pairings = usize::from(world.zeroclaw != NATIVE);
    mended(world, Expected { pairings, ..NOTHING_LOST }, async |service, agent| {
        forget(service, agent, CONFIG).await;
        restart(service, agent).await;
        noticed(service, agent).await;
    })
    .await;
}

/// Waits until the end of a run was seen, and for what comes after: without a host in its configuration 0.8 is only found
/// out by a whole start that nobody can reach.
async fn noticed(service: &Service<'_>, agent: &AgentHandle) {
    until("that it was missed", async || (restarts(agent) > 0).then_some(())).await;
    service.runs(agent).await;
}

/// Deletes a file of the agent's data, behind the control plane's back and ZeroClaw's.
async fn forget(service: &Service<'_>, agent: &AgentHandle, path: &str) {
    let docker = &service.world.docker;
    let volume = Mount {
        target: Some("/data".into()),
        source: Some(format!("zeroclaw-{}", agent.id())),
        typ: Some(MountType::VOLUME),
        ..Mount::default()
    };
    let body = ContainerCreateBody {
        image: Some(service.world.options.image.clone()),
        cmd: Some(vec!["forget".into(), format!("/data/{path}")]),
        labels: Some(HashMap::from([test_label(service.world)])),
        host_config: Some(HostConfig { mounts: Some(vec![volume]), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    };
    let made = docker.create_container(None::<CreateContainerOptions>, body).await.unwrap().id;
    docker.start_container(&made, None::<StartContainerOptions>).await.unwrap();
    until("that it is forgotten", async || service.read(agent, path).await.is_none().then_some(())).await;
}

pub(crate) async fn comes_back_from_a_config_that_knows_no_token(world: &World) {
    mended(world, Expected { pairings: 1, ..NOTHING_LOST }, async |service, agent| {
        let config = service.read(agent, CONFIG).await.unwrap();
        let mut config: toml::Table = config.parse().unwrap();
        let tokens =
            config["gateway"].as_table_mut().unwrap().insert("paired_tokens".into(), toml::Value::Array(vec![]));
        assert_eq!(tokens.unwrap().as_array().unwrap().len(), 1);
        service.write(agent, file(CONFIG, &config.to_string(), 0o600)).await;
        restart(service, agent).await;
    })
    .await;
}

pub(crate) async fn comes_back_from_lost_data(world: &World) {
    let expected = Expected { pairings: 0, same_container: false, memory: false };
    mended(world, expected, async |service, agent| {
        // It may be made anew between the two: then its new container holds the volume.
        until("a volume that nobody holds", async || {
            remove(service, agent).await;
            let volume = format!("zeroclaw-{}", agent.id());
            service.world.docker.remove_volume(&volume, None::<RemoveVolumeOptions>).await.ok()
        })
        .await;
    })
    .await;
}

pub(crate) async fn comes_back_from_a_token_that_is_lost(world: &World) {
    // The run's log still shows the code that was used up: it is tried once, then files without a token give a new one.
    mended(world, Expected { pairings: 2, ..NOTHING_LOST }, async |service, agent| {
        let id = agent.id();
        service
            .reopen(async |store| {
                let mut record = store.agent(id).await.unwrap().unwrap().record;
                record.token = None;
                record.state.revision += 1;
                commit(store, Batch::update_agent(&record, None)).await.unwrap();
            })
            .await;
    })
    .await;
}

pub(crate) async fn runs_on_while_the_service_restarts(world: &World) {
    mended(world, NOTHING_LOST, async |service, agent| {
        let before = service.container(agent).await.state.unwrap().started_at;
        for _ in 0..3 {
            service.reopen(async |_| {}).await;
            let agent = service.plane.agent(agent.id()).unwrap();
            service.talk(&agent).await;
            assert_eq!(restarts(&agent), 0);
        }
        assert_eq!(service.container(agent).await.state.unwrap().started_at, before);
    })
    .await;
}

pub(crate) async fn comes_back_from_a_restart_of_the_engine(world: &World) {
    mended_on_its_own_engine(world, "TERM").await;
}

pub(crate) async fn comes_back_from_a_crash_of_the_engine(world: &World) {
    mended_on_its_own_engine(world, "KILL").await;
}

async fn mended_on_its_own_engine(world: &World, signal: &str) {
    let mut engine = OwnEngine::start(world, false).await;
    mended(&engine.world(), NOTHING_LOST, async |service, agent| {
        let before = service.container(agent).await.state.unwrap().started_at;
        engine.restart(signal).await;
        // It ended with the engine, or when the next one found it. A message would reach it in between, and be lost.
        until("that it was missed", async || (restarts(agent) > 0).then_some(())).await;
        service.runs(agent).await;
        assert_ne!(service.container(agent).await.state.unwrap().started_at, before);
    })
    .await;
}

pub(crate) async fn runs_on_through_a_crash_of_an_engine_that_lets_it(world: &World) {
    let mut engine = OwnEngine::start(world, true).await;
    mended(&engine.world(), NOTHING_LOST, async |service, agent| {
        let before = service.container(agent).await.state.unwrap();
        engine.restart("KILL").await;
        service.talk(agent).await;
        let after = service.container(agent).await.state.unwrap();
        assert_eq!((after.pid, after.started_at), (before.pid, before.started_at), "it is the same run");
        assert_eq!(restarts(agent), 0);
    })
    .await;
}
