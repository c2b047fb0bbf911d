//! What must always hold, as checks with names, and the inspector that makes them.
//!
//! Some can be made at any moment ([`Inspector::step`]), some only when nothing is under way any more
//! ([`Inspector::at_rest`]). [`check`] makes those that need no history, on any control plane and any runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::state::Tally;
use crate::actor::FeedEntry;
use crate::control::{ControlPlane, DeliveryError};
use crate::domain::{AgentId, Status, Timestamp, UserId};
use crate::lifecycle::{Phase, Step};
use crate::runtime::{ContainerRuntime, InstanceState, Observed};
use crate::store::{Snapshot, StoredAgent};
use crate::zeroclaw::client::WebhookAnswer;

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// An acknowledged create is in the store until its deletion was asked for.
    CreatesAreKept,
    /// An agent has at most one instance.
    OneInstance,
    /// What runs belongs to a stored agent, on that agent's port; so a port is given to nobody as long as it is used.
    RunsAreRecorded,
    /// No port and no slug belongs to two stored agents.
    SeatsApart,
    /// No user has more agents than the limit.
    QuotaHeld,
    /// Nothing outside changes before the store holds the intent; what is stored as RUNNING is touched by nobody.
    IntentFirst,
    /// One operation at a time for each agent.
    OneOperation,
    /// A status changes along the documented edges only, and revisions grow.
    Edges,
    /// A message is read at most once; one that was refused as not sent was never read; an answer is the message's own.
    AtMostOnce,
    /// An engine that is away takes nobody out of RUNNING.
    AbsenceIsNoDeath,
    /// RUNNING is left for a token's sake only if this run's gateway refused it: stale news change nothing.
    NewsOfThisRun,
    /// What is to be tried again later is not tried before its time.
    WaitsAreKept,
    /// At rest: nothing is stuck. A transient status ends, and ERROR has a reason.
    NothingStuck,
    /// At rest: what is stored as RUNNING runs, as the very run that is stored; what is not, does not.
    IntentIsFact,
    /// At rest: instances and data belong to stored agents.
    NoLeftovers,
    /// At rest: a stopped agent stays stopped, a deleted one stays gone.
    WishesHold,
    /// At rest: the gateway of a RUNNING agent takes the token that is held, so a message is answered.
    TokensWork,
}

/// Something that must hold and does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub invariant: Invariant,
    pub agent: Option<AgentId>,
    pub detail: String,
}

impl Violation {
    pub(super) fn of(invariant: Invariant, agent: AgentId, detail: String) -> Self {
        Self { invariant, agent: Some(agent), detail }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.invariant)?;
        if let Some(agent) = self.agent {
            write!(f, " (agent {agent})")?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// What a user last asked for, as far as it was acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wish {
    /// Nothing certain: a command's outcome is unknown, or two were on their way at once.
    #[default]
    Open,
    Run,
    Stop,
    Delete,
}

#[derive(Default)]
struct Known {
    revision: u64,
    status: Option<Status>,
    acknowledged: bool,
    wish: Wish,
    running_since: Option<Timestamp>,
    /// The wait that was shown, and the revision that showed it.
    due: Option<(u64, Timestamp)>,
}

/// Watches a control plane over all its lives.
#[derive(Default)]
pub struct Inspector {
    agents: BTreeMap<AgentId, Known>,
    violations: Vec<Violation>,
}

/// Checks what needs no history: at any moment if `at_rest` is false, when nothing is under way if it is true. An empty
/// answer means that all is well.
///
/// # Errors
/// When the store or the runtime cannot be read, in words.
pub async fn check(
    plane: &ControlPlane,
    runtime: &dyn ContainerRuntime,
    at_rest: bool,
) -> Result<Vec<Violation>, String> {
    let snapshot = plane.store().load().await.map_err(|error| error.to_string())?;
    let observed = runtime.list_owned().await.map_err(|error| error.to_string())?;
    let mut inspector = Inspector::default();
    inspector.step(&snapshot, &observed);
    if at_rest {
        inspector.at_rest(&snapshot, &observed);
    }
    Ok(inspector.violations())
}

impl Inspector {
    pub fn new() -> Self {
        Self::default()
    }

    /// A create was acknowledged.
    pub fn created(&mut self, agent: AgentId) {
        let known = self.agents.entry(agent).or_default();
        known.acknowledged = true;
        known.wish = Wish::Run;
    }

    /// A command was acknowledged, or its outcome is open. A deletion is not taken back.
    pub fn wished(&mut self, agent: AgentId, wish: Wish) {
        let known = self.agents.entry(agent).or_default();
        if known.wish != Wish::Delete {
            known.wish = wish;
        }
    }

    /// A deletion is on its way: from here on the agent may be gone.
    pub fn may_go(&mut self, agent: AgentId) {
        self.agents.entry(agent).or_default().acknowledged = false;
        self.wished(agent, Wish::Open);
    }

