//! The registry: it assigns quota, slugs and ports, and is the one writer of users and keys.
//!
//! It answers after the store has it. A claim that the store refuses is given back. When it crashes it is rebuilt from
//! the store, which holds the same claims in the same transactions as the records.

mod accounts;
mod sign_in;

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::Services;
use super::account_change::AccountRefusal;
use super::creation_rule::CreationRequest;
use super::protocol::{CreateRefusal, Creation, RegistryMsg, SupervisorMsg};
use crate::audit;
use crate::domain::{AgentId, HostPort, Limits, Status, UserStatus};
use crate::ledger::Ledger;
use crate::lifecycle::{Cause, Code};
use crate::store::{Batch, Conflict, LogEntry, Snapshot, StoreError};
use crate::view::AgentView;

pub struct RegistryActor;

pub struct RegistryArgs {
    pub services: Arc<Services>,
    pub supervisor: ActorRef<SupervisorMsg>,
    pub snapshot: Snapshot,
}

pub struct RegistryState {
    services: Arc<Services>,
    supervisor: ActorRef<SupervisorMsg>,
    ledger: Ledger,
}

impl Actor for RegistryActor {
    type Msg = RegistryMsg;
    type State = RegistryState;
    type Arguments = RegistryArgs;

    async fn pre_start(
        &self,
        _: ActorRef<RegistryMsg>,
        args: RegistryArgs,
    ) -> Result<RegistryState, ActorProcessingErr> {
        let RegistryArgs { services, supervisor, snapshot } = args;
        let mut ledger = Ledger::new(services.runtime.caps().host_ports.then_some(services.settings.ports))
            .beginning_at(services.store.installation().seed());
        for agent in &snapshot.agents {
            let record = &agent.record;
            // The store keeps the same claims in one transaction with the record: a clash means that it is damaged.
            ledger.restore(record.id, record.user, record.slug.clone(), agent.port)?;
        }
        services.accounts.restore(snapshot);
        Ok(RegistryState { services, supervisor, ledger })
    }

    async fn handle(
        &self,
        _: ActorRef<RegistryMsg>,
        message: RegistryMsg,
        state: &mut RegistryState,
    ) -> Result<(), ActorProcessingErr> {
        // The caller may have gone meanwhile: what was committed stays.
        match message {
            RegistryMsg::Create { mut creation, reply } => {
                if reply.is_closed() {
                    return Ok(());
                }
                let created = audit::acting(creation.acting.take(), state.create(*creation)).await;
                let unknown = matches!(&created, Err(CreateRefusal::Store(StoreError::Unknown(_))));
                let _ = reply.send(created);
                rebuild_if(unknown)
            }
            RegistryMsg::SwapPort { agent, reply } => {
                let swapped = state.swap_port(agent).await;
                let unknown = matches!(&swapped, Err(NoPort { unknown: true, .. }));
                let _ = reply.send(swapped.map_err(|error| error.cause));
                rebuild_if(unknown)
            }
            RegistryMsg::Retire { agent, reply } => {
                let retired = state.retire(agent).await;
                let unknown = matches!(&retired, Err(StoreError::Unknown(_)));
                let _ = reply.send(retired);
                rebuild_if(unknown)
            }
            RegistryMsg::Account { change, acting, reply } => {
                let changed = audit::acting(acting, accounts::apply(&state.services, change)).await;
                let unknown = matches!(&changed, Err(AccountRefusal::Store(StoreError::Unknown(_))));
                let _ = reply.send(changed);
                rebuild_if(unknown)
            }
            RegistryMsg::Used { user, reply } => {
                let _ = reply.send(state.ledger.used(user));
                Ok(())
            }
            #[cfg(feature = "testkit")]
            RegistryMsg::Panic => panic!("a test makes the registry panic"),
        }
    }
}

