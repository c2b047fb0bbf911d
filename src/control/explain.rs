//! Why an agent is in its status, what happens next, and what can be done.

use super::remedy;
use crate::domain::{Status, Timestamp};
use crate::lifecycle::{AfterStop, AgentState, Cause, Code, Phase, RetryTarget, Step, allowed};
use crate::view::{AgentView, Vitals};

/// An answer in words and in data.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Explanation {
    /// The status that is explained.
    pub status: Status,
    /// Why, in a sentence.
    pub because: String,
    /// What happens next by itself, in a sentence.
    pub next: String,
    /// When that happens; `None` where it has no fixed time.
    pub next_at: Option<Timestamp>,
    /// What a person can do about it, in a sentence; none where nothing needs doing.
    pub remedy: Option<&'static str>,
    /// How many starts were tried since it was created; the present one counts.
    pub attempt: u64,
    /// Restarts that no command asked for, since it was created.
    pub restarts: u64,
    /// Since when the engine has not said anything about the instance.
    pub unknown_since: Option<Timestamp>,
    /// Commands that would change something now, by their names in the API.
    pub allowed: Vec<&'static str>,
}

/// Pure: from what is known to what is said.
pub fn explain(view: &AgentView, vitals: &Vitals) -> Explanation {
    let state = &view.record.state;
    let (because, next, remedy) = match failed_model(view, vitals) {
        Some((class, why)) => (
            format!("it runs, but its model failed: {why}"),
            "the model is asked again with the next message",
            Some(remedy::of_class(class)),
        ),
        None => (
            because(state, vitals.waiting.as_deref()),
            next(&state.phase),
            state.reason.as_ref().and_then(remedy::of_cause),
        ),
    };
    Explanation {
        status: view.status(),
        because,
        next: next.into(),
        next_at: state.next_attempt_at(),
        remedy,
        attempt: state.attempt,
        restarts: state.restart_count,
        unknown_since: vitals.unknown_since,
        allowed: allowed(&state.phase),
    }
}

/// Class and reason. What was seen last of this run counts, even if its commit is under way; else what was committed.
fn failed_model<'a>(view: &'a AgentView, vitals: &'a Vitals) -> Option<(&'a str, &'a str)> {
    if view.status() != Status::Running {
        return None;
    }
    let state = &view.record.state;
    match vitals.model.as_ref().filter(|(attempt, _)| *attempt == state.attempt) {
        Some((_, Err(failure))) => Some((failure.class(), &failure.message)),
        Some((_, Ok(()))) => None,
        None => state.failed_model.as_ref().map(|model| (&*model.class, &*model.why)),
    }
}

