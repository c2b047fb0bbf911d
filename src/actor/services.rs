//! What all actors of one control plane share, and how they behave.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{Semaphore, broadcast};
use tokio_util::task::TaskTracker;

use super::{Clock, Counters, CreationRule, JobQueues, Lease};
use crate::accounts::Accounts;
use crate::backoff::RestartPolicy;
use crate::domain::{AgentId, Cell, PortRange, Slug, UserId};
use crate::incident::Recoveries;
use crate::lifecycle::Timing;
use crate::runtime::ContainerRuntime;
use crate::store::{LogEntry, Store};
use crate::usage::Tallies;
use crate::vault::Vault;
use crate::view::Views;
use crate::zeroclaw::client::Gateway;
use crate::zeroclaw::outward::Proxies;
use crate::zeroclaw::profile::Profile;

/// What all actors of one control plane share. Two of these in one process know nothing of each other.
pub struct Services {
    pub store: Store,
    pub vault: Vault,
    pub runtime: Arc<dyn ContainerRuntime>,
    pub gateway: Arc<dyn Gateway>,
    pub profile: Profile,
    pub views: Views,
    pub job_queues: JobQueues,
    /// Tasks of the control plane itself; a shutdown waits for them.
    pub tasks: TaskTracker,
    pub accounts: Accounts,
    pub recoveries: Recoveries,
    /// What agents answered since it was last written down.
    pub tallies: Tallies,
    /// Instances of ours that belong to no agent, as the last sweep left them.
    pub orphans: AtomicU64,
    /// Bounds observations, figures and lists that are asked of the engine at the same time; first come, first served.
    pub engine_calls: Semaphore,
    /// Bounds what carries whole memories: rehearsals, exports, imports.
    pub transfers: Semaphore,
    pub counters: Counters,
    pub lease: Lease,
    pub creation_rule: CreationRule,
    pub clock: Clock,
    pub settings: Settings,
    /// A planted bug, to show that the simulation finds it.
    #[cfg(feature = "testkit")]
    pub sabotage: Option<Sabotage>,
    /// Every committed transition, as it happens. Slow listeners lose the oldest and are told so.
    pub feed: broadcast::Sender<Arc<FeedEntry>>,
}

impl Services {
    /// Calls that only read, at once. An engine serves them from one process; more would only wait in its socket, and
    /// time out there. Jobs are not counted: there is one for each agent, and engines bound starts by themselves.
    pub const ENGINE_CALLS: usize = 16;
    /// Each may hold some hundred megabytes; others wait for their turn.
    pub const TRANSFERS: usize = 2;
}

/// Bugs to be planted: a check that finds none of them would prove nothing.
#[cfg(feature = "testkit")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sabotage {
    /// Effects run without the commit that says they are intended, when an instance is to be made or started.
    SkipIntentCommit,
    /// What belongs to an older attempt is taken for news of this one.
    ForgetAttemptCheck,
    /// An agent's port is given back when its deletion is asked for, not when the instance is gone.
    ReleasePortEarly,
}

impl Services {
    /// Whether this bug is planted; never outside of tests.
    #[cfg(feature = "testkit")]
    pub(super) fn is_sabotaged(&self, by: Sabotage) -> bool {
        self.sabotage == Some(by)
    }
}

/// A line of some agent's timeline.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FeedEntry {
    /// Whose timeline.
    pub agent: AgentId,
    /// The agent's owner.
    pub user: UserId,
    /// The transition, as it was committed.
    pub entry: LogEntry,
}

impl FeedEntry {
    /// With all of it.
    pub const fn new(agent: AgentId, user: UserId, entry: LogEntry) -> Self {
        Self { agent, user, entry }
    }
}

/// How the actors behave. All of it is configuration.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Settings {
    /// When a failed agent is restarted, and when it is left at rest.
    pub restart: RestartPolicy,
    /// How often agents are checked, and how patiently.
    pub timing: Timing,
    /// How long jobs may take.
    pub limits: JobLimits,
    /// Public domain of agents: `<slug>.<domain>`.
    pub domain: Option<String>,
    /// Which of several cells this is. Its number goes into ids, keys and host names that are made from then on.
    pub cell: Option<Cell>,
    /// The host ports that agents get; all of them by default. An agent keeps the one that it has.
    pub ports: PortRange,
    /// What happens to instances that belong to no agent.
    pub orphans: Orphans,
    /// How people get accounts and stay signed in.
    pub accounts: AccountSettings,
    /// The proxies that agents are told to use.
    pub proxies: Proxies,
    /// Whether what agents use and answer is written down each minute. `zeroone serve` does; an embedder may have figures of
    /// its own.
    pub record_usage: bool,
}

