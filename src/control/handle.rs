//! One agent, for those who use it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use ractor::ActorRef;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::{ACTOR_PATIENCE, ControlPlane};
use crate::actor::{AgentMsg, AskError, Change, CommandMsg, CommandReply, ask, key_of, open_credentials};
use crate::audit;
use crate::domain::{AgentId, Credentials, Status, UserId};
use crate::incident::{Incident, incidents};
use crate::lifecycle::{Command, allowed};
use crate::runtime::{LogLine, LogQuery, RuntimeError, RuntimeResult, Usage};
use crate::store::{LogEntry, StoreError};
use crate::view::{AgentView, Known, Vitals};
use crate::zeroclaw::client::{GatewayError, HealthReport};

/// Pause before an actor that is not up yet is looked for again: it takes microseconds, unless it keeps crashing.
const ACTOR_PAUSE: Duration = Duration::from_millis(2);

/// How long a command is repeated whose actor was rebuilt in the middle of it.
const REPEAT_WITHIN: Duration = Duration::from_secs(2);
const REPEAT_PAUSE: Duration = Duration::from_millis(10);

/// An agent that existed when the handle was made; every call finds out whether it still does.
#[derive(Clone)]
pub struct AgentHandle {
    pub(super) plane: ControlPlane,
    id: AgentId,
    /// `None` where it was gone already.
    known: Option<Arc<Known>>,
}

/// How a command went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandOutcome {
    /// Stored; what it leads to goes on by itself.
    Accepted,
    /// It was so already.
    Unchanged,
}

/// Why a command was not followed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// It was deleted.
    #[error("the agent is gone")]
    Gone,
    /// Its status does not allow the command. Nothing was changed.
    #[error("not possible while the agent is {status}")]
    Illegal {
        /// The status at that moment.
        status: Status,
        /// Commands that would change something, by their names in the API.
        allowed: Vec<&'static str>,
    },
    /// It has another generation than the command names. Nothing was changed.
    #[error("the agent was changed by someone else meanwhile")]
    Stale,
    /// The actor had no time, or was rebuilt in the middle: the command may have been followed. It can be repeated.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// The store did not take the change, so nothing was changed.
    #[error(transparent)]
    Store(StoreError),
}

/// Why a wait ended without the status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The time is over. The agent goes on.
    #[error("not reached in time")]
    TimedOut,
    /// It needs a new command, or failed: an agent in ERROR may try again by itself, see
    /// [`AgentHandle::wait_through_retries`].
    #[error("out of reach: the agent is {status}")]
    #[non_exhaustive]
    OutOfReach {
        /// What it is.
        status: Status,
        /// The commands that are possible.
        allowed: Vec<&'static str>,
    },
    /// It was deleted.
    #[error("the agent is gone")]
    Gone,
}

impl AgentHandle {
    pub(super) fn new(plane: ControlPlane, id: AgentId) -> Self {
        let known = plane.shared.services.views.known(id);
        Self { plane, id, known }
    }

    /// Of an agent that there is.
    pub(super) fn existing(plane: &ControlPlane, id: AgentId) -> Option<Self> {
        let known = plane.shared.services.views.known(id)?;
        Some(Self { plane: plane.clone(), id, known: Some(known) })
    }

    /// What is known of it, also of one that is gone since.
    pub(super) fn known(&self) -> Option<&Known> {
        self.known.as_deref()
    }

    /// Whose agent it is; `None` where it was gone when the handle was made.
    pub fn owner(&self) -> Option<UserId> {
        self.known().map(|known| known.user)
    }

    /// Whose handle this is.
    pub const fn id(&self) -> AgentId {
        self.id
    }

    /// The agent as it is now; `None` once it is gone.
    pub fn view(&self) -> Option<Arc<AgentView>> {
        self.known()?.view()
    }

    /// The agent as it is now and whenever it changes, until it is gone.
    pub fn changes(&self) -> Option<watch::Receiver<Arc<AgentView>>> {
        self.known()?.subscribe()
    }

    /// What was measured of it last; empty once it is gone.
    pub fn vitals(&self) -> Vitals {
        self.known().and_then(|known| known.look_at_vitals(Vitals::clone)).unwrap_or_default()
    }

    /// The agent's secrets in clear text, for their owner; `None` where they cannot be opened.
    pub fn credentials(&self) -> Option<Credentials> {
        open_credentials(&self.plane.shared.services, &self.view()?.record).ok()
    }

    /// Starts an agent that is stopped or in ERROR. As with all commands, it is stored when this answers, and
    /// [`AgentHandle::wait`] waits for what it leads to. Dropped before it answers, it may be carried out or not; commands can
    /// be repeated.
    ///
    /// # Errors
    /// See [`CommandError`]; the same for all commands.
    pub async fn start(&self) -> Result<CommandOutcome, CommandError> {
        self.settle(Command::Start, None).await
    }

