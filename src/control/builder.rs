//! How a control plane comes up: key checked, records loaded, actors started, the engine looked at.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ractor::Actor;
use tokio::sync::{Semaphore, broadcast, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::lease::{self, ClaimError, Claimant};
use super::sign_in::SignIns;
use super::{Agents, Alive, ControlPlane, KeyKeeper, Shared, reconcile, rotate, usage, users};
use crate::accounts::Accounts;
use crate::actor::{Clock, Counters, CreationRule, JobQueues, Lease, Services, Settings, Supervisor, SupervisorArgs};
use crate::incident::Recoveries;
use crate::runtime::{ContainerRuntime, LeaseRecord, RuntimeError};
use crate::store::{OpenError, Store, StoreError};
use crate::usage::Tallies;
use crate::vault::Vault;
use crate::view::Views;
use crate::zeroclaw::client::{Gateway, HttpGateway};
use crate::zeroclaw::profile::Profile;

/// Transitions kept for listeners who are slow; those who are slower still are told that they missed some.
const FEED_LENGTH: usize = 4096;

/// What a control plane is made of; everything but store, vault and runtime has a default.
pub struct Builder {
    store: Store,
    vault: Vault,
    runtime: Arc<dyn ContainerRuntime>,
    gateway: Option<Arc<dyn Gateway>>,
    profile: Profile,
    settings: Settings,
    clock: Clock,
    key_keeper: Option<Arc<dyn KeyKeeper>>,
    holder: Option<String>,
    take_over: bool,
    creation_rule: CreationRule,
    #[cfg(feature = "testkit")]
    sabotage: Option<crate::actor::Sabotage>,
}

/// Why a control plane does not come up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The master key is not the one that sealed the store.
    #[error(transparent)]
    Key(#[from] OpenError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The supervisor or the registry did not come up, for this reason.
    #[error("the actors did not start: {0}")]
    Actors(String),
    /// Supervision needs unwinding: with `panic = "abort"` one agent's panic would end the program.
    #[error("the program is built with panic = \"abort\"; set panic = \"unwind\" in its Cargo profile")]
    PanicAborts,
    /// Another control plane has this installation on the engine: this store is a copy, or the other one's is.
    #[error(
        "installation-in-use: another control plane has this installation ({}); end it. If it is gone for good, start \
         with --take-over; to run this copy beside it, with the same users and keys but agents of its own, with \
         --new-installation",
        lease::in_use(.0)
    )]
    InUse(LeaseRecord),
    /// Something that is not ours is where the engine would keep the lease.
    #[error("the lease of the installation: {0}")]
    Lease(RuntimeError),
}

impl From<ClaimError> for StartError {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::InUse(holder) => Self::InUse(holder),
            ClaimError::Engine(error) => Self::Lease(error),
        }
    }
}

impl Builder {
    pub(super) fn new(store: Store, vault: Vault, runtime: Arc<dyn ContainerRuntime>) -> Self {
        Self {
            store,
            vault,
            runtime,
            gateway: None,
            profile: Profile::Embedded,
            settings: Settings::default(),
            clock: Clock::System,
            key_keeper: None,
            holder: None,
            take_over: false,
            creation_rule: CreationRule::default(),
            #[cfg(feature = "testkit")]
            sabotage: None,
        }
    }

    /// Plants a bug, to show that a check finds it.
    #[cfg(feature = "testkit")]
    #[must_use]
    pub fn sabotage(mut self, sabotage: Option<crate::actor::Sabotage>) -> Self {
        self.sabotage = sabotage;
        self
    }

    /// How gateways are called; real HTTP by default.
    #[must_use]
    pub fn gateway(mut self, gateway: Arc<dyn Gateway>) -> Self {
        self.gateway = Some(gateway);
        self
    }

    /// Which ZeroClaw the runtime runs; the embedded gateway by default.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// How the actors behave; [`Settings::default`] by default.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// What time it is; the system's clock by default.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// What keeps the vault's master keys, so that they can be changed while the control plane runs; nothing by default.
    #[must_use]
    pub fn key_keeper(mut self, keeper: impl KeyKeeper) -> Self {
        self.key_keeper = Some(Arc::new(keeper));
        self
    }

    /// What tells this control plane from another one with the same installation id. By default the place of the store,
    /// which is the same after a restart and another one for a copy of the store.
    #[must_use]
    pub fn lease_holder(mut self, holder: impl Into<String>) -> Self {
        self.holder = Some(holder.into());
        self
    }

