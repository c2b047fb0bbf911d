//! Tests of the heart: tables over all that can meet ([`tables`]), stories that must go as told ([`stories`]), and
//! a model in which everything happens at the wrong moment ([`model`]).

mod model;
mod stories;
mod tables;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::backoff::RestartPolicy;
use crate::domain::{BootId, Exit, Timestamp, later};

fn at(millis: u64) -> Timestamp {
    later(Timestamp::from_second(1_800_000_000).unwrap(), Duration::from_millis(millis))
}

fn boot(name: &str) -> BootId {
    BootId(name.into())
}

fn created(up: Option<&str>) -> Outcome {
    Outcome::Created { engine_id: "engine-id".into(), up: up.map(boot) }
}

fn launched(name: &str) -> Outcome {
    Outcome::Launched { boot: boot(name) }
}

fn failure(kind: FailureKind, code: Code) -> Outcome {
    Outcome::Failed(Failure { kind, cause: Cause::new(code) })
}

fn up(name: &str) -> Sighting {
    Sighting::Up { boot: boot(name), died: None }
}

fn down(code: i32) -> Sighting {
    Sighting::Down(Exit { code: Some(code), oom: false })
}

/// An agent in the middle of its life, in this phase, with a run named `b1`.
fn life_in(phase: Phase) -> Life {
    let instance = InstanceRef { engine_id: "engine-id".into(), boot: Some(boot("b1")) };
    Life { phase, attempt: 3, revision: 10, instance: Some(Arc::new(instance)), ..Life::new() }
}

fn starting(step: Step, stage: bool) -> Phase {
    Phase::Starting { step, stage, rebinds: 0, away_since: None }
}

fn stopping(then: Then) -> Phase {
    Phase::Stopping { then, since: at(0), retry_at: None }
}

/// A life with its surroundings, to be told one event after the other.
struct Story {
    life: Life,
    now: Timestamp,
    restart: RestartPolicy,
    timing: Timing,
    /// Of the last event.
    cause: Option<Code>,
    token: TokenChange,
}

impl Story {
    fn of(life: Life) -> Self {
        let (restart, timing) = (RestartPolicy::default(), Timing::default());
        Self { life, now: at(0), restart, timing, cause: None, token: TokenChange::Keep }
    }

    fn in_phase(phase: Phase) -> Self {
        Self::of(life_in(phase))
    }

    fn tell(&mut self, event: Event) -> Vec<Effect> {
        let context = Context { now: self.now, seed: 7, restart: &self.restart, timing: &self.timing };
        let transition = step(&self.life, event, &context);
        self.cause = transition.cause.map(|cause| cause.code);
        self.token = transition.token;
        self.life = transition.life.unwrap_or_else(|| self.life.clone());
        transition.effects
    }

    fn command(&mut self, command: Command) -> Vec<Effect> {
        self.tell(Event::Command(command))
    }

    /// The job of the current attempt ended.
    fn job(&mut self, job: Job, outcome: Outcome) -> Vec<Effect> {
        self.tell(Event::Job { attempt: self.life.attempt, job, outcome })
    }

    fn seen(&mut self, sighting: Sighting) -> Vec<Effect> {
        self.tell(Event::Seen { revision: self.life.revision, sighting })
    }

    fn health(&mut self, alive: bool) -> Vec<Effect> {
        self.tell(Event::Health { attempt: self.life.attempt, alive })
    }

    /// Time passes until the timer that was just set, which then is due.
    fn wake(&mut self, effects: &[Effect]) -> Vec<Effect> {
        let due = effects.iter().find_map(|effect| if let Effect::WakeAt(due) = effect { Some(*due) } else { None });
        self.now = self.now.max(due.expect("a timer was set"));
        self.tell(Event::Wake { revision: self.life.revision })
    }

    fn step(&self) -> Option<&Step> {
        if let Phase::Starting { step, .. } = &self.life.phase { Some(step) } else { None }
    }

    fn reason(&self) -> Option<Code> {
        self.life.reason.as_ref().map(|cause| cause.code)
    }
}

fn run(job: Job) -> Vec<Effect> {
    vec![Effect::Run(job)]
}
