//! An engine that is away, hangs, or whose answers are lost.

use std::time::Duration;

use futures_util::StreamExt;
use zeroone::runtime::docker::DockerRuntime;
use zeroone::runtime::{ContainerRuntime, DataPolicy, InstanceState, Resync, RuntimeError, RuntimeResult};
use zeroone::testkit::conformance::started;

use crate::assert_error;
use crate::proxy::{Mode, Proxy};
use crate::world::{World, socket, spec, until};

/// Far beyond every deadline of a call that only reads, and within the patience of a test.
const BOUND: Duration = Duration::from_secs(20);

fn between(world: &World) -> Option<(Proxy, DockerRuntime)> {
    let proxy = Proxy::before(socket()?);
    let runtime = world.with(|options| options.host = proxy.host());
    Some((proxy, runtime))
}

pub(crate) async fn an_engine_that_is_away_or_hangs_is_unavailable(world: &World) {
    let Some((proxy, runtime)) = between(world) else { return };
    let spec = spec(&["gateway"]);
    let run = world.launch(&spec).await;
    runtime.ping().await.unwrap();
    for mode in [Mode::Cut, Mode::Hang] {
        proxy.set(mode);
        let grace = Duration::from_secs(1);
        tokio::join!(
            unavailable(runtime.ping()),
            unavailable(runtime.observe(&spec.key)),
            unavailable(runtime.list_owned()),
            unavailable(runtime.ensure_created(&spec)),
            unavailable(runtime.start(&spec.key)),
            unavailable(runtime.stop(&spec.key, grace)),
            unavailable(runtime.kill(&spec.key)),
            unavailable(runtime.remove(&spec.key, DataPolicy::Remove)),
            unavailable(runtime.usage(&spec.key)),
        );
    }
    proxy.set(Mode::Cut);
    proxy.set(Mode::Pass);
    assert_eq!(runtime.observe(&spec.key).await.unwrap().unwrap().run(), Some(&run), "and nothing was done to it");
}

async fn unavailable<T: std::fmt::Debug>(call: impl Future<Output = RuntimeResult<T>>) {
    let answer = tokio::time::timeout(BOUND, call).await.expect("a bounded call");
    assert_error!(answer, RuntimeError::Unavailable(_));
}

pub(crate) async fn a_lost_answer_is_unknown_and_can_be_repeated(world: &World) {
    let Some((proxy, runtime)) = between(world) else { return };
    let spec = spec(&["gateway"]);
    runtime.ping().await.unwrap();
    proxy.set(Mode::Lose("POST /containers/create"));
    assert_error!(runtime.ensure_created(&spec).await, RuntimeError::UnknownOutcome(_));
    proxy.set(Mode::Pass);
    let made = runtime.ensure_created(&spec).await.unwrap();
    assert_eq!((made.state, made.created_now), (InstanceState::Created, false));
    assert_eq!(runtime.list_owned().await.unwrap().len(), 1);

    let path = format!("POST /containers/{}/start", made.engine_id);
    proxy.set(Mode::Lose(path.leak()));
    assert_error!(runtime.start(&spec.key).await, RuntimeError::UnknownOutcome(_));
    proxy.set(Mode::Pass);
    let run = started(&runtime, &spec.key).await;
    assert_eq!(world.observed(&spec.key).await.unwrap().run(), Some(&run));

    let path = format!("DELETE /containers/{}", made.engine_id);
    proxy.set(Mode::Lose(path.leak()));
    assert_error!(runtime.remove(&spec.key, DataPolicy::Remove).await, RuntimeError::UnknownOutcome(_));
    proxy.set(Mode::Pass);
    runtime.remove(&spec.key, DataPolicy::Remove).await.unwrap();
    assert_eq!(runtime.list_owned().await.unwrap(), []);
}

pub(crate) async fn a_broken_event_stream_is_a_gap(world: &World) {
    let Some((proxy, runtime)) = between(world) else { return };
    let spec = spec(&["gateway"]);
    let mut wakes = runtime.watch();
    assert_eq!(next(&mut wakes).await, Resync::All);
    world.runtime.ensure_created(&spec).await.unwrap();
    assert_eq!(next(&mut wakes).await, Resync::Instance(spec.key.agent));
    for mode in [Mode::Cut, Mode::Hang] {
        proxy.set(mode.clone());
        if mode == Mode::Hang {
            // A hang ends no stream. One ping tells, the next belongs to the attempt to connect again.
            until("two pings", async || (proxy.hanging() >= 2).then_some(())).await;
        } else {
            until("the engine away", async || runtime.ping().await.err()).await;
        }
        proxy.set(Mode::Pass);
        // The gap alone stands for what was missed: the engine keeps 256 events, which a busy minute of others uses up.
        while next(&mut wakes).await != Resync::All {}
        let new = self::spec(&["gateway"]);
        world.runtime.ensure_created(&new).await.unwrap();
        while next(&mut wakes).await != Resync::Instance(new.key.agent) {}
    }
}

async fn next(wakes: &mut (impl StreamExt<Item = Resync> + Unpin)) -> Resync {
    tokio::time::timeout(BOUND, wakes.next()).await.expect("a wake-up").expect("an endless stream")
}
