//! What is seen from outside, against what is wanted: the engine's view, the gateway's health, a refused token.

use super::{Context, Transition, start};
use crate::backoff::Decision;
use crate::domain::{BootId, Exit};
use crate::lifecycle::cause::{Cause, Code};
use crate::lifecycle::event::{Effect, Failure, FailureKind, Job, Sighting};
use crate::lifecycle::phase::{Life, Phase, Step};

/// The engine's view, no older than the life.
pub(super) fn see(life: &Life, sighting: Sighting, context: &Context<'_>) -> Transition {
    match (&life.phase, sighting) {
        // An engine that is away says nothing about the agent.
        (_, Sighting::Unknown) => Transition::nothing(),

        (Phase::Running { .. }, Sighting::Down(exit)) => died(life, false, false, exit_cause(&exit), context),
        // What is made anew gets its files anew, too.
        (Phase::Running { .. }, Sighting::Absent) => died(life, true, false, Cause::new(Code::InstanceGone), context),
        (Phase::Running { .. }, Sighting::Up { boot, died }) if life.boot() != Some(&boot) => {
            restarted_outside(life, boot, died.as_ref(), context)
        }
        // There, but deaf for too long.
        (Phase::Running { misses }, Sighting::Up { .. } | Sighting::Paused) if *misses >= tolerated(context) => {
            died(life, false, true, Cause::new(Code::HealthLost), context)
        }
        (Phase::Running { .. }, Sighting::Up { .. } | Sighting::Paused) => Transition::nothing(),

        // The run that is being probed is over: no need to wait for the probe's deadline.
        (Phase::Starting { step: Step::Probing | Step::Pairing, .. }, Sighting::Down(exit)) => {
            start::failed(life, transient(exit_cause(&exit)), context)
        }
        (Phase::Starting { step: Step::Probing | Step::Pairing, .. }, Sighting::Absent) => {
            start::failed(life, transient(Cause::new(Code::InstanceGone)), context)
        }
        (Phase::Starting { step: Step::Probing | Step::Pairing, .. }, Sighting::Up { boot, died })
            if life.boot() != Some(&boot) =>
        {
            restarted_outside(life, boot, died.as_ref(), context)
        }
        // The other steps find out by themselves, and the jobs of these know their run.
        (Phase::Starting { .. }, _) => Transition::nothing(),

        // Down by intent, up in fact: somebody started it by hand, or an old stop was lost.
        (Phase::Stopped | Phase::Failed { .. }, Sighting::Up { .. } | Sighting::Paused) => {
            Transition::only(vec![Effect::Run(Job::Halt)])
        }
        (Phase::Stopped | Phase::Failed { .. }, Sighting::Absent | Sighting::Down(_)) => Transition::nothing(),

        (Phase::Pending | Phase::Stopping { .. }, _) => Transition::nothing(),
    }
}

/// A health check of the run came back.
pub(super) fn check(life: &Life, alive: bool, context: &Context<'_>) -> Transition {
    let Phase::Running { misses } = life.phase else { return Transition::nothing() };
    let timing = context.timing;
    if alive {
        let effects = vec![Effect::CheckHealth(timing.health_interval)];
        if misses == 0 {
            return Transition::only(effects);
        }
        let mut next = life.next();
        next.phase = Phase::Running { misses: 0 };
        next.reason = None;
        return Transition::to(next, Cause::new(Code::HealthBack), effects);
    }
    let missed = misses.saturating_add(1).min(tolerated(context));
    let mut effects = Vec::with_capacity(2);
    if missed >= tolerated(context) {
        // Before anything is killed: is it the agent that is away, or the engine?
        effects.push(Effect::Look);
    }
    effects.push(Effect::CheckHealth(timing.health_retry));
    if missed == misses {
        return Transition::only(effects);
    }
    let mut next = life.next();
    let cause = Cause::new(Code::HealthMissed);
    next.phase = Phase::Running { misses: missed };
    next.reason = Some(cause.clone());
    Transition::to(next, cause, effects)
}

/// The token that the record holds is not taken any more, or is not there. The run is up, so only the pairing is done
/// again: it tries the token once more, for what refused it may have been a hiccup.
pub(super) fn refused(life: &Life, context: &Context<'_>) -> Transition {
    match &life.phase {
        Phase::Running { .. } => pick_up(life.next(), Step::Pairing, Cause::new(Code::TokenRefused), context),
        Phase::Pending | Phase::Starting { .. } | Phase::Stopping { .. } | Phase::Stopped | Phase::Failed { .. } => {
            Transition::nothing()
        }
    }
}

/// Misses in a row that mean the gateway hangs. At least one: not even a careless configuration kills a healthy agent.
fn tolerated(context: &Context<'_>) -> u8 {
    context.timing.health_misses.max(1)
}

/// A run ended, or has to be ended, that nobody asked to end.
fn died(life: &Life, stage: bool, halt: bool, cause: Cause, context: &Context<'_>) -> Transition {
    let mut next = life.next();
    next.restart_count += 1;
    match next.restarts.died(context.now, context.restart, context.seed) {
        Decision::Again(delay) => start::back_off(next, stage, halt, delay, cause, context),
        Decision::GiveUp(time) => start::rest(next, time, &cause, context),
    }
}

/// Another run than the one we know: the engine's own policy restarted what died, or somebody did.
fn restarted_outside(life: &Life, boot: BootId, died: Option<&Exit>, context: &Context<'_>) -> Transition {
    let cause = died.map_or_else(|| Cause::new(Code::RestartedOutside), exit_cause);
    let mut next = life.next();
    next.restart_count += 1;
    next.set_boot(Some(boot));
    pick_up(next, Step::Probing, cause, context)
}

/// Goes on with a run that is up, in the midst of a start. It counts like a death all the same, or a crash loop under the
/// engine's own policy, or a gateway that refuses each token it gave, would never end. But there is nothing to wait for.
fn pick_up(mut next: Life, at: Step, cause: Cause, context: &Context<'_>) -> Transition {
    match next.restarts.died(context.now, context.restart, context.seed) {
        Decision::Again(_) => {
            next.reason = Some(cause.clone());
            start::attempt(next, at, false, None, cause)
        }
        Decision::GiveUp(time) => start::rest(next, time, &cause, context),
    }
}

const fn transient(cause: Cause) -> Failure {
    Failure { kind: FailureKind::Transient, cause }
}

fn exit_cause(exit: &Exit) -> Cause {
    let cause = match (exit.oom, exit.code) {
        (true, _) => Cause::new(Code::OomKilled),
        (false, Some(code)) if code > 128 => {
            Cause::because(Code::Exited, format!("signal {} (exit code {code})", code - 128))
        }
        (false, Some(code)) => Cause::because(Code::Exited, format!("exit code {code}")),
        (false, None) => Cause::new(Code::Exited),
    };
    cause.with_exit_code(exit.code)
}
