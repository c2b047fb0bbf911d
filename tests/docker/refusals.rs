//! An engine that answers, and says no: for good or for now, by itself or by a filter before it.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use zeroone::runtime::docker::DockerRuntime;
use zeroone::runtime::{ContainerRuntime, DataPolicy, InstanceState, Resync, RuntimeError, RuntimeResult};

use crate::assert_error;
use crate::proxy::{Mode, Proxy};
use crate::world::{World, prepare, socket, spec, until};

fn between(world: &World) -> Option<(Proxy, DockerRuntime)> {
    let proxy = Proxy::before(socket()?);
    let runtime = world.with(|options| options.host = proxy.host());
    Some((proxy, runtime))
}

/// B10: any HTTP answer proves the engine alive; only "there is no server" means away.
pub(crate) async fn an_answer_is_never_an_absence(world: &World) {
    let Some((proxy, runtime)) = between(world) else { return };
    let spec = spec(&["gateway"]);
    let run = world.launch(&spec).await;
    for status in [400, 403, 405, 409, 418, 429, 500, 501] {
        proxy.set(Mode::Refuse(&["/"], status, "words that nobody listed"));
        runtime.ping().await.unwrap();
        answered(runtime.observe(&spec.key).await.map(drop), status);
        answered(runtime.list_owned().await.map(drop), status);
        answered(runtime.start(&spec.key).await.map(drop), status);
        answered(runtime.kill(&spec.key).await, status);
        answered(runtime.remove(&spec.key, DataPolicy::Remove).await, status);
        answered(runtime.usage(&spec.key).await.map(drop), status);
    }
    for status in [502, 503, 504] {
        proxy.set(Mode::Refuse(&["/"], status, "no server"));
        assert_error!(runtime.ping().await, RuntimeError::Unavailable(_));
        assert_error!(runtime.observe(&spec.key).await, RuntimeError::Unavailable(_));
    }
    proxy.set(Mode::Pass);
    assert_eq!(runtime.observe(&spec.key).await.unwrap().unwrap().run(), Some(&run), "and nothing was done to it");
}

fn answered(result: RuntimeResult<()>, status: u16) {
    let error = result.expect_err("a refusal");
    assert!(!matches!(error, RuntimeError::Unavailable(_) | RuntimeError::UnknownOutcome(_)), "{status}: {error:?}");
}

/// Faults 34: a filter that lets some calls through, and an engine on a machine that cannot do what is asked.
pub(crate) async fn a_call_that_is_not_allowed_is_named(world: &World) {
    let Some((proxy, runtime)) = between(world) else { return };
    let told = async |words: &'static [&'static str], status, message, sign: &str| {
        let spec = spec(&["gateway"]);
        proxy.set(Mode::Refuse(words, status, message));
        let refused = match runtime.ensure_created(&spec).await {
            Ok(_) => runtime.start(&spec.key).await.map(drop),
            Err(error) => Err(error),
        };
        proxy.set(Mode::Pass);
        match refused {
            Err(RuntimeError::Invalid(why)) => assert!(why.contains(sign), "{why}"),
            other => panic!("{message}: {other:?}"),
        }
    };
    told(&["POST /volumes/create"], 403, "Forbidden", "creating the volume is not allowed").await;
    told(&["POST /networks/create"], 403, "Forbidden", "creating the network is not allowed").await;
    let bridge = "cannot restrict inter-container communication: stat bridge-nf-call-iptables: \
                  set environment variable DOCKER_IGNORE_BR_NETFILTER_ERROR=1 to ignore";
    told(&["POST /networks/create"], 500, bridge, "modprobe br_netfilter").await;
    told(&["POST /containers/create"], 403, "Forbidden", "creating the container is not allowed").await;
    let cpu = "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted";
    told(&["POST /containers/create"], 400, cpu, "CONFIG_CFS_BANDWIDTH").await;
    let init = "OCI runtime create failed: exec: \"docker-init\": executable file not found in $PATH";
    told(&["/start"], 400, init, "docker-init").await;
    told(&["/start"], 500, "unable to replace \"host-gateway\" of host entry", "host-gateway-ip").await;

    // What is a matter of the moment is tried again, by whoever decides that.
    let spec = spec(&["gateway"]);
    proxy.set(Mode::Refuse(&["POST /containers/create"], 500, "unable to apply cgroup configuration: timeout"));
    assert_error!(runtime.ensure_created(&spec).await, RuntimeError::Failed(_));
    proxy.set(Mode::Pass);
    assert_eq!(runtime.ensure_created(&spec).await.unwrap().state, InstanceState::Created);
}

/// Field case 39: a refused stream of events is an answer that stays the same for a while.
pub(crate) async fn refused_events_are_asked_for_less_and_less_often(world: &World) {
    let Some((proxy, runtime)) = between(world) else { return };
    proxy.set(Mode::Refuse(&["/events"], 403, "Forbidden"));
    let mut wakes = runtime.watch();
    let first = tokio::time::timeout(Duration::from_secs(20), wakes.next()).await.unwrap();
    assert_eq!(first, Some(Resync::All), "whoever waits for the first gap goes on");
    let began = Instant::now();
    until("a few attempts", async || (proxy.count("/events") >= 5).then_some(())).await;
    // 0.1 + 0.2 + 0.4 + 0.8 s lie between the first five.
    assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
    proxy.set(Mode::Pass);
    let spec = spec(&["gateway"]);
    let woken = async {
        while wakes.next().await != Some(Resync::All) {}
        runtime.ensure_created(&spec).await.unwrap();
        while wakes.next().await != Some(Resync::Instance(spec.key.agent)) {}
    };
    tokio::time::timeout(Duration::from_secs(60), woken).await.expect("events, once they are allowed");
}