    /// What was violated since this was last asked.
    pub fn violations(&mut self) -> Vec<Violation> {
        std::mem::take(&mut self.violations)
    }

    fn violated(&mut self, invariant: Invariant, agent: AgentId, detail: impl Into<String>) {
        self.violations.push(Violation::of(invariant, agent, detail.into()));
    }

    /// A committed transition, with what the gateway did so far.
    pub fn fed(&mut self, fed: &FeedEntry, tally: &Tally) {
        let (agent, entry) = (fed.agent, &fed.entry);
        let known = self.agents.entry(agent).or_default();
        let (revision, status, since, due) = (known.revision, known.status, known.running_since, known.due.take());
        known.revision = entry.seq;
        known.status = Some(entry.to);
        if entry.to != Status::Running {
            known.running_since = None;
        } else if entry.from != Status::Running {
            known.running_since = Some(entry.time);
        }
        if entry.seq <= revision {
            self.violated(Invariant::Edges, agent, format!("revision {} after {revision}", entry.seq));
        }
        let moved = entry.from != entry.to;
        let torn = entry.seq == revision + 1 && status.is_some_and(|status| status != entry.from);
        if torn || (moved && !Status::EDGES.contains(&(entry.from, entry.to))) {
            self.violated(Invariant::Edges, agent, format!("{} to {} after {status:?}", entry.from, entry.to));
        }
        if entry.from == Status::Running && moved && entry.cause == "runtime-unavailable" {
            self.violated(Invariant::AbsenceIsNoDeath, agent, format!("to {}", entry.to));
        }
        if let Some(since) = since.filter(|_| entry.from == Status::Running && entry.cause == "token-refused")
            && !tally.refusals.iter().any(|refused| *refused >= since)
        {
            self.violated(Invariant::NewsOfThisRun, agent, format!("re-paired, nothing refused since {since}"));
        }
        if let Some((shown, due)) = due
            && entry.seq == shown + 1
            && entry.cause == "retry-due"
            && entry.time < due
        {
            self.violated(Invariant::WaitsAreKept, agent, format!("at {} instead of {due}", entry.time));
        }
    }

    /// What became of a message. Each text must be another one. `read` is how often the gateway read it.
    pub fn message(
        &mut self,
        agent: AgentId,
        text: &str,
        read: usize,
        outcome: Option<&Result<WebhookAnswer, DeliveryError>>,
    ) {
        if read > 1 {
            self.violated(Invariant::AtMostOnce, agent, format!("{text:?} was read {read} times"));
        }
        match outcome {
            Some(Ok(answer)) if answer.status == 200 => {
                let own = String::from_utf8_lossy(&answer.body).contains(&format!("echo: {text}\""));
                if read != 1 || !own {
                    self.violated(Invariant::AtMostOnce, agent, format!("{text:?} was answered with another's answer"));
                }
            }
            Some(Err(
                DeliveryError::Gone
                | DeliveryError::NotRunning { .. }
                | DeliveryError::NotReady { .. }
                | DeliveryError::QueueFull
                | DeliveryError::Unauthorized,
            )) if read > 0 => {
                self.violated(Invariant::AtMostOnce, agent, format!("{text:?} was read, and refused as not sent"));
            }
            Some(
                Ok(_)
                | Err(
                    DeliveryError::Gone
                    | DeliveryError::NotRunning { .. }
                    | DeliveryError::NotReady { .. }
                    | DeliveryError::QueueFull
                    | DeliveryError::Unauthorized
                    | DeliveryError::Unknown(_)
                    | DeliveryError::TimedOut
                    | DeliveryError::Garbage(_),
                ),
            )
            | None => {}
        }
    }

    /// Everything that holds at every moment.
    pub fn step(&mut self, snapshot: &Snapshot, observed: &[Observed]) {
        self.seats(snapshot);
        self.quotas(snapshot);
        let stored: BTreeMap<AgentId, &StoredAgent> =
            snapshot.agents.iter().map(|agent| (agent.record.id, agent)).collect();
        let lost: Vec<AgentId> = self
            .agents
            .iter()
            .filter(|(agent, known)| known.acknowledged && !stored.contains_key(agent))
            .map(|(agent, _)| *agent)
            .collect();
        for agent in lost {
            self.violated(Invariant::CreatesAreKept, agent, "it is not in the store");
        }
        for agent in &snapshot.agents {
            let life = &agent.record.life;
            let known = self.agents.entry(agent.record.id).or_default();
            let waits = matches!(
                &life.phase,
                Phase::Starting { step: Step::BackingOff { .. }, .. } | Phase::Failed { retry_at: Some(_), .. }
            );
            known.due = life.next_attempt_at().filter(|_| waits).map(|due| (life.revision, due));
        }
        let mut seen = BTreeSet::new();
        for instance in observed {
            let agent = instance.key.agent;
            if !seen.insert(agent) {
                self.violated(Invariant::OneInstance, agent, "a second instance");
            }
            let run = match &instance.state {
                InstanceState::Running(run) | InstanceState::Paused(run) => run,
                InstanceState::Created | InstanceState::Exited(_) => continue,
            };
            match stored.get(&agent) {
                None => self.violated(Invariant::RunsAreRecorded, agent, "it runs, and no record knows it"),
                Some(stored) if run.endpoint.port() != stored.port.get() && is_running(stored) => {
                    let detail = format!("it runs on {}, its port is {}", run.endpoint.port(), stored.port);
                    self.violated(Invariant::RunsAreRecorded, agent, detail);
                }
                Some(_) => {}
            }
        }
    }

