//! The way to an agent's gateway, for those who talk to it directly.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
#[cfg(feature = "server")]
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::message::MAX_HELD;
use super::{AgentHandle, DeliveryError};
use crate::actor::AgentMsg;
use crate::view::{Access, Known};
use crate::zeroclaw::profile::Profile;

/// The turn of a message that is not sent by [`AgentHandle::deliver`]: until it is dropped no other is sent.
#[cfg(feature = "server")]
pub struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl AgentHandle {
    /// Waits for a message's turn among those to this agent, first come first served, until `deadline`, which was `hold` away
    /// when it came; at once where the agent will not run by itself.
    ///
    /// # Errors
    /// See [`DeliveryError`]: nothing was sent.
    #[cfg(feature = "server")]
    pub(crate) async fn turn(&self, deadline: Instant, hold: Duration) -> Result<Turn, DeliveryError> {
        self.check_open()?;
        let queue = self.known().and_then(Known::send_queue).ok_or(DeliveryError::Gone)?;
        let _waiting = queue.enter(MAX_HELD).ok_or(DeliveryError::QueueFull)?;
        tokio::select! {
            biased;
            () = self.plane.shared.closing.cancelled() => Err(DeliveryError::Closing),
            turn = timeout_at(deadline, Arc::clone(&queue.turn).acquire_owned()) => match turn {
                Ok(Ok(permit)) => Ok(Turn { _permit: permit }),
                Ok(Err(_closed)) => Err(DeliveryError::Gone),
                Err(_elapsed) => Err(self.not_ready(hold)),
            },
        }
    }

    /// Address and token of the agent's gateway as soon as it runs, of a later attempt than `after`. Waits until
    /// `deadline`, which was `hold` away when the call came; at once where the agent will not run by itself.
    ///
    /// # Errors
    /// See [`DeliveryError`]: nothing was sent.
    pub async fn access(
        &self,
        deadline: Instant,
        hold: Duration,
        after: Option<u64>,
    ) -> Result<Arc<Access>, DeliveryError> {
        let view = self.view().ok_or(DeliveryError::Gone)?;
        if let Some(access) = view.access.as_ref().filter(|access| Some(access.attempt) > after) {
            return Ok(Arc::clone(access));
        }
        // In a box: nearly every call finds its agent running.
        self.access_later(deadline, hold, after).boxed().await
    }

    /// As [`AgentHandle::access`], of an agent that does not run at this moment.
    async fn access_later(
        &self,
        deadline: Instant,
        hold: Duration,
        after: Option<u64>,
    ) -> Result<Arc<Access>, DeliveryError> {
        // Those who wait are counted together with waiting messages: more would only wait to fail.
        let queue = self.known().and_then(Known::send_queue).ok_or(DeliveryError::Gone)?;
        let _waiting = queue.enter(MAX_HELD).ok_or(DeliveryError::QueueFull)?;
        tokio::select! {
            biased;
            () = self.plane.shared.closing.cancelled() => Err(DeliveryError::Closing),
            waited = timeout_at(deadline, self.ready(after)) => match waited {
                Ok(access) => access,
                Err(_elapsed) => Err(self.not_ready(hold)),
            },
        }
    }

    /// What is known of the version that this agent's gateway has: its own image's, where that is known.
    pub fn profile(&self) -> Profile {
        let software = self.view().and_then(|view| view.record.software.clone());
        software.map_or(self.plane.shared.services.profile, |software| software.profile)
    }

    /// Whether the gateway takes this token no longer. If so the agent is paired once more by itself.
    pub async fn is_token_refused(&self, access: &Access) -> bool {
        let within = self.plane.shared.services.settings.limits.health;
        let gateway = &self.plane.shared.services.gateway;
        let refused = matches!(gateway.accepts_token(access.endpoint, &access.token, within).await, Ok(false));
        if refused {
            self.tell(AgentMsg::TokenRefused { attempt: access.attempt });
        }
        refused
    }

    /// Says that no connection to the gateway could be opened: the agent is looked at.
    pub fn report_unreachable(&self) {
        self.tell(AgentMsg::Resync);
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(feature = "server", feature = "testkit"))]
    #[tokio::test(start_paused = true)]
    async fn nobody_queues_for_an_agent_that_will_not_run() {
        use super::*;
        use crate::domain::{Plan, Status};
        use crate::testkit;

        let (hold, patience) = (Duration::from_secs(5), Duration::from_secs(60));
        let world = testkit::plane(1, Plan::Free).await;
        let agent = world.running("Ada").await;
        let turn = agent.turn(Instant::now() + hold, hold).await.unwrap();
        let late = agent.turn(Instant::now() + hold, hold).await;
        assert_eq!(late.err(), Some(DeliveryError::NotReady { status: Status::Running, held: hold }));
        agent.stop().await.unwrap();
        agent.wait(&[Status::Stopped], patience).await.unwrap();
        let refused = agent.turn(Instant::now() + hold, hold).await;
        assert!(matches!(refused, Err(DeliveryError::NotRunning { status: Status::Stopped, .. })));
        drop(turn);
    }
}
