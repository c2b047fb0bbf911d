//! Fakes, fault scripts and invariants, for chaos tests of one's own.
//!
//! The control plane on an engine in memory: nothing real is started, nothing is waited for but tokio's clock, so that
//! under a paused one an agent's month passes in a moment. The same seed gives the same history, as long as agents' ids come
//! from it, too: [`Fakes::new_agent`].
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! use std::time::Duration;
//! use zeroone::domain::{Plan, Status};
//! use zeroone::testkit;
//!
//! let world = testkit::plane(7, Plan::Pro).await;
//! let agent = world.running("Ada").await;
//! world.fakes.engine().crash(agent.id());
//! let answer = agent.deliver(testkit::message("still there?")).await.expect("held until it is back");
//! assert!(String::from_utf8_lossy(&answer.body).contains("echo: still there?"));
//! # }
//! ```
//!
//! - [`FakeEngine`] is the container engine, and the hands that crash, pause and remove what runs on it;
//! - [`FakeRuntime`] and [`FakeGateway`] are what a control plane sees of it;
//! - [`FakeDisk`] is what the store is on, and cuts the service off, or lets it panic, at any commit;
//! - [`run_until_killed`] runs a service until it is cut off, and the next one on what it left;
//! - [`GatewayBehavior`] and [`GatewayFault`] say how the gateways inside behave.
//!
//! - [`Faults`] lets calls fail, hang, come twice or lose their answers, in front of any runtime and gateway;
//! - [`Guard`], [`Tap`], [`Inspector`] and [`check`] hold a control plane against what must always hold, by name;
//!   [`Inspector::with_invariant`] adds what must hold for you.
//!
//! - [`conformance`] is the suite that a runtime of one's own has to pass.
//!
//! It is no model of Docker: what Docker itself does under faults is tested with Docker.

mod behavior;
mod check;
pub mod conformance;
mod disk;
mod engine;
mod faults;
mod follower;
mod gateway;
mod guard;
mod images;
mod killable;
mod plane;
mod process;
mod random;
mod runtime;
mod state;
mod tap;

use std::sync::{Arc, Mutex, PoisonError};

use crate::actor::Clock;
use crate::control::NewAgent;
use crate::domain::{AgentId, InstallationId, Timestamp};

pub use crate::actor::Sabotage;
pub use behavior::{CodeForm, GatewayBehavior, GatewayFault};
pub use check::{Inspector, Invariant, Moment, Violation, Wish, check};
pub use disk::{Cut, FakeDisk};
pub use engine::{Condition, FakeEngine, Image, Pace};
pub use faults::{Call, Fault, Faults, FaultyGateway, FaultyRuntime, Odds};
pub use gateway::FakeGateway;
pub use guard::Guard;
pub use images::FakeImage;
pub use killable::run_until_killed;
pub use plane::{API_KEY, TestPlane, message, new_agent, plane, start, vault};
pub use random::Sequence;
pub use runtime::FakeRuntime;
pub use state::{Delivery, Tally};
pub use tap::Tap;

/// When fake time begins: 2026-01-01T00:00:00Z.
pub const EPOCH: Timestamp = Timestamp::constant(1_767_225_600, 0);

/// An engine in memory with the two doors that a control plane needs, and a clock. Clones are the same one.
#[derive(Clone)]
pub struct Fakes {
    engine: FakeEngine,
    installation: InstallationId,
    ids: Arc<Mutex<Ids>>,
}

/// Where ids of agents come from.
struct Ids {
    random: Sequence,
    given: u64,
}

impl Fakes {
    /// Fakes whose choices come from `seed`; their time begins at [`EPOCH`] and goes with tokio's, or
    /// stands still until [`run_until_killed`] where no tokio runtime is.
    pub fn new(seed: u64) -> Self {
        let fakes = Self::with_clock(seed, Clock::tokio(EPOCH));
        if tokio::runtime::Handle::try_current().is_err() {
            fakes.engine.begin_at(EPOCH);
        }
        fakes
    }

    /// Fakes whose choices come from `seed`, on a clock of the caller's.
    pub fn with_clock(seed: u64, clock: Clock) -> Self {
        let mut installation = [0x5e; 16];
        installation[..8].copy_from_slice(&seed.to_be_bytes());
        Self {
            engine: FakeEngine::new(seed, clock),
            installation: InstallationId::from_bytes(installation),
            ids: Arc::new(Mutex::new(Ids { random: Sequence::new(!seed), given: 0 })),
        }
    }

    /// The next id of an agent, from the seed. An agent's id decides its jitter: with ids of its own a history would not come
    /// back with its seed. Later ids are greater, as those of the service are.
    pub fn agent_id(&self) -> AgentId {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.given += 1;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&ids.given.to_be_bytes());
        bytes[8..].copy_from_slice(&ids.random.next().to_be_bytes());
        AgentId::from_bytes(bytes)
    }

    /// An agent to be, of this name, with an [id from the seed](Self::agent_id).
    pub fn new_agent(&self, name: &str) -> NewAgent {
        NewAgent { id: self.agent_id(), ..new_agent(name) }
    }

    /// The engine, to look at what runs on it and to interfere with it.
    pub const fn engine(&self) -> &FakeEngine {
        &self.engine
    }

    /// The installation that [`Fakes::runtime`] is of; it follows from the seed.
    pub const fn installation(&self) -> InstallationId {
        self.installation
    }

    /// What a control plane gets as its runtime.
    pub fn runtime(&self) -> Arc<FakeRuntime> {
        Arc::new(FakeRuntime::new(self.engine.clone(), self.installation))
    }

    /// What a control plane calls gateways by.
    pub fn gateway(&self) -> Arc<FakeGateway> {
        Arc::new(FakeGateway::new(self.engine.clone()))
    }

    /// The engine's clock: the control plane's should be the same.
    pub fn clock(&self) -> Clock {
        self.engine.clock()
    }
}
