//! The names of what must hold, and what is said when it does not.

use std::fmt;

use crate::domain::AgentId;

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Invariant {
    /// An acknowledged create is in the store until its deletion was asked for.
    CreatesAreKept,
    /// An agent has at most one instance.
    OneInstance,
    /// What runs belongs to a stored agent, on that agent's port; so a port is given to nobody as long as it is used.
    RunsAreRecorded,
    /// No port and no slug belongs to two stored agents.
    SeatsApart,
    /// No user has more agents than the limit; those that a smaller plan leaves over stay, and no more are added.
    QuotaHeld,
    /// A list, a count and an event of one user are about that user's agents alone.
    UsersApart,
    /// Nothing outside changes before the store holds the intent; what is stored as RUNNING is touched by nobody.
    IntentFirst,
    /// One operation at a time for each agent.
    OneOperation,
    /// What belongs to another installation is as it was.
    OthersUntouched,
    /// An agent's data is there until its deletion is asked for.
    DataIsKept,
    /// What was committed, and told, is in the store from then on.
    CommitsAreKept,
    /// No secret in clear text in what is stored or told.
    SecretsSealed,
    /// No nonce is used twice.
    NoncesApart,
    /// A status changes along the documented edges only, and revisions grow.
    Edges,
    /// Who reads an agent again sees it as it was or later.
    ReadersGoForward,
    /// A message is read at most once; one that was refused as not sent was never read; an answer is the message's own.
    AtMostOnce,
    /// Messages for one agent are sent on in the order in which they came, however long they were held.
    OrderIsKept,
    /// Messages reach the run of the present attempt alone: never an older one again.
    OneRunListens,
    /// An engine that is away takes nobody out of RUNNING.
    AbsenceIsNoDeath,
    /// RUNNING is left for a token's sake only if this run's gateway refused it: stale news change nothing.
    NewsOfThisRun,
    /// What is to be tried again later is tried at its time: not before, and not a millisecond later than it must.
    WaitsAreKept,
    /// Not more restarts after deaths within the window than the policy allows.
    RestartsBudgeted,
    /// At rest: nothing is stuck. A transient status ends, and ERROR has a reason.
    NothingStuck,
    /// At rest: what is stored as RUNNING runs, as the very run that is stored; what is not, does not.
    IntentIsFact,
    /// At rest: instances and data belong to stored agents.
    NoLeftovers,
    /// A stopped agent stays stopped, a deleted one stays gone; at rest what was asked for is so.
    WishesHold,
    /// At rest: the gateway of a RUNNING agent takes the token that is held, so a message is answered.
    TokensWork,
    /// At rest: a restart of the service costs a RUNNING agent nothing, no start and no pairing.
    RestartsCostNothing,
    /// One of the caller's own, by [`Inspector::with_invariant`](super::Inspector::with_invariant).
    Own(&'static str),
}

impl Invariant {
    /// All that the kit itself has.
    pub const ALL: &'static [Self] = &[
        Self::CreatesAreKept,
        Self::OneInstance,
        Self::RunsAreRecorded,
        Self::SeatsApart,
        Self::QuotaHeld,
        Self::UsersApart,
        Self::IntentFirst,
        Self::OneOperation,
        Self::OthersUntouched,
        Self::DataIsKept,
        Self::CommitsAreKept,
        Self::SecretsSealed,
        Self::NoncesApart,
        Self::Edges,
        Self::ReadersGoForward,
        Self::AtMostOnce,
        Self::OrderIsKept,
        Self::OneRunListens,
        Self::AbsenceIsNoDeath,
        Self::NewsOfThisRun,
        Self::WaitsAreKept,
        Self::RestartsBudgeted,
        Self::NothingStuck,
        Self::IntentIsFact,
        Self::NoLeftovers,
        Self::WishesHold,
        Self::TokensWork,
        Self::RestartsCostNothing,
    ];
}

/// Something that must hold and does not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// What does not hold.
    pub invariant: Invariant,
    /// Of which agent; `None` where it is about no single one.
    pub agent: Option<AgentId>,
    /// What was seen, for people.
    pub detail: String,
}

impl Violation {
    /// With all of it; without an agent where it concerns none alone.
    pub fn new(invariant: Invariant, agent: impl Into<Option<AgentId>>, detail: impl Into<String>) -> Self {
        Self { invariant, agent: agent.into(), detail: detail.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.invariant {
            Invariant::Own(name) => f.write_str(name)?,
            invariant => write!(f, "{invariant:?}")?,
        }
        if let Some(agent) = self.agent {
            write!(f, " (agent {agent})")?;
        }
        write!(f, ": {}", self.detail)
    }
}
