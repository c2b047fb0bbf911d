//! Writes what agents used and answered down, once a minute, and reads it again.
//!
//! What is measured anyway is taken: health checks note an instance's figures. A service that is killed loses a minute.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::sleep;

use super::{AgentHandle, ControlPlane};
use crate::domain::{AgentId, Timestamp, elapsed};
use crate::store::{Batch, StoreError, UsageRow};
use crate::usage::{Block, Point, Ring};

/// Figures that are older say nothing about this minute.
const FRESH: Duration = Duration::from_secs(90);
/// Rows of one commit, so that others need not wait for those of ten thousand agents.
const ROWS_PER_COMMIT: usize = 512;

/// The blocks that are being filled, of one agent.
struct Filling {
    minutes: Block,
    hours: Block,
}

/// Runs until the control plane closes.
pub fn spawn(plane: ControlPlane) {
    let tasks = plane.services.tasks.clone();
    tasks.spawn(async move {
        let closing = plane.closing.clone();
        let mut filling = HashMap::new();
        loop {
            let into = plane.now().as_millisecond().rem_euclid(60_000);
            let rest = Duration::from_millis(u64::try_from(60_000 - into).unwrap_or(60_000));
            if closing.run_until_cancelled(sleep(rest)).await.is_none() {
                return;
            }
            // The minute that has just ended.
            let minute = plane.now().checked_sub(Duration::from_secs(30)).unwrap_or(Timestamp::MIN);
            write(&plane, &mut filling, minute).await;
        }
    });
}

async fn write(plane: &ControlPlane, filling: &mut HashMap<AgentId, Filling>, minute: Timestamp) {
    let (now, mut tallies) = (plane.now(), plane.services.tallies.take());
    let mut rows = Vec::new();
    let agents = plane.services.views.ids();
    filling.retain(|agent, _| agents.binary_search(agent).is_ok());
    for agent in agents {
        let usage = plane.services.views.vitals(agent).usage.filter(|usage| elapsed(usage.at, now) < FRESH);
        let used = usage.map(|usage| (usage.cpu_percent, usage.memory_mb));
        let tally = tallies.remove(&agent);
        if used.is_none() && tally.is_none() {
            continue;
        }
        let point = Point::of(tally.unwrap_or_default(), used);
        let blocks = match filling.remove(&agent) {
            Some(blocks) => blocks,
            None => match kept(plane, agent, minute).await {
                Ok(blocks) => blocks,
                Err(error) => {
                    tracing::debug!(%agent, %error, "figures of a minute are lost");
                    continue;
                }
            },
        };
        let blocks = filling.entry(agent).or_insert(blocks);
        if !blocks.minutes.covers(minute) {
            blocks.minutes = Block::at(Ring::Minutes, minute);
        }
        if !blocks.hours.covers(minute) {
            blocks.hours = Block::at(Ring::Hours, minute);
        }
        blocks.minutes.set(minute, point);
        let points: Vec<Point> = blocks.minutes.points().map(|(_, point)| point).collect();
        blocks.hours.set(minute, Point::merged(&points));
        for block in [&blocks.minutes, &blocks.hours] {
            rows.push(UsageRow { agent, slot: block.slot(), block: block.to_bytes() });
        }
        if rows.len() >= ROWS_PER_COMMIT {
            commit(plane, std::mem::take(&mut rows)).await;
        }
    }
    commit(plane, rows).await;
}

async fn commit(plane: &ControlPlane, rows: Vec<UsageRow>) {
    if !rows.is_empty()
        && let Err(error) = plane.services.store.commit(Batch::put_usage(rows)).await
    {
        tracing::debug!(%error, "figures of a minute are lost");
    }
}

/// What is there of an agent's present hour and day.
async fn kept(plane: &ControlPlane, agent: AgentId, minute: Timestamp) -> Result<Filling, StoreError> {
    let mut filling = Filling { minutes: Block::at(Ring::Minutes, minute), hours: Block::at(Ring::Hours, minute) };
    for (slot, bytes) in plane.services.store.usage(agent).await? {
        let Some(block) = Block::from_bytes(slot, &bytes).filter(|block| block.covers(minute)) else { continue };
        if slot == filling.minutes.slot() {
            filling.minutes = block;
        } else if slot == filling.hours.slot() {
            filling.hours = block;
        }
    }
    Ok(filling)
}

impl AgentHandle {
    /// A message was answered within this time, or failed.
    pub fn note_message(&self, answered: bool, took: Duration) {
        self.plane.services.tallies.note(self.id(), answered, took);
    }

    /// What the agent used and answered in each minute of the last day, or in each hour of the last thirty days: begins and
    /// points, oldest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn figures(&self, ring: Ring) -> Result<Vec<(Timestamp, Point)>, StoreError> {
        let rows = self.plane.services.store.usage(self.id()).await?;
        let blocks = rows.into_iter().filter_map(|(slot, bytes)| Block::from_bytes(slot, &bytes));
        let mut points: Vec<_> =
            blocks.filter(|block| block.ring() == ring).flat_map(|block| block.points().collect::<Vec<_>>()).collect();
        points.sort_by_key(|(at, _)| *at);
        Ok(points)
    }
}
