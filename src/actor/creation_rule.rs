//! The embedder's own rule about who may have which agents.
//!
//! It is asked in the registry, before the commit and one creation at a time: a rule that counts needs no lock, and an agent
//! that is refused never existed.

use std::fmt;
use std::sync::Arc;

use crate::domain::AgentSpec;
use crate::store::UserRecord;

/// An agent that is about to be created.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct CreationRequest<'a> {
    /// Whose agent it would be.
    pub user: &'a UserRecord,
    /// What it would be.
    pub spec: &'a AgentSpec,
    /// How many agents the user has already.
    pub agents_of_user: u32,
}

/// The rule's "no", in words for whoever asked for the agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denied(pub String);

/// Asked beside the plan's quota, which holds in any case. It must answer at once: nothing else is created meanwhile.
/// Agents that are adopted exist already, and are not asked about.
#[derive(Clone)]
pub struct CreationRule(Rule);

type Rule = Arc<dyn Fn(&CreationRequest<'_>) -> Result<(), Denied> + Send + Sync>;

impl CreationRule {
    /// A rule that calls this function. It must not block.
    pub fn new(rule: impl Fn(&CreationRequest<'_>) -> Result<(), Denied> + Send + Sync + 'static) -> Self {
        Self(Arc::new(rule))
    }

    /// # Errors
    /// The rule's "no".
    pub(super) fn ask(&self, request: &CreationRequest<'_>) -> Result<(), Denied> {
        (self.0)(request)
    }
}

impl Default for CreationRule {
    fn default() -> Self {
        Self::new(|_| Ok(()))
    }
}

impl fmt::Debug for CreationRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CreationRule")
    }
}
