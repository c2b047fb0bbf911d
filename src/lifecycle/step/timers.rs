//! Timers that a state needs, and how long something outside is waited for.

use std::time::Duration;

use super::{Context, Transition};
use crate::domain::later;
use crate::lifecycle::event::Effect;
use crate::lifecycle::phase::{AgentState, Phase, RetryTarget, Step};

/// Bounds of the wait before something outside is tried again.
const PATIENCE_MIN: Duration = Duration::from_millis(200);
const PATIENCE_MAX: Duration = Duration::from_secs(5);

/// Observes the instance after a while, in a phase that waits for nothing else.
pub(super) fn ask_again(context: &Context<'_>) -> Transition {
    Transition::only(vec![Effect::WakeAt(later(context.now, PATIENCE_MAX))])
}

/// The timer that a state needs, for when it is taken up or its revision moved on. Never later than if its wait began now:
/// a clock that was set back must not make anyone wait for it to catch up.
pub(super) fn timers(state: &AgentState, context: &Context<'_>) -> Vec<Effect> {
    let restart = context.restart;
    let (at, longest) = match &state.phase {
        Phase::Pending => (Some(context.now), Duration::ZERO),
        Phase::Starting { step: Step::BackingOff { until, .. }, .. } => {
            (Some(*until), restart.max_delay.max(PATIENCE_MAX))
        }
        Phase::Stopping { retry_at, .. } => (*retry_at, PATIENCE_MAX),
        // Only the rests between starts grow.
        Phase::Failed { retry_at, resume: RetryTarget::Start } => (*retry_at, restart.max_rest.max(restart.rest)),
        Phase::Failed { retry_at, resume: RetryTarget::Stop | RetryTarget::Delete } => (*retry_at, restart.rest),
        Phase::Starting { .. } | Phase::Running { .. } | Phase::Stopped => (None, Duration::ZERO),
    };
    at.map(|at| Effect::WakeAt(at.min(later(context.now, longest)))).into_iter().collect()
}

/// The wait before something outside is tried again: a quarter of what was waited already, so that it grows by itself.
pub(super) fn patience(waited: Duration) -> Duration {
    (waited / 4).clamp(PATIENCE_MIN, PATIENCE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_a_quarter_of_what_was_waited_within_its_bounds() {
        for (waited, wait) in [(0, 200), (800, 200), (1_000, 250), (8_000, 2_000), (20_000, 5_000), (3_600_000, 5_000)]
        {
            assert_eq!(patience(Duration::from_millis(waited)), Duration::from_millis(wait), "{waited}");
        }
    }
}
