//! Keeps intent and engine together: wakes agents when the engine says so, and clears away what belongs to nobody.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use ractor::ActorRef;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::actor::{Orphans, SupervisorMsg, World};
use crate::domain::AgentId;
use crate::runtime::{Changed, DataPolicy, InstanceKey};

/// How often instances are compared with records. Events do the daily work; this finds what no event told of.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// Runs until `closing`.
pub fn spawn(world: Arc<World>, supervisor: ActorRef<SupervisorMsg>, closing: CancellationToken) {
    tokio::spawn(async move {
        let mut changes = world.runtime.watch();
        let mut sweep = interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut orphans = HashMap::new();
        loop {
            let wake = tokio::select! {
                // In order, so that a simulation can be repeated; the sweep must not wait for the changes to run dry.
                biased;
                () = closing.cancelled() => return,
                _ = sweep.tick() => {
                    orphans = clear_orphans(&world, orphans).await;
                    world.orphans.store(confirmed(&orphans), Ordering::Relaxed);
                    continue;
                }
                change = changes.next() => match change {
                    Some(Changed::Instance(agent)) => Some(agent),
                    Some(Changed::Gap) => None,
                    // A stream that ends breaks its promise; the health checks and the sweep still find what happens.
                    None => {
                        changes = futures_util::stream::pending().boxed();
                        continue;
                    }
                },
            };
            if supervisor.cast(SupervisorMsg::Nudge(wake)).is_err() {
                return;
            }
        }
    });
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
async fn clear_orphans(world: &World, before: HashMap<AgentId, Orphan>) -> HashMap<AgentId, Orphan> {
    let limit = world.settings.limits.engine_call;
    let Ok(Ok(found)) = timeout(limit, world.runtime.list_owned()).await else { return before };
    let mut orphans = HashMap::new();
    for instance in found {
        let agent = instance.key.agent;
        if world.views.get(agent).is_some() {
            continue;
        }
        let Some(known) = before.get(&agent) else {
            orphans.insert(agent, Orphan::Suspect);
            continue;
        };
        // Read from the store, not from memory, before anything is destroyed.
        if !matches!(world.store.agent(agent).await, Ok(None)) {
            continue;
        }
        let gone = match world.settings.orphans {
            Orphans::Remove => remove(world, &instance.key).await,
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

async fn remove(world: &World, key: &InstanceKey) -> bool {
    tracing::warn!(agent = %key.agent, slug = %key.slug, "removing an instance that belongs to no agent");
    let removed = timeout(world.settings.limits.engine_call, world.runtime.remove(key, DataPolicy::Remove)).await;
    matches!(removed, Ok(Ok(())))
}
