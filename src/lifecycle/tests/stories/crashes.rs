//! What goes wrong with an agent that runs, and with its gateway.

use super::*;

#[test]
fn a_crash_is_followed_by_a_start_at_once_with_the_files_and_the_token_as_they_are() {
    let mut story = running();
    assert_eq!(story.seen(down(137)), run(Job::Create));
    assert_eq!(story.state.phase, starting(Step::Creating, false));
    assert_eq!((story.state.attempt, story.state.restart_count), (4, 1));
    assert_eq!(story.token, TokenChange::Keep);
    assert_eq!(
        story.state.reason.as_ref().unwrap().message(),
        "the instance ended by itself: signal 9 (exit code 137): it was killed by a person, or by the kernel for want of memory"
    );
    deploy(&mut story, "b2");
}

#[test]
fn an_instance_that_the_engine_has_restarted_already_is_taken_as_it_is() {
    let mut story = running();
    story.seen(down(1));
    assert_eq!(story.job(Job::Create, created(Some("b2"))), run(Job::Probe));
    assert_eq!(story.state.run_id(), Some(&run_id("b2")));

    let mut story = running();
    assert_eq!(story.seen(up("b2")), run(Job::Probe));
    assert_eq!(story.cause, Some(Code::RestartedOutside));
    assert_eq!((story.state.attempt, story.state.restart_count), (4, 1));
    assert_eq!(story.seen(up("b2")), [], "seen again, it is known");
    assert_eq!(story.seen(up("b3")), run(Job::Probe), "and restarted once more while it was probed");
}

#[test]
fn an_instance_that_was_removed_gets_its_files_anew() {
    let mut story = running();
    assert_eq!(story.seen(Observation::Absent), run(Job::Create));
    assert_eq!(story.state.phase, starting(Step::Creating, true));
    assert_eq!(story.cause, Some(Code::InstanceGone));
}

#[test]
fn a_crash_loop_ends_in_error_and_is_tried_again_after_a_rest() {
    let mut story = running();
    let mut deaths = 0;
    let rest = loop {
        deaths += 1;
        let effects = story.seen(down(1));
        if story.state.status() == Status::Error {
            break effects;
        }
        if story.state.next_attempt_at().is_some() {
            assert_eq!(story.wake(&effects), run(Job::Create));
        }
        deploy(&mut story, &format!("b{deaths}"));
    };
    assert_eq!(deaths, story.restart.max_restarts + 1);
    assert_eq!(story.state.reason.as_ref().unwrap().code, Code::CrashLoop);
    assert!(story.state.reason.as_ref().unwrap().message().contains("exit code 1"));
    assert_eq!(rest[0], Effect::Run(Job::Kill));

    let effects = story.wake(&rest);
    assert_eq!((story.state.status(), story.cause), (Status::Pending, Some(Code::RetryDue)));
    assert_eq!(story.wake(&effects), run(Job::Kill), "nobody knows whether the last halt was done");
    assert_eq!(story.job(Job::Kill, Outcome::Done), run(Job::Create));
    deploy(&mut story, "b99");
}

