//! What must always hold, as checks with names, and the inspector that makes them.
//!
//! Some can be made at any moment ([`Inspector::step`]), some with each committed transition ([`Inspector::fed`]), some
//! only when nothing is under way any more ([`Inspector::at_rest`]). [`check`] makes those that need no history, on any
//! control plane and any runtime.

mod feed;
mod invariant;
mod messages;
mod moment;
mod own;
mod rest;

use std::collections::BTreeMap;

use crate::backoff::RestartPolicy;
use crate::control::ControlPlane;
use crate::domain::{AgentId, Status, Timestamp, UserId};
use crate::runtime::{ContainerRuntime, ObservedInstance};
use crate::vault::Sealed;

pub use invariant::{Invariant, Violation};
pub use own::Moment;

/// What a user last asked for, as far as it was acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wish {
    /// Nothing certain: a command's outcome is unknown, or two were on their way at once.
    #[default]
    Open,
    /// It is to run: a create, a start or a restart.
    Run,
    /// It is to be stopped.
    Stop,
    /// It is to be gone.
    Delete,
}

/// What is known of an agent from what was seen so far.
#[derive(Default)]
struct Known {
    owner: Option<UserId>,
    revision: u64,
    /// The revision that readers saw last.
    shown: u64,
    status: Option<Status>,
    acknowledged: bool,
    wish: Wish,
    /// The revision at which the wish was acknowledged.
    wished_at: u64,
    running_since: Option<Timestamp>,
    /// The wait that was shown, and the revision that showed it.
    due: Option<(u64, Timestamp)>,
    /// Waits of this revision and before began under another clock.
    waits_after: u64,
    /// When it was restarted after a death, since its past was last forgiven.
    restarts: Vec<Timestamp>,
    has_data: bool,
    /// The number of the message that was sent on last.
    sent_on: Option<u64>,
}

/// Watches a control plane over all its lives.
#[derive(Default)]
pub struct Inspector {
    agents: BTreeMap<AgentId, Known>,
    /// How many agents each user had when it was last seen.
    used: BTreeMap<UserId, u32>,
    sealed: BTreeMap<[u8; 12], Sealed>,
    others: Option<Vec<ObservedInstance>>,
    secrets: Vec<String>,
    policy: RestartPolicy,
    /// When the present life of the service began.
    lives_since: Option<Timestamp>,
    /// Something keeps it from being in time.
    hindered: bool,
    violations: Vec<Violation>,
    own: Vec<own::Own>,
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
    Inspector::new().check(plane, runtime, at_rest).await
}

impl Inspector {
    /// An inspector that has seen nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// For a control plane with another restart policy than the default one.
    #[must_use]
    pub fn with_policy(self, policy: RestartPolicy) -> Self {
        Self { policy, ..self }
    }

    /// A text that must never be seen, such as a model's key.
    #[must_use]
    pub fn with_secret(mut self, secret: impl Into<String>) -> Self {
        self.secrets.push(secret.into());
        self
    }

    /// As the function [`check`], with what this inspector knows from before and with the caller's own invariants.
    ///
    /// # Errors
    /// When the store or the runtime cannot be read, in words.
    pub async fn check(
        &mut self,
        plane: &ControlPlane,
        runtime: &dyn ContainerRuntime,
        at_rest: bool,
    ) -> Result<Vec<Violation>, String> {
        let snapshot = plane.store().load().await.map_err(|error| error.to_string())?;
        let observed = runtime.list_owned().await.map_err(|error| error.to_string())?;
        self.step(&snapshot, &observed);
        for user in &snapshot.users {
            self.listed(user.id, &plane.agents(Some(user.id), None, usize::MAX, &[]));
        }
        self.shown(&plane.agents(None, None, usize::MAX, &[]));
        if at_rest {
            self.at_rest(&snapshot, &observed);
        }
        Ok(self.violations())
    }

    /// A create was acknowledged.
    pub fn created(&mut self, agent: AgentId) {
        let known = self.agents.entry(agent).or_default();
        known.acknowledged = true;
        known.wish = Wish::Run;
    }

    /// A command was acknowledged when the agent had this revision, or its outcome is open. A deletion is not taken back.
    pub fn wished(&mut self, agent: AgentId, wish: Wish, revision: u64) {
        let known = self.agents.entry(agent).or_default();
        if known.wish != Wish::Delete {
            (known.wish, known.wished_at) = (wish, revision);
        }
    }

    /// A deletion is on its way: from here on the agent may be gone.
    pub fn may_go(&mut self, agent: AgentId) {
        self.agents.entry(agent).or_default().acknowledged = false;
        self.wished(agent, Wish::Open, 0);
    }

    /// Another life of the service begins now.
    pub fn new_life(&mut self, now: Timestamp) {
        // Before nobody was there to be in time, or to keep an order.
        (self.hindered, self.lives_since) = (false, Some(now));
        for known in self.agents.values_mut() {
            known.sent_on = None;
        }
    }

    /// From here to the end of this life something keeps the service from being in time, such as a disk that fails.
    pub const fn hinder(&mut self) {
        self.hindered = true;
    }

    /// The clock was put forward or back: times before and after do not compare.
    pub fn clock_put(&mut self) {
        self.lives_since = None;
        for known in self.agents.values_mut() {
            known.waits_after = known.revision.max(known.shown);
            (known.due, known.running_since) = (None, None);
            known.restarts.clear();
        }
    }

    /// What was violated since this was last asked.
    pub fn violations(&mut self) -> Vec<Violation> {
        std::mem::take(&mut self.violations)
    }

    fn violated(&mut self, invariant: Invariant, agent: AgentId, detail: impl Into<String>) {
        self.violations.push(Violation::new(invariant, agent, detail.into()));
    }
}
