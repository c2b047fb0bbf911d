//! What users ask for. [`admit`](super::super::admit()) let it through already.

use super::{Context, Transition, resume, start};
use crate::lifecycle::cause::{Cause, Code};
use crate::lifecycle::event::{Command, Effect, Job};
use crate::lifecycle::phase::{Life, Phase, Step, Then};

pub(super) fn follow(life: &Life, command: Command, context: &Context<'_>) -> Transition {
    match command {
        Command::Start => begin_anew(life, Code::StartRequested, context),
        Command::Restart => restart(life, context).forgetting_token(),
        Command::Stop => stop(life, Then::Stay, Code::StopRequested, context),
        Command::Delete => stop(life, Then::Delete, Code::DeleteRequested, context),
        Command::Update { inside } => update(life, inside, context),
    }
}

/// From STOPPED straight to STARTING; from ERROR by PENDING.
fn begin_anew(life: &Life, code: Code, context: &Context<'_>) -> Transition {
    let mut next = life.next();
    next.restarts.forgive();
    next.reason = None;
    if matches!(life.phase, Phase::Stopped) {
        return start::deploy(next, Cause::new(code));
    }
    next.phase = Phase::Pending;
    let effects = resume::timers(&next, context);
    Transition::to(next, Cause::new(code), effects)
}

fn restart(life: &Life, context: &Context<'_>) -> Transition {
    match &life.phase {
        Phase::Stopped | Phase::Failed { .. } => begin_anew(life, Code::RestartRequested, context),
        Phase::Starting { .. } | Phase::Running { .. } => stop(life, Then::Restart, Code::RestartRequested, context),
        // It starts with new files anyway: what is left to do is to forget the token.
        Phase::Pending | Phase::Stopping { .. } => {
            let next = life.next();
            let effects = resume::timers(&next, context);
            Transition::to(next, Cause::new(Code::RestartRequested), effects)
        }
    }
}

/// Ends what runs. Also used where time asks for it again.
pub(super) fn stop(life: &Life, then: Then, code: Code, context: &Context<'_>) -> Transition {
    let cause = Cause::new(code);
    let mut next = life.next();
    next.phase = Phase::Stopping { then, since: context.now, retry_at: None };
    next.reason = Some(cause.clone());
    // A stop that is under way goes on, only what follows it changes; a removal is another job.
    let under_way = matches!(&life.phase, Phase::Stopping { retry_at: None, .. }) && then != Then::Delete;
    let effects = if under_way { Vec::new() } else { vec![Effect::Run(then.job())] };
    Transition::to(next, cause, effects)
}

fn update(life: &Life, inside: bool, context: &Context<'_>) -> Transition {
    let cause = Cause::new(Code::SpecChanged);
    let mut next = life.next();
    next.generation += 1;
    match &life.phase {
        Phase::Running { .. } if inside => {
            next.phase = Phase::Stopping { then: Then::Restart, since: context.now, retry_at: None };
            next.reason = Some(cause.clone());
            Transition::to(next, cause, vec![Effect::Run(Job::Stop)])
        }
        Phase::Starting { .. } if inside => start::attempt(next, Step::Halting, true, None, cause),
        // Every way from here to a start writes the files anew. Timers are fenced by the revision: set them again.
        Phase::Pending
        | Phase::Running { .. }
        | Phase::Starting { .. }
        | Phase::Stopping { .. }
        | Phase::Stopped
        | Phase::Failed { .. } => {
            let effects = resume::timers(&next, context);
            Transition::to(next, cause, effects)
        }
    }
}
