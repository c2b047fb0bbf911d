//! The runtime keeps the rules that every runtime keeps, and its own.

use std::any::Any;
use std::sync::Arc;

use custom_runtime::Budgeted;
use zeroone::control::Clock;
use zeroone::domain::{HostPort, InstallationId};
use zeroone::runtime::{BoxFuture, ContainerRuntime, InstanceKey, ObservedInstance, RuntimeError};
use zeroone::testkit::conformance::{self, Act, Subject};
use zeroone::testkit::{FakeEngine, FakeRuntime, Fakes};

/// The suite's instances may use 128 MB each.
const ROOMY: u64 = 10_000;

struct Bench {
    fakes: Fakes,
    runtime: Arc<Budgeted>,
}

struct Stranger(FakeEngine, HostPort);

impl Drop for Stranger {
    fn drop(&mut self) {
        self.0.free_port(self.1);
    }
}

impl Bench {
    fn new(budget_mb: u64) -> Self {
        let fakes = Fakes::with_clock(1, Clock::System);
        let runtime = Arc::new(Budgeted::new(fakes.runtime(), budget_mb));
        Self { fakes, runtime }
    }
}

impl Subject for Bench {
    fn runtime(&self) -> Arc<dyn ContainerRuntime> {
        Arc::clone(&self.runtime) as Arc<dyn ContainerRuntime>
    }

    fn reopened(&self) -> BoxFuture<'_, Arc<dyn ContainerRuntime>> {
        Box::pin(async { Arc::new(Budgeted::new(self.fakes.runtime(), ROOMY)) as Arc<dyn ContainerRuntime> })
    }

    fn foreign(&self) -> BoxFuture<'_, Arc<dyn ContainerRuntime>> {
        let foreign = Arc::new(FakeRuntime::new(self.fakes.engine().clone(), InstallationId::new()));
        Box::pin(async { Arc::new(Budgeted::new(foreign, ROOMY)) as Arc<dyn ContainerRuntime> })
    }

    fn command(&self, act: Act) -> Vec<String> {
        match act {
            Act::Count(lines) => vec!["count".into(), lines.to_string()],
            Act::Deaf => vec!["deaf".into()],
            Act::Exit(code) => vec!["exit".into(), code.to_string()],
        }
    }

    fn crash<'a>(&'a self, observed: &'a ObservedInstance) -> BoxFuture<'a, ()> {
        Box::pin(async { assert!(self.fakes.engine().crash(observed.key.agent)) })
    }

    fn pause<'a>(&'a self, observed: &'a ObservedInstance) -> BoxFuture<'a, ()> {
        Box::pin(async { assert!(self.fakes.engine().pause(observed.key.agent, true)) })
    }

    fn stranger(&self, port: HostPort) -> Box<dyn Any + Send + Sync> {
        self.fakes.engine().take_port(port);
        Box::new(Stranger(self.fakes.engine().clone(), port))
    }

    fn read<'a>(&'a self, key: &'a InstanceKey, path: &'a str) -> BoxFuture<'a, Option<Vec<u8>>> {
        Box::pin(async move { self.fakes.engine().file(key.agent, path) })
    }
}

mod conforms {
    use super::*;
    conformance::tests!(Bench::new(ROOMY));
}

#[tokio::test]
async fn what_is_over_the_budget_waits_for_room() {
    let bench = Bench::new(300);
    let runtime = bench.runtime();
    let specs = [1, 2, 3].map(|_| conformance::spec(&bench, Act::Count(1)));
    for spec in &specs {
        runtime.ensure_created(spec).await.unwrap();
    }
    runtime.start(&specs[0].key).await.unwrap();
    runtime.start(&specs[1].key).await.unwrap();
    let refused = runtime.start(&specs[2].key).await;
    assert_eq!(refused, Err(RuntimeError::Capacity("256 MB of 300 MB are in use; it needs 128 MB".into())));
    runtime.start(&specs[1].key).await.expect("what runs already is no more than it was");
    runtime.stop(&specs[0].key, conformance::GRACE).await.unwrap();
    runtime.start(&specs[2].key).await.unwrap();
}