#[test]
fn an_agent_that_never_comes_up_ends_in_error_after_a_few_starts() {
    let mut story = Story::of(AgentState::new());
    let mut effects = story.tell(Event::Recovered);
    let mut starts = 0;
    while story.state.status() != Status::Error {
        effects = match story.step() {
            Some(Step::Killing) => story.job(Job::Kill, Outcome::Done),
            Some(Step::Creating) => story.job(Job::Create, created(None)),
            Some(Step::Launching) => story.job(Job::Launch, launched("b")),
            Some(Step::Probing { .. }) => {
                starts += 1;
                story.seen(down(2))
            }
            Some(Step::BackingOff { .. }) => story.wake(&effects),
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(starts, story.restart.max_failed_starts);
    assert!(story.state.next_attempt_at().is_some());
}

#[test]
fn a_refused_token_is_paired_again_once_and_then_the_pairing_is_renewed() {
    let mut story = running();
    let attempt = story.state.attempt;
    assert_eq!(story.tell(Event::TokenRefused { attempt }), run(Job::Pair));
    assert_eq!((story.state.status(), story.token), (Status::Starting, TokenChange::Keep));
    assert_eq!(story.tell(Event::TokenRefused { attempt }), [], "a hundred messages were refused, one pairing is done");

    // The gateway does not know it: the files are written without a token, and the run that reads them gives a code.
    let failed = failure(FailureKind::Transient, Code::TokenRefused);
    let effects = story.job(Job::Pair, failed);
    assert_eq!(story.token, TokenChange::Forget);
    assert_eq!(story.wake(&effects), run(Job::Kill));
    assert_eq!(story.state.phase, starting(Step::Killing, true));
    assert_eq!(story.job(Job::Kill, Outcome::Done), run(Job::Create));
    deploy(&mut story, "b2");
}

#[test]
fn failed_model_is_noted_once_for_each_kind_and_changes_nothing_else() {
    let mut story = running();
    let attempt = story.state.attempt;
    let failed = |class| Event::ModelFailed { attempt, model: failed_model(class) };
    assert_eq!((story.tell(failed("timeout")), story.cause), (vec![], Some(Code::ModelFailed)));
    assert_eq!((story.tell(failed("timeout")), story.cause), (vec![], None), "the same again is no news");
    assert_eq!((story.tell(failed("dns")), story.cause), (vec![], Some(Code::ModelFailed)));
    story.health(false);
    story.health(true);
    assert_eq!(story.state.failed_model, Some(failed_model("dns")), "a check of the gateway says nothing of the model");
    assert_eq!((story.state.status(), story.reason()), (Status::Running, None));
    let mut stopped = Story::of(story.state.clone());
    stopped.command(Command::Stop);
    assert_eq!(stopped.state.failed_model, None, "it belonged to the run");
    stopped.tell(failed("dns"));
    assert_eq!((stopped.cause, stopped.state.failed_model), (None, None));

    assert_eq!((story.tell(Event::ModelAnswered { attempt }), story.cause), (vec![], Some(Code::ModelBack)));
    assert_eq!(story.state.failed_model, None);
    assert_eq!((story.tell(Event::ModelAnswered { attempt }), story.cause), (vec![], None));
}

#[test]
fn an_unusable_run_is_started_once_more_with_new_files_and_then_given_up() {
    let unusable = || failure(FailureKind::Transient, Code::Unusable);
    let mut story = running();
    let effects = story.tell(Event::Unusable { attempt: story.state.attempt, why: "no model".into() });
    assert_eq!(effects, run(Job::Kill));
    assert_eq!((story.state.phase.clone(), story.token), (starting(Step::Killing, true), TokenChange::Keep));
    assert_eq!(story.reason(), Some(Code::Unusable));
    story.job(Job::Kill, Outcome::Done);
    let mut mended = Story::of(story.state.clone());
    deploy(&mut mended, "b2");
    assert_eq!((mended.state.status(), mended.reason()), (Status::Running, None));

    story.job(Job::Create, created(None));
    story.job(Job::Launch, launched("b2"));
    story.job(Job::Probe, Outcome::Done);
    assert_eq!(story.job(Job::Pair, unusable()), run(Job::Kill));
    assert_eq!((story.state.status(), story.reason()), (Status::Error, Some(Code::Unusable)));
    assert_eq!(story.state.next_attempt_at(), None);
}

#[test]
fn a_new_agent_that_is_unusable_gets_its_files_twice() {
    let unusable = || failure(FailureKind::Transient, Code::Unusable);
    let mut story = Story::in_phase(starting(pairing(), false));
    let effects = story.job(Job::Pair, unusable());
    assert_eq!(story.state.status(), Status::Starting);
    if !effects.contains(&Effect::Run(Job::Kill)) {
        assert_eq!(story.wake(&effects), run(Job::Kill));
    }
    assert_eq!(story.state.phase, starting(Step::Killing, true));
    story.job(Job::Kill, Outcome::Done);
    story.job(Job::Create, created(None));
    story.job(Job::Launch, launched("b2"));
    story.job(Job::Probe, Outcome::Done);
    story.job(Job::Pair, unusable());
    assert_eq!((story.state.status(), story.reason()), (Status::Error, Some(Code::Unusable)));
}

#[test]
fn a_gateway_that_refuses_every_token_it_gave_ends_in_error() {
    let mut story = running();
    for _ in 0..story.restart.max_restarts {
        assert_eq!(story.tell(Event::TokenRefused { attempt: story.state.attempt }), run(Job::Pair));
        story.job(Job::Pair, Outcome::Paired(Code::TokenValid));
    }
    story.tell(Event::TokenRefused { attempt: story.state.attempt });
    assert_eq!((story.state.status(), story.reason()), (Status::Error, Some(Code::CrashLoop)));
}

#[test]
fn a_restart_forgets_the_token_wherever_it_is_asked_for() {
    for phase in [
        Phase::Pending,
        starting(probing(), false),
        paired(0),
        stopping(AfterStop::Restart),
        Phase::Stopped,
        Phase::Failed { resume: RetryTarget::Start, retry_at: None },
    ] {
        let mut story = Story::in_phase(phase.clone());
        story.command(Command::Restart);
        assert_eq!(story.token, TokenChange::Forget, "{phase:?}");
        assert!(story.state.will_run(), "{phase:?}");
    }
}

#[test]
fn an_engine_that_is_away_changes_nothing_for_a_running_agent() {
    let mut story = running();
    let healthy = story.state.clone();
    assert_eq!(story.seen(Observation::Unknown), []);
    assert_eq!(story.state, healthy);
    for _ in 0..100 {
        story.health(false);
        assert_eq!(story.seen(Observation::Unknown), []);
    }
    assert_eq!((story.state.status(), story.state.attempt), (Status::Running, healthy.attempt));
    assert_eq!(story.health(true), [INTERVAL]);
    assert_eq!((story.cause, story.reason()), (Some(Code::HealthBack), None));
}

#[test]
fn a_paused_agent_is_deaf_and_is_halted() {
    let mut story = running();
    assert_eq!(story.seen(paused("b1")), [], "a pause alone is no harm");
    assert_eq!(story.health(false), [RETRY]);
    assert_eq!(story.health(false), [RETRY]);
    assert_eq!(story.health(false), [Effect::Observe, RETRY], "before anything is killed, somebody looks");
    let missed = story.state.clone();
    assert_eq!(story.health(false), [Effect::Observe, RETRY]);
    assert_eq!(story.state, missed, "more misses are no news");
    assert_eq!(story.seen(paused("b1")), run(Job::Kill));
    assert_eq!((story.state.status(), story.reason()), (Status::Starting, Some(Code::HealthLost)));
    assert_eq!(story.job(Job::Kill, Outcome::Done), run(Job::Create));
    deploy(&mut story, "b2");
}

/// It was restarted and paused while nobody looked.
#[test]
fn a_paused_run_that_is_not_the_known_one_is_probed() {
    let mut story = running();
    assert_eq!(story.seen(paused("b2")), run(Job::Probe));
    assert_eq!((story.state.status(), story.reason()), (Status::Starting, Some(Code::RestartedOutside)));
}

#[test]
fn no_configuration_kills_an_agent_for_a_check_that_was_not_missed() {
    let mut story = running();
    story.timing.health_misses = 0;
    assert_eq!(story.seen(up("b1")), []);
    assert_eq!(story.health(false), [Effect::Observe, RETRY]);
    assert_eq!(story.seen(up("b1")), run(Job::Kill));
}

#[test]
fn a_run_that_the_engine_replaced_is_told_by_how_it_died() {
    let exit = |code, oom| Some(Exit { code: Some(code), oom, asked: false, reason: None });
    let table = [
        (None, Code::RestartedOutside),
        (exit(137, false), Code::Exited),
        (exit(137, true), Code::OomKilled),
        (exit(0, false), Code::Exited),
    ];
    for (died, code) in table {
        let mut story = running();
        let effects = story.seen(Observation::Up { run_id: run_id("b2"), died, moved: false });
        assert_eq!((effects, story.cause), (run(Job::Probe), Some(code)), "the run that is there is taken up");
    }
}

#[test]
fn misses_under_an_old_address_are_forgotten_when_the_gateway_moved() {
    let mut story = running();
    let tolerated = 3;
    for _ in 0..tolerated {
        story.health(false);
    }
    let moved = Observation::Up { run_id: run_id("b1"), died: None, moved: true };
    assert_eq!(story.seen(moved), [RETRY], "it is asked by its new address before anything is killed");
    assert_eq!((story.state.phase.clone(), story.reason()), (paired(0), None));
    story.health(false);
    assert_eq!(story.state.phase, paired(1));
}

#[test]
fn news_of_an_earlier_attempt_changes_nothing() {
    let mut story = running();
    story.tell(Event::ModelFailed { attempt: story.state.attempt, model: failed_model("auth") });
    let (attempt, revision) = (story.state.attempt - 1, story.state.revision);
    for event in [
        Event::Job { attempt, job: Job::Probe, outcome: Outcome::Done },
        Event::Health { attempt, alive: false },
        Event::Unusable { attempt, why: "no memory".into() },
        Event::TokenRefused { attempt },
        Event::ModelFailed { attempt, model: failed_model("rate") },
        Event::ModelAnswered { attempt },
        Event::Wake { revision: revision - 1 },
    ] {
        let told = format!("{event:?}");
        assert_eq!(story.tell(event), [], "{told}");
        assert_eq!((story.cause, story.state.revision), (None, revision), "{told}");
    }
    story.tell(Event::ModelAnswered { attempt: attempt + 1 });
    assert_eq!(story.state.revision, revision + 1, "that of this attempt counts");
}
