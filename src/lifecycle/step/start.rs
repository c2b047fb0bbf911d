//! The way from PENDING to RUNNING, and what is done where it fails.

use std::sync::Arc;
use std::time::Duration;

use super::timers::{patience, timers};
use super::{Context, Transition, WRONG_OUTCOME};
use crate::backoff::Decision;
use crate::domain::{RunId, Timestamp, elapsed, later};
use crate::lifecycle::cause::{Cause, Code};
use crate::lifecycle::event::{Effect, Failure, FailureKind, Job, Outcome};
use crate::lifecycle::phase::{AgentState, Phase, RetryTarget, Step};

/// Ports tried in one attempt before it counts as failed: strangers may hold some, never this many.
pub(super) const MAX_REBINDS: u8 = 50;

/// A start with files written anew. They are read when a run begins, so one that may still be up is ended first.
pub(super) fn deploy(next: AgentState, cause: Cause) -> Transition {
    let first = first_step(next.run_id().is_some());
    attempt(next, first, true, None, cause)
}

pub(super) const fn first_step(kill: bool) -> Step {
    if kill { Step::Killing } else { Step::Creating }
}

/// A new attempt: what belongs to older ones is stale from here on.
pub(super) fn attempt(
    mut next: AgentState,
    first: Step,
    stage: bool,
    away_since: Option<Timestamp>,
    cause: Cause,
) -> Transition {
    next.attempt += 1;
    let effects = first.job().map(Effect::Run).into_iter().collect();
    next.enter(Phase::Starting { step: first, stage, rebinds: 0, away_since });
    Transition::to(next, cause, effects)
}

/// Begins the next attempt after `delay`, at once if it is zero. The reason stays visible meanwhile.
pub(super) fn back_off(
    mut next: AgentState,
    stage: bool,
    kill: bool,
    delay: Duration,
    cause: Cause,
    context: &Context<'_>,
) -> Transition {
    next.reason = Some(cause.clone());
    if delay.is_zero() {
        return attempt(next, first_step(kill), stage, None, cause);
    }
    let step = Step::BackingOff { until: later(context.now, delay), kill };
    next.enter(Phase::Starting { step, stage, rebinds: 0, away_since: None });
    let effects = timers(&next, context);
    Transition::to(next, cause, effects)
}

/// The restart budget is spent: ERROR for a while.
pub(super) fn rest(next: AgentState, rest: Duration, cause: &Cause, context: &Context<'_>) -> Transition {
    give_up(next, Some(later(context.now, rest)), cause.come_to(Code::CrashLoop), context)
}

/// ERROR, and what is left of the run is killed.
fn give_up(mut next: AgentState, retry_at: Option<Timestamp>, cause: Cause, context: &Context<'_>) -> Transition {
    next.enter(Phase::Failed { resume: RetryTarget::Start, retry_at });
    next.reason = Some(cause.clone());
    let mut effects = vec![Effect::Run(Job::Kill)];
    effects.extend(timers(&next, context));
    Transition::to(next, cause, effects)
}

/// The job of the step ended.
pub(super) fn finish(state: &AgentState, step: &Step, outcome: Outcome, context: &Context<'_>) -> Transition {
    match (step, outcome) {
        (_, Outcome::Failed(failure)) => failed(state, failure, context),
        (Step::Killing, Outcome::Done) => {
            let mut next = state.next();
            next.leftover = None;
            go_on(next, Step::Creating, Cause::new(Code::Deploying))
        }
        (Step::Rebinding, Outcome::Done) => go_on(state.next(), Step::Creating, Cause::new(Code::Deploying)),
        (Step::Creating, Outcome::Created { engine_id, up }) => created(state, engine_id, up, context),
        (Step::Launching, Outcome::Accepted { why }) => {
            go_on(state.next(), Step::Awaiting, Cause::because(Code::EngineBusy, why))
        }
        (Step::Launching | Step::Awaiting, Outcome::Launched { run_id }) => {
            let mut transition = go_on(state.next(), Step::Probing { run_id }, Cause::new(Code::InstanceStarted));
            // It may have ended while the start call was under way. What was observed then was dropped.
            transition.effects.push(Effect::Observe);
            transition
        }
        (Step::Probing { run_id }, Outcome::Done) => {
            go_on(state.next(), Step::Pairing { run_id: run_id.clone() }, Cause::new(Code::InstanceHealthy))
        }
        (Step::Pairing { run_id }, Outcome::Paired(code)) => {
            let mut next = state.next();
            next.enter(Phase::Running { run_id: run_id.clone(), misses: 0 });
            next.reason = None;
            next.restarts.running(context.now);
            Transition::to(next, Cause::new(code), vec![Effect::CheckHealth(context.timing.health_interval)])
        }
        (
            Step::Killing
            | Step::Creating
            | Step::Rebinding
            | Step::Launching
            | Step::Awaiting
            | Step::Probing { .. }
            | Step::Pairing { .. }
            | Step::BackingOff { .. },
            _,
        ) => give_up(state.next(), None, Cause::because(Code::Internal, WRONG_OUTCOME), context),
    }
}

