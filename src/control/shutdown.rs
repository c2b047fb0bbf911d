//! The end of a control plane, and what becomes of its agents.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{AgentHandle, ControlPlane, WaitError};
use crate::actor::{SupervisorMsg, ask};
use crate::domain::{AgentId, Status};

/// How long the actors may take to end, and how long the tasks beside them.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(15);
/// How long jobs may take to end: most stop at once, and what changes an instance takes one engine call.
const JOB_PATIENCE: Duration = Duration::from_secs(5);

/// What becomes of the agents when their control plane ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Agents {
    /// They run on; the next control plane on the same store takes them up again.
    Leave,
    /// They are stopped first, as by [`ControlPlane::stop_all`], and stay so until somebody starts them. Their data is kept.
    Stop {
        /// How long the control plane waits for them.
        within: Duration,
    },
}

impl ControlPlane {
    /// Stops all agents and waits until they are. Answers those that are not, at the end of `within`: their stop is stored,
    /// and this control plane or the next one carries it out.
    ///
    /// Agents that are created meanwhile are not among them. Dropped before it answers, it leaves some stopped and the rest as they were.
    pub async fn stop_all(&self, within: Duration) -> Vec<AgentId> {
        let deadline = Instant::now() + within;
        let agents: Vec<AgentHandle> =
            self.shared.services.views.ids().into_iter().map(|id| AgentHandle::new(self.clone(), id)).collect();
        // One after the other: a stop is a commit, and commits of one store come one after the other anyway.
        for agent in &agents {
            if let Err(error) = agent.stop().await {
                tracing::warn!(agent = %agent.id(), %error, "the agent cannot be stopped");
            }
        }
        let mut left = Vec::new();
        for agent in &agents {
            let remaining = deadline.saturating_duration_since(Instant::now());
            match agent.wait_through_retries(&[Status::Stopped], remaining).await {
                Ok(_) | Err(WaitError::Gone) => {}
                Err(WaitError::TimedOut | WaitError::OutOfReach { .. }) => left.push(agent.id()),
            }
        }
        left
    }

    /// Ends the control plane. What is closed, in this order:
    ///
    /// 1. with [`Agents::Stop`], all agents' instances; answers the agents that did not stop in time, and nobody otherwise;
    /// 2. messages on hold: they are refused, none of them was sent;
    /// 3. all actors, after the commits under way; calls of any handle fail from then on;
    /// 4. jobs, which end where they safely can and are dropped after a while, so that a control plane that is started next on the
    ///    same store never works on an instance beside them;
    /// 5. every [`EventStream`](super::EventStream), and the store, which is unlocked.
    ///
    /// It does not end what the caller runs on top: an HTTP server should have ended before, or its requests are refused. A second
    /// shutdown finds nothing left to do. Dropped before it answers, it leaves some of this closed: call it again.
    pub async fn shutdown(&self, agents: Agents) -> Vec<AgentId> {
        let left = match agents {
            Agents::Leave => Vec::new(),
            Agents::Stop { within } => self.stop_all(within).await,
        };
        self.shared.closing.cancel();
        if ask(&self.shared.supervisor, SupervisorMsg::Shutdown, SHUTDOWN_PATIENCE).await.is_err() {
            tracing::warn!("the actors did not end in time; what they had committed is safe");
        }
        if !self.shared.services.job_queues.shutdown(JOB_PATIENCE).await {
            tracing::warn!("a job did not end in time; the next start repeats it");
        }
        self.shared.services.tasks.close();
        if timeout(SHUTDOWN_PATIENCE, self.shared.services.tasks.wait()).await.is_err() {
            tracing::warn!("a task of the control plane did not end in time");
        }
        self.shared.claimant.release(&self.shared.services).await;
        self.shared.services.store.close().await;
        left
    }
}
