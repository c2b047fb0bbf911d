//! What becomes of messages: at most once, in order, to one run.

use std::collections::HashSet;

use super::{Inspector, Invariant};
use crate::control::DeliveryError;
use crate::domain::{AgentId, RunId};
use crate::testkit::state::Delivery;
use crate::zeroclaw::client::WebhookAnswer;

impl Inspector {
    /// A message is sent on to its agent for the first time. Messages are numbered as they came.
    pub fn sent_on(&mut self, agent: AgentId, number: u64) {
        let known = self.agents.entry(agent).or_default();
        if let Some(before) = known.sent_on.replace(number).filter(|before| *before >= number) {
            self.violated(Invariant::OrderIsKept, agent, format!("message {number} after {before}"));
        }
    }

    /// All that an agent's gateways ever read, in order.
    pub fn read(&mut self, agent: AgentId, deliveries: &[Delivery]) {
        let mut runs: Vec<&RunId> = deliveries.iter().map(|delivery| &delivery.run_id).collect();
        runs.dedup();
        if runs.iter().collect::<HashSet<_>>().len() < runs.len() {
            self.violated(Invariant::OneRunListens, agent, "an older run read a message after a newer one");
        }
    }

    /// What became of a message. Each text must be another one. `read` is how often the gateway read it.
    pub fn message(
        &mut self,
        agent: AgentId,
        text: &str,
        read: usize,
        outcome: Option<&Result<WebhookAnswer, DeliveryError>>,
    ) {
        if read > 1 {
            self.violated(Invariant::AtMostOnce, agent, format!("{text:?} was read {read} times"));
        }
        match outcome {
            Some(Ok(answer)) if answer.status == 200 => {
                let own = String::from_utf8_lossy(&answer.body).contains(&format!("echo: {text}\""));
                if read != 1 || !own {
                    self.violated(Invariant::AtMostOnce, agent, format!("{text:?} was answered with another's answer"));
                }
            }
            Some(Err(
                DeliveryError::Gone
                | DeliveryError::Closing
                | DeliveryError::NotRunning { .. }
                | DeliveryError::NotReady { .. }
                | DeliveryError::QueueFull
                | DeliveryError::Unauthorized,
            )) if read > 0 => {
                self.violated(Invariant::AtMostOnce, agent, format!("{text:?} was read, and refused as not sent"));
            }
            Some(
                Ok(_)
                | Err(
                    DeliveryError::Gone
                    | DeliveryError::Closing
                    | DeliveryError::NotRunning { .. }
                    | DeliveryError::NotReady { .. }
                    | DeliveryError::QueueFull
                    | DeliveryError::Unauthorized
                    | DeliveryError::Unknown(_)
                    | DeliveryError::TimedOut
                    | DeliveryError::Garbage(_),
                ),
            )
            | None => {}
        }
    }
}
