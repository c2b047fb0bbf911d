//! How runs begin, change and end.

use std::collections::HashSet;
use std::net::TcpListener;
use std::time::Duration;

use bollard::models::ContainerStateStatusEnum;
use bollard::query_parameters::{
    InspectContainerOptions, KillContainerOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use futures_util::StreamExt;
use zeroone::domain::AgentId;
use zeroone::runtime::docker::DockerFaultInjector;
use zeroone::runtime::fault::{Fault, FaultInjector as _};
use zeroone::runtime::{ContainerRuntime, Exit, InstanceSpec, InstanceState, LogQuery, Resync, RuntimeError};
use zeroone::testkit::conformance::started;

use crate::assert_error;
use crate::world::{World, answers_soon, exited, prepare, running, spec, until};

pub(crate) async fn a_taken_port_is_told_and_the_container_used_again(world: &World) {
    let spec = spec(&["gateway"]);
    let stranger = TcpListener::bind(("127.0.0.1", spec.port.unwrap().get())).unwrap();
    let made = world.runtime.ensure_created(&spec).await.unwrap();
    assert_eq!(world.runtime.start(&spec.key).await, Err(RuntimeError::PortTaken(spec.port.unwrap())));
    let left = world.observed(&spec.key).await.unwrap();
    assert_eq!((left.run(), &left.engine_id), (None, &made.engine_id));

    drop(stranger);
    let run = started(&world.runtime, &spec.key).await;
    assert_eq!(world.observed(&spec.key).await.unwrap().engine_id, made.engine_id);
    answers_soon(run.endpoint).await;

    // The port of another container is taken as well.
    let second = crate::world::spec(&["gateway"]).with_port(spec.port);
    world.runtime.ensure_created(&second).await.unwrap();
    assert_eq!(world.runtime.start(&second.key).await, Err(RuntimeError::PortTaken(spec.port.unwrap())));
    let moved = second.with_port(crate::world::free_port());
    answers_soon(world.launch(&moved).await.endpoint).await;
}

pub(crate) async fn a_stop_is_obeyed_or_enforced(world: &World) {
    let grace = Duration::from_secs(1);
    for (command, code) in [("gateway", 143), ("deaf", 137)] {
        let spec = spec(&[command]);
        world.launch(&spec).await;
        world.line_when(&spec.key, |line| line == "listening" || line == "deaf").await;
        world.runtime.stop(&spec.key, grace).await.unwrap();
        let ended = world.observed(&spec.key).await.unwrap().state;
        assert_eq!(ended, InstanceState::Exited(Exit::with_code(code)), "{command}");
        world.runtime.stop(&spec.key, grace).await.unwrap();
        world.runtime.kill(&spec.key).await.unwrap();
    }
    let nobody = spec(&["gateway"]).key;
    world.runtime.stop(&nobody, grace).await.unwrap();
    world.runtime.kill(&nobody).await.unwrap();
}

pub(crate) async fn a_paused_one_is_seen_and_goes_on(world: &World) {
    let spec = spec(&["gateway"]);
    let run = world.launch(&spec).await;
    let name = format!("zeroclaw-{}", spec.key.slug);
    world.pause(&name).await;
    assert_eq!(world.observed(&spec.key).await.unwrap().state, InstanceState::Paused(run.clone()));
    assert_eq!(
        world.runtime.start(&spec.key).await.unwrap(),
        InstanceState::Running(run.clone()),
        "it is the same run"
    );
    answers_soon(run.endpoint).await;

    world.pause(&name).await;
    world.runtime.kill(&spec.key).await.unwrap();
    assert_eq!(world.state_when(&spec.key, exited).await.code, Some(137));
    let second = started(&world.runtime, &spec.key).await;
    assert_ne!(second.run_id, run.run_id);
    assert!(second.started_at > run.started_at);
}

pub(crate) async fn a_crash_loop_does_not_wait_for_the_engine(world: &World) {
    let spec = spec(&["exit", "3"]);
    world.runtime.ensure_created(&spec).await.unwrap();
    world.runtime.start(&spec.key).await.unwrap();
    let name = format!("zeroclaw-{}", spec.key.slug);
    let shown = async || world.docker.inspect_container(&name, None::<InspectContainerOptions>).await.unwrap();
    // After five restarts the engine waits for more than three seconds before the next one.
    let last = until("the engine's long wait", async || {
        let shown = shown().await;
        let state = shown.state.unwrap();
        let waits = shown.restart_count >= Some(5) && state.status == Some(ContainerStateStatusEnum::RESTARTING);
        waits.then(|| state.started_at.unwrap())
    })
    .await;
    assert_eq!(world.state_when(&spec.key, exited).await.code, Some(3));
    world.runtime.start(&spec.key).await.unwrap();
    assert_ne!(shown().await.state.unwrap().started_at.unwrap(), last, "ours does not wait");
    // Whether it just ran or the engine waited, a kill ends both.
    world.runtime.kill(&spec.key).await.unwrap();
    assert_eq!(shown().await.state.unwrap().status, Some(ContainerStateStatusEnum::EXITED));
}

pub(crate) async fn too_much_memory_ends_as_oom(world: &World) {
    let spec = spec(&["eat"]).with_memory_mb(32);
    world.runtime.ensure_created(&spec).await.unwrap();
    world.runtime.start(&spec.key).await.unwrap();
    // The engine hears of ends and of memory from two sides. Where the end comes first, the flag follows, or comes with
    // the next death: the engine's own policy starts it again.
    let exit = world.state_when(&spec.key, |state| exited(state).filter(|exit| exit.oom)).await;
    assert_eq!(exit.code, Some(137));
    world.runtime.kill(&spec.key).await.unwrap();
}

pub(crate) async fn every_change_wakes(world: &World) {
    let mut wakes = world.runtime.watch();
    assert_eq!(wakes.next().await, Some(Resync::All), "what was before is unknown");
    let (ours, theirs) = (spec(&["gateway"]), spec(&["gateway"]));
    let name = format!("zeroclaw-{}", ours.key.slug);
    let stranger = world.of_others();
    stranger.ensure_created(&theirs).await.unwrap();
    stranger.remove(&theirs.key, zeroone::runtime::DataPolicy::Remove).await.unwrap();

    world.launch(&ours).await;
    wakes_for(&mut wakes, ours.key.agent).await;
    let kill = || KillContainerOptionsBuilder::default().signal("SIGKILL").build();
    let stop = || StopContainerOptionsBuilder::default().t(0).build();
    world.docker.kill_container(&name, Some(kill())).await.unwrap();
    wakes_for(&mut wakes, ours.key.agent).await;
    world.runtime.start(&ours.key).await.unwrap();
    wakes_for(&mut wakes, ours.key.agent).await;
    world.pause(&name).await;
    wakes_for(&mut wakes, ours.key.agent).await;
    world.docker.unpause_container(&name).await.unwrap();
    wakes_for(&mut wakes, ours.key.agent).await;
    world.docker.stop_container(&name, Some(stop())).await.unwrap();
    wakes_for(&mut wakes, ours.key.agent).await;
    let force = RemoveContainerOptionsBuilder::default().force(true).build();
    world.docker.remove_container(&name, Some(force)).await.unwrap();
    wakes_for(&mut wakes, ours.key.agent).await;
}

/// Takes wake-ups until there are no more for now; there must be one, and all must be for this agent.
async fn wakes_for(wakes: &mut (impl StreamExt<Item = Resync> + Unpin), agent: AgentId) {
    let wake = tokio::time::timeout(Duration::from_secs(10), wakes.next()).await.expect("a wake-up");
    assert_eq!(wake, Some(Resync::Instance(agent)));
    while let Ok(wake) = tokio::time::timeout(Duration::from_millis(100), wakes.next()).await {
        assert_eq!(wake, Some(Resync::Instance(agent)));
    }
}

pub(crate) async fn many_start_side_by_side(world: &World) {
    prepare(&world.runtime).await.0.unwrap();
    let specs: Vec<InstanceSpec> = (0..8).map(|_| spec(&["gateway"])).collect();
    let runs = futures_util::future::join_all(specs.iter().map(|spec| world.launch(spec))).await;
    let endpoints: HashSet<_> = runs.iter().map(|run| run.endpoint).collect();
    assert_eq!(endpoints.len(), specs.len());
    futures_util::future::join_all(endpoints.into_iter().map(answers_soon)).await;
    let mut owned: Vec<AgentId> =
        world.runtime.list_owned().await.unwrap().iter().map(|observed| observed.key.agent).collect();
    owned.sort();
    let mut asked: Vec<AgentId> = specs.iter().map(|spec| spec.key.agent).collect();
    asked.sort();
    assert_eq!(owned, asked);
    assert!(running(&world.observed(&specs[0].key).await.unwrap().state).is_some());
    assert_error!(world.runtime.usage(&spec(&["gateway"]).key).await, RuntimeError::NotFound);
    assert_error!(
        world.runtime.logs(&spec(&["gateway"]).key, LogQuery::default()).await.map(drop),
        RuntimeError::NotFound
    );
}

pub(crate) async fn faults_on_purpose_are_done_to_its_own_and_taken_back(world: &World) {
    let injector = DockerFaultInjector::new(world.options.clone()).unwrap();
    let (spec, foreign) = (spec(&["gateway"]), spec(&["gateway"]));
    let agent = spec.key.agent;
    assert!(!injector.inject(agent, Fault::Kill).await.unwrap(), "nothing runs");
    let others = world.of_others();
    prepare(&others).await.0.unwrap();
    others.ensure_created(&foreign).await.unwrap();
    others.start(&foreign.key).await.unwrap();
    let run = world.launch(&spec).await;
    assert_eq!(injector.alive().await.unwrap(), [(agent, 1)].into());
    for &fault in Fault::ALL {
        assert!(!injector.inject(foreign.key.agent, fault).await.unwrap(), "another installation's: {fault}");
    }
    assert!(injector.inject(agent, Fault::Pause).await.unwrap());
    assert_eq!(world.observed(&spec.key).await.unwrap().state, InstanceState::Paused(run.clone()));
    assert_eq!(injector.alive().await.unwrap(), [(agent, 1)].into());
    injector.undo(agent, Fault::Pause).await.unwrap();
    answers_soon(run.endpoint).await;

    let name = format!("zeroclaw-{}", spec.key.slug);
    let networks = async || {
        let shown = world.docker.inspect_container(&name, None::<InspectContainerOptions>).await.unwrap();
        shown.network_settings.unwrap().networks.unwrap_or_default().len()
    };
    assert!(injector.inject(agent, Fault::Cut).await.unwrap());
    assert_eq!(networks().await, 0);
    for _ in 0..2 {
        injector.undo(agent, Fault::Cut).await.unwrap();
        assert_eq!(networks().await, 1);
    }
    for (fault, code) in [(Fault::Stop, 143), (Fault::Kill, 137)] {
        // A signal that comes before the program in the container has begun ends it in another way.
        answers_soon(started(&world.runtime, &spec.key).await.endpoint).await;
        assert!(injector.inject(agent, fault).await.unwrap());
        assert_eq!(world.state_when(&spec.key, exited).await.code, Some(code), "{fault}");
        injector.undo(agent, fault).await.unwrap();
        world.runtime.kill(&spec.key).await.unwrap();
    }
    assert_eq!(injector.alive().await.unwrap(), [].into());
}
