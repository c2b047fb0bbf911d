//! How many decisions one core makes in a second: what bounds a service whose agents all do something at once.
//!
//! `cargo bench --bench step`; the floor is the clone of a life, which every change has to pay for.

use std::hint::black_box;

use divan::Bencher;
use divan::counter::ItemsCount;
use zeroone::control::RestartPolicy;
use zeroone::domain::{Exit, RunId, Timestamp};
use zeroone::internal::lifecycle::{
    AgentState, Context, Event, Job, Observation, Outcome, Phase, Step, Timing, Transition, restarts, step,
};

fn main() {
    divan::main();
}

/// An agent with a past: some restarts in its window, an instance, a run.
fn life_in(phase: Phase) -> AgentState {
    let mut state = AgentState::new();
    for _ in 0..4 {
        restarts(&mut state).died(now(), &RestartPolicy::default(), 7);
    }
    restarts(&mut state).running(now());
    state.engine_id = Some("0123456789abcdef".into());
    (state.phase, state.attempt, state.revision) = (phase, 3, 10);
    state
}

fn running() -> Phase {
    Phase::Running { run_id: run_id("b1"), misses: 0 }
}

fn run_id(name: &str) -> RunId {
    RunId(name.into())
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn decide(bencher: Bencher<'_, '_>, phase: Phase, event: impl Fn() -> Event + Sync, check: fn(&Transition) -> bool) {
    let state = life_in(phase);
    let (restart, timing) = (RestartPolicy::default(), Timing::default());
    let context = Context { now: now(), seed: 7, restart: &restart, timing: &timing };
    assert!(check(&step(&state, event(), &context)), "the event does what is measured");
    // What was decided is let go of within the measurement, as an actor does, or the allocator is what is measured.
    bencher.counter(ItemsCount::new(1_usize)).bench(|| {
        drop(black_box(step(black_box(&state), event(), black_box(&context))));
    });
}

#[divan::bench]
fn health_tick(bencher: Bencher<'_, '_>) {
    let event = || Event::Health { attempt: 3, alive: true };
    decide(bencher, running(), event, |transition| transition.state.is_none());
}

#[divan::bench]
fn job_outcome(bencher: Bencher<'_, '_>) {
    let phase =
        Phase::Starting { step: Step::Probing { run_id: run_id("b1") }, stage: false, rebinds: 0, away_since: None };
    let event = || Event::Job { attempt: 3, job: Job::Probe, outcome: Outcome::Done };
    decide(bencher, phase, event, |transition| transition.state.is_some());
}

#[divan::bench]
fn crash(bencher: Bencher<'_, '_>) {
    let event = || Event::Observed { revision: 10, observation: Observation::Down(Exit::with_code(137)) };
    decide(bencher, running(), event, |transition| transition.state.is_some());
}

#[divan::bench]
fn stale_event(bencher: Bencher<'_, '_>) {
    let event = || Event::Wake { revision: 9 };
    decide(bencher, running(), event, |transition| transition.effects.is_empty());
}

#[divan::bench]
fn floor_clone(bencher: Bencher<'_, '_>) {
    let state = life_in(running());
    bencher.counter(ItemsCount::new(1_usize)).bench(|| drop(black_box(black_box(&state).clone())));
}
