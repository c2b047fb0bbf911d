//! The Docker runtime as a subject of the conformance suite.

use std::sync::Arc;

use bollard::query_parameters::KillContainerOptionsBuilder;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use zeroone::runtime::docker::DockerRuntime;
use zeroone::runtime::{ContainerRuntime, InstanceKey, ObservedInstance};
use zeroone::testkit::conformance::{Act, Subject};

use crate::world::World;

pub(crate) struct DockerSubject {
    world: Arc<World>,
    runtime: Arc<DockerRuntime>,
}

impl DockerSubject {
    pub(crate) fn new(world: &Arc<World>) -> Self {
        Self { world: Arc::clone(world), runtime: Arc::new(world.with(|_| {})) }
    }
}

impl Subject for DockerSubject {
    fn runtime(&self) -> Arc<dyn ContainerRuntime> {
        Arc::clone(&self.runtime) as Arc<dyn ContainerRuntime>
    }

    fn reopened(&self) -> BoxFuture<'_, Arc<dyn ContainerRuntime>> {
        async { Arc::new(self.world.with(|_| {})) as Arc<dyn ContainerRuntime> }.boxed()
    }

    fn foreign(&self) -> BoxFuture<'_, Arc<dyn ContainerRuntime>> {
        async { Arc::new(self.world.of_others()) as Arc<dyn ContainerRuntime> }.boxed()
    }

    fn command(&self, act: Act) -> Vec<String> {
        match act {
            Act::Count(last) => vec!["count".into(), last.to_string()],
            Act::Deaf => vec!["deaf".into()],
            Act::Exit(code) => vec!["exit".into(), code.to_string()],
        }
    }

    /// By the engine's own kill, which its restart policy does not undo.
    fn crash<'a>(&'a self, observed: &'a ObservedInstance) -> BoxFuture<'a, ()> {
        async {
            let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
            self.world.docker.kill_container(&observed.engine_id, Some(options)).await.unwrap();
        }
        .boxed()
    }

    fn pause<'a>(&'a self, observed: &'a ObservedInstance) -> BoxFuture<'a, ()> {
        async { self.world.pause(&observed.engine_id).await }.boxed()
    }

    fn read<'a>(&'a self, key: &'a InstanceKey, path: &'a str) -> BoxFuture<'a, Option<Vec<u8>>> {
        async move {
            let container = self.runtime.observe(key).await.unwrap().unwrap().engine_id;
            self.world.read(&container, path).await
        }
        .boxed()
    }
}
