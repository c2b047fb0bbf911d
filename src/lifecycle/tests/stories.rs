mod crashes;
mod ends;
mod recovery;
mod starts;

use super::*;
use crate::domain::Status;

const INTERVAL: Effect = Effect::CheckHealth(Duration::from_secs(10));
const RETRY: Effect = Effect::CheckHealth(Duration::from_secs(1));

fn running() -> Story {
    Story::in_phase(paired(0))
}

/// Takes an attempt that is creating its instance to RUNNING.
fn deploy(story: &mut Story, name: &str) {
    assert_eq!(story.job(Job::Create, created(None)), run(Job::Launch));
    assert_eq!(story.job(Job::Launch, launched(name)), [Effect::Run(Job::Probe), Effect::Observe]);
    assert_eq!(story.job(Job::Probe, Outcome::Done), run(Job::Pair));
    assert_eq!(story.job(Job::Pair, Outcome::Paired(Code::Paired)), [INTERVAL]);
    assert_eq!((story.state.status(), story.reason()), (Status::Running, None));
}

#[test]
fn an_engine_that_needs_time_is_waited_for() {
    let mut story = Story::in_phase(starting(Step::Launching, false));
    let busy = Outcome::Accepted { why: "0/3 nodes are available".into() };
    assert_eq!(story.job(Job::Launch, busy), run(Job::Await));
    assert_eq!(story.state.phase, starting(Step::Awaiting, false));
    assert_eq!(story.seen(Observation::Absent), [], "the job finds out by itself");
    assert_eq!(story.job(Job::Await, launched("b1")), [Effect::Run(Job::Probe), Effect::Observe]);
    assert_eq!(story.state.run_id(), Some(&RunId("b1".into())));
}
