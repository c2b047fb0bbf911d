//! The way from STOPPING to STOPPED, back to STARTING, or to the end of a deletion.

use super::timers::{patience, timers};
use super::{Context, Transition, WRONG_OUTCOME, start};
use crate::domain::{elapsed, later};
use crate::lifecycle::cause::{Cause, Code};
use crate::lifecycle::event::{Effect, Outcome};
use crate::lifecycle::phase::{AfterStop, AgentState, Phase, RetryTarget};

/// Ends what runs, because a user asked for it or a retry is due.
pub(super) fn begin(state: &AgentState, then: AfterStop, code: Code, context: &Context<'_>) -> Transition {
    let cause = Cause::new(code);
    let mut next = state.next();
    next.enter(Phase::Stopping { then, since: context.now, retry_at: None });
    next.reason = Some(cause.clone());
    // A stop that is under way goes on, only what follows it changes; a removal is another job.
    let under_way = matches!(&state.phase, Phase::Stopping { retry_at: None, .. }) && then != AfterStop::Delete;
    let effects = if under_way { Vec::new() } else { vec![Effect::Run(then.job())] };
    Transition::to(next, cause, effects)
}

/// The job of the stop ended.
pub(super) fn finish(state: &AgentState, then: AfterStop, outcome: Outcome, context: &Context<'_>) -> Transition {
    match outcome {
        Outcome::Done => stopped(state, then),
        Outcome::Failed(failure) => failed(state, then, failure.cause, context),
        Outcome::Created { .. } | Outcome::Accepted { .. } | Outcome::Launched { .. } | Outcome::Paired(_) => {
            failed(state, then, Cause::because(Code::Internal, WRONG_OUTCOME), context)
        }
    }
}

fn stopped(state: &AgentState, then: AfterStop) -> Transition {
    let mut next = state.next();
    next.leftover = None;
    let cause = Cause::new(Code::Stopped);
    match then {
        AfterStop::Stay => {
            next.enter(Phase::Stopped);
            next.reason = Some(cause.clone());
            Transition::to(next, cause, Vec::new())
        }
        AfterStop::Restart => {
            next.reason = None;
            next.restarts.forgive();
            start::deploy(next, cause)
        }
        // The record went with the instance: nothing is left to commit.
        AfterStop::Delete => Transition::only(vec![Effect::End]),
    }
}

/// Tried again as long as patience lasts, whoever is to blame; then ERROR, and tried again after a rest.
fn failed(state: &AgentState, then: AfterStop, cause: Cause, context: &Context<'_>) -> Transition {
    let Phase::Stopping { since, .. } = &state.phase else { return Transition::nothing() };
    let mut next = state.next();
    // A clock that was set back starts the wait anew rather than making it endless.
    let since = (*since).min(context.now);
    let waited = elapsed(since, context.now);
    let cause = if waited < context.timing.stop_patience {
        let retry_at = Some(later(context.now, patience(waited)));
        next.enter(Phase::Stopping { then, since, retry_at });
        cause
    } else {
        let (resume, code) = match then {
            AfterStop::Stay => (RetryTarget::Stop, Code::StopTimeout),
            AfterStop::Restart => (RetryTarget::Start, Code::StopTimeout),
            AfterStop::Delete => (RetryTarget::Delete, Code::DeleteTimeout),
        };
        next.enter(Phase::Failed { resume, retry_at: Some(later(context.now, context.restart.rest)) });
        cause.come_to(code)
    };
    next.reason = Some(cause.clone());
    let effects = timers(&next, context);
    Transition::to(next, cause, effects)
}
