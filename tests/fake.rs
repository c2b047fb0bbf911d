//! The runtime in memory keeps the rules that the real ones keep.
#![cfg(feature = "testkit")]

use std::any::Any;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use zeroone::control::Clock;
use zeroone::domain::{HostPort, InstallationId};
use zeroone::runtime::{ContainerRuntime, InstanceKey, ObservedInstance};
use zeroone::testkit::conformance::{self, Act, Subject};
use zeroone::testkit::{FakeEngine, FakeRuntime, Fakes};

struct Bench(Fakes);

/// A port that a stranger holds.
struct Stranger(FakeEngine, HostPort);

impl Drop for Stranger {
    fn drop(&mut self) {
        self.0.free_port(self.1);
    }
}

impl Bench {
    fn new() -> Self {
        Self(Fakes::with_clock(1, Clock::System))
    }
}

impl Subject for Bench {
    fn runtime(&self) -> Arc<dyn ContainerRuntime> {
        self.0.runtime()
    }

    fn reopened(&self) -> BoxFuture<'_, Arc<dyn ContainerRuntime>> {
        async { self.runtime() }.boxed()
    }

    fn foreign(&self) -> BoxFuture<'_, Arc<dyn ContainerRuntime>> {
        let foreign = FakeRuntime::new(self.0.engine().clone(), InstallationId::new());
        async { Arc::new(foreign) as Arc<dyn ContainerRuntime> }.boxed()
    }

    fn command(&self, act: Act) -> Vec<String> {
        match act {
            Act::Count(lines) => vec!["count".into(), lines.to_string()],
            Act::Deaf => vec!["deaf".into()],
            Act::Exit(code) => vec!["exit".into(), code.to_string()],
        }
    }

    fn crash<'a>(&'a self, observed: &'a ObservedInstance) -> BoxFuture<'a, ()> {
        async { assert!(self.0.engine().crash(observed.key.agent)) }.boxed()
    }

    fn pause<'a>(&'a self, observed: &'a ObservedInstance) -> BoxFuture<'a, ()> {
        async { assert!(self.0.engine().pause(observed.key.agent, true)) }.boxed()
    }

    fn stranger(&self, port: HostPort) -> Box<dyn Any + Send + Sync> {
        self.0.engine().take_port(port);
        Box::new(Stranger(self.0.engine().clone(), port))
    }

    fn read<'a>(&'a self, key: &'a InstanceKey, path: &'a str) -> BoxFuture<'a, Option<Vec<u8>>> {
        async move { self.0.engine().file(key.agent, path) }.boxed()
    }
}

conformance::tests!(Bench::new());

/// The same engine as a cluster is: it gives addresses, and takes its time.
mod as_a_cluster {
    use std::time::Duration;

    use super::*;

    fn slow() -> Bench {
        let bench = Bench::new();
        bench.0.engine().give_addresses();
        bench.0.engine().set_slow_start(Some((Duration::from_millis(20), "it looks for a place")));
        bench
    }

    conformance::tests!(slow());
}
