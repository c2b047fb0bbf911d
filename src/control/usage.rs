//! Writes what agents used and answered down, once a minute, and reads it again.
//!
//! What is measured anyway is taken: health checks note an instance's figures. What the model has cost is asked of each
//! gateway, which tells sums; the first sum that is heard of a run is where it begins. The same figures of all agents
//! together are the service's. A service that is killed loses a minute.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::time::sleep;

use super::{AgentHandle, ControlPlane};
use crate::domain::{AgentId, Timestamp, elapsed};
use crate::store::{Batch, SERVICE, StoreError, UsageRow};
use crate::usage::{Block, Point, Ring, Tally};
use crate::view::Access;
use crate::zeroclaw::spending::Spent;

/// Figures that are older say nothing about this minute.
const FRESH: Duration = Duration::from_secs(90);
/// Rows of one commit, so that others need not wait for those of ten thousand agents.
const ROWS_PER_COMMIT: usize = 512;

/// How long a gateway may take to say what its model has cost, and how long all of them together.
const TOLD_WITHIN: Duration = Duration::from_secs(2);
const ALL_TOLD_WITHIN: Duration = Duration::from_secs(20);
/// Gateways that are asked at once.
const ASKED_AT_ONCE: usize = 64;
/// An agent that is younger had spent nothing when it was last asked, if it was there at all.
const NEW: Duration = Duration::from_secs(120);

/// What is known from one minute to the next.
#[derive(Default)]
struct Book {
    filling: HashMap<AgentId, Filling>,
    /// What each gateway last told.
    told: HashMap<AgentId, Spent>,
}

/// The blocks that are being filled, of one agent or of the service.
struct Filling {
    minutes: Block,
    hours: Block,
}

/// A minute of all agents.
#[derive(Default)]
struct Sum {
    tally: Tally,
    used: Option<(f64, f64)>,
    spent: Option<(u64, f64)>,
}

/// Runs until the control plane closes.
pub fn spawn(plane: ControlPlane) {
    let tasks = plane.shared.services.tasks.clone();
    tasks.spawn(async move {
        let closing = plane.shared.closing.clone();
        let mut book = Book::default();
        loop {
            let into = plane.now().as_millisecond().rem_euclid(60_000);
            let rest = Duration::from_millis(u64::try_from(60_000 - into).unwrap_or(60_000));
            if closing.run_until_cancelled(sleep(rest)).await.is_none() {
                return;
            }
            // The minute that has just ended.
            let minute = plane.now().checked_sub(Duration::from_secs(30)).unwrap_or(Timestamp::MIN);
            book.write(&plane, minute).await;
        }
    });
}

impl Book {
    async fn write(&mut self, plane: &ControlPlane, minute: Timestamp) {
        let (now, mut tallies) = (plane.now(), plane.shared.services.tallies.take());
        let agents = plane.shared.services.views.ids();
        self.forget_all_but(&agents);
        let spent = self.spent(plane, &agents).await;
        let (mut rows, mut sum) = (Vec::new(), Sum::default());
        for agent in agents {
            let usage = plane.shared.services.views.vitals(agent).usage.filter(|usage| is_within(usage.at, now, FRESH));
            let used = usage.map(|usage| (usage.cpu_percent, usage.memory_mb));
            let (tally, spent) = (tallies.remove(&agent), spent.get(&agent).map(|it| (it.tokens, it.cost_usd)));
            if used.is_none() && tally.is_none() && spent.is_none_or(|(tokens, _)| tokens == 0) {
                continue;
            }
            let tally = tally.unwrap_or_default();
            sum.add(&tally, used, spent);
            rows.extend(self.rows(plane, agent, minute, Point::of(tally, used, spent)).await);
            if rows.len() >= ROWS_PER_COMMIT {
                commit(plane, std::mem::take(&mut rows)).await;
            }
        }
        let service = Point::of(sum.tally, sum.used, sum.spent);
        if service != Point::default() {
            rows.extend(self.rows(plane, SERVICE, minute, service).await);
        }
        commit(plane, rows).await;
    }

    /// Agents that are gone need no place. `agents` are in order.
    fn forget_all_but(&mut self, agents: &[AgentId]) {
        let is_there = |agent: &AgentId| agents.binary_search(agent).is_ok();
        self.filling.retain(|agent, _| *agent == SERVICE || is_there(agent));
        self.told.retain(|agent, _| is_there(agent));
    }

    /// The rows that this point changes.
    async fn rows(&mut self, plane: &ControlPlane, agent: AgentId, minute: Timestamp, point: Point) -> Vec<UsageRow> {
        let mut blocks = match self.filling.remove(&agent) {
            Some(blocks) => blocks,
            None => match kept(plane, agent, minute).await {
                Ok(blocks) => blocks,
                Err(error) => {
                    tracing::debug!(%agent, %error, "figures of a minute are lost");
                    return Vec::new();
                }
            },
        };
        if !blocks.minutes.covers(minute) {
            blocks.minutes = Block::at(Ring::Minutes, minute);
        }
        if !blocks.hours.covers(minute) {
            blocks.hours = Block::at(Ring::Hours, minute);
        }
        blocks.minutes.set(minute, point);
        let points: Vec<Point> = blocks.minutes.points().map(|(_, point)| point).collect();
        blocks.hours.set(minute, Point::merged(&points));
        let row = |block: &Block| UsageRow { agent, slot: block.slot(), block: block.to_bytes() };
        let rows = vec![row(&blocks.minutes), row(&blocks.hours)];
        self.filling.insert(agent, blocks);
        rows
    }

