//! What goes on by itself: after a restart of the service or of the agent's actor, and when a timer is due.

use super::timers::{ask_again, timers};
use super::{Context, Transition, start, stop};
use crate::lifecycle::cause::{Cause, Code};
use crate::lifecycle::event::{Effect, Outcome};
use crate::lifecycle::phase::{AfterStop, AgentState, Phase, RetryTarget, Step};

/// The service was started, or the agent's actor was: what was under way is taken up again.
pub(super) fn recover(state: &AgentState, context: &Context<'_>) -> Transition {
    match &state.phase {
        Phase::Pending => start::deploy(state.next(), Cause::new(Code::Deploying)),
        Phase::Starting { step: Step::BackingOff { .. }, .. } | Phase::Stopping { retry_at: Some(_), .. } => {
            Transition::only(timers(state, context))
        }
        Phase::Starting { step, stage, .. } => {
            // Nobody knows how far it came. Creating is idempotent and adopts what is there already; but what had to be
            // ended first still has to.
            let first = start::first_step(*step == Step::Killing);
            start::attempt(state.next(), first, *stage, None, Cause::new(Code::ServiceRestarted))
        }
        Phase::Running { misses, .. } => take_up_running(state, *misses, context),
        Phase::Stopping { then, retry_at: None, .. } => Transition::only(vec![Effect::Run(then.job())]),
        Phase::Stopped => Transition::only(vec![Effect::Observe]),
        Phase::Failed { .. } => {
            let mut effects = timers(state, context);
            effects.push(Effect::Observe);
            Transition::only(effects)
        }
    }
}

fn take_up_running(state: &AgentState, misses: u8, context: &Context<'_>) -> Transition {
    // Spread over the interval, or a thousand agents are checked in one moment after each start.
    let spread = context.timing.health_interval.mul_f64((context.seed % 1000) as f64 / 1000.0);
    let effects = vec![Effect::Observe, Effect::CheckHealth(spread)];
    if misses == 0 {
        return Transition::only(effects);
    }
    // What was missed before tells more about the service than about the agent: nobody is killed for it.
    let mut next = state.next();
    next.set_misses(0);
    next.reason = None;
    Transition::to(next, Cause::new(Code::ServiceRestarted), effects)
}

/// The timer of this very revision is due.
pub(super) fn wake(state: &AgentState, context: &Context<'_>) -> Transition {
    let cause = Cause::new(Code::RetryDue);
    match &state.phase {
        Phase::Pending => start::deploy(state.next(), Cause::new(Code::Deploying)),
        Phase::Starting { step: Step::BackingOff { kill, .. }, stage, away_since, .. } => {
            // An engine that stays away must run into the end of patience: the wait goes on.
            start::attempt(state.next(), start::first_step(*kill), *stage, *away_since, cause)
        }
        Phase::Stopping { then, since, retry_at: Some(_) } => {
            let mut next = state.next();
            next.enter(Phase::Stopping { then: *then, since: *since, retry_at: None });
            Transition::to(next, cause, vec![Effect::Run(then.job())])
        }
        Phase::Failed { resume: RetryTarget::Start, retry_at: Some(_) } => {
            let mut next = state.next();
            next.restarts.rested();
            next.enter(Phase::Pending);
            let effects = timers(&next, context);
            Transition::to(next, cause, effects)
        }
        Phase::Failed { resume: RetryTarget::Stop, retry_at: Some(_) } => {
            stop::begin(state, AfterStop::Stay, Code::RetryDue, context)
        }
        Phase::Failed { resume: RetryTarget::Delete, retry_at: Some(_) } => {
            stop::begin(state, AfterStop::Delete, Code::RetryDue, context)
        }
        Phase::Stopped | Phase::Failed { retry_at: None, .. } => Transition::only(vec![Effect::Observe]),
        Phase::Starting { .. } | Phase::Stopping { retry_at: None, .. } | Phase::Running { .. } => {
            Transition::nothing()
        }
    }
}

/// A kill ended in a phase that waits for nothing. Where it failed, the engine is asked what is still up.
pub(super) fn after_kill(outcome: &Outcome, context: &Context<'_>) -> Transition {
    match outcome {
        Outcome::Failed(_) => ask_again(context),
        Outcome::Done
        | Outcome::Created { .. }
        | Outcome::Accepted { .. }
        | Outcome::Launched { .. }
        | Outcome::Paired(_) => Transition::nothing(),
    }
}
