//! Restarts of the service, and clocks that are set.

use super::*;

#[test]
fn what_has_to_be_halted_is_halted_however_long_the_engine_is_away() {
    let mut story = Story::in_phase(starting(Step::Halting, false));
    let effects = story.job(Job::Halt, failure(FailureKind::EngineAway, Code::RuntimeUnavailable));
    assert_eq!(story.wake(&effects), run(Job::Halt));
    assert_eq!(story.tell(Event::Recovered), run(Job::Halt), "or the service is restarted");
}

#[test]
fn a_restart_of_the_service_takes_up_every_phase() {
    let until = at(700);
    let spread = Effect::CheckHealth(Duration::from_millis(70));
    let cases = [
        (Phase::Pending, run(Job::Halt)),
        (starting(Step::Halting, true), run(Job::Halt)),
        (starting(Step::Creating, true), run(Job::Create)),
        (starting(Step::Rebinding, false), run(Job::Create)),
        (starting(Step::Launching, false), run(Job::Create)),
        (starting(Step::Probing, false), run(Job::Create)),
        (starting(Step::Pairing, false), run(Job::Create)),
        (starting(Step::BackingOff { until, halt: true }, true), vec![Effect::WakeAt(until)]),
        (Phase::Running { misses: 0 }, vec![Effect::Look, spread.clone()]),
        (Phase::Running { misses: 3 }, vec![Effect::Look, spread]),
        (stopping(Then::Stay), run(Job::Stop)),
        (stopping(Then::Restart), run(Job::Stop)),
        (stopping(Then::Delete), run(Job::Remove)),
        (Phase::Stopping { then: Then::Delete, since: at(0), retry_at: Some(until) }, vec![Effect::WakeAt(until)]),
        (Phase::Stopped, vec![Effect::Look]),
        (Phase::Failed { resume: Resume::Start, retry_at: None }, vec![Effect::Look]),
        (Phase::Failed { resume: Resume::Delete, retry_at: Some(until) }, vec![Effect::WakeAt(until), Effect::Look]),
    ];
    for (phase, effects) in cases {
        let mut story = Story::in_phase(phase.clone());
        assert_eq!(story.tell(Event::Recovered), effects, "{phase:?}");
        if matches!(phase, Phase::Running { .. }) {
            assert_eq!(story.life.phase, Phase::Running { misses: 0 });
            assert_eq!(story.seen(up("b1")), [], "nobody is killed for checks that an older service missed");
            assert_eq!(story.life.attempt, 3, "it goes on undisturbed");
        }
    }
}

#[test]
fn an_instance_that_was_launched_just_before_the_service_died_is_adopted() {
    let mut story = Story::in_phase(starting(Step::Creating, true));
    assert_eq!(story.job(Job::Create, created(None)), run(Job::Launch));
    assert_eq!(story.tell(Event::Recovered), run(Job::Create));
    assert_eq!(
        story.job(Job::Create, created(Some("b2"))),
        run(Job::Probe),
        "it runs with the files that were written"
    );
}

#[test]
fn a_clock_that_was_set_back_makes_nobody_wait_for_it() {
    let year = at(31_536_000_000);
    let halt = false;
    for (phase, secs) in [
        (starting(Step::BackingOff { until: year, halt }, false), 30),
        (Phase::Stopping { then: Then::Stay, since: year, retry_at: Some(year) }, 5),
        (Phase::Failed { resume: Resume::Start, retry_at: Some(year) }, 3600),
        (Phase::Failed { resume: Resume::Stop, retry_at: Some(year) }, 60),
        (Phase::Failed { resume: Resume::Delete, retry_at: Some(year) }, 60),
    ] {
        let mut story = Story::in_phase(phase.clone());
        let effects = story.tell(Event::Recovered);
        assert_eq!(effects[0], Effect::WakeAt(at(secs * 1000)), "{phase:?}");
    }

    // The patience that is counted from then begins anew.
    let mut story = Story::in_phase(Phase::Stopping { then: Then::Stay, since: year, retry_at: None });
    story.job(Job::Stop, failure(FailureKind::Transient, Code::Internal));
    assert!(matches!(story.life.phase, Phase::Stopping { since, .. } if since == story.now));
}
