mod crashes;
mod ends;
mod recovery;
mod starts;

use super::*;
use crate::domain::Status;

const INTERVAL: Effect = Effect::CheckHealth(Duration::from_secs(10));
const RETRY: Effect = Effect::CheckHealth(Duration::from_secs(1));

fn running() -> Story {
    Story::in_phase(Phase::Running { misses: 0 })
}

/// Takes an attempt that is creating its instance to RUNNING.
fn deploy(story: &mut Story, name: &str) {
    assert_eq!(story.job(Job::Create, created(None)), run(Job::Launch));
    assert_eq!(story.job(Job::Launch, launched(name)), [Effect::Run(Job::Probe), Effect::Observe]);
    assert_eq!(story.job(Job::Probe, Outcome::Done), run(Job::Pair));
    assert_eq!(story.job(Job::Pair, Outcome::Paired(Code::Paired)), [INTERVAL]);
    assert_eq!((story.state.status(), story.reason()), (Status::Running, None));
}
