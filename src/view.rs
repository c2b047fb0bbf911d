//! The read side: what is known of every agent, without asking its actor.
//!
//! Each entry has one writer (the registry while it is created, its actor from then on) and any number of readers, which
//! never wait for a mailbox. A view is replaced as a whole and never changed, so a reader sees one moment. To wait for a
//! change, subscribe; when an agent is gone its subscribers see the end of the channel.

mod send_queue;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

pub use self::send_queue::{Held, SendQueue};
use crate::by_id::ById;
use crate::domain::{AgentId, HostPort, Secret, Slug, Status, Timestamp, UserId};
pub use crate::lifecycle::{AfterStop, AgentState, Cause, Code, FailedModel, Phase, RetryTarget, Step};
use crate::runtime::Usage;
use crate::store::AgentRecord;
use crate::zeroclaw::client::ModelFailure;

/// One agent at one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AgentView {
    /// As it is committed.
    pub record: AgentRecord,
    /// The port of the host that is reserved for it; `None` where agents have addresses of their own.
    pub port: Option<HostPort>,
    /// How to reach its gateway; only while it is RUNNING and its run is known.
    pub access: Option<Arc<Access>>,
}

impl AgentView {
    /// The status of the committed record.
    pub const fn status(&self) -> Status {
        self.record.state.status()
    }
}

/// The way to a running agent's gateway.
#[derive(Debug)]
#[non_exhaustive]
pub struct Access {
    /// Where the gateway listens, as seen from the service.
    pub endpoint: SocketAddr,
    /// The bearer token that it accepts.
    pub token: Secret<String>,
    /// The attempt whose run it is: another one has another token.
    pub attempt: u64,
}

/// What is measured, not decided: kept in memory only.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Vitals {
    /// When the gateway last answered a health check.
    pub last_health_at: Option<Timestamp>,
    /// The engine's last figures of CPU and memory; `None` before the first.
    pub usage: Option<Usage>,
    /// Since when the engine has not answered for the instance.
    pub unknown_since: Option<Timestamp>,
    /// The machine that it runs on was lost to the engine at the last look.
    pub lost: bool,
    /// What the engine is busy with, of an agent that waits for its start.
    pub waiting: Option<Arc<str>>,
    /// When the gateway last said that it would answer messages.
    pub usable_at: Option<Timestamp>,
    /// The ZeroClaw that runs, where it tells.
    pub version: Option<String>,
    /// How the last message ended for the model, and in which attempt; `None` before there was one since the service was started.
    pub model: Option<(u64, Result<(), ModelFailure>)>,
    /// How often the timeline was told of a failed model, in the hour that began then.
    pub model_told: Option<(Timestamp, u32)>,
}

/// One agent, for whoever asks after it more than once: a request does so again and again, and each look-up is a lock that all
/// threads share.
pub(crate) struct Known {
    /// An agent never changes its owner.
    pub(crate) user: UserId,
    /// Closed once the agent is gone.
    view: watch::Receiver<Arc<AgentView>>,
    vitals: RwLock<Vitals>,
    send_queue: Arc<SendQueue>,
}

impl Known {
    /// The agent as it was committed last; `None` once it is gone.
    pub(crate) fn view(&self) -> Option<Arc<AgentView>> {
        self.there().map(|known| Arc::clone(&known.view.borrow()))
    }

    /// Every later view; a slow reader sees the latest alone. It ends when the agent is gone.
    pub(crate) fn subscribe(&self) -> Option<watch::Receiver<Arc<AgentView>>> {
        let mut views = self.there()?.view.clone();
        views.mark_unchanged();
        Some(views)
    }

    /// The queue of messages to the agent.
    pub(crate) fn send_queue(&self) -> Option<&Arc<SendQueue>> {
        self.there().map(|known| &known.send_queue)
    }

