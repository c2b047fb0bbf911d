//! Why an agent is in its status, what happens next, and what can be done.

use crate::domain::{Status, Timestamp};
use crate::lifecycle::{AfterStop, Phase, RetryTarget, Step, allowed};
use crate::view::{AgentView, Vitals};

/// An answer in words and in data.
#[derive(Debug, Clone)]
pub struct Explanation {
    pub status: Status,
    /// Why, in a sentence.
    pub because: String,
    /// What happens next by itself, in a sentence.
    pub next: String,
    pub next_at: Option<Timestamp>,
    pub attempt: u64,
    pub restarts: u64,
    /// Since when the engine has not said anything about the instance.
    pub unknown_since: Option<Timestamp>,
    pub allowed: Vec<&'static str>,
}

/// Pure: from what is seen to what is said.
pub fn explain(view: &AgentView, vitals: &Vitals) -> Explanation {
    let state = &view.record.state;
    let because = match (&state.reason, &state.phase) {
        (Some(reason), _) => reason.message(),
        (None, Phase::Running { .. }) => "it runs, and its gateway would answer messages".into(),
        (None, _) => "the deployment goes on".into(),
    };
    let because = match (&vitals.model_failure, view.status()) {
        (Some(failure), Status::Running) => format!("it runs, but its model failed: {}", failure.message),
        _ => because,
    };
    Explanation {
        status: view.status(),
        because,
        next: next(&state.phase).into(),
        next_at: state.next_attempt_at(),
        attempt: state.attempt,
        restarts: state.restart_count,
        unknown_since: vitals.unknown_since,
        allowed: allowed(&state.phase),
    }
}

const fn next(phase: &Phase) -> &'static str {
    match phase {
        Phase::Pending => "the deployment begins at once",
        Phase::Starting { step, .. } => match step {
            Step::Killing => "what is left of an older run is ended, then the instance is created",
            Step::Creating => "the instance is created, its files are put into it",
            Step::Rebinding => "the agent gets another port",
            Step::Launching => "the instance is started",
            Step::Probing => "the gateway is asked for its health until it answers",
            Step::Pairing => "the token is tried, or a pairing code is redeemed",
            Step::BackingOff { .. } => "the next attempt to start",
        },
        Phase::Running { misses: 0 } => "health checks go on",
        Phase::Running { .. } => "if the gateway stays silent it is restarted",
        Phase::Stopping { then, .. } => match then {
            AfterStop::Stay => "when the instance has ended, the agent is stopped",
            AfterStop::Restart => "when the instance has ended, it is started again",
            AfterStop::Delete => "instance, data and record are removed",
        },
        Phase::Stopped => "nothing, until it is started",
        Phase::Failed { retry_at: None, .. } => "nothing, until it is changed or started",
        Phase::Failed { resume, .. } => match resume {
            RetryTarget::Start => "it is tried again by itself",
            RetryTarget::Stop => "the stop is tried again by itself",
            RetryTarget::Delete => "the deletion is tried again by itself",
        },
    }
}

impl super::AgentHandle {
    /// Why it is as it is; `None` once it is gone.
    pub fn explain(&self) -> Option<Explanation> {
        self.view().map(|view| explain(&view, &self.vitals()))
    }
}