    fn seats(&mut self, snapshot: &Snapshot) {
        let (mut ports, mut slugs) = (BTreeSet::new(), BTreeSet::new());
        for agent in &snapshot.agents {
            if !ports.insert(agent.port) {
                self.violated(Invariant::SeatsApart, agent.record.id, format!("port {}", agent.port));
            }
            if !slugs.insert(&agent.record.slug) {
                self.violated(Invariant::SeatsApart, agent.record.id, format!("slug {}", agent.record.slug));
            }
        }
    }

    /// As far as no plan was made smaller: what was granted stays.
    fn quotas(&mut self, snapshot: &Snapshot) {
        let mut used: BTreeMap<UserId, u32> = BTreeMap::new();
        for agent in &snapshot.agents {
            *used.entry(agent.record.user).or_default() += 1;
        }
        for user in &snapshot.users {
            let limit = user.effective_limits().max_agents;
            let used = used.get(&user.id).copied().unwrap_or_default();
            if limit.is_some_and(|limit| used > limit) {
                let detail = format!("user {} has {used} agents of {limit:?}", user.id);
                self.violations.push(Violation { invariant: Invariant::QuotaHeld, agent: None, detail });
            }
        }
    }

    /// Everything that holds when nothing is under way.
    pub fn at_rest(&mut self, snapshot: &Snapshot, observed: &[Observed]) {
        let seen: BTreeMap<AgentId, &Observed> =
            observed.iter().map(|instance| (instance.key.agent, instance)).collect();
        for stored in &snapshot.agents {
            self.agent_at_rest(stored, seen.get(&stored.record.id).copied());
        }
        let stored: BTreeSet<AgentId> = snapshot.agents.iter().map(|agent| agent.record.id).collect();
        for instance in observed {
            if !stored.contains(&instance.key.agent) {
                self.violated(Invariant::NoLeftovers, instance.key.agent, "an instance without a record");
            }
        }
        let wishes: Vec<(AgentId, Wish)> = self.agents.iter().map(|(agent, known)| (*agent, known.wish)).collect();
        for (agent, wish) in wishes {
            if wish == Wish::Delete && stored.contains(&agent) {
                self.violated(Invariant::WishesHold, agent, "its deletion was acknowledged, and it is still there");
            }
        }
    }

    fn agent_at_rest(&mut self, stored: &StoredAgent, seen: Option<&Observed>) {
        let (agent, life) = (stored.record.id, &stored.record.life);
        let run = seen.and_then(Observed::run);
        match life.status() {
            Status::Running => match run {
                Some(run) if life.boot() == Some(&run.boot) => {}
                other => {
                    let detail = format!("stored as the run {:?}, seen is {other:?}", life.boot());
                    self.violated(Invariant::IntentIsFact, agent, detail);
                }
            },
            Status::Stopped | Status::Error => {
                if run.is_some() {
                    self.violated(Invariant::IntentIsFact, agent, format!("it runs and is {}", life.status()));
                }
                if life.status() == Status::Error && life.reason.is_none() {
                    self.violated(Invariant::NothingStuck, agent, "ERROR without a reason");
                }
            }
            status @ (Status::Pending | Status::Starting | Status::Stopping) => {
                let detail = format!("{status}: {:?}, {:?}", life.phase, life.reason);
                self.violated(Invariant::NothingStuck, agent, detail);
            }
        }
        let wish = self.agents.get(&agent).map(|known| known.wish).unwrap_or_default();
        let held = match wish {
            Wish::Open | Wish::Delete => true,
            Wish::Run => matches!(life.status(), Status::Running | Status::Error),
            Wish::Stop => life.status() == Status::Stopped,
        };
        if !held {
            self.violated(Invariant::WishesHold, agent, format!("{wish:?} was acknowledged, it is {}", life.status()));
        }
    }

    /// Whether a RUNNING agent answered when all was well.
    pub fn answered(&mut self, agent: AgentId, outcome: &Result<WebhookAnswer, DeliveryError>) {
        if !matches!(outcome, Ok(answer) if answer.status == 200) {
            self.violated(Invariant::TokensWork, agent, format!("{outcome:?}"));
        }
    }
}

fn is_running(stored: &StoredAgent) -> bool {
    stored.record.life.status() == Status::Running
}