    /// Takes the installation from a control plane that seems to live. To be set where an administrator says so.
    #[must_use]
    pub const fn take_over(mut self, take_over: bool) -> Self {
        self.take_over = take_over;
        self
    }

    /// A rule of the embedder's own about who may have which agents, beside the plan's quota.
    #[must_use]
    pub fn creation_rule(mut self, rule: CreationRule) -> Self {
        self.creation_rule = rule;
        self
    }

    /// Brings it up: answers when every stored agent has its actor again.
    ///
    /// # Errors
    /// A master key that is not the store's, a store that cannot be read, an installation that another control plane has, a
    /// program that aborts on panics. Nothing was changed then.
    pub async fn start(self) -> Result<ControlPlane, StartError> {
        if cfg!(panic = "abort") {
            return Err(StartError::PanicAborts);
        }
        self.store.check_key(&self.vault).await?;
        let claimant = self.claimant()?;
        let lease = Lease::default();
        claimant.claim(&*self.runtime, &lease).await?;
        self.store.take();
        let snapshot = self.store.load().await?;
        let gateway = self.gateway.unwrap_or_else(|| Arc::new(HttpGateway::new()));
        let services = Arc::new(Services {
            store: self.store,
            vault: self.vault,
            runtime: self.runtime,
            gateway,
            profile: self.profile,
            views: Views::default(),
            job_queues: JobQueues::default(),
            tasks: TaskTracker::new(),
            accounts: Accounts::default(),
            recoveries: Recoveries::default(),
            tallies: Tallies::default(),
            orphans: AtomicU64::default(),
            engine_calls: Semaphore::new(Services::ENGINE_CALLS),
            transfers: Semaphore::new(Services::TRANSFERS),
            counters: Counters::default(),
            lease,
            creation_rule: self.creation_rule,
            clock: self.clock,
            settings: self.settings,
            #[cfg(feature = "testkit")]
            sabotage: self.sabotage,
            feed: broadcast::Sender::new(FEED_LENGTH),
        });
        let changes = services.runtime.watch();
        let directory = Arc::default();
        let (found, registry) = oneshot::channel();
        let args = SupervisorArgs {
            services: Arc::clone(&services),
            snapshot,
            directory: Arc::clone(&directory),
            registry: found,
        };
        let (supervisor, _) =
            Supervisor::spawn(None, Supervisor, args).await.map_err(|error| StartError::Actors(error.to_string()))?;
        let registry = registry.await.map_err(|_| StartError::Actors("the supervisor ended".into()))?;
        let closing = CancellationToken::new();
        reconcile::spawn(&services, changes, (supervisor.clone(), Arc::clone(&registry)), &closing);
        services.tasks.spawn(claimant.clone().keep(Arc::clone(&services), closing.clone()));
        let alive = Arc::new(Alive { supervisor: supervisor.clone(), closing: closing.clone() });
        let shared = Shared {
            services,
            supervisor,
            registry,
            directory,
            closing,
            key_keeper: self.key_keeper,
            rotating: Arc::default(),
            claimant,
            sign_ins: SignIns::default(),
        };
        let plane = ControlPlane { shared: Arc::new(shared), _alive: None };
        if plane.shared.services.settings.record_usage {
            usage::spawn(plane.clone());
        }
        users::spawn(plane.clone());
        rotate::resume(plane.clone());
        plane.resume_upgrades();
        plane.remove_half_imported();
        tokio::spawn(end_without_lease(plane.clone()));
        Ok(ControlPlane { _alive: Some(alive), ..plane })
    }

    fn claimant(&self) -> Result<Claimant, StoreError> {
        let unreadable = |error: std::io::Error| StoreError::Unavailable(error.to_string().into());
        let place = self.store.identity().map_err(unreadable)?;
        let description = format!("process {}, store {place}", std::process::id());
        let holder = self.holder.clone().unwrap_or(place);
        Ok(Claimant { holder, description, take_over: self.take_over })
    }
}

/// A control plane that lost its lease must not decide anything more: what it knows is outdated.
async fn end_without_lease(plane: ControlPlane) {
    tokio::select! {
        biased;
        () = plane.shared.closing.cancelled() => {}
        _ = plane.shared.services.lease.lost() => drop(plane.shutdown(Agents::Leave).await),
    }
}
