//! The way from STOPPING to STOPPED, back to STARTING, or out of this world.

use super::{Context, Transition, WRONG_OUTCOME, resume, start};
use crate::domain::{elapsed, later};
use crate::lifecycle::cause::{Cause, Code};
use crate::lifecycle::event::{Effect, Outcome};
use crate::lifecycle::phase::{Life, Phase, Resume, Then};

/// The job of the stop ended.
pub(super) fn finish(life: &Life, then: Then, outcome: Outcome, context: &Context<'_>) -> Transition {
    match outcome {
        Outcome::Done => stopped(life, then),
        Outcome::Failed(failure) => failed(life, then, failure.cause, context),
        Outcome::Created { .. } | Outcome::Launched { .. } | Outcome::Paired(_) => {
            failed(life, then, Cause::because(Code::Internal, WRONG_OUTCOME), context)
        }
    }
}

fn stopped(life: &Life, then: Then) -> Transition {
    let mut next = life.next();
    next.set_boot(None);
    let cause = Cause::new(Code::Stopped);
    match then {
        Then::Stay => {
            next.phase = Phase::Stopped;
            next.reason = Some(cause.clone());
            Transition::to(next, cause, Vec::new())
        }
        Then::Restart => {
            next.reason = None;
            next.restarts.forgive();
            start::deploy(next, cause)
        }
        // The record went with the instance: nothing is left to commit.
        Then::Delete => Transition::only(vec![Effect::End]),
    }
}

/// Tried again as long as patience lasts, whoever is to blame; then ERROR, and tried again after a rest.
fn failed(life: &Life, then: Then, cause: Cause, context: &Context<'_>) -> Transition {
    let Phase::Stopping { since, .. } = &life.phase else { return Transition::nothing() };
    let mut next = life.next();
    // A clock that was set back starts the wait anew rather than making it endless.
    let since = (*since).min(context.now);
    let waited = elapsed(since, context.now);
    let cause = if waited < context.timing.stop_patience {
        let retry_at = Some(later(context.now, resume::patience(waited)));
        next.phase = Phase::Stopping { then, since, retry_at };
        cause
    } else {
        let (resume, code) = match then {
            Then::Stay => (Resume::Stop, Code::StopTimeout),
            Then::Restart => (Resume::Start, Code::StopTimeout),
            Then::Delete => (Resume::Delete, Code::DeleteTimeout),
        };
        next.phase = Phase::Failed { resume, retry_at: Some(later(context.now, context.restart.rest)) };
        cause.come_to(code)
    };
    next.reason = Some(cause.clone());
    let effects = resume::timers(&next, context);
    Transition::to(next, cause, effects)
}