    /// Stops it until somebody starts it again. Its data is kept.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn stop(&self) -> Result<CommandOutcome, CommandError> {
        self.settle(Command::Stop, None).await
    }

    /// Restarts it with a new pairing code and a new token.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn restart(&self) -> Result<CommandOutcome, CommandError> {
        self.settle(Command::Restart, None).await
    }

    /// Begins the deletion: instance, data, port and record. [`AgentHandle::gone`] waits for its end.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn delete(&self) -> Result<CommandOutcome, CommandError> {
        match self.settle(Command::Delete, None).await {
            Err(CommandError::Gone) => Ok(CommandOutcome::Unchanged),
            outcome => outcome,
        }
    }

    /// Begins the deletion if the agent still has this generation.
    ///
    /// # Errors
    /// [`CommandError::Stale`] where it has another one, else see [`CommandError`].
    pub async fn delete_if(&self, generation: u64) -> Result<CommandOutcome, CommandError> {
        self.settle(Command::Delete, Some(generation)).await
    }

    /// Repeats a command whose outcome is unknown because its actor crashed; commands may be repeated.
    async fn settle(&self, command: Command, if_generation: Option<u64>) -> Result<CommandOutcome, CommandError> {
        let deadline = Instant::now() + REPEAT_WITHIN;
        loop {
            match self.command(command, None, if_generation).await {
                Err(CommandError::Unknown(_)) if Instant::now() < deadline => sleep(REPEAT_PAUSE).await,
                outcome => return outcome,
            }
        }
    }

    pub(super) async fn command(
        &self,
        command: Command,
        change: Option<Box<Change>>,
        if_generation: Option<u64>,
    ) -> Result<CommandOutcome, CommandError> {
        let actor = self.actor().await?;
        let (asked_at, acting) = (Instant::now(), audit::current());
        let message =
            |reply| AgentMsg::Command(Box::new(CommandMsg { command, change, if_generation, asked_at, acting, reply }));
        let asked = ask(&actor, message, ACTOR_PATIENCE).await;
        match asked {
            Ok(CommandReply::Done) => Ok(CommandOutcome::Accepted),
            Ok(CommandReply::Already) => Ok(CommandOutcome::Unchanged),
            Ok(CommandReply::Refused { status, allowed }) => Err(CommandError::Illegal { status, allowed }),
            Ok(CommandReply::Stale) => Err(CommandError::Stale),
            Ok(CommandReply::NotStored(StoreError::Unknown(reason))) => Err(CommandError::Unknown(reason.to_string())),
            Ok(CommandReply::NotStored(error)) => Err(CommandError::Store(error)),
            Err(AskError::Gone) if self.view().is_none() => Err(CommandError::Gone),
            Err(error) => Err(CommandError::Unknown(error.to_string())),
        }
    }

    /// The agent's actor. One that was created a moment ago, or is being rebuilt, is waited for.
    async fn actor(&self) -> Result<ActorRef<AgentMsg>, CommandError> {
        let deadline = Instant::now() + ACTOR_PATIENCE;
        loop {
            if let Some(actor) = self.plane.shared.directory.get(&self.id).map(|entry| entry.value().clone()) {
                return Ok(actor);
            }
            if self.view().is_none() {
                return Err(CommandError::Gone);
            }
            if Instant::now() >= deadline {
                return Err(CommandError::Unknown("the agent's actor is not up at present".into()));
            }
            sleep(ACTOR_PAUSE).await;
        }
    }

    /// As [`AgentHandle::wait`], but an ERROR that the agent leaves by itself is not the end: it waits for the next try.
    ///
    /// # Errors
    /// At the timeout, when the agent is gone, or when it needs a command.
    pub async fn wait_through_retries(
        &self,
        statuses: &[Status],
        within: Duration,
    ) -> Result<Arc<AgentView>, WaitError> {
        let retries = |view: &AgentView| view.record.state.next_attempt_at().is_some();
        self.wait_until(statuses, within, |view| out_of_reach(view, statuses) && !retries(view)).await
    }

    /// Waits until the agent has one of the statuses.
    ///
    /// # Errors
    /// At the timeout, when the agent is gone, when none of them can be reached without a new command, or at an ERROR.
    pub async fn wait(&self, statuses: &[Status], within: Duration) -> Result<Arc<AgentView>, WaitError> {
        self.wait_until(statuses, within, |view| out_of_reach(view, statuses)).await
    }

    async fn wait_until(
        &self,
        statuses: &[Status],
        within: Duration,
        hopeless: impl Fn(&AgentView) -> bool,
    ) -> Result<Arc<AgentView>, WaitError> {
        let deadline = Instant::now() + within;
        let mut views = self.changes().ok_or(WaitError::Gone)?;
        loop {
            let view = Arc::clone(&views.borrow_and_update());
            if statuses.contains(&view.status()) {
                return Ok(view);
            }
            if hopeless(&view) {
                let allowed = allowed(&view.record.state.phase);
                return Err(WaitError::OutOfReach { status: view.status(), allowed });
            }
            match timeout_at(deadline, views.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_closed)) => return Err(WaitError::Gone),
                Err(_elapsed) => return Err(WaitError::TimedOut),
            }
        }
    }

    /// Waits until the agent is gone; false at the timeout.
    pub async fn gone(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let Some(mut views) = self.changes() else { return true };
        loop {
            match timeout_at(deadline, views.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_closed)) => return true,
                Err(_elapsed) => return false,
            }
        }
    }

    /// The timeline after `after`, oldest first, at most `limit` entries.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn events(&self, after: u64, limit: usize) -> Result<Vec<LogEntry>, StoreError> {
        self.plane.shared.services.store.events(self.id, after, limit).await
    }

    /// What went wrong with it and how it recovered, oldest first, as far back as the timeline goes.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn incidents(&self) -> Result<Vec<Incident>, StoreError> {
        self.events(0, usize::MAX).await.map(|entries| incidents(&entries))
    }

    /// The instance's output.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] before the instance was ever created.
    pub async fn logs(&self, query: LogQuery) -> RuntimeResult<BoxStream<'static, RuntimeResult<LogLine>>> {
        let view = self.view().ok_or(RuntimeError::NotFound)?;
        self.plane.shared.services.runtime.logs(&key_of(&view.record), query).await
    }

    /// What the instance uses now.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] before the instance was ever created, [`RuntimeError::Conflict`] when it does not run.
    pub async fn usage(&self) -> RuntimeResult<Usage> {
        let view = self.view().ok_or(RuntimeError::NotFound)?;
        let permit = self.plane.shared.services.engine_calls.acquire().await;
        let usage = self.plane.shared.services.runtime.usage(&key_of(&view.record)).await?;
        drop(permit);
        if let Some(known) = self.known() {
            known.update_vitals(|vitals| vitals.usage = Some(usage.clone()));
        }
        Ok(usage)
    }

    /// The gateway's own health answer; `None` while the agent is not running.
    ///
    /// # Errors
    /// When the gateway does not answer.
    pub async fn health(&self) -> Option<Result<HealthReport, GatewayError>> {
        let access = self.view()?.access.clone()?;
        let within = self.plane.shared.services.settings.limits.health;
        Some(self.plane.shared.services.gateway.health(access.endpoint, within).await)
    }
}