    /// What each agent's model has cost since it was last asked.
    async fn spent(&mut self, plane: &ControlPlane, agents: &[AgentId]) -> HashMap<AgentId, Spent> {
        let now = plane.now();
        let running = agents.iter().filter_map(|agent| plane.shared.services.views.get(*agent)).filter_map(|view| {
            let is_new = is_within(view.record.created_at, now, NEW);
            Some((view.record.id, is_new, view.access.clone()?))
        });
        let running: Vec<(AgentId, bool, Arc<Access>)> = running.collect();
        let ask = |(agent, is_new, access): (AgentId, bool, Arc<Access>)| {
            let gateway = Arc::clone(&plane.shared.services.gateway);
            async move {
                let told = gateway.spent(access.endpoint, &access.token, TOLD_WITHIN).await;
                Some((agent, is_new, told.ok()??))
            }
        };
        let answers = stream::iter(running).map(ask).buffer_unordered(ASKED_AT_ONCE);
        let told: Vec<_> = answers.take_until(sleep(ALL_TOLD_WITHIN)).filter_map(std::future::ready).collect().await;
        let mut before = std::mem::take(&mut self.told);
        let mut since = HashMap::new();
        for (agent, is_new, now) in told {
            let spent = match before.insert(agent, now) {
                Some(before) => Some(now.since(before)),
                None => is_new.then_some(now),
            };
            since.extend(spent.map(|spent| (agent, spent)));
        }
        self.told = before;
        since
    }
}

impl Sum {
    fn add(&mut self, tally: &Tally, used: Option<(f64, f64)>, spent: Option<(u64, f64)>) {
        self.tally.add(tally);
        if let Some((cpu, memory)) = used {
            let (all_cpu, all_memory) = self.used.unwrap_or_default();
            self.used = Some((all_cpu + cpu, all_memory + memory));
        }
        if let Some((tokens, cost)) = spent {
            let (all_tokens, all_cost) = self.spent.unwrap_or_default();
            self.spent = Some((all_tokens + tokens, all_cost + cost));
        }
    }
}

/// Whether less than `span` has passed since then.
fn is_within(since: Timestamp, now: Timestamp, span: Duration) -> bool {
    elapsed(since, now) < span
}

async fn commit(plane: &ControlPlane, rows: Vec<UsageRow>) {
    if !rows.is_empty()
        && let Err(error) = plane.shared.services.store.commit(Batch::put_usage(rows)).await
    {
        tracing::debug!(%error, "figures of a minute are lost");
    }
}

/// What is there of an agent's present hour and day.
async fn kept(plane: &ControlPlane, agent: AgentId, minute: Timestamp) -> Result<Filling, StoreError> {
    let mut filling = Filling { minutes: Block::at(Ring::Minutes, minute), hours: Block::at(Ring::Hours, minute) };
    for (slot, bytes) in plane.shared.services.store.usage(agent).await? {
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
        self.plane.shared.services.tallies.note(self.id(), answered, took);
    }

    /// What the agent used and answered in each minute of the last day, or in each hour of the last thirty days: begins and
    /// points, oldest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn figures(&self, ring: Ring) -> Result<Vec<(Timestamp, Point)>, StoreError> {
        self.plane.figures_of(self.id(), ring).await
    }
}

impl ControlPlane {
    /// The same of all agents together.
    ///
    /// # Errors
    /// The store's.
    pub async fn figures(&self, ring: Ring) -> Result<Vec<(Timestamp, Point)>, StoreError> {
        self.figures_of(SERVICE, ring).await
    }

    async fn figures_of(&self, agent: AgentId, ring: Ring) -> Result<Vec<(Timestamp, Point)>, StoreError> {
        let rows = self.shared.services.store.usage(agent).await?;
        let blocks = rows.into_iter().filter_map(|(slot, bytes)| Block::from_bytes(slot, &bytes));
        let mut points: Vec<_> =
            blocks.filter(|block| block.ring() == ring).flat_map(|block| block.points().collect::<Vec<_>>()).collect();
        points.sort_by_key(|(at, _)| *at);
        Ok(points)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_the_service_are_the_sums_of_all_agents() {
        let mut sum = Sum::default();
        let tally = Tally::default();
        sum.add(&tally, None, None);
        assert_eq!((sum.used, sum.spent), (None, None), "nothing was measured");
        sum.add(&tally, Some((5.0, 300.0)), None);
        sum.add(&tally, None, Some((1200, 0.5)));
        sum.add(&tally, Some((7.5, 200.0)), Some((300, 0.25)));
        assert_eq!((sum.used, sum.spent), (Some((12.5, 500.0)), Some((1500, 0.75))));
    }

    #[test]
    fn agents_that_are_gone_are_forgotten_and_the_service_is_not() {
        let (here, gone) = (AgentId::from_bytes([1; 16]), AgentId::from_bytes([2; 16]));
        let at = Timestamp::UNIX_EPOCH;
        let mut book = Book::default();
        for agent in [SERVICE, here, gone] {
            let filling = Filling { minutes: Block::at(Ring::Minutes, at), hours: Block::at(Ring::Hours, at) };
            book.filling.insert(agent, filling);
        }
        book.told.extend([(here, Spent::default()), (gone, Spent::default())]);
        book.forget_all_but(&[here]);
        let mut filling: Vec<_> = book.filling.into_keys().collect();
        filling.sort();
        let mut kept = vec![SERVICE, here];
        kept.sort();
        assert_eq!((filling, book.told.into_keys().collect::<Vec<_>>()), (kept, vec![here]));
    }

    #[test]
    fn figure_counts_for_less_than_its_span() {
        let at = |secs| Timestamp::from_second(secs).unwrap();
        assert!(is_within(at(0), at(89), FRESH) && !is_within(at(0), at(90), FRESH));
        assert!(is_within(at(0), at(119), NEW) && !is_within(at(0), at(120), NEW));
    }
}
