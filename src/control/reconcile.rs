//! Keeps intent and engine together: wakes agents when the engine says so, and clears away what belongs to nobody.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use ractor::ActorRef;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::actor::{SupervisorMsg, World};
use crate::domain::AgentId;
use crate::runtime::{Changed, DataPolicy};

/// How often instances are compared with records. Events do the daily work; this finds what no event told of.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// Runs until `closing`.
pub fn spawn(world: Arc<World>, supervisor: ActorRef<SupervisorMsg>, closing: CancellationToken) {
    tokio::spawn(async move {
        let mut changes = world.runtime.watch();
        let mut sweep = interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut suspects = HashSet::new();
        loop {
            let wake = tokio::select! {
                // In order, so that a simulation can be repeated; the sweep must not wait for the changes to run dry.
                biased;
                () = closing.cancelled() => return,
                _ = sweep.tick() => {
                    suspects = clear_orphans(&world, suspects).await;
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

/// Removes instances of ours that no record knows. One that is seen for the first time waits for the next sweep: its
/// record may be a moment younger than our look at the records. Gives the suspects of this sweep.
async fn clear_orphans(world: &World, suspects: HashSet<AgentId>) -> HashSet<AgentId> {
    let limit = world.settings.limits.engine_call;
    let Ok(Ok(found)) = timeout(limit, world.runtime.list_owned()).await else { return suspects };
    let mut unknown = HashSet::new();
    for instance in found {
        let agent = instance.key.agent;
        if world.views.get(agent).is_some() {
            continue;
        }
        if !suspects.contains(&agent) {
            unknown.insert(agent);
            continue;
        }
        // Read from the store, not from memory, before anything is destroyed.
        if !matches!(world.store.agent(agent).await, Ok(None)) {
            continue;
        }
        tracing::warn!(%agent, slug = %instance.key.slug, "removing an instance that belongs to no agent");
        let removed = timeout(limit, world.runtime.remove(&instance.key, DataPolicy::Remove)).await;
        if !matches!(removed, Ok(Ok(()))) {
            unknown.insert(agent);
        }
    }
    unknown
}
