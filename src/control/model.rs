//! How an agent's model does, as its messages show: kept for those who ask why it does not answer, and told to its timeline.

use std::sync::Arc;
use std::time::Duration;

use super::AgentHandle;
use crate::actor::AgentMsg;
use crate::domain::{Credentials, Status, Timestamp, elapsed};
use crate::lifecycle::FailedModel;
use crate::zeroclaw::client::{ModelFailure, WebhookAnswer};

/// A model that fails every other message must not push everything else out of the timeline: so often it is told of one.
const TOLD_PER_HOUR: u32 = 30;
const HOUR: Duration = Duration::from_secs(60 * 60);

impl AgentHandle {
    /// Notes what a gateway's answer to a message says about the model.
    pub(super) fn note_answer(&self, answer: &WebhookAnswer) {
        match ModelFailure::read(answer) {
            Some(failure) => self.note_model(Err(failure)),
            None if answer.status == 200 => self.note_model(Ok(())),
            None => {}
        }
    }

    /// Notes that the model answered a message, or why it did not.
    pub fn note_model(&self, outcome: Result<(), ModelFailure>) {
        let Some(view) = self.view().filter(|view| view.status() == Status::Running) else { return };
        let Some(known) = self.known() else { return };
        let state = &view.record.state;
        let attempt = state.attempt;
        match outcome {
            Err(mut failure) => {
                failure.message = self.without_secrets(failure.message);
                tracing::warn!(
                    agent = %self.id(), slug = %view.record.slug, reason = failure.class(), status = failure.status,
                    retryable = failure.retryable, message = failure.message, "the agent's model failed"
                );
                let model = FailedModel { class: failure.class().into(), why: failure.message.as_str().into() };
                let news = state.failed_model.as_ref().is_none_or(|known| known.class != model.class);
                let (now, mut tells) = (self.plane.now(), false);
                known.update_vitals(|vitals| {
                    if news {
                        (vitals.model_told, tells) = told(vitals.model_told, now);
                    }
                    vitals.model = Some((attempt, Err(failure)));
                });
                if tells {
                    self.tell(AgentMsg::ModelFailed { attempt, model: Arc::new(model) });
                }
            }
            Ok(()) => {
                // Told already, or being told.
                let failed = known.look_at_vitals(|vitals| matches!(vitals.model, Some((_, Err(_)))));
                if failed == Some(true) || state.failed_model.is_some() {
                    known.update_vitals(|vitals| vitals.model = Some((attempt, Ok(()))));
                    self.tell(AgentMsg::ModelAnswered { attempt });
                }
            }
        }
    }

    pub(super) fn without_secrets(&self, text: String) -> String {
        let credentials = self.credentials();
        let secrets = credentials.iter().flat_map(Credentials::secrets);
        secrets.fold(text, |text, secret| text.replace(secret.expose().as_str(), "[redacted]"))
    }
}

/// Whether the timeline is told once more, with how often it then was.
fn told(before: Option<(Timestamp, u32)>, now: Timestamp) -> (Option<(Timestamp, u32)>, bool) {
    match before.filter(|(since, _)| elapsed(*since, now) < HOUR) {
        Some((since, count)) if count < TOLD_PER_HOUR => (Some((since, count + 1)), true),
        Some(spent) => (Some(spent), false),
        None => (Some((now, 1)), true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeline_is_told_a_bounded_number_of_times_an_hour() {
        let at = |secs| Timestamp::from_second(secs).unwrap();
        let mut so_far = None;
        let mut tells = |secs| {
            let (after, tells) = told(so_far, at(secs));
            so_far = after;
            tells
        };
        assert_eq!((0..100).filter(|secs| tells(*secs)).count(), TOLD_PER_HOUR as usize);
        assert!(!tells(3599));
        assert!(tells(3600) && tells(3601));
    }
}