/// Podman takes a removal back when the container ends by itself between its look and its signal.
pub(crate) async fn an_end_that_overtakes_a_removal_does_not_stop_it(world: &World) {
    let Some((proxy, runtime)) = between(world) else { return };
    let spec = spec(&["gateway"]);
    world.launch(&spec).await;
    let message = "cannot remove container 5c as it could not be stopped: sending SIGKILL to container 5c: container \
                   state improper: stopped";
    proxy.set(Mode::RefuseOnce("DELETE /", 500, message));
    runtime.remove(&spec.key, DataPolicy::Remove).await.unwrap();
    assert_eq!(runtime.observe(&spec.key).await.unwrap(), None);

    // Any other refusal is told at once: nothing says that a second attempt would find it better.
    let spec = crate::world::spec(&["gateway"]);
    world.launch(&spec).await;
    proxy.set(Mode::RefuseOnce("DELETE /", 500, "device or resource busy"));
    assert_error!(runtime.remove(&spec.key, DataPolicy::Remove).await, RuntimeError::Failed(_));
    runtime.remove(&spec.key, DataPolicy::Remove).await.unwrap();

    let spec = crate::world::spec(&["gateway"]);
    world.launch(&spec).await;
    proxy.set(Mode::RefuseOnce("POST /", 409, "5c is in state exited: container state improper"));
    runtime.kill(&spec.key).await.unwrap();
    runtime.remove(&spec.key, DataPolicy::Remove).await.unwrap();
}

/// Podman looks before it waits for its lock: what another call has done meanwhile it takes for a wrong state.
pub(crate) async fn what_another_call_has_done_is_done(world: &World) {
    let Some((proxy, runtime)) = between(world) else { return };
    let spec = spec(&["gateway"]);
    runtime.ensure_created(&spec).await.unwrap();
    let message = "container 5c must be in Created or Stopped state to be started: container state improper";
    // Nobody else has started it.
    proxy.set(Mode::RefuseOnce("POST /", 500, message));
    assert_error!(runtime.start(&spec.key).await, RuntimeError::Failed(_));
    proxy.set(Mode::Overtake("/start", 500, message));
    let InstanceState::Running(run) = runtime.start(&spec.key).await.unwrap() else { panic!("it runs") };

    world.pause(&format!("zeroclaw-{}", spec.key.slug)).await;
    proxy.set(Mode::Overtake("/unpause", 500, "\"5c\" is not paused, can't unpause: container state improper"));
    assert_eq!(runtime.start(&spec.key).await.unwrap(), InstanceState::Running(run));

    proxy.set(Mode::Overtake("/stop", 500, "5c is in state exited: container state improper"));
    runtime.stop(&spec.key, Duration::from_secs(1)).await.unwrap();
    assert!(matches!(runtime.observe(&spec.key).await.unwrap().unwrap().state, InstanceState::Exited(_)));
    runtime.remove(&spec.key, DataPolicy::Remove).await.unwrap();
}

/// Field case 40b: the engine says "in use" of a name that nothing has.
pub(crate) async fn a_name_that_only_the_engine_knows_is_told(world: &World) {
    let Some((proxy, runtime)) = between(world) else { return };
    let spec = spec(&["gateway"]);
    let message = "Conflict. The container name \"/zeroclaw-x\" is already in use by container \"0123456789ab\".";
    proxy.set(Mode::Refuse(&["POST /containers/create"], 409, message));
    match runtime.ensure_created(&spec).await {
        Err(RuntimeError::Failed(why)) => assert!(why.contains("in use") && why.contains("zeroclaw-"), "{why}"),
        other => panic!("{other:?}"),
    }
    proxy.set(Mode::Pass);
    runtime.ensure_created(&spec).await.unwrap();
}

/// Faults 35.
pub(crate) async fn an_outage_during_a_pull_passes_and_a_verdict_stays(world: &World) {
    let Some(proxy) = socket().map(Proxy::before) else { return };
    let runtime = world.with(|options| {
        options.host = proxy.host();
        options.image = "127.0.0.1:1/nobody/nothing:1".into();
    });
    let outage = "Get \"https://ghcr.io/v2/\": dial tcp: lookup ghcr.io on 127.0.0.53:53: server misbehaving";
    proxy.set(Mode::Refuse(&["POST /images/create"], 500, outage));
    // Together they wait for one pull after the other, and none is given up for good.
    let (one, two) = tokio::join!(prepare(&runtime), prepare(&runtime));
    for (prepared, said) in [one, two] {
        match prepared {
            Err(RuntimeError::Failed(why)) => assert!(why.contains("server misbehaving"), "{why}"),
            other => panic!("{other:?}"),
        }
        assert!(said.iter().any(|line| line.contains("trying again")), "{said:?}");
    }
    proxy.set(Mode::Refuse(&["POST /images/create"], 404, "manifest for nothing:1 not found: manifest unknown"));
    let (prepared, said) = prepare(&runtime).await;
    match prepared {
        Err(RuntimeError::Invalid(why)) => {
            assert!(why.contains("manifest unknown") && why.contains("docker load"), "{why}")
        }
        other => panic!("{other:?}"),
    }
    assert!(!said.iter().any(|line| line.contains("trying again")), "{said:?}");
}