/// A commit whose outcome is unknown: only the store knows what is true, so the registry is rebuilt from it.
fn rebuild_if(unknown: bool) -> Result<(), ActorProcessingErr> {
    if unknown { Err(Box::new(StoreError::Unknown("a commit of the registry".into()))) } else { Ok(()) }
}

/// Why an agent got no other port.
struct NoPort {
    cause: Cause,
    /// It may have been committed all the same.
    unknown: bool,
}

impl NoPort {
    fn certainly(code: Code, detail: impl Into<Arc<str>>) -> Self {
        Self { cause: Cause::because(code, detail), unknown: false }
    }
}

impl RegistryState {
    async fn create(&mut self, creation: Creation) -> Result<Arc<AgentView>, CreateRefusal> {
        let Creation { mut record, slug, idempotency, adopted, acting: _ } = creation;
        let user = self.services.accounts.user(record.user).filter(|user| user.status == UserStatus::Active);
        let user = user.ok_or(CreateRefusal::NoSuchUser)?;
        if self.ledger.allocation(record.id).is_some() {
            // A create that is repeated. What is not claimed here must not be given back when the store refuses it.
            return Err(StoreError::from(Conflict::Exists).into());
        }
        let mut limits: Limits = user.effective_limits();
        if adopted {
            // It exists already: a full quota is no reason to leave it without a record.
            limits.max_agents = None;
        }
        if !adopted {
            let agents_of_user = self.ledger.used(record.user);
            let request = CreationRequest { user: &user, spec: &record.spec, agents_of_user };
            self.services.creation_rule.ask(&request)?;
        }
        let now = self.services.clock.now();
        let allocation = self.ledger.claim(record.id, record.user, &limits, slug, now)?;
        record.slug = allocation.slug;
        record.updated_at = now;
        // What was adopted says so, and why it does not run.
        let cause = record.state.reason.clone().unwrap_or_else(|| Cause::new(Code::Created));
        let entry = LogEntry::new(Status::Pending, &record, &cause);
        let mut batch = Batch::create_agent(&record, allocation.port, &entry, limits.max_agents);
        if let Some(claim) = &idempotency {
            batch = batch.with_idempotency(record.user, &claim.key, &claim.record);
        }
        if let Err(error) = audit::commit(&self.services.store, batch).await {
            self.ledger.release(record.id);
            return Err(error.into());
        }
        tracing::info!(agent = %record.id, slug = %record.slug, port = ?allocation.port.map(HostPort::get), cause = entry.cause, "created");
        let view = Arc::new(AgentView { record, port: allocation.port, access: None });
        self.services.views.put(Arc::clone(&view));
        // The supervisor ends only with the whole service; the store has the agent for the next one.
        let _ = self
            .supervisor
            .cast(SupervisorMsg::TakeUp { record: Box::new(view.record.clone()), port: allocation.port });
        Ok(view)
    }

    async fn swap_port(&mut self, agent: AgentId) -> Result<HostPort, NoPort> {
        let Some(allocation) = self.ledger.allocation(agent) else {
            return Err(NoPort::certainly(Code::Internal, "the agent has no allocation"));
        };
        let from = allocation.port;
        let now = self.services.clock.now();
        let to = self
            .ledger
            .swap_port(agent, now)
            .map_err(|refusal| NoPort::certainly(Code::NoFreePort, refusal.to_string()))?;
        match self.services.store.commit(Batch::swap_port(agent, from, to)).await {
            Ok(()) => Ok(to),
            Err(error) => {
                self.ledger.unswap_port(agent, from);
                let unknown = matches!(error, StoreError::Unknown(_));
                Err(NoPort { unknown, ..NoPort::certainly(Code::Internal, error.to_string()) })
            }
        }
    }

    async fn retire(&mut self, agent: AgentId) -> Result<(), StoreError> {
        match self.services.store.commit(Batch::remove_agent(agent, self.services.clock.now())).await {
            // Removed before: a deletion that was repeated after a crash.
            Ok(()) | Err(StoreError::Rejected(Conflict::NotFound)) => {
                self.ledger.release(agent);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