/// STARTING has three meanings, told apart here: a deployment, a wait between two attempts, and a new pairing with an
/// instance that is up.
fn because(state: &AgentState, waiting: Option<&str>) -> String {
    let reason = state.reason.as_ref().map(Cause::message);
    match (&state.phase, reason) {
        (Phase::Starting { step: Step::Awaiting, .. }, _) => {
            let waiting = waiting.unwrap_or("it has not said what it is busy with");
            format!("{}: {waiting}", Code::EngineBusy.meaning())
        }
        (Phase::Starting { step: Step::BackingOff { .. }, away_since: Some(_), .. }, Some(reason)) => {
            format!("waiting for the engine: {reason}")
        }
        (Phase::Starting { step: Step::BackingOff { .. }, .. }, Some(reason)) => {
            format!("waiting before the next attempt: {reason}")
        }
        (Phase::Starting { step: Step::Pairing { .. }, .. }, Some(reason)) => {
            format!("pairing again with the running instance: {reason}")
        }
        (Phase::Starting { .. }, Some(reason)) => format!("starting again: {reason}"),
        (_, Some(reason)) => reason,
        (Phase::Running { .. }, None) => "it runs, and its gateway would answer messages".into(),
        (Phase::Pending | Phase::Starting { .. }, None) => "the deployment is under way".into(),
        (Phase::Stopping { .. } | Phase::Stopped | Phase::Failed { .. }, None) => "no reason was recorded".into(),
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
            Step::Awaiting => {
                "the instance runs; if the engine does not get it to run in time, the start is tried again"
            }
            Step::Probing { .. } => "the gateway is asked for its health until it answers",
            Step::Pairing { .. } => "the token is tried, or a pairing code is redeemed",
            Step::BackingOff { .. } => "the next attempt to start",
        },
        Phase::Running { misses: 0, .. } => "health checks go on",
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

impl Explanation {
    /// The whole of it on one line, for logs and refusals.
    pub fn sentence(&self) -> String {
        let at = self.next_at.map_or_else(String::new, |at| format!(" at {}", at.strftime("%FT%TZ")));
        let remedy = self.remedy.map_or_else(String::new, |remedy| format!(" To do: {remedy}."));
        format!("It is {}: {}. Next: {}{at}.{remedy}", self.status, self.because.trim_end_matches('.'), self.next)
    }
}

impl super::AgentHandle {
    /// Why it is as it is; `None` once it is gone.
    pub fn explain(&self) -> Option<Explanation> {
        self.view().map(|view| explain(&view, &self.vitals()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::RunId;

    fn said(step: Step, away_since: Option<Timestamp>, reason: Option<Cause>) -> String {
        let phase = Phase::Starting { step, stage: false, rebinds: 0, away_since };
        because(&AgentState { phase, reason, ..AgentState::new() }, None)
    }

    #[test]
    fn a_sentence_has_cause_next_step_and_remedy() {
        let explanation = Explanation {
            status: Status::Error,
            because: "the image cannot be pulled.".into(),
            next: "it is tried again by itself".into(),
            next_at: Some("2026-01-02T03:04:05.678Z".parse().unwrap()),
            remedy: Some("pull it by hand"),
            attempt: 1,
            restarts: 0,
            unknown_since: None,
            allowed: Vec::new(),
        };
        let said = "It is ERROR: the image cannot be pulled. Next: it is tried again by itself at 2026-01-02T03:04:05Z. \
                    To do: pull it by hand.";
        assert_eq!(explanation.sentence(), said);
    }

    #[test]
    fn the_meanings_of_starting_are_told_apart() {
        let at = Timestamp::UNIX_EPOCH;
        let back_off = Step::BackingOff { until: at, kill: false };
        let exited = || Some(Cause::because(Code::Exited, "exit code 1"));
        let texts = [
            said(Step::Creating, None, None),
            said(Step::Creating, None, exited()),
            said(back_off.clone(), None, exited()),
            said(back_off, Some(at), Some(Cause::new(Code::RuntimeUnavailable))),
            said(Step::Pairing { run_id: RunId("b1".into()) }, None, Some(Cause::new(Code::TokenRefused))),
        ];
        for (n, text) in texts.iter().enumerate() {
            assert!(!texts[..n].contains(text), "{text}");
        }
        assert_eq!(texts[2], "waiting before the next attempt: the instance ended by itself: exit code 1");
    }

    #[test]
    fn what_happens_next_is_another_sentence_in_each_phase() {
        let (at, run_id) = (Timestamp::UNIX_EPOCH, RunId("b1".into()));
        let starting = |step| Phase::Starting { step, stage: false, rebinds: 0, away_since: None };
        let stopping = |then| Phase::Stopping { then, since: at, retry_at: None };
        let failed = |resume, retry_at| Phase::Failed { resume, retry_at };
        let phases = [
            Phase::Pending,
            starting(Step::Killing),
            starting(Step::Creating),
            starting(Step::Rebinding),
            starting(Step::Launching),
            starting(Step::Awaiting),
            starting(Step::Probing { run_id: run_id.clone() }),
            starting(Step::Pairing { run_id: run_id.clone() }),
            starting(Step::BackingOff { until: at, kill: false }),
            Phase::Running { run_id: run_id.clone(), misses: 0 },
            Phase::Running { run_id, misses: 1 },
            stopping(AfterStop::Stay),
            stopping(AfterStop::Restart),
            stopping(AfterStop::Delete),
            Phase::Stopped,
            failed(RetryTarget::Start, None),
            failed(RetryTarget::Start, Some(at)),
            failed(RetryTarget::Stop, Some(at)),
            failed(RetryTarget::Delete, Some(at)),
        ];
        let sentences: Vec<_> = phases.iter().map(next).collect();
        for (n, sentence) in sentences.iter().enumerate() {
            assert!(!sentence.is_empty() && !sentences[..n].contains(sentence), "{:?}: {sentence}", phases[n]);
        }
        assert_eq!(
            next(&failed(RetryTarget::Stop, None)),
            next(&failed(RetryTarget::Start, None)),
            "only a command helps"
        );
    }
}
