//! Instances of this installation that belong to no agent: found, adopted, removed.
//!
//! The [sweep](super::reconcile) does it by its policy, an administrator by hand, for what the policy leaves: an instance
//! that does not tell whose it is, or whose user is gone.

use std::collections::HashSet;

use tokio::time::timeout;

use super::{ACTOR_PATIENCE, AgentHandle, ControlPlane, CreateError, recover};
use crate::actor::{Creation, RegistryMsg, RegistrySlot, Services, ask};
use crate::audit;
use crate::domain::{AgentId, Origin, UpgradeStage, UserId};
use crate::ledger::SlugRequest;
use crate::runtime::{DataPolicy, InstanceKey, ObservedInstance, RuntimeError, RuntimeResult};
use crate::store::{Batch, StoreError};

/// An instance without an agent, and what it tells of the one that it had.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Orphan {
    /// What the engine shows of it.
    pub seen: ObservedInstance,
    /// Whose it was and what it was to be; `None` where it does not tell.
    pub origin: Option<Origin>,
    /// Whether this installation deleted its agent; else the agent is newer than the store, or the store was lost.
    pub deleted_here: bool,
}

/// Why an orphan was not adopted or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OrphanError {
    /// No such instance, or it belongs to an agent.
    #[error("no instance without an agent has this id")]
    NotFound,
    /// It has no readable origin, and no user was named.
    #[error("it does not tell whose it is")]
    NoOwner,
    /// Another service takes care of this installation.
    #[error("this service does not hold the installation")]
    NotHeld,
    /// Its agent could not be recorded.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The engine could not do it, or does not answer.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ControlPlane {
    /// What belongs to no agent now, by id.
    ///
    /// # Errors
    /// See [`OrphanError`].
    pub async fn orphaned(&self) -> Result<Vec<ObservedInstance>, OrphanError> {
        let mut found = unclaimed(&self.shared.services).await?;
        found.sort_by_key(|seen| seen.key.agent);
        Ok(found)
    }

    /// What is known of one that belongs to no agent.
    ///
    /// # Errors
    /// See [`OrphanError`].
    pub async fn describe_orphan(&self, seen: ObservedInstance) -> Result<Orphan, OrphanError> {
        let deleted_here = self.store().was_deleted(seen.key.agent).await?;
        // What it tells is a help; that it is there is what counts.
        let origin = origin(&self.shared.services, &seen.key).await.unwrap_or_default();
        Ok(Orphan { seen, origin, deleted_here })
    }

    /// Makes it an agent of this user, by default of the one whom it names. Its data is used as it is; secrets that only its
    /// owner has are missing.
    ///
    /// # Errors
    /// See [`OrphanError`]; nothing was changed then.
    pub async fn adopt_orphan(&self, agent: AgentId, user: Option<UserId>) -> Result<AgentHandle, OrphanError> {
        let seen = self.orphan(agent).await?;
        adopt(&self.shared.services, &self.shared.registry, seen, user).await?;
        Ok(AgentHandle::new(self.clone(), agent))
    }

    /// Removes it with its data.
    ///
    /// # Errors
    /// See [`OrphanError`]; it may be asked for again.
    pub async fn remove_orphan(&self, agent: AgentId) -> Result<(), OrphanError> {
        let seen = self.orphan(agent).await?;
        // Nothing in the store changes. Before it is gone, so that nothing goes without a trace.
        audit::commit(self.store(), Batch::touch()).await?;
        Ok(remove(&self.shared.services, &seen.key).await?)
    }

    async fn orphan(&self, agent: AgentId) -> Result<ObservedInstance, OrphanError> {
        if !self.shared.services.lease.is_held() {
            return Err(OrphanError::NotHeld);
        }
        let found = unclaimed(&self.shared.services).await?.into_iter().find(|seen| seen.key.agent == agent);
        let found = found.ok_or(OrphanError::NotFound)?;
        // From the store, not from memory, before anything is changed.
        match self.store().agent(agent).await? {
            Some(_) => Err(OrphanError::NotFound),
            None => Ok(found),
        }
    }
}

/// Instances that no record is known of. A record may be a moment younger than the list.
pub(super) async fn unclaimed(services: &Services) -> RuntimeResult<Vec<ObservedInstance>> {
    let permit = services.engine_calls.acquire().await;
    let listed = timeout(services.settings.limits.engine_call, services.runtime.list_owned()).await;
    drop(permit);
    let mut found = listed.map_err(|_| late())??;
    let rehearsals = rehearsals(services);
    found.retain(|seen| !rehearsals.contains(&seen.key.agent) && services.views.get(seen.key.agent).is_none());
    Ok(found)
}

pub(super) async fn remove(services: &Services, key: &InstanceKey) -> RuntimeResult<()> {
    tracing::warn!(agent = %key.agent, slug = %key.slug, "removing an instance that belongs to no agent");
    let removal = services.runtime.remove(key, DataPolicy::Remove);
    timeout(services.settings.limits.engine_call, removal).await.map_err(|_| late())?
}

/// Records an instance that is newer than the store, e.g. after yesterday's backup was restored.
pub(super) async fn adopt(
    services: &Services,
    registry: &RegistrySlot,
    seen: ObservedInstance,
    owner: Option<UserId>,
) -> Result<(), OrphanError> {
    let (agent, slug) = (seen.key.agent, seen.key.slug.clone());
    let origin = origin(services, &seen.key).await?;
    let user = owner.or_else(|| Some(origin.as_ref()?.user)).ok_or(OrphanError::NoOwner)?;
    let record = recover::adopted(seen, origin, user, services.clock.now());
    let slug_wish = SlugRequest::Suggested(slug.clone());
    let creation = Creation { record, slug: slug_wish, idempotency: None, adopted: true, acting: audit::current() };
    let create = |reply| RegistryMsg::Create { creation: Box::new(creation), reply };
    ask(&registry.load_full(), create, ACTOR_PATIENCE)
        .await
        .map_err(CreateError::from)?
        .map_err(CreateError::refused)?;
    tracing::warn!(%agent, %slug, "an instance that no record knew was adopted; its secrets are missing");
    Ok(())
}

async fn origin(services: &Services, key: &InstanceKey) -> RuntimeResult<Option<Origin>> {
    match timeout(services.settings.limits.engine_call, services.runtime.origin(key)).await.map_err(|_| late())? {
        Err(RuntimeError::NotFound) => Ok(None),
        origin => origin,
    }
}

fn late() -> RuntimeError {
    RuntimeError::Unavailable("no answer in time".into())
}

/// Instances in which an upgrade is tried. They have no record of their own, and are removed by whoever tries it.
fn rehearsals(services: &Services) -> HashSet<AgentId> {
    let upgrade = |id| services.views.get(id)?.record.upgrade.clone();
    let instance = |stage| match stage {
        UpgradeStage::Rehearsing { instance } => Some(instance),
        UpgradeStage::Forward | UpgradeStage::Back => None,
    };
    services.views.ids().into_iter().filter_map(|id| instance(upgrade(id)?.stage)).collect()
}
