//! Keeps intent and engine together: wakes agents when the engine says so, and clears away what belongs to nobody.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use ractor::ActorRef;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::actor::{Orphans, Services, SupervisorMsg};
use crate::domain::AgentId;
use crate::runtime::{DataPolicy, InstanceKey, Resync};

/// How often instances are compared with records. Events do the daily work; this finds what no event told of.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// Runs until `closing`.
pub fn spawn(services: Arc<Services>, supervisor: ActorRef<SupervisorMsg>, closing: CancellationToken) {
    tokio::spawn(async move {
        let mut changes = services.runtime.watch();
        let mut sweep = interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut orphans = HashMap::new();
        loop {
            let wake = tokio::select! {
                // In order, so that a simulation can be repeated; the sweep must not wait for the changes to run dry.
                biased;
                () = closing.cancelled() => return,
                _ = sweep.tick() => {
                    orphans = clear_orphans(&services, orphans).await;
                    services.orphans.store(confirmed(&orphans), Ordering::Relaxed);
                    continue;
                }
                change = changes.next() => match change {
                    Some(Resync::Instance(agent)) => Some(agent),
                    Some(Resync::All) => None,
                    // A stream that ends breaks its promise; the health checks and the sweep still find what happens.
                    None => {
                        changes = futures_util::stream::pending().boxed();
                        continue;
                    }
                },
            };
            if supervisor.cast(SupervisorMsg::Resync(wake)).is_err() {
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
