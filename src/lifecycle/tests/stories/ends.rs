//! The way to STOPPED, and out of this world.

use super::*;

#[test]
fn a_stop_ends_a_start_in_each_of_its_steps() {
    let waiting = Step::BackingOff { until: at(9), kill: true };
    for step in [Step::Killing, Step::Creating, Step::Rebinding, Step::Launching, probing(), pairing(), waiting] {
        let superseded = step.job();
        let mut story = Story::in_phase(starting(step, true));
        let timer = story.state.revision;
        assert_eq!(story.command(Command::Stop), run(Job::Stop));
        // What was under way still reports, good or bad, and is not listened to.
        for outcome in [Outcome::Done, created(Some("b2")), failure(FailureKind::Permanent, Code::Internal)] {
            assert_eq!(superseded.map_or_else(Vec::new, |job| story.job(job, outcome)), []);
        }
        assert_eq!(story.tell(Event::Wake { revision: timer }), []);
        assert_eq!(story.job(Job::Stop, Outcome::Done), []);
        assert_eq!((story.state.status(), story.reason()), (Status::Stopped, Some(Code::Stopped)));
    }
}

#[test]
fn a_deletion_ends_every_phase() {
    let phases = [
        Phase::Pending,
        starting(Step::Launching, true),
        paired(2),
        stopping(AfterStop::Stay),
        stopping(AfterStop::Restart),
        Phase::Stopped,
        Phase::Failed { resume: RetryTarget::Start, retry_at: None },
        Phase::Failed { resume: RetryTarget::Stop, retry_at: Some(at(9)) },
        Phase::Failed { resume: RetryTarget::Delete, retry_at: Some(at(9)) },
    ];
    for phase in phases {
        let mut story = Story::in_phase(phase);
        assert_eq!(story.command(Command::Delete), run(Job::Remove));
        assert!(story.state.deleting());
        assert_eq!(story.job(Job::Stop, Outcome::Done), [], "a stop that was under way is not a removal");
        assert_eq!(story.job(Job::Remove, Outcome::Done), [Effect::End]);
    }
}

#[test]
fn a_deletion_that_is_not_possible_shows_as_error_and_goes_on_for_ever() {
    let failed = || failure(FailureKind::EngineAway, Code::RuntimeUnavailable);
    let mut story = running();
    story.command(Command::Delete);
    for _ in 0..3 {
        let mut effects = story.job(Job::Remove, failed());
        while story.state.status() == Status::Stopping {
            assert_eq!(story.wake(&effects), run(Job::Remove));
            effects = story.job(Job::Remove, failed());
        }
        assert_eq!((story.state.status(), story.reason()), (Status::Error, Some(Code::DeleteTimeout)));
        assert!(story.state.deleting());
        assert_eq!(story.wake(&effects), run(Job::Remove));
    }
    assert_eq!(story.job(Job::Remove, Outcome::Done), [Effect::End]);
}

#[test]
fn a_stop_whose_job_reports_nonsense_does_not_hang() {
    let mut story = Story::in_phase(stopping(AfterStop::Stay));
    let effects = story.job(Job::Stop, created(None));
    assert_eq!(story.reason(), Some(Code::Internal));
    assert_eq!(story.wake(&effects), run(Job::Stop));
}

#[test]
fn what_should_be_down_and_is_up_is_halted() {
    for phase in [Phase::Stopped, Phase::Failed { resume: RetryTarget::Start, retry_at: None }] {
        let mut story = Story::in_phase(phase);
        let before = story.state.clone();
        assert_eq!(story.tell(Event::Resync), [Effect::Observe]);
        assert_eq!(story.seen(up("b1")), run(Job::Kill));
        assert_eq!(story.job(Job::Kill, Outcome::Done), []);
        assert_eq!(story.seen(down(137)), []);
        // It could not be halted: somebody looks again, but not at once.
        let effects = story.job(Job::Kill, failure(FailureKind::Transient, Code::Internal));
        assert_eq!(effects, [Effect::WakeAt(at(5000))]);
        assert_eq!(story.wake(&effects), [Effect::Observe]);
        assert_eq!(story.state, before, "it is down by intent all the while");
    }
}

#[test]
fn a_stop_that_is_not_possible_in_time_shows_as_error_and_is_tried_again() {
    for (then, goal) in [(AfterStop::Stay, Status::Stopping), (AfterStop::Restart, Status::Pending)] {
        let mut story = Story::in_phase(stopping(then));
        story.now = at(60_000);
        let effects = story.job(Job::Stop, failure(FailureKind::Transient, Code::Internal));
        assert_eq!((story.state.status(), story.reason()), (Status::Error, Some(Code::StopTimeout)));
        story.wake(&effects);
        assert_eq!(story.state.status(), goal);
    }
}

#[test]
fn an_agent_at_rest_is_observed_again_when_the_engine_did_not_answer() {
    for phase in [Phase::Stopped, Phase::Failed { resume: RetryTarget::Start, retry_at: None }] {
        let mut story = Story::in_phase(phase);
        let effects = story.seen(Observation::Unknown);
        assert_eq!(story.wake(&effects), [Effect::Observe], "by its own timer, without an event");
        assert_eq!(story.seen(up("b9")), run(Job::Kill), "what runs against the record is ended");
    }
}
