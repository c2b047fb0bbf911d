//! The control plane as its users hold it: embedders, and the HTTP facade.
//!
//! ```no_run
//! # async fn run(store: zeroone::store::Store, vault: zeroone::vault::Vault,
//! #     runtime: std::sync::Arc<dyn zeroone::runtime::ContainerRuntime>,
//! #     user: zeroone::domain::UserId, wanted: zeroone::control::NewAgent) -> Result<(), Box<dyn std::error::Error>> {
//! use zeroone::control::ControlPlane;
//!
//! let plane = ControlPlane::builder(store, vault, runtime).start().await?;
//! let agent = plane.create_agent(user, wanted).await?;
//! agent.wait(&[zeroone::domain::Status::Running], std::time::Duration::from_secs(60)).await?;
//! # Ok(()) }
//! ```
//! All calls go by messages to actors, or read the views; none needs a lock of the caller's. Two control planes in one
//! process know nothing of each other.

mod access;
mod accounts;
mod builder;
#[cfg(feature = "testkit")]
mod chaos;
mod data;
mod events;
mod explain;
mod handle;
mod lease;
mod message;
mod model;
mod new_agent;
mod orphans;
mod reconcile;
pub mod recover;
mod remedy;
mod rotate;
mod shutdown;
mod sign_in;
mod upgrade;
mod usage;
mod users;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ractor::ActorRef;
use tokio::sync::broadcast;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use crate::actor::{AccountRefusal, UserChange};
#[cfg(feature = "server")]
pub use access::Turn;
pub use accounts::{AccountError, NewKey, NewUser};
pub use builder::{Builder, StartError};
#[cfg(feature = "testkit")]
pub use chaos::ActorCrash;
pub use data::DataError;
pub use events::{EventStream, EventsError};
pub use explain::Explanation;
pub use handle::{AgentHandle, CommandError, CommandOutcome, WaitError};
pub use message::{DeliveryError, Message};
pub use new_agent::{AgentPatch, CreateError, NewAgent};
pub use orphans::{Orphan, OrphanError};
pub use rotate::{KeeperError, KeyFile, KeyKeeper, RotateError, Rotation};
pub use shutdown::Agents;
pub use sign_in::{SignInError, SignedIn, Visitor};
pub use upgrade::UpgradeError;

use crate::accounts::Accounts;
pub use crate::actor::{
    AccountSettings, ActorCounts, AskError, Clock, CreationRequest, CreationRule, Denied, FeedEntry, IdempotencyClaim,
    JobLimits, Orphans, Registration, Settings,
};
use crate::actor::{Directory, Services, SupervisorMsg};
pub use crate::backoff::RestartPolicy;
use crate::domain::{AgentId, Cell, Slug, Software, Status, UserId};
use crate::incident::{Kind, Recovery};
pub use crate::lifecycle::Timing;
use crate::runtime::{Caps, ImageChoice, RuntimeError};
use crate::store::Store;
use crate::vault::Vault;
use crate::view::{AgentView, Page};

/// How long an actor may take to answer: it waits for nothing but the store.
const ACTOR_PATIENCE: Duration = Duration::from_secs(10);

/// A running control plane. Cheap to clone; all clones are the same one.
#[derive(Clone)]
pub struct ControlPlane {
    shared: Arc<Shared>,
    /// Dropped with the last clone outside of the control plane; its own tasks hold none.
    _alive: Option<Arc<Alive>>,
}

/// What all clones share. Each request takes some: one count goes up for it, not one for each of these.
struct Shared {
    services: Arc<Services>,
    supervisor: ActorRef<SupervisorMsg>,
    registry: crate::actor::RegistrySlot,
    directory: Directory,
    /// Ends the reconciler and messages on hold.
    closing: CancellationToken,
    key_keeper: Option<Arc<dyn KeyKeeper>>,
    rotating: Arc<tokio::sync::Mutex<()>>,
    claimant: lease::Claimant,
    sign_ins: sign_in::SignIns,
}

/// Ends a control plane that nothing holds any more: its store is free then, as after a crash.
struct Alive {
    supervisor: ActorRef<SupervisorMsg>,
    closing: CancellationToken,
}

impl Drop for Alive {
    fn drop(&mut self) {
        if !self.closing.is_cancelled() {
            tracing::warn!("a control plane was dropped without a shutdown; its agents run on");
            self.closing.cancel();
            self.supervisor.stop(None);
        }
    }
}

impl ControlPlane {
    /// Begins to build a control plane from what has no default. Nothing happens before [`Builder::start`].
    pub fn builder(store: Store, vault: Vault, runtime: Arc<dyn crate::runtime::ContainerRuntime>) -> Builder {
        Builder::new(store, vault, runtime)
    }

