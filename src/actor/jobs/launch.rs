//! A start, and the wait for an engine that needs more time for it than a call may take.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{JobReport, JobResult, runtime_failure, superseded};
use crate::actor::Services;
use crate::lifecycle::{Cause, Code, Failure, FailureKind, Outcome};
use crate::runtime::{InstanceKey, InstanceState, Run, RuntimeError, Wait};

/// Between two looks at an instance that the engine is busy with: at first, and at the most.
const LOOK: Duration = Duration::from_millis(250);
const LATER_LOOK: Duration = Duration::from_secs(2);
/// How long an engine may fail with the same thing before that is the result: a registry may be away for a moment.
const STUCK: Duration = Duration::from_secs(20);

/// Tells the engine to run the instance.
pub(super) async fn launch(services: &Services, key: &InstanceKey) -> JobResult {
    match services.runtime.start(key).await.map_err(|error| runtime_failure(&error))? {
        InstanceState::Running(run) => Ok(launched(run)),
        InstanceState::Starting(wait) => {
            services.views.update_vitals(key.agent, |vitals| vitals.waiting = Some(Arc::clone(&wait.why)));
            Ok(Outcome::Accepted { why: wait.why }.into())
        }
        state => Err(not_started(state)),
    }
}

/// Waits until the engine has it running.
pub(super) async fn await_run(services: &Services, key: &InstanceKey, cancel: &CancellationToken) -> JobResult {
    let began = Instant::now();
    let deadline = began + services.settings.limits.engine_start;
    let mut stuck_since = None;
    loop {
        let seen = tokio::select! {
            biased;
            seen = services.runtime.observe(key) => seen,
            () = cancel.cancelled() => return Err(superseded()),
        };
        let why = match seen {
            Ok(Some(seen)) => match seen.state {
                InstanceState::Running(run) => return Ok(launched(run)),
                InstanceState::Starting(wait) => {
                    let since = *stuck_since.get_or_insert_with(Instant::now);
                    if wait.stuck && since.elapsed() >= STUCK {
                        return Err(stuck(&wait));
                    }
                    if !wait.stuck {
                        stuck_since = None;
                    }
                    wait.why
                }
                state => return Err(not_started(state)),
            },
            Ok(None) => return Err(transient(Cause::new(Code::InstanceGone))),
            // The engine may be back before the deadline, and what it does goes on meanwhile.
            Err(error) => error.to_string().into(),
        };
        services.views.update_vitals(key.agent, |vitals| {
            if vitals.waiting.as_ref() != Some(&why) {
                vitals.waiting = Some(Arc::clone(&why));
            }
        });
        if Instant::now() >= deadline {
            return Err(transient(Cause::because(Code::EngineBusy, why)));
        }
        tokio::select! {
            biased;
            () = sleep(pause_after(began.elapsed())) => {}
            () = cancel.cancelled() => return Err(superseded()),
        }
    }
}

/// How long to wait for the next look at a start that has taken so long: it is seen late by no more than an eighth of that.
/// Thousands may wait.
fn pause_after(waited: Duration) -> Duration {
    (waited / 8).clamp(LOOK, LATER_LOOK)
}

/// The run of an instance that is started for this, and awaited.
pub(super) async fn started(services: &Services, key: &InstanceKey) -> Result<Run, RuntimeError> {
    let deadline = Instant::now() + services.settings.limits.engine_start;
    let mut state = services.runtime.start(key).await?;
    loop {
        match state {
            InstanceState::Running(run) => return Ok(run),
            InstanceState::Starting(wait) if wait.stuck => return Err(RuntimeError::Invalid(wait.why.to_string())),
            InstanceState::Starting(wait) if Instant::now() >= deadline => {
                return Err(RuntimeError::Capacity(wait.why.to_string()));
            }
            InstanceState::Starting(_) => {}
            _ => return Err(RuntimeError::Failed("it ended before it ran".into())),
        }
        sleep(LOOK).await;
        state = services.runtime.observe(key).await?.ok_or(RuntimeError::NotFound)?.state;
    }
}

fn launched(run: Run) -> JobReport {
    JobReport { run: Some(run.clone()), ..Outcome::Launched { run_id: run.run_id }.into() }
}

fn stuck(wait: &Wait) -> Failure {
    Failure { kind: FailureKind::Permanent, cause: Cause::because(Code::CannotRun, Arc::clone(&wait.why)) }
}

/// It should run, and is in this state.
fn not_started(state: InstanceState) -> Failure {
    let cause = match state {
        InstanceState::Exited(exit) => Cause::exited(&exit),
        InstanceState::Unreachable(_) => {
            let cause = Cause::because(Code::RuntimeUnavailable, "the engine has lost the machine that it runs on");
            return Failure { kind: FailureKind::EngineAway, cause };
        }
        InstanceState::Created
        | InstanceState::Starting(_)
        | InstanceState::Running(_)
        | InstanceState::Paused(_)
        | InstanceState::Ending(_) => Cause::because(Code::StartFailed, "it was ended while it was started"),
    };
    transient(cause)
}

const fn transient(cause: Cause) -> Failure {
    Failure { kind: FailureKind::Transient, cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_that_takes_long_is_looked_at_less_often() {
        let looks = [(0, 250), (2000, 250), (4000, 500), (15_000, 1875), (16_000, 2000), (600_000, 2000)];
        for (waited, pause) in looks {
            assert_eq!(pause_after(Duration::from_millis(waited)), Duration::from_millis(pause), "{waited} ms");
        }
    }
}