/// Whether only a new command could lead to one of the statuses. ERROR is final for those who wait for something else,
/// even if it is retried later: they should hear of it now.
fn out_of_reach(view: &AgentView, statuses: &[Status]) -> bool {
    match view.status() {
        Status::Error | Status::Stopped => true,
        Status::Stopping if !view.record.state.will_run() => {
            !statuses.contains(&Status::Stopped) && !statuses.contains(&Status::Error)
        }
        Status::Pending | Status::Starting | Status::Running | Status::Stopping => false,
    }
}

#[cfg(test)]
mod tests {
    #[cfg(feature = "testkit")]
    #[tokio::test(start_paused = true)]
    async fn whoever_has_a_handle_sees_each_change_and_the_end() {
        use super::*;
        use crate::domain::Plan;
        use crate::testkit;

        let patience = Duration::from_secs(60);
        let world = testkit::plane(1, Plan::Free).await;
        let agent = world.running("Ada").await;
        let other = world.plane.agent(agent.id()).unwrap();
        let mut changes = other.changes().unwrap();
        assert!(matches!(changes.has_changed(), Ok(false)), "what was before is no news");
        agent.stop().await.unwrap();
        agent.wait(&[Status::Stopped], patience).await.unwrap();
        assert_eq!(other.view().unwrap().status(), Status::Stopped);
        assert_eq!(changes.borrow_and_update().status(), Status::Stopped);
        assert_eq!(other.owner(), Some(world.user));
        agent.delete().await.unwrap();
        assert!(other.gone(patience).await);
        // Nobody waits for ever for an agent that is gone.
        while changes.changed().await.is_ok() {}
        assert!(other.view().is_none() && other.changes().is_none() && other.vitals().last_health_at.is_none());
        assert_eq!(other.start().await, Err(CommandError::Gone));
        assert!(world.plane.agent(agent.id()).is_none());
    }
}
