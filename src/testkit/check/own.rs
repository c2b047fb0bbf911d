//! Invariants that the caller adds.

use super::{Inspector, Invariant, Violation};
use crate::runtime::ObservedInstance;
use crate::store::Snapshot;

/// What an invariant of the caller's own is shown.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Moment<'a> {
    /// All that is stored.
    pub snapshot: &'a Snapshot,
    /// All instances of the installation, as the engine has them.
    pub instances: &'a [ObservedInstance],
    /// Nothing is under way: what was asked for has to be so.
    pub at_rest: bool,
}

/// Answers what is wrong.
type Holds = dyn FnMut(Moment<'_>) -> Result<(), String> + Send;

pub(super) struct Own {
    name: &'static str,
    holds: Box<Holds>,
}

impl Inspector {
    /// Adds an invariant of the caller's own: it is asked whenever the inspector looks at store and engine, at any moment
    /// ([`Inspector::step`]) and at rest ([`Inspector::at_rest`]), and answers what is wrong, in words. What it says is a
    /// [`Violation`] of [`Invariant::Own`] with this name. It may keep what it saw before.
    ///
    /// ```
    /// use zeroone::testkit::Inspector;
    ///
    /// let mut most = 0;
    /// let inspector = Inspector::new().with_invariant("agents only grow in number", move |moment| {
    ///     let now = moment.snapshot.agents.len();
    ///     let before = std::mem::replace(&mut most, now);
    ///     if now < before { Err(format!("{before} before, {now} now")) } else { Ok(()) }
    /// });
    /// # drop(inspector);
    /// ```
    #[must_use]
    pub fn with_invariant(
        mut self,
        name: &'static str,
        holds: impl FnMut(Moment<'_>) -> Result<(), String> + Send + 'static,
    ) -> Self {
        self.own.push(Own { name, holds: Box::new(holds) });
        self
    }

    pub(super) fn own_invariants(&mut self, moment: Moment<'_>) {
        for own in &mut self.own {
            if let Err(detail) = (own.holds)(moment) {
                self.violations.push(Violation { invariant: Invariant::Own(own.name), agent: None, detail });
            }
        }
    }
}
