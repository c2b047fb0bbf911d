//! What is observed, against what is wanted: the engine's view, the gateway's health, a refused token.

use std::sync::Arc;

use super::timers::ask_again;
use super::{Context, Transition, start};
use crate::backoff::Decision;
use crate::domain::{Exit, RunId};
use crate::lifecycle::cause::{Cause, Code, FailedModel};
use crate::lifecycle::event::{Effect, Failure, FailureKind, Job, Observation};
use crate::lifecycle::phase::{AgentState, Phase, Step};

/// The engine's view, no older than the state.
pub(super) fn see(state: &AgentState, observation: Observation, context: &Context<'_>) -> Transition {
    match (&state.phase, observation) {
        // An engine that is away says nothing about the agent. Phases without a job or timer of their own ask again.
        (Phase::Stopped | Phase::Failed { retry_at: None, .. }, Observation::Unknown) => ask_again(context),
        (_, Observation::Unknown) => Transition::nothing(),

        (Phase::Running { .. }, Observation::Down(exit)) => died(state, false, false, Cause::exited(&exit), context),
        // What is made anew gets its files anew, too.
        (Phase::Running { .. }, Observation::Absent) => {
            died(state, true, false, Cause::new(Code::InstanceGone), context)
        }
        (Phase::Running { run_id: known, .. }, Observation::Up { run_id, died, .. }) if *known != run_id => {
            restarted_outside(state, run_id, died.as_ref(), context)
        }
        // Nobody knows where this run is reached, so no health check would ever miss it.
        (Phase::Running { run_id: known, .. }, Observation::Paused { run_id }) if *known != run_id => {
            restarted_outside(state, run_id, None, context)
        }
        (Phase::Running { misses, .. }, Observation::Up { moved: true, .. }) => moved(state, *misses, context),
        // There, but it has not answered for too long.
        (Phase::Running { misses, .. }, Observation::Up { .. } | Observation::Paused { .. })
            if *misses >= tolerated(context) =>
        {
            died(state, false, true, Cause::new(Code::HealthLost), context)
        }
        (Phase::Running { .. }, Observation::Up { .. } | Observation::Paused { .. }) => Transition::nothing(),

        // The run that is being probed is over: no need to wait for the probe's deadline.
        (Phase::Starting { step: Step::Probing { .. } | Step::Pairing { .. }, .. }, Observation::Down(exit)) => {
            start::failed(state, transient(Cause::exited(&exit)), context)
        }
        (Phase::Starting { step: Step::Probing { .. } | Step::Pairing { .. }, .. }, Observation::Absent) => {
            start::failed(state, transient(Cause::new(Code::InstanceGone)), context)
        }
        (
            Phase::Starting { step: Step::Probing { run_id: known } | Step::Pairing { run_id: known }, .. },
            Observation::Up { run_id, died, .. },
        ) if *known != run_id => restarted_outside(state, run_id, died.as_ref(), context),
        // The other steps find out by themselves, and the jobs of these know their run.
        (Phase::Starting { .. }, _) => Transition::nothing(),

        // Down by intent, up in fact: somebody started it by hand, or an old stop was lost.
        (Phase::Stopped | Phase::Failed { .. }, Observation::Up { .. } | Observation::Paused { .. }) => {
            Transition::only(vec![Effect::Run(Job::Kill)])
        }
        (Phase::Stopped | Phase::Failed { .. }, Observation::Absent | Observation::Down(_)) => Transition::nothing(),

        (Phase::Pending | Phase::Stopping { .. }, _) => Transition::nothing(),
    }
}

/// Asked for its health at once, by the new address, with nothing missed so far.
fn moved(state: &AgentState, misses: u8, context: &Context<'_>) -> Transition {
    let effects = vec![Effect::CheckHealth(context.timing.health_retry)];
    if misses == 0 {
        return Transition::only(effects);
    }
    let mut next = state.next();
    next.set_misses(0);
    next.reason = None;
    Transition::to(next, Cause::new(Code::EndpointMoved), effects)
}