impl Settings {
    setters! {
        with_restart(restart: RestartPolicy);
        with_timing(timing: Timing);
        with_limits(limits: JobLimits);
        with_domain(domain: impl Into<String> => Some(domain.into()));
        with_cell(cell: Cell => Some(cell));
        with_ports(ports: PortRange);
        with_orphans(orphans: Orphans);
        with_accounts(accounts: AccountSettings);
        with_proxies(proxies: Proxies);
        with_record_usage(record_usage: bool);
    }

    /// An agent's public host name, if agents have some.
    pub fn host_of(&self, slug: &Slug) -> Option<String> {
        self.domain.as_ref().map(|domain| format!("{}.{domain}", Cell::label(self.cell, slug)))
    }
}

/// How people get accounts, and how long they stay signed in.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AccountSettings {
    /// Who may make an account for themselves.
    pub registration: Registration,
    /// A session ends when it is not used for this long,
    pub session_idle: Duration,
    /// and after this long in any case.
    pub session_end: Duration,
}

impl AccountSettings {
    setters! {
        with_registration(registration: Registration);
        with_session_idle(session_idle: Duration);
        with_session_end(session_end: Duration);
    }
}

/// Who may make an account for themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Registration {
    /// Nobody: administrators make users.
    #[default]
    Closed,
    /// Those whom an administrator has invited.
    Invite,
    /// Anybody, on the plan free.
    Open,
}

impl Registration {
    /// The name that the configuration has for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Invite => "invite",
            Self::Open => "open",
        }
    }
}

impl Default for AccountSettings {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Self { registration: Registration::Closed, session_idle: day, session_end: 30 * day }
    }
}

/// What happens to instances of this installation that belong to no agent. What this store deleted is always removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Orphans {
    /// One that tells its owner and its configuration gets a record, with its secrets missing. Others are reported.
    #[default]
    Adopt,
    /// They are counted and logged, and left as they are.
    Report,
    /// They are removed with their data, after a grace period. A store that is older than its instances destroys them.
    Remove,
}

/// How long the jobs of an agent may take. Every job ends within its limit, whatever the engine does.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct JobLimits {
    /// Network and image; a large image on a slow line takes minutes.
    pub prepare: Duration,
    /// One call of the engine.
    pub engine_call: Duration,
    /// An engine that needs time for a start: it looks for a place, fetches the image, attaches the data.
    pub engine_start: Duration,
    /// From the start of an instance to its first healthy answer.
    pub start: Duration,
    /// From there to a token that works.
    pub pairing: Duration,
    /// One health check.
    pub health: Duration,
    /// How long a stopped instance may take to end by itself.
    pub stop_grace: Duration,
    /// How long a gateway may take for one message, as its configuration has it; at least a second.
    pub answer: Duration,
    /// How often a running gateway is asked whether it is usable, besides healthy.
    pub usability_interval: Duration,
}

impl JobLimits {
    setters! {
        with_prepare(prepare: Duration);
        with_engine_call(engine_call: Duration);
        with_engine_start(engine_start: Duration);
        with_start(start: Duration);
        with_pairing(pairing: Duration);
        with_health(health: Duration);
        with_stop_grace(stop_grace: Duration);
        with_answer(answer: Duration);
        with_usability_interval(usability_interval: Duration);
    }
}

impl Default for JobLimits {
    fn default() -> Self {
        Self {
            prepare: Duration::from_secs(900),
            engine_call: Duration::from_secs(30),
            engine_start: Duration::from_secs(600),
            start: Duration::from_secs(30),
            pairing: Duration::from_secs(15),
            health: Duration::from_secs(1),
            stop_grace: Duration::from_secs(5),
            answer: Duration::from_secs(120),
            usability_interval: Duration::from_secs(60),
        }
    }
}
