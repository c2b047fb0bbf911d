//! A whole control plane on processes that are real gateways: what its shutdown leaves of them.

use std::path::Path;
use std::sync::Arc;

use zeroone::control::{Agents, ControlPlane, NewAgent, NewUser};
use zeroone::domain::{Credentials, Plan, Provider, SpecPatch, Status};
use zeroone::runtime::process::{ProcessOptions, ProcessRuntime};
use zeroone::runtime::{ContainerRuntime, InstanceState, ObservedInstance};
use zeroone::store::{Store, StoreOptions};
use zeroone::testkit::{self, conformance::PATIENCE};

async fn start(data: &Path) -> (ControlPlane, Arc<ProcessRuntime>) {
    let store = Store::open(data.join("agents.redb"), StoreOptions::default()).unwrap();
    let options = ProcessOptions::new(store.installation(), data.join("agents"), env!("CARGO_BIN_EXE_zeroone"));
    let runtime = Arc::new(ProcessRuntime::open(options).unwrap());
    let engine: Arc<dyn ContainerRuntime> = runtime.clone();
    (ControlPlane::builder(store, testkit::vault(), engine).start().await.unwrap(), runtime)
}

async fn only(runtime: &ProcessRuntime) -> ObservedInstance {
    let mut all = runtime.list_owned().await.unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_leaves_the_processes_or_stops_them_and_keeps_their_data() {
    let data = tempfile::tempdir().unwrap();
    let (plane, runtime) = start(data.path()).await;
    let user = NewUser::new("ada@example.com", Plan::Pro);
    let user = plane.create_user(user).await.unwrap().id;
    let spec = SpecPatch::new("Ada", Provider::Ollama, "fake").create().unwrap().spec;
    let agent = plane.create_agent(user, NewAgent::new(spec, Credentials::default())).await.unwrap();
    agent.wait(&[Status::Running], PATIENCE).await.unwrap();
    let before = only(&runtime).await;
    let id = agent.id();
    assert_eq!(plane.shutdown(Agents::Leave).await, []);
    let left = only(&runtime).await;
    assert!(matches!(left.state, InstanceState::Running(_)));
    assert_eq!(left.state, before.state, "the same run");
    drop((plane, runtime, agent));

    let (plane, runtime) = start(data.path()).await;
    plane.agent(id).unwrap().wait(&[Status::Running], PATIENCE).await.unwrap();
    assert_eq!(only(&runtime).await.state, before.state, "it was taken up as it was");
    assert_eq!(plane.shutdown(Agents::Stop { within: PATIENCE }).await, []);
    let stopped = only(&runtime).await;
    assert!(matches!(stopped.state, InstanceState::Exited(_)), "{stopped:?}");
    drop((plane, runtime));

    let (plane, _runtime) = start(data.path()).await;
    let agent = plane.agent(id).unwrap();
    assert_eq!(agent.view().unwrap().status(), Status::Stopped);
    agent.start().await.unwrap();
    agent.wait(&[Status::Running], PATIENCE).await.unwrap();
    agent.delete().await.unwrap();
    assert!(agent.gone(PATIENCE).await);
    plane.shutdown(Agents::Leave).await;
}