/// A health check of the run came back.
pub(super) fn check(state: &AgentState, alive: bool, context: &Context<'_>) -> Transition {
    let Phase::Running { misses, .. } = state.phase else { return Transition::nothing() };
    let timing = context.timing;
    if alive {
        let effects = vec![Effect::CheckHealth(timing.health_interval)];
        if misses == 0 {
            return Transition::only(effects);
        }
        let mut next = state.next();
        next.set_misses(0);
        next.reason = None;
        return Transition::to(next, Cause::new(Code::HealthBack), effects);
    }
    let missed = misses.saturating_add(1).min(tolerated(context));
    let mut effects = Vec::with_capacity(2);
    if missed >= tolerated(context) {
        // Before anything is killed: is it the agent that is away, or the engine?
        effects.push(Effect::Observe);
    }
    effects.push(Effect::CheckHealth(timing.health_retry));
    if missed == misses {
        return Transition::only(effects);
    }
    let mut next = state.next();
    let cause = Cause::new(Code::HealthMissed);
    next.set_misses(missed);
    next.reason = Some(cause.clone());
    Transition::to(next, cause, effects)
}

/// The token that the record holds is not taken any more, or is not there. The run is up, so only the pairing is done
/// again: it tries the token once more, for what refused it may have been a hiccup.
pub(super) fn refused(state: &AgentState, context: &Context<'_>) -> Transition {
    match &state.phase {
        Phase::Running { run_id, .. } => {
            let at = Step::Pairing { run_id: run_id.clone() };
            pick_up(state.next(), at, Cause::new(Code::TokenRefused), context)
        }
        Phase::Pending | Phase::Starting { .. } | Phase::Stopping { .. } | Phase::Stopped | Phase::Failed { .. } => {
            Transition::nothing()
        }
    }
}

/// The run is healthy and would answer no message. Files written anew may help; if they do not, the start says so.
pub(super) fn unusable(state: &AgentState, why: Arc<str>, context: &Context<'_>) -> Transition {
    match &state.phase {
        Phase::Running { .. } => died(state, true, true, Cause::because(Code::Unusable, why), context),
        Phase::Pending | Phase::Starting { .. } | Phase::Stopping { .. } | Phase::Stopped | Phase::Failed { .. } => {
            Transition::nothing()
        }
    }
}

/// The gateway is well and the model is not: the agent stays as it is, and its timeline says so, once for each kind of failure.
pub(super) fn model_failed(state: &AgentState, model: Arc<FailedModel>) -> Transition {
    let known = state.failed_model.as_ref().is_some_and(|known| known.class == model.class);
    if known || !matches!(state.phase, Phase::Running { .. }) {
        return Transition::nothing();
    }
    let cause = Cause::because(Code::ModelFailed, Arc::clone(&model.why));
    Transition::to(AgentState { failed_model: Some(model), ..state.next() }, cause, Vec::new())
}

pub(super) fn model_answered(state: &AgentState) -> Transition {
    if state.failed_model.is_none() {
        return Transition::nothing();
    }
    Transition::to(AgentState { failed_model: None, ..state.next() }, Cause::new(Code::ModelBack), Vec::new())
}

/// Misses in a row that mean the gateway hangs. At least one: not even a careless configuration kills a healthy agent.
fn tolerated(context: &Context<'_>) -> u8 {
    context.timing.health_misses.max(1)
}

/// A run ended, or has to be ended, that nobody asked to end.
fn died(state: &AgentState, stage: bool, kill: bool, cause: Cause, context: &Context<'_>) -> Transition {
    let mut next = state.next();
    next.restart_count += 1;
    match next.restarts.died(context.now, context.restart, context.seed) {
        Decision::Again(delay) => start::back_off(next, stage, kill, delay, cause, context),
        Decision::GiveUp(time) => start::rest(next, time, &cause, context),
    }
}

/// Another run than the one we know: the engine's own policy restarted what died, or somebody did.
fn restarted_outside(state: &AgentState, run_id: RunId, died: Option<&Exit>, context: &Context<'_>) -> Transition {
    let cause = died.filter(|exit| !exit.asked).map_or_else(|| Cause::new(Code::RestartedOutside), Cause::exited);
    let mut next = state.next();
    next.restart_count += 1;
    pick_up(next, Step::Probing { run_id }, cause, context)
}

/// Goes on with a run that is up, in the midst of a start. It counts like a death all the same, or a crash loop under the
/// engine's own policy, or a gateway that refuses each token it gave, would never end. But there is nothing to wait for.
fn pick_up(mut next: AgentState, at: Step, cause: Cause, context: &Context<'_>) -> Transition {
    // Whichever run was known before, this one is up: it is gone on with, or has to be ended.
    next.enter(Phase::Starting { step: at.clone(), stage: false, rebinds: 0, away_since: None });
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
