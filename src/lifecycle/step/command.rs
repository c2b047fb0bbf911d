//! What users ask for. [`admit`](super::super::admit()) let it through already.

use super::timers::timers;
use super::{Context, Transition, start, stop};
use crate::lifecycle::cause::{Cause, Code};
use crate::lifecycle::event::{Command, Effect, Job};
use crate::lifecycle::phase::{AfterStop, AgentState, Phase, Step};

pub(super) fn follow(state: &AgentState, command: Command, context: &Context<'_>) -> Transition {
    match command {
        Command::Start => begin_anew(state, Code::StartRequested, context),
        Command::Restart => restart(state, context).forgetting_token(),
        Command::Stop => stop::begin(state, AfterStop::Stay, Code::StopRequested, context),
        Command::Delete => stop::begin(state, AfterStop::Delete, Code::DeleteRequested, context),
        Command::Update { inside } => update(state, inside, context),
    }
}

/// From STOPPED straight to STARTING; from ERROR by PENDING.
fn begin_anew(state: &AgentState, code: Code, context: &Context<'_>) -> Transition {
    let mut next = state.next();
    next.restarts.forgive();
    next.reason = None;
    if matches!(state.phase, Phase::Stopped) {
        return start::deploy(next, Cause::new(code));
    }
    next.enter(Phase::Pending);
    let effects = timers(&next, context);
    Transition::to(next, Cause::new(code), effects)
}

fn restart(state: &AgentState, context: &Context<'_>) -> Transition {
    match &state.phase {
        Phase::Stopped | Phase::Failed { .. } => begin_anew(state, Code::RestartRequested, context),
        Phase::Starting { .. } | Phase::Running { .. } => {
            stop::begin(state, AfterStop::Restart, Code::RestartRequested, context)
        }
        // It starts with new files anyway: what is left to do is to forget the token.
        Phase::Pending | Phase::Stopping { .. } => {
            let next = state.next();
            let effects = timers(&next, context);
            Transition::to(next, Cause::new(Code::RestartRequested), effects)
        }
    }
}

fn update(state: &AgentState, inside: bool, context: &Context<'_>) -> Transition {
    let cause = Cause::new(Code::SpecChanged);
    let mut next = state.next();
    next.generation += 1;
    match &state.phase {
        Phase::Running { .. } if inside => {
            next.enter(Phase::Stopping { then: AfterStop::Restart, since: context.now, retry_at: None });
            next.reason = Some(cause.clone());
            Transition::to(next, cause, vec![Effect::Run(Job::Stop)])
        }
        Phase::Starting { .. } if inside => start::attempt(next, Step::Killing, true, None, cause),
        // Every way from here to a start writes the files anew. Timers are fenced by the revision: set them again.
        Phase::Pending
        | Phase::Running { .. }
        | Phase::Starting { .. }
        | Phase::Stopping { .. }
        | Phase::Stopped
        | Phase::Failed { .. } => {
            let effects = timers(&next, context);
            Transition::to(next, cause, effects)
        }
    }
}
