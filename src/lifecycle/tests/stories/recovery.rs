//! Restarts of the service, and clocks that are set.

use super::*;

#[test]
fn what_has_to_be_halted_is_halted_however_long_the_engine_is_away() {
    let mut story = Story::in_phase(starting(Step::Killing, false));
    let effects = story.job(Job::Kill, failure(FailureKind::EngineAway, Code::RuntimeUnavailable));
    assert_eq!(story.wake(&effects), run(Job::Kill));
    assert_eq!(story.tell(Event::Recovered), run(Job::Kill), "or the service is restarted");
}

#[test]
fn a_restart_of_the_service_takes_up_every_phase() {
    let until = at(700);
    let spread = Effect::CheckHealth(Duration::from_millis(70));
    let cases = [
        (Phase::Pending, run(Job::Kill)),
        (starting(Step::Killing, true), run(Job::Kill)),
        (starting(Step::Creating, true), run(Job::Create)),
        (starting(Step::Rebinding, false), run(Job::Create)),
        (starting(Step::Launching, false), run(Job::Create)),
        (starting(probing(), false), run(Job::Create)),
        (starting(pairing(), false), run(Job::Create)),
        (starting(Step::BackingOff { until, kill: true }, true), vec![Effect::WakeAt(until)]),
        (paired(0), vec![Effect::Observe, spread.clone()]),
        (paired(3), vec![Effect::Observe, spread]),
        (stopping(AfterStop::Stay), run(Job::Stop)),
        (stopping(AfterStop::Restart), run(Job::Stop)),
        (stopping(AfterStop::Delete), run(Job::Remove)),
        (Phase::Stopping { then: AfterStop::Delete, since: at(0), retry_at: Some(until) }, vec![Effect::WakeAt(until)]),
        (Phase::Stopped, vec![Effect::Observe]),
        (Phase::Failed { resume: RetryTarget::Start, retry_at: None }, vec![Effect::Observe]),
        (
            Phase::Failed { resume: RetryTarget::Delete, retry_at: Some(until) },
            vec![Effect::WakeAt(until), Effect::Observe],
        ),
    ];
    for (phase, effects) in cases {
        let mut story = Story::in_phase(phase.clone());
        assert_eq!(story.tell(Event::Recovered), effects, "{phase:?}");
        if matches!(phase, Phase::Running { .. }) {
            assert_eq!(story.state.phase, paired(0));
            assert_eq!(story.seen(up("b1")), [], "nobody is killed for checks that an older service missed");
            assert_eq!(story.state.attempt, 3, "it goes on undisturbed");
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
    let kill = false;
    for (phase, secs) in [
        (starting(Step::BackingOff { until: year, kill }, false), 30),
        (Phase::Stopping { then: AfterStop::Stay, since: year, retry_at: Some(year) }, 5),
        (Phase::Failed { resume: RetryTarget::Start, retry_at: Some(year) }, 3600),
        (Phase::Failed { resume: RetryTarget::Stop, retry_at: Some(year) }, 60),
        (Phase::Failed { resume: RetryTarget::Delete, retry_at: Some(year) }, 60),
    ] {
        let mut story = Story::in_phase(phase.clone());
        let effects = story.tell(Event::Recovered);
        assert_eq!(effects[0], Effect::WakeAt(at(secs * 1000)), "{phase:?}");
    }

    // The patience that is counted from then begins anew.
    let mut story = Story::in_phase(Phase::Stopping { then: AfterStop::Stay, since: year, retry_at: None });
    story.job(Job::Stop, failure(FailureKind::Transient, Code::Internal));
    assert!(matches!(story.state.phase, Phase::Stopping { since, .. } if since == story.now));
}
