//! The supervisor: parent of the registry and of all agents. It rebuilds from the store what crashed, and nothing else.
//!
//! ractor reports a kill and a cancelled task as a plain termination, so this is where ends are told apart: only an actor
//! that stopped with the reason [`GONE`] is done. Any other is rebuilt, at first at once, then with growing delays, without
//! a limit: an actor that keeps crashing must not end the others, and its agent must not be forgotten.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::time::Instant;

use super::Services;
use super::agent::{AgentActor, AgentArgs};
use super::protocol::{AgentMsg, Directory, GONE, RegistryMsg, RegistrySlot, SupervisorMsg};
use super::registry::{RegistryActor, RegistryArgs};
use crate::domain::{AgentId, HostPort};
use crate::store::{AgentRecord, Snapshot, StoreError, StoredAgent};
use crate::view::AgentView;

pub struct Supervisor;

pub struct SupervisorArgs {
    pub services: Arc<Services>,
    pub snapshot: Snapshot,
    pub directory: Directory,
    /// Filled with the registry once it is up.
    pub registry: tokio::sync::oneshot::Sender<RegistrySlot>,
}

pub struct SupervisorState {
    services: Arc<Services>,
    directory: Directory,
    registry: Option<RegistrySlot>,
    children: HashMap<ActorId, Child>,
    crashes: HashMap<Child, Crashes>,
    /// What the first start works with; gone afterwards.
    first: Option<(Snapshot, tokio::sync::oneshot::Sender<RegistrySlot>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Child {
    Registry,
    Agent(AgentId),
}

/// How often a child crashed lately.
struct Crashes {
    in_a_row: u32,
    /// When the last rebuild was due: from then on the child lived.
    rebuilt: Instant,
}

impl Crashes {
    /// Counts a crash, and says how long to wait before the rebuild.
    fn again(&mut self, now: Instant) -> Duration {
        if now.duration_since(self.rebuilt) > REBUILD_FORGET {
            self.in_a_row = 0;
        }
        let delay = match self.in_a_row {
            0 => Duration::ZERO,
            n => REBUILD_DELAY.saturating_mul(2_u32.saturating_pow(n - 1)).min(REBUILD_DELAY_MAX),
        };
        self.in_a_row += 1;
        self.rebuilt = now + delay;
        delay
    }
}

/// Delay before the second rebuild in a row; doubles up to the maximum. The first is immediate.
const REBUILD_DELAY: Duration = Duration::from_millis(50);
const REBUILD_DELAY_MAX: Duration = Duration::from_secs(60);
/// A child that lived this long starts a new count.
const REBUILD_FORGET: Duration = Duration::from_secs(60);
/// How long one child may take to end in a shutdown: a commit under way, no more.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

impl Actor for Supervisor {
    type Msg = SupervisorMsg;
    type State = SupervisorState;
    type Arguments = SupervisorArgs;

    async fn pre_start(
        &self,
        _: ActorRef<SupervisorMsg>,
        args: SupervisorArgs,
    ) -> Result<SupervisorState, ActorProcessingErr> {
        let SupervisorArgs { services, snapshot, directory, registry } = args;
        Ok(SupervisorState {
            services,
            directory,
            registry: None,
            children: HashMap::new(),
            crashes: HashMap::new(),
            first: Some((snapshot, registry)),
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<SupervisorMsg>,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        let Some((snapshot, found)) = state.first.take() else { return Ok(()) };
        let agents = snapshot.agents.clone();
        let actor = state.spawn_registry(&myself, snapshot).await?;
        let slot: RegistrySlot = Arc::new(ArcSwap::from_pointee(actor));
        state.registry = Some(Arc::clone(&slot));
        for StoredAgent { record, port } in agents {
            state.spawn_agent(&myself, record, port).await?;
        }
        // Whoever built us waits for this; if it has gone there is nobody to serve.
        let _ = found.send(slot);
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<SupervisorMsg>,
        message: SupervisorMsg,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupervisorMsg::TakeUp { record, port } => state.spawn_agent(&myself, *record, port).await?,
            SupervisorMsg::Rebuild(agent) => state.rebuild(&myself, agent).await?,
            SupervisorMsg::RebuildRegistry => state.rebuild_registry(&myself).await?,
            SupervisorMsg::Resync(Some(agent)) => {
                if let Some(actor) = state.directory.get(&agent).map(|entry| entry.value().clone()) {
                    let _ = actor.cast(AgentMsg::Resync);
                }
            }
            SupervisorMsg::Resync(None) => {
                for actor in state.agents() {
                    let _ = actor.cast(AgentMsg::Resync);
                }
            }
            SupervisorMsg::Shutdown(reply) => {
                state.shutdown().await;
                let _ = reply.send(());
                // A stop comes before everything that waits in the mailbox, ends of children included: what is closing
                // rebuilds and takes up nobody. The store keeps them for the next start.
                myself.stop(None);
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<SupervisorMsg>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        let (id, crash) = match event {
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => return Ok(()),
            SupervisionEvent::ActorTerminated(cell, boxed, reason) => {
                // The state holds the agent's jobs and timers: they end here.
                drop(boxed);
                let asked = reason.as_deref() == Some(GONE);
                if !asked {
                    state.services.counters.actor_killed();
                }
                (cell.get_id(), (!asked).then(|| reason.unwrap_or_else(|| "terminated".into())))
            }
            SupervisionEvent::ActorFailed(cell, error) => {
                let counters = &state.services.counters;
                // Our handlers fail with the store's error and with nothing else.
                if error.is::<StoreError>() {
                    counters.actor_failed()
                } else {
                    counters.actor_panicked()
                }
                (cell.get_id(), Some(error.to_string()))
            }
        };
        let Some(child) = state.children.remove(&id) else { return Ok(()) };
        if let Child::Agent(agent) = child {
            state.directory.remove_if(&agent, |_, actor| actor.get_id() == id);
        }
        match crash {
            Some(crash) => {
                let delay = state.delay(child);
                tracing::error!(?child, crash, delay_ms = delay.as_millis(), "an actor crashed and will be rebuilt");
                myself.send_after(delay, move || match child {
                    Child::Registry => SupervisorMsg::RebuildRegistry,
                    Child::Agent(agent) => SupervisorMsg::Rebuild(agent),
                });
            }
            None => {
                state.crashes.remove(&child);
            }
        }
        Ok(())
    }
}

impl SupervisorState {
    async fn spawn_registry(
        &mut self,
        myself: &ActorRef<SupervisorMsg>,
        snapshot: Snapshot,
    ) -> Result<ActorRef<RegistryMsg>, ActorProcessingErr> {
        let args = RegistryArgs { services: Arc::clone(&self.services), supervisor: myself.clone(), snapshot };
        let (actor, _) = Actor::spawn_linked(None, RegistryActor, args, myself.get_cell()).await?;
        self.children.insert(actor.get_id(), Child::Registry);
        Ok(actor)
    }

    async fn spawn_agent(
        &mut self,
        myself: &ActorRef<SupervisorMsg>,
        record: AgentRecord,
        port: Option<HostPort>,
    ) -> Result<(), ActorProcessingErr> {
        let Some(registry) = self.registry.clone() else { return Ok(()) };
        let id = record.id;
        if self.directory.contains_key(&id) {
            return Ok(());
        }
        let view = Arc::new(AgentView { record, port, access: None });
        self.services.views.put(Arc::clone(&view));
        let args = AgentArgs { services: Arc::clone(&self.services), view, registry };
        let (actor, _) = Actor::spawn_linked(None, AgentActor, args, myself.get_cell()).await?;
        self.children.insert(actor.get_id(), Child::Agent(id));
        self.directory.insert(id, actor);
        Ok(())
    }

    async fn rebuild(&mut self, myself: &ActorRef<SupervisorMsg>, agent: AgentId) -> Result<(), ActorProcessingErr> {
        match self.services.store.agent(agent).await {
            Ok(Some(StoredAgent { record, port })) => self.spawn_agent(myself, record, port).await,
            Ok(None) => {
                self.services.views.remove(agent);
                self.crashes.remove(&Child::Agent(agent));
                Ok(())
            }
            Err(error) => {
                let delay = self.delay(Child::Agent(agent));
                tracing::error!(%agent, %error, "the agent's record cannot be read at present");
                myself.send_after(delay, move || SupervisorMsg::Rebuild(agent));
                Ok(())
            }
        }
    }

    async fn rebuild_registry(&mut self, myself: &ActorRef<SupervisorMsg>) -> Result<(), ActorProcessingErr> {
        match self.services.store.load().await {
            Ok(snapshot) => {
                // A creation may have been committed whose actor was never asked for: its record is in the snapshot.
                let unseen: Vec<StoredAgent> = snapshot
                    .agents
                    .iter()
                    .filter(|agent| self.services.views.get(agent.record.id).is_none())
                    .cloned()
                    .collect();
                let actor = self.spawn_registry(myself, snapshot).await?;
                if let Some(slot) = &self.registry {
                    slot.store(Arc::new(actor));
                }
                for StoredAgent { record, port } in unseen {
                    self.spawn_agent(myself, record, port).await?;
                }
            }
            Err(error) => {
                let delay = self.delay(Child::Registry);
                tracing::error!(%error, "the store cannot be read at present: no agent can be created or deleted");
                myself.send_after(delay, || SupervisorMsg::RebuildRegistry);
            }
        }
        Ok(())
    }

    /// How long to wait before a child is rebuilt; counts the crash.
    fn delay(&mut self, child: Child) -> Duration {
        let now = Instant::now();
        self.crashes.entry(child).or_insert(Crashes { in_a_row: 0, rebuilt: now }).again(now)
    }

    /// All agents' actors, in the same order each time.
    fn agents(&self) -> Vec<ActorRef<AgentMsg>> {
        let mut agents: Vec<_> = self.directory.iter().map(|entry| (*entry.key(), entry.value().clone())).collect();
        agents.sort_unstable_by_key(|(agent, _)| *agent);
        agents.into_iter().map(|(_, actor)| actor).collect()
    }

    /// Ends the children before the parent: a parent that ends first kills them in the middle of a commit.
    async fn shutdown(&mut self) {
        let agents = self.agents();
        for actor in &agents {
            actor.stop(None);
        }
        for actor in agents {
            // One that takes longer is killed with us; its commit is whole or not there.
            let _ = actor.wait(Some(SHUTDOWN_PATIENCE)).await;
        }
        if let Some(slot) = &self.registry {
            let registry = slot.load_full();
            registry.stop(None);
            let _ = registry.wait(Some(SHUTDOWN_PATIENCE)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A child that crashes as soon as it is rebuilt.
    #[test]
    fn first_rebuild_is_immediate_and_the_next_ones_wait_longer_and_longer() {
        let mut now = Instant::now();
        let mut crashes = Crashes { in_a_row: 0, rebuilt: now };
        let mut delays = Vec::new();
        for _ in 0..14 {
            let delay = crashes.again(now);
            delays.push(delay.as_millis());
            now += delay;
        }
        assert_eq!(delays, [0, 50, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000]);
    }

    #[test]
    fn child_that_lived_for_more_than_a_minute_starts_a_new_count() {
        let begun = Instant::now();
        let minute = Duration::from_secs(60);
        for (lived, delay) in [(minute, REBUILD_DELAY), (minute + Duration::from_nanos(1), Duration::ZERO)] {
            let mut crashes = Crashes { in_a_row: 0, rebuilt: begun };
            crashes.again(begun);
            assert_eq!(crashes.again(begun + lived), delay, "{lived:?}");
        }
        // What counts is how long it lived, not how long ago it crashed.
        let mut crashes = Crashes { in_a_row: 12, rebuilt: begun };
        assert_eq!(crashes.again(begun), minute);
        assert_eq!(crashes.again(begun + minute + minute), minute);
        assert_eq!(crashes.again(begun + minute * 4 + Duration::from_secs(1)), Duration::ZERO);
    }
}