    /// What of its vitals is asked for, without a copy of them.
    pub(crate) fn look_at_vitals<T>(&self, look: impl FnOnce(&Vitals) -> T) -> Option<T> {
        let known = self.there()?;
        Some(look(&known.vitals.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Changes what was measured.
    pub(crate) fn update_vitals(&self, change: impl FnOnce(&mut Vitals)) {
        change(&mut self.vitals.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Itself, unless the agent is gone.
    fn there(&self) -> Option<&Self> {
        self.view.has_changed().is_ok().then_some(self)
    }
}

struct Entry {
    view: watch::Sender<Arc<AgentView>>,
    known: Arc<Known>,
}

impl Entry {
    fn new(view: Arc<AgentView>) -> Self {
        let user = view.record.user;
        let (sender, view) = watch::channel(view);
        let known = Known { user, view, vitals: RwLock::default(), send_queue: Arc::default() };
        Self { view: sender, known: Arc::new(known) }
    }
}

/// All agents.
#[derive(Default)]
pub struct Views {
    entries: ById<AgentId, Entry>,
    order: RwLock<Order>,
    slugs: dashmap::DashMap<Slug, AgentId>,
}

/// Agents by owner, in the order of creation, which is that of their ids.
#[derive(Default)]
struct Order {
    all: BTreeSet<AgentId>,
    by_user: HashMap<UserId, BTreeSet<AgentId>>,
}

/// One page of a list.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Page {
    /// In the order of creation.
    pub agents: Vec<Arc<AgentView>>,
    /// Where the next page begins, if there is one.
    pub next: Option<AgentId>,
}

impl Views {
    /// Puts a view in place of the one before it.
    pub fn put(&self, view: Arc<AgentView>) {
        let (id, user, slug) = (view.record.id, view.record.user, view.record.slug.clone());
        if let Some(entry) = self.entries.get(&id) {
            entry.view.send_replace(view);
            return;
        }
        self.slugs.insert(slug, id);
        self.entries.insert(id, Entry::new(view));
        let mut order = self.order.write().unwrap_or_else(PoisonError::into_inner);
        order.all.insert(id);
        order.by_user.entry(user).or_default().insert(id);
    }

    /// Forgets an agent; its subscribers see the end.
    pub fn remove(&self, id: AgentId) {
        let Some((_, entry)) = self.entries.remove(&id) else { return };
        let (user, slug) = {
            let view = entry.view.borrow();
            (view.record.user, view.record.slug.clone())
        };
        self.slugs.remove_if(&slug, |_, owner| *owner == id);
        let mut order = self.order.write().unwrap_or_else(PoisonError::into_inner);
        order.all.remove(&id);
        if let Some(theirs) = order.by_user.get_mut(&user) {
            theirs.remove(&id);
            if theirs.is_empty() {
                order.by_user.remove(&user);
            }
        }
    }

    /// The agent as it was committed last.
    pub fn get(&self, id: AgentId) -> Option<Arc<AgentView>> {
        self.entries.get(&id).map(|entry| Arc::clone(&entry.view.borrow()))
    }

    /// The agent, to be asked after without a look-up each time.
    pub(crate) fn known(&self, id: AgentId) -> Option<Arc<Known>> {
        self.entries.get(&id).map(|entry| Arc::clone(&entry.known))
    }

    /// The agent with this slug.
    pub fn by_slug(&self, slug: &Slug) -> Option<AgentId> {
        self.slugs.get(slug).map(|id| *id.value())
    }

    /// A copy of what was measured; empty for an agent that is gone.
    pub fn vitals(&self, id: AgentId) -> Vitals {
        self.known(id).and_then(|known| known.look_at_vitals(Vitals::clone)).unwrap_or_default()
    }

    /// Changes what was measured; nothing happens where the agent is gone.
    pub fn update_vitals(&self, id: AgentId, change: impl FnOnce(&mut Vitals)) {
        if let Some(known) = self.known(id) {
            known.update_vitals(change);
        }
    }

    /// How many agents there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All ids, in order of creation.
    pub fn ids(&self) -> Vec<AgentId> {
        self.order.read().unwrap_or_else(PoisonError::into_inner).all.iter().copied().collect()
    }

    /// Up to `limit` agents after `after`, of one user or of all, that are `wanted`.
    pub fn page(
        &self,
        user: Option<UserId>,
        after: Option<AgentId>,
        limit: usize,
        wanted: impl Fn(&AgentView) -> bool,
    ) -> Page {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let order = self.order.read().unwrap_or_else(PoisonError::into_inner);
        let ids = match user {
            Some(user) => order.by_user.get(&user),
            None => Some(&order.all),
        };
        let mut agents = Vec::new();
        let mut next = None;
        for &id in ids.into_iter().flat_map(|ids| ids.range((from, Bound::Unbounded))) {
            let Some(view) = self.get(id) else { continue };
            if !wanted(&view) {
                continue;
            }
            if agents.len() == limit {
                next = agents.last().map(|last: &Arc<AgentView>| last.record.id);
                break;
            }
            agents.push(view);
        }
        Page { agents, next }
    }

    /// How many agents are in each status, for metrics.
    pub fn count_by_status(&self) -> Vec<(Status, usize)> {
        let mut counts: Vec<_> = Status::ALL.iter().map(|status| (*status, 0)).collect();
        for entry in &self.entries {
            let status = entry.view.borrow().status();
            for (counted, count) in &mut counts {
                if *counted == status {
                    *count += 1;
                }
            }
        }
        counts
    }
}
