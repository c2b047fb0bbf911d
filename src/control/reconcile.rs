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

use crate::actor::{Orphans, Services, SupervisorMsg};
use crate::domain::AgentId;
use crate::runtime::{DataPolicy, InstanceKey, Resync};

/// How often instances are compared with records. Events do the daily work; this finds what no event told of.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// Runs both tasks until `closing`. `changes` is subscribed before the actors observe for the first time: a change after
/// that observation is then in the stream.
pub fn spawn(
    services: &Arc<Services>,
    changes: BoxStream<'static, Resync>,
    supervisor: ActorRef<SupervisorMsg>,
    closing: &CancellationToken,
) {
    services.tasks.spawn(closing.clone().run_until_cancelled_owned(watch(Arc::clone(services), changes, supervisor)));
    services.tasks.spawn(closing.clone().run_until_cancelled_owned(sweep(Arc::clone(services))));
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

async fn sweep(services: Arc<Services>) {
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut orphans = HashMap::new();
    loop {
        ticks.tick().await;
        orphans = clear_orphans(&services, orphans).await;
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
    /// Seen for the first time: its record may be a moment younger than our look at the records.
    Suspect,
    /// It was there in the sweep before, and the store does not know it.
    Confirmed,
}

fn confirmed(orphans: &HashMap<AgentId, Orphan>) -> u64 {
    orphans.values().filter(|orphan| **orphan == Orphan::Confirmed).count() as u64
}

/// Removes instances of ours that no record knows, or only tells of them, as the settings have it. Gives those that are
/// still there.
async fn clear_orphans(services: &Services, before: HashMap<AgentId, Orphan>) -> HashMap<AgentId, Orphan> {
    let limit = services.settings.limits.engine_call;
    let Ok(Ok(found)) = timeout(limit, services.runtime.list_owned()).await else { return before };
    let mut orphans = HashMap::new();
    for instance in found {
        let agent = instance.key.agent;
        if services.views.get(agent).is_some() {
            continue;
        }
        let Some(known) = before.get(&agent) else {
            orphans.insert(agent, Orphan::Suspect);
            continue;
        };
        // Read from the store, not from memory, before anything is destroyed.
        if !matches!(services.store.agent(agent).await, Ok(None)) {
            continue;
        }
        let gone = match services.settings.orphans {
            Orphans::Remove => remove(services, &instance.key).await,
            Orphans::Report => {
                if *known == Orphan::Suspect {
                    tracing::warn!(%agent, slug = %instance.key.slug, "an instance belongs to no agent; it is left as it is");
                }
                false
            }
        };
        if !gone {
            orphans.insert(agent, Orphan::Confirmed);
        }
    }
    orphans
}

async fn remove(services: &Services, key: &InstanceKey) -> bool {
    tracing::warn!(agent = %key.agent, slug = %key.slug, "removing an instance that belongs to no agent");
    let removed = timeout(services.settings.limits.engine_call, services.runtime.remove(key, DataPolicy::Remove)).await;
    matches!(removed, Ok(Ok(())))
}
