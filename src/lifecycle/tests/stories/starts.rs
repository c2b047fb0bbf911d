//! The way to RUNNING.

use super::*;

#[test]
fn the_happy_path_is_one_start_and_no_detour() {
    let mut story = Story::of(AgentState::new());
    assert_eq!(story.state.status(), Status::Pending);
    assert_eq!(story.tell(Event::Recovered), run(Job::Create));
    assert_eq!(story.cause, Some(Code::Deploying));
    deploy(&mut story, "b1");
    assert_eq!(story.cause, Some(Code::Paired));
    assert_eq!(story.state.run_id(), Some(&run_id("b1")));
    assert_eq!((story.state.attempt, story.state.revision, story.state.restart_count), (1, 6, 0));

    let before = story.state.clone();
    assert_eq!(story.health(true), [INTERVAL]);
    assert_eq!(story.state, before, "a healthy agent costs no commit");

    assert_eq!(story.command(Command::Stop), run(Job::Stop));
    assert_eq!(story.state.status(), Status::Stopping);
    assert_eq!(story.job(Job::Stop, Outcome::Done), []);
    assert_eq!((story.state.status(), story.state.run_id()), (Status::Stopped, None));

    assert_eq!(story.command(Command::Start), run(Job::Create));
    deploy(&mut story, "b2");
    assert_eq!(story.command(Command::Delete), run(Job::Remove));
    assert_eq!(story.job(Job::Remove, Outcome::Done), [Effect::End]);
}

#[test]
fn a_start_waits_for_an_engine_that_is_away_and_then_shows_it() {
    let away = || failure(FailureKind::EngineAway, Code::RuntimeUnavailable);
    let mut story = Story::in_phase(starting(Step::Creating, true));
    let begun = story.now;
    let mut effects = story.job(Job::Create, away());
    let mut tries = 1;
    while story.state.status() == Status::Starting {
        assert_eq!(story.reason(), Some(Code::RuntimeUnavailable));
        assert_eq!(story.wake(&effects), run(Job::Create));
        effects = story.job(Job::Create, away());
        tries += 1;
    }
    let waited = story.now.duration_since(begun).as_secs();
    assert!((300..=305).contains(&waited), "{waited} s");
    assert!(tries < 100, "{tries} tries");
    assert_eq!((story.state.status(), story.reason()), (Status::Error, Some(Code::RuntimeUnavailable)));
    let pending = story.wake(&effects[1..]);
    assert_eq!(story.state.status(), Status::Pending);
    assert_eq!(story.state.restarts, AgentState::new().restarts, "it was not the agent's fault");
    story.wake(&pending);
    assert_eq!(story.state.status(), Status::Starting);
}

#[test]
fn only_the_time_that_the_engine_is_away_counts() {
    let away = || failure(FailureKind::EngineAway, Code::RuntimeUnavailable);
    let mut story = Story::in_phase(starting(Step::Creating, true));
    story.now = at(3_600_000);
    let effects = story.job(Job::Create, away());
    assert_eq!(story.state.status(), Status::Starting, "an hour's pull, then a hiccup: no reason to give up");
    story.wake(&effects);
    story.job(Job::Create, created(None));
    story.now = at(7_200_000);
    story.job(Job::Launch, away());
    assert_eq!(story.state.status(), Status::Starting, "it was back in between");
}

#[test]
fn an_update_of_a_running_agent_restarts_it_and_a_rename_does_not() {
    let mut story = running();
    assert_eq!(story.command(Command::Update { inside: false }), []);
    assert_eq!((story.state.status(), story.state.generation), (Status::Running, 2));

    assert_eq!(story.command(Command::Update { inside: true }), run(Job::Stop));
    assert_eq!((story.state.generation, story.token), (3, TokenChange::Keep));
    assert_eq!(story.command(Command::Update { inside: true }), [], "one stop is enough for two updates");
    assert_eq!(story.job(Job::Stop, Outcome::Done), run(Job::Create));
    assert_eq!(story.state.phase, starting(Step::Creating, true));
    deploy(&mut story, "b2");
}

#[test]
fn an_update_of_a_starting_agent_begins_its_start_anew() {
    let mut story = Story::in_phase(starting(probing(), false));
    let before = story.state.attempt;
    assert_eq!(story.command(Command::Update { inside: true }), run(Job::Kill));
    assert_eq!(story.state.phase, starting(Step::Killing, true));
    assert_eq!(story.tell(Event::Job { attempt: before, job: Job::Probe, outcome: Outcome::Done }), []);
    // Not even a restart of the service brings the older files to life.
    assert_eq!(story.tell(Event::Recovered), run(Job::Kill));
    assert_eq!(story.job(Job::Kill, Outcome::Done), run(Job::Create));
    deploy(&mut story, "b2");

    let mut story = Story::in_phase(starting(Step::BackingOff { until: at(700), kill: true }, true));
    assert_eq!(story.command(Command::Update { inside: false }), [Effect::WakeAt(at(700))], "its timer is set again");
}

#[test]
fn a_run_with_older_files_is_ended_before_the_new_ones_are_written() {
    let mut story = Story::in_phase(starting(Step::Creating, true));
    assert_eq!(story.job(Job::Create, created(Some("b7"))), run(Job::Kill));
    assert_eq!(story.state.phase, starting(Step::Killing, true));
    assert_eq!(story.job(Job::Kill, Outcome::Done), run(Job::Create));
    deploy(&mut story, "b8");
}

#[test]
fn a_port_with_a_stranger_on_it_is_changed_for_another() {
    let taken = || failure(FailureKind::PortTaken, Code::PortTaken);
    let mut story = Story::in_phase(starting(Step::Creating, true));
    for _ in 0..50 {
        story.job(Job::Create, created(None));
        assert_eq!(story.job(Job::Launch, taken()), run(Job::Rebind));
        assert_eq!(story.cause, Some(Code::PortTaken));
        assert_eq!(story.job(Job::Rebind, Outcome::Done), run(Job::Create));
    }
    assert_eq!(story.state.attempt, 3, "all of it is one attempt");
    story.job(Job::Create, created(None));
    assert_eq!(story.job(Job::Launch, taken()), run(Job::Kill), "fifty strangers are a failed start");
    assert_eq!(story.state.attempt, 4);
}

#[test]
fn a_configuration_that_cannot_run_is_not_tried_again_until_somebody_asks() {
    let mut story = Story::in_phase(starting(Step::Creating, true));
    let effects = story.job(Job::Create, failure(FailureKind::Permanent, Code::CannotRun));
    assert_eq!(effects, run(Job::Kill));
    assert_eq!((story.state.status(), story.state.next_attempt_at()), (Status::Error, None));
    let effects = story.command(Command::Start);
    assert_eq!((story.state.status(), story.reason()), (Status::Pending, None));
    assert_eq!(story.wake(&effects), run(Job::Kill));
}

#[test]
fn a_death_during_the_start_call_is_found_when_the_call_has_ended() {
    let mut story = Story::in_phase(starting(Step::Launching, false));
    assert_eq!(story.seen(down(1)), [], "the call may still start it");
    assert!(story.job(Job::Launch, launched("b1")).contains(&Effect::Observe));
    story.seen(down(1));
    let reason = story.state.reason.clone().expect("it has failed");
    assert_eq!((reason.code, reason.exit_code), (Code::Exited, Some(1)), "not a timeout of the probe");
}
