//! Tests of the heart: tables over all that can meet ([`tables`]), stories that must go as told ([`stories`]), and
//! a model in which everything happens at the wrong moment ([`model`]).

mod model;
mod stories;
mod tables;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::backoff::RestartPolicy;
use crate::domain::{Exit, RunId, Timestamp, later};

fn at(millis: u64) -> Timestamp {
    later(Timestamp::from_second(1_800_000_000).unwrap(), Duration::from_millis(millis))
}

fn run_id(name: &str) -> RunId {
    RunId(name.into())
}

fn created(up: Option<&str>) -> Outcome {
    Outcome::Created { engine_id: "engine-id".into(), up: up.map(run_id) }
}

fn launched(name: &str) -> Outcome {
    Outcome::Launched { run_id: run_id(name) }
}

fn failure(kind: FailureKind, code: Code) -> Outcome {
    Outcome::Failed(Failure { kind, cause: Cause::new(code) })
}

fn up(name: &str) -> Observation {
    Observation::Up { run_id: run_id(name), died: None, moved: false }
}

fn paused(name: &str) -> Observation {
    Observation::Paused { run_id: run_id(name) }
}

fn down(code: i32) -> Observation {
    Observation::Down(Exit::with_code(code))
}

/// An agent in the middle of its life, in this phase, with a run named `b1`.
fn life_in(phase: Phase) -> AgentState {
    let leftover = phase.run_id().is_none().then(|| run_id("b1"));
    let engine_id = Some("engine-id".into());
    AgentState { phase, attempt: 3, revision: 10, engine_id, leftover, ..AgentState::new() }
}

fn paired(misses: u8) -> Phase {
    Phase::Running { run_id: run_id("b1"), misses }
}

fn probing() -> Step {
    Step::Probing { run_id: run_id("b1") }
}

fn pairing() -> Step {
    Step::Pairing { run_id: run_id("b1") }
}

fn starting(step: Step, stage: bool) -> Phase {
    Phase::Starting { step, stage, rebinds: 0, away_since: None }
}

fn stopping(then: AfterStop) -> Phase {
    Phase::Stopping { then, since: at(0), retry_at: None }
}

/// A life with its surroundings, to be told one event after the other.
struct Story {
    state: AgentState,
    now: Timestamp,
    restart: RestartPolicy,
    timing: Timing,
    /// Of the last event.
    cause: Option<Code>,
    token: TokenChange,
}

impl Story {
    fn of(state: AgentState) -> Self {
        let (restart, timing) = (RestartPolicy::default(), Timing::default());
        Self { state, now: at(0), restart, timing, cause: None, token: TokenChange::Keep }
    }

    fn in_phase(phase: Phase) -> Self {
        Self::of(life_in(phase))
    }

    fn tell(&mut self, event: Event) -> Vec<Effect> {
        let context = Context { now: self.now, seed: 7, restart: &self.restart, timing: &self.timing };
        let transition = step(&self.state, event, &context);
        self.cause = transition.cause.map(|cause| cause.code);
        self.token = transition.token;
        self.state = transition.state.unwrap_or_else(|| self.state.clone());
        transition.effects
    }

    fn command(&mut self, command: Command) -> Vec<Effect> {
        self.tell(Event::Command(command))
    }

    /// The job of the current attempt ended.
    fn job(&mut self, job: Job, outcome: Outcome) -> Vec<Effect> {
        self.tell(Event::Job { attempt: self.state.attempt, job, outcome })
    }

    fn seen(&mut self, observation: Observation) -> Vec<Effect> {
        self.tell(Event::Observed { revision: self.state.revision, observation })
    }

    fn health(&mut self, alive: bool) -> Vec<Effect> {
        self.tell(Event::Health { attempt: self.state.attempt, alive })
    }

    /// Time passes until the timer that was just set, which then is due.
    fn wake(&mut self, effects: &[Effect]) -> Vec<Effect> {
        let due = effects.iter().find_map(|effect| if let Effect::WakeAt(due) = effect { Some(*due) } else { None });
        self.now = self.now.max(due.expect("a timer was set"));
        self.tell(Event::Wake { revision: self.state.revision })
    }

    fn step(&self) -> Option<&Step> {
        if let Phase::Starting { step, .. } = &self.state.phase { Some(step) } else { None }
    }

    fn reason(&self) -> Option<Code> {
        self.state.reason.as_ref().map(|cause| cause.code)
    }
}

fn failed_model(class: &str) -> Arc<FailedModel> {
    Arc::new(FailedModel { class: class.into(), why: "no answer".into() })
}

fn run(job: Job) -> Vec<Effect> {
    vec![Effect::Run(job)]
}
