//! Keeps what is wanted and what the engine has together.
//!
//! Two tasks, so that neither waits for the other: the watcher passes the engine's wake-ups to the actors, and the sweep
//! lists the instances now and then and deals with those that belong to no agent.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use ractor::ActorRef;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::orphans::{self, OrphanError};
use crate::actor::{Orphans, RegistrySlot, Services, SupervisorMsg};
use crate::domain::AgentId;
use crate::runtime::{ObservedInstance, Resync};

/// How often instances are compared with records. Events do the daily work; this finds what no event told of.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// Runs both tasks until `closing`. `changes` is subscribed before the actors observe for the first time: a change after
/// that observation is then in the stream.
pub fn spawn(
    services: &Arc<Services>,
    changes: BoxStream<'static, Resync>,
    (supervisor, registry): (ActorRef<SupervisorMsg>, RegistrySlot),
    closing: &CancellationToken,
) {
    services.tasks.spawn(closing.clone().run_until_cancelled_owned(watch(Arc::clone(services), changes, supervisor)));
    services.tasks.spawn(closing.clone().run_until_cancelled_owned(sweep(Arc::clone(services), registry)));
}

/// A stream that ends breaks its promise; the health checks and the sweep still find what happens.
async fn watch(services: Arc<Services>, mut changes: BoxStream<'static, Resync>, supervisor: ActorRef<SupervisorMsg>) {
    while let Some(change) = changes.next().await {
        let agent = match change {
            Resync::Instance(agent) => Some(agent),
            Resync::All => None,
        };
        if agent.is_none() {
            attach(&services).await;
        }
        if supervisor.cast(SupervisorMsg::Resync(agent)).is_err() {
            return;
        }
    }
}

async fn sweep(services: Arc<Services>, registry: RegistrySlot) {
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut orphans = HashMap::new();
    loop {
        ticks.tick().await;
        orphans = clear_orphans(&services, &registry, orphans).await;
        services.orphans.store(confirmed(&orphans), Ordering::Relaxed);
    }
}

/// Instances are judged by their answers, so they must be reachable first: what ran on while this service, its container
/// or the engine was away may be in a network that this service is not in.
async fn attach(services: &Services) {
    match timeout(services.settings.limits.engine_call, services.runtime.attach()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "cannot join the agents' networks; it is tried again for each agent"),
        Err(_) => tracing::warn!("joining the agents' networks takes long; it is tried again for each agent"),
    }
}

/// How sure it is that an instance of ours belongs to no agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Orphan {
    /// Seen for the first time: its record may be a moment younger than the list of records.
    Suspect,
    /// It was there in the sweep before, and the store does not know it.
    Confirmed,
}

fn confirmed(orphans: &HashMap<AgentId, Orphan>) -> u64 {
    orphans.values().filter(|orphan| **orphan == Orphan::Confirmed).count() as u64
}

/// What to do with a confirmed orphan. Data is removed only where this store deleted the agent or an administrator chose so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Treatment {
    Remove,
    Adopt,
    Report,
}

const fn treatment(deleted_here: bool, policy: Orphans) -> Treatment {
    match (deleted_here, policy) {
        (true, _) | (false, Orphans::Remove) => Treatment::Remove,
        (false, Orphans::Adopt) => Treatment::Adopt,
        (false, Orphans::Report) => Treatment::Report,
    }
}

/// Deals with instances of ours that no record knows. Gives those that are still there.
async fn clear_orphans(
    services: &Services,
    registry: &RegistrySlot,
    before: HashMap<AgentId, Orphan>,
) -> HashMap<AgentId, Orphan> {
    let Ok(found) = orphans::unclaimed(services).await else { return before };
    let mut orphans = HashMap::new();
    for instance in found {
        let agent = instance.key.agent;
        if !services.lease.is_held() {
            continue;
        }
        let Some(known) = before.get(&agent) else {
            orphans.insert(agent, Orphan::Suspect);
            continue;
        };
        // Read from the store, not from memory, before anything is changed.
        let (Ok(None), Ok(deleted_here)) = (services.store.agent(agent).await, services.store.was_deleted(agent).await)
        else {
            continue;
        };
        let key = instance.key.clone();
        let settled = match treatment(deleted_here, services.settings.orphans) {
            Treatment::Remove => orphans::remove(services, &key).await.is_ok(),
            Treatment::Adopt => adopt(services, registry, instance).await,
            Treatment::Report => false,
        };
        if !settled {
            if *known == Orphan::Suspect {
                tracing::warn!(%agent, slug = %key.slug, "an instance belongs to no agent; it is left as it is");
            }
            orphans.insert(agent, Orphan::Confirmed);
        }
    }
    orphans
}

/// False where it does not tell whose it is, or is not adopted yet.
async fn adopt(services: &Services, registry: &RegistrySlot, seen: ObservedInstance) -> bool {
    let (agent, slug) = (seen.key.agent, seen.key.slug.clone());
    match orphans::adopt(services, registry, seen, None).await {
        Ok(_) => true,
        Err(OrphanError::NoOwner) => false,
        Err(error) => {
            tracing::warn!(%agent, %slug, %error, "an instance that no record knows is not adopted");
            false
        }
    }
}