/// On to the next step of the same attempt. The engine answers, or it would not have come so far.
fn go_on(mut next: AgentState, to: Step, cause: Cause) -> Transition {
    let effects = to.job().map(Effect::Run).into_iter().collect();
    if let Phase::Starting { stage, rebinds, .. } = next.phase {
        next.enter(Phase::Starting { step: to, stage, rebinds, away_since: None });
    }
    Transition::to(next, cause, effects)
}

/// The instance exists, with its files in place unless it runs already.
fn created(state: &AgentState, engine_id: Arc<str>, up: Option<RunId>, context: &Context<'_>) -> Transition {
    let mut next = state.next();
    next.engine_id = Some(engine_id);
    next.leftover.clone_from(&up);
    if let Phase::Starting { stage, .. } = &mut next.phase {
        if *stage && up.is_some() {
            // Started from outside. Counted like a failure, so that it can't go on for ever.
            let cause = Cause::because(Code::StartFailed, "a run with older files was in the way");
            return try_again(next, true, cause, context);
        }
        *stage = false;
    }
    let to = up.map_or(Step::Launching, |run_id| Step::Probing { run_id });
    go_on(next, to, Cause::new(Code::InstanceCreated))
}

/// A step of a start went wrong.
pub(super) fn failed(state: &AgentState, failure: Failure, context: &Context<'_>) -> Transition {
    let Phase::Starting { step, stage, rebinds, away_since } = &state.phase else { return Transition::nothing() };
    let mut next = state.next();
    match failure.kind {
        FailureKind::PortTaken if *rebinds < MAX_REBINDS && step.binds() => {
            let (stage, rebinds) = (*stage, rebinds + 1);
            next.enter(Phase::Starting { step: Step::Rebinding, stage, rebinds, away_since: None });
            Transition::to(next, failure.cause, vec![Effect::Run(Job::Rebind)])
        }
        // Whoever has to change something is told at once.
        FailureKind::EngineRefuses => {
            give_up(next, Some(later(context.now, context.restart.rest)), failure.cause, context)
        }
        FailureKind::EngineAway => {
            // What is to be killed first stays so, however long the engine is away.
            let kill = *step == Step::Killing;
            await_engine(next, kill, *stage, *away_since, failure.cause, context)
        }
        FailureKind::Permanent => give_up(next, None, failure.cause, context),
        // Once more with files written anew, which mend a configuration that somebody changed. After that it is the
        // agent's own configuration that makes it so.
        FailureKind::Transient if is_unusable(Some(&failure.cause)) && is_unusable(state.reason.as_ref()) => {
            give_up(next, None, failure.cause, context)
        }
        FailureKind::Transient | FailureKind::PortTaken => {
            // Before these steps nothing of ours was started. An engine may restart by itself what ended by itself, so
            // that being over is no reason not to kill.
            let kill = !matches!(step, Step::Creating | Step::Rebinding);
            try_again(next, kill, failure.cause, context)
        }
    }
}

/// The next attempt, or ERROR if too many failed. Whatever was wrong with the files, they are written anew.
fn try_again(mut next: AgentState, kill: bool, cause: Cause, context: &Context<'_>) -> Transition {
    let pairing_lost = pairing_is_lost(cause.code);
    let transition = match next.restarts.failed_to_start(context.now, context.restart, context.seed) {
        Decision::Again(delay) => back_off(next, true, kill, delay, cause, context),
        Decision::GiveUp(time) => rest(next, time, &cause, context),
    };
    if pairing_lost { transition.forgetting_token() } else { transition }
}

fn is_unusable(cause: Option<&Cause>) -> bool {
    cause.is_some_and(|cause| cause.code == Code::Unusable)
}

/// Whether only a new code can help: files without a token make the gateway print one.
const fn pairing_is_lost(code: Code) -> bool {
    matches!(code, Code::TokenRefused | Code::PairingTimeout | Code::PairingRefused | Code::PairingLocked)
}

/// The engine is away: wait for it without counting that against the agent, as long as patience lasts.
fn await_engine(
    mut next: AgentState,
    kill: bool,
    stage: bool,
    away_since: Option<Timestamp>,
    cause: Cause,
    context: &Context<'_>,
) -> Transition {
    // A clock that was set back starts the wait anew rather than making it endless.
    let since = away_since.unwrap_or(context.now).min(context.now);
    let waited = elapsed(since, context.now);
    if waited >= context.timing.engine_patience {
        return give_up(next, Some(later(context.now, context.restart.rest)), cause, context);
    }
    let step = Step::BackingOff { until: later(context.now, patience(waited)), kill };
    next.enter(Phase::Starting { step, stage, rebinds: 0, away_since: Some(since) });
    next.reason = Some(cause.clone());
    let effects = timers(&next, context);
    Transition::to(next, cause, effects)
}