    /// The agent, if there is one.
    pub fn agent(&self, id: AgentId) -> Option<AgentHandle> {
        AgentHandle::existing(self, id)
    }

    /// The agent with this slug, if there is one.
    pub fn agent_by_slug(&self, slug: &str) -> Option<AgentHandle> {
        let slug = Slug::parse(slug).ok()?;
        self.shared.services.views.by_slug(&slug).and_then(|id| self.agent(id))
    }

    /// The agent that has this first label of a host name, which is its slug, and where there are cells the number of this one.
    pub fn agent_by_label(&self, label: &str) -> Option<AgentHandle> {
        let numbered = Cell::of_label(label).filter(|(_, cell)| Some(*cell) == self.cell());
        numbered.and_then(|(slug, _)| self.agent_by_slug(slug)).or_else(|| self.agent_by_slug(label))
    }

    /// Agents in order of creation: one user's, or all.
    pub fn agents(&self, user: Option<UserId>, after: Option<AgentId>, limit: usize, statuses: &[Status]) -> Page {
        self.agents_where(user, after, limit, |view| statuses.is_empty() || statuses.contains(&view.status()))
    }

    /// The same, of those that are `wanted`.
    pub fn agents_where(
        &self,
        user: Option<UserId>,
        after: Option<AgentId>,
        limit: usize,
        wanted: impl Fn(&AgentView) -> bool,
    ) -> Page {
        self.shared.services.views.page(user, after, limit, wanted)
    }

    /// Users, keys and sessions, as they were committed last.
    pub fn accounts(&self) -> &Accounts {
        &self.shared.services.accounts
    }

    /// The store that it works on, to be read. It is closed by [`ControlPlane::shutdown`].
    pub fn store(&self) -> &Store {
        &self.shared.services.store
    }

    /// What seals and opens the secrets in the store.
    pub fn vault(&self) -> &Vault {
        &self.shared.services.vault
    }

    /// The time by its [`Clock`].
    pub fn now(&self) -> crate::domain::Timestamp {
        self.shared.services.clock.now()
    }

    /// How many agents are in each status.
    pub fn count_by_status(&self) -> Vec<(Status, usize)> {
        self.shared.services.views.count_by_status()
    }

    /// How long agents took to recover, by what had gone wrong, since this control plane began.
    pub fn recoveries(&self) -> Vec<(Kind, Recovery)> {
        self.shared.services.recoveries.counted()
    }

    /// Instances of this installation that belong to no agent, as the last sweep left them.
    pub fn orphans(&self) -> u64 {
        self.shared.services.orphans.load(Ordering::Relaxed)
    }

    /// What went wrong with actors, and how long commands waited for them, since this control plane began.
    pub fn actor_counts(&self) -> ActorCounts {
        self.shared.services.counters.now()
    }

    /// Every committed transition from now on, as long as the reader keeps up: for progress on a screen. What must not miss
    /// anything reads [`ControlPlane::events`].
    pub fn feed(&self) -> broadcast::Receiver<Arc<FeedEntry>> {
        self.shared.services.feed.subscribe()
    }

    /// What new agents are made from; `None` where the runtime has no images, does not have this one yet, or is away.
    pub async fn default_software(&self) -> Option<Software> {
        let asked = self.shared.services.runtime.software(ImageChoice::Present, Arc::new(|_| ()));
        tokio::time::timeout(self.shared.services.settings.limits.engine_call, asked).await.ok()?.ok()?
    }

    /// What the runtime can promise. Does not ask the engine.
    pub fn caps(&self) -> Caps {
        self.shared.services.runtime.caps()
    }

    /// Whether the runtime answers now.
    ///
    /// # Errors
    /// What the runtime says, or that it says nothing.
    pub async fn ping_runtime(&self) -> Result<(), RuntimeError> {
        let within = self.shared.services.settings.limits.health;
        timeout(within, self.shared.services.runtime.ping())
            .await
            .unwrap_or_else(|_| Err(RuntimeError::Unavailable("no answer in time".into())))
    }

    /// Public host name suffix of agents, if configured.
    pub fn domain(&self) -> Option<&str> {
        self.shared.services.settings.domain.as_deref()
    }

    /// An agent's public host name, if agents have some.
    pub fn host_of(&self, slug: &Slug) -> Option<String> {
        self.shared.services.settings.host_of(slug)
    }

    /// Which of several cells this is.
    pub fn cell(&self) -> Option<Cell> {
        self.shared.services.settings.cell
    }

    /// Waits until another control plane has taken this installation; tells which one. This one shuts itself down then.
    pub async fn superseded(&self) -> String {
        lease::in_use(&self.shared.services.lease.lost().await)
    }
}
