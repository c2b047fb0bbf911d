//! The store: every agent's state, durable before it is acknowledged.
//!
//! A redb file with one writer. Batches go through a queue to a thread that commits what has piled up in one go; each
//! batch is checked against the store in the transaction that writes it, so quotas, ports and slugs cannot be claimed
//! twice. Reads see the last commit and never wait for a write.
//!
//! ```text
//! commit(batch) ─► queue ─► writer thread ─► one transaction, one durable commit ─► answers
//!                                  └─ the disk failed ─► close, open anew, go on
//! ```
//!
//! The store decides nothing: what may follow what is the lifecycle's business. It keeps no measurements, which would
//! wear it out for nothing, and no secrets that are not sealed.
//!
//! Programs that embed the crate open a store and read it; only the control plane writes.
//!
//! In memory ([`Store::in_memory`]) it is the same store on another medium, without thread and clock: a commit is done
//! when the call returns, so that simulations are reproducible.

mod answer;
mod append;
mod apply;
mod audit;
mod backup;
pub(crate) mod batch;
mod codec;
mod disk;
mod engine;
mod error;
mod event_log;
mod memory;
mod place;
mod queue;
mod read;
mod records;
mod schema;
mod sign_in;
mod tables;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redb::ReadTransaction;

use crate::domain::{AgentId, InstallationId, Timestamp, UserId};
use crate::vault::{Binding, RingKeyId, Vault};

use engine::{Engine, ReadError};
use place::{Opening, Place};
use queue::Queue;

pub use answer::Answer;
pub use audit::{AuditFilter, AuditOutcome, AuditPage, AuditRecord};
pub use batch::SERVICE;
pub(crate) use batch::{Batch, UsageRow};
pub use disk::Disk;
pub use error::{Conflict, OpenError, StoreError};
pub use event_log::{Event, EventKind, EventLogBounds, EventPage};
pub use memory::{CommitFault, Crash, MemoryDisk};
pub use records::{
    AgentRecord, IdempotencyRecord, IdempotencyState, KeyRecord, LogEntry, SessionRecord, SignInBy, Snapshot,
    StoredAgent, TicketKind, TicketRecord, UserRecord,
};

/// How long a read may take: far longer than the largest one needs, so that only a hanging disk gets there.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// How a store is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StoreOptions {
    /// Entries kept of each agent's timeline: those whose sequence number is within this many of the newest.
    pub events_per_agent: u64,
    /// How much is kept of the event log of all agents.
    pub event_log: EventLogBounds,
    /// How much is kept of the audit.
    pub audit: EventLogBounds,
    /// Verify every page before the store is used. Costs a read of the whole file (30 ms for 10,000 agents) and finds
    /// what decayed before it is taken for data.
    pub check_integrity: bool,
    /// Becomes the installation's id, if the store is new.
    pub installation: InstallationId,
    /// The present, if the store is new.
    pub now: Timestamp,
    /// The store is a copy beside its original: it becomes this installation. Users, keys and what was told of the past
    /// stay; the agents are the original's, and are forgotten here.
    pub separate_as: Option<InstallationId>,
}

impl StoreOptions {
    setters! {
        with_events_per_agent(events_per_agent: u64);
        with_event_log(event_log: EventLogBounds);
        with_audit(audit: EventLogBounds);
        with_check_integrity(check_integrity: bool);
        with_installation(installation: InstallationId);
        with_now(now: Timestamp);
        with_separate_as(separate_as: impl Into<Option<InstallationId>> => separate_as.into());
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            events_per_agent: 200,
            event_log: EventLogBounds::default(),
            audit: EventLogBounds { lines: 100_000, age: Duration::from_secs(180 * 24 * 3600) },
            check_integrity: true,
            installation: InstallationId::new(),
            now: Timestamp::now(),
            separate_as: None,
        }
    }
}

/// Numbers for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// Rows of each table.
    pub rows: Vec<(&'static str, u64)>,
    /// Batches that wait or are being written.
    pub queued: usize,
    /// Size of the file.
    pub bytes: u64,
}

/// A store's place, kept from everyone else until this is dropped, whether a store is there or not.
#[derive(Debug)]
pub struct Reserved {
    _lock: place::Lock,
}

impl Reserved {
    /// # Errors
    /// [`OpenError::InUse`] if another process has the store that is, or was, there.
    pub fn at(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        Place::File(path.into()).lock().map(|lock| Self { _lock: lock })
    }
}

/// A handle to the store. Clones share it; the last one to go closes it.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    engine: Arc<Engine>,
    /// None in memory, where commits run on their caller's task.
    queue: Option<Queue>,
    /// Whether a control plane works on it, or did.
    taken: AtomicBool,
}

impl Store {
    /// Opens the store in a file, or makes one where there is none. Blocks while it reads.
    ///
    /// A new file has mode 0600. Beside it lies a lock, `<path>.lock`, held as long as the store is open.
    ///
    /// # Errors
    /// If another process has it, or it is damaged, empty, newer than this program or cannot be read. It is then left
    /// as it is.
    pub fn open(path: impl Into<PathBuf>, options: StoreOptions) -> Result<Self, OpenError> {
        Self::with_writer(Place::File(path.into()), options)
    }

    /// Opens the store on a disk in memory, or makes one if the disk is empty. Only one store may use a disk at a time.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn in_memory(disk: impl Disk, options: StoreOptions) -> Result<Self, OpenError> {
        let engine = Self::engine(Place::Memory(Arc::new(disk)), options)?;
        Ok(Self(Arc::new(Shared { engine: Arc::new(engine), queue: None, taken: AtomicBool::new(false) })))
    }

    fn with_writer(place: Place, options: StoreOptions) -> Result<Self, OpenError> {
        let engine = Arc::new(Self::engine(place, options)?);
        let queue = Queue::start(engine.clone()).map_err(|error| OpenError::Io {
            action: "start a writer for",
            path: engine.place.to_string(),
            reason: error.to_string(),
        })?;
        Ok(Self(Arc::new(Shared { engine, queue: Some(queue), taken: AtomicBool::new(false) })))
    }

    fn engine(place: Place, options: StoreOptions) -> Result<Engine, OpenError> {
        let opening = Opening {
            installation: options.installation,
            created_at: options.now,
            separate_as: options.separate_as,
            check_integrity: options.check_integrity,
            migrations: schema::MIGRATIONS,
        };
        let engine = Engine::open(place, opening, options.events_per_agent, options.event_log, options.audit)?;
        // A store whose log cannot be read says so to those who read it.
        engine.appended.send_replace(engine.read(read::newest_event).unwrap_or(0));
        Ok(engine)
    }

    /// Writes a batch. When this returns `Ok`, the batch is durable. Not public: each record has one actor that writes it, and
    /// what anybody else wrote would be undone, or end the actor.
    ///
    /// A caller that stops waiting does not stop the batch.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if it may or may not have been written; with every other error it was not.
    pub(crate) async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        match &self.0.queue {
            Some(queue) => queue.commit(batch).await,
            None => self.commit_inline(batch),
        }
    }

    fn commit_inline(&self, batch: Batch) -> Result<(), StoreError> {
        // There is no thread to bring a failed store back, so each commit tries.
        if self.0.engine.reopen().is_err() {
            tracing::debug!(store = %self.0.engine.place, "still down");
        }
        self.0.engine.write(&[batch]).pop().unwrap_or(Err(StoreError::Closed))
    }

    /// Notes that a control plane works on it: from then on its actors alone write.
    pub(crate) fn take(&self) {
        self.0.taken.store(true, Ordering::Release);
    }

    /// Whether a control plane works on it, or did.
    pub(crate) fn is_taken(&self) -> bool {
        self.0.taken.load(Ordering::Acquire)
    }

    /// All agents with their ports, all users and all keys, for boot.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if any of it is not what was written, [`StoreError::Unavailable`] while the disk fails.
    pub async fn load(&self) -> Result<Snapshot, StoreError> {
        self.read(read::snapshot).await
    }

    /// # Errors
    /// As [`Store::load`], for this agent alone.
    pub async fn agent(&self, id: AgentId) -> Result<Option<StoredAgent>, StoreError> {
        self.read(move |txn| read::agent(txn, id)).await
    }

    /// Whether this store had the agent and deleted it.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub async fn was_deleted(&self, id: AgentId) -> Result<bool, StoreError> {
        self.read(move |txn| read::was_deleted(txn, id)).await
    }

    /// Up to `limit` entries of an agent's timeline that come after `after_seq`, oldest first.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub async fn events(&self, agent: AgentId, after_seq: u64, limit: usize) -> Result<Vec<LogEntry>, StoreError> {
        self.read(move |txn| read::events(txn, agent, after_seq, limit)).await
    }

    /// Up to `limit` lines of the event log of all agents that come after this offset, oldest first.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub async fn event_log(&self, after: u64, limit: usize) -> Result<EventPage, StoreError> {
        self.read(move |txn| read::event_log(txn, after, limit)).await
    }

    /// The blocks of an agent's figures over time, by their slots.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub async fn usage(&self, agent: AgentId) -> Result<Vec<(u16, Vec<u8>)>, StoreError> {
        self.read(move |txn| read::usage(txn, agent)).await
    }

    /// Up to `limit` records of the audit that come before this offset and fit, newest first.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub async fn audit(&self, before: Option<u64>, limit: usize, filter: AuditFilter) -> Result<AuditPage, StoreError> {
        self.read(move |txn| read::audit(txn, before, limit, &filter)).await
    }

    /// The newest offset of the event log, as it grows.
    pub(crate) fn appended(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.engine.appended.subscribe()
    }

    /// What became of an earlier request with this key. A record that has expired may still be given: the caller has
    /// the clock.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub async fn idempotency(&self, user: UserId, key: &str) -> Result<Option<IdempotencyRecord>, StoreError> {
        let key = key.to_owned();
        self.read(move |txn| read::idempotency(txn, user, &key)).await
    }

    /// Kept answers that are not sealed with this key.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub async fn answers_not_sealed_with(
        &self,
        active: RingKeyId,
    ) -> Result<Vec<(UserId, String, IdempotencyRecord)>, StoreError> {
        self.read(move |txn| read::answers_not_sealed_with(txn, active)).await
    }

    /// # Errors
    /// [`StoreError::Unavailable`] while the disk fails.
    pub async fn stats(&self) -> Result<StoreStats, StoreError> {
        let queued = self.0.queue.as_ref().map_or(0, Queue::len);
        let place = self.0.engine.place.clone();
        self.read(move |txn| {
            let bytes = place.bytes().map_err(redb::StorageError::Io)?;
            Ok(StoreStats { rows: tables::count_rows(txn)?, queued, bytes })
        })
        .await
    }

    /// Makes sure that the vault has the key that this store's secrets are sealed with. Comes before anything is opened
    /// or sealed.
    ///
    /// A store without secrets takes the vault's active key. A store whose secrets are all sealed with the active key
    /// by now no longer needs the older ones.
    ///
    /// # Errors
    /// [`OpenError::WrongKey`] names the key that is missing. Nothing is changed then.
    pub(crate) async fn check_key(&self, vault: &Vault) -> Result<(), OpenError> {
        let binding = Binding::named("canary", self.0.engine.identity.installation.as_bytes());
        let canary = self.read(read::canary).await?;
        if let Some(canary) = &canary {
            vault.open(&binding, canary).map_err(|_| OpenError::WrongKey {
                path: self.0.engine.place.to_string(),
                sealed_with: canary.key(),
                active: vault.active_key(),
            })?;
            if !vault.is_outdated(canary) {
                return Ok(());
            }
        }
        let active = vault.active_key();
        let state = self.read(move |txn| read::sealed_state(txn, active)).await?;
        match (canary, state) {
            (None, state) if state.any => Err(OpenError::NoCanary { path: self.0.engine.place.to_string() }),
            (Some(_), state) if state.outdated => Ok(()),
            _ => Ok(self.commit(Batch::put_canary(&vault.seal(&binding, b"canary"))).await?),
        }
    }

    /// The installation that this store, and every instance of its agents, belongs to.
    pub fn installation(&self) -> InstallationId {
        self.0.engine.identity.installation
    }

    /// Tells this store from a copy of it: the same over restarts, another one for a file that was copied.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn identity(&self) -> std::io::Result<String> {
        self.0.engine.place.identity()
    }

    /// When the store was made.
    pub fn created_at(&self) -> Timestamp {
        self.0.engine.identity.created_at
    }

    /// Writes what is in the queue, closes the file and lets others have it. Other handles then get
    /// [`StoreError::Closed`].
    pub async fn close(&self) {
        let shared = self.0.clone();
        if shared.queue.is_none() {
            return shared.close();
        }
        if tokio::task::spawn_blocking(move || shared.close()).await.is_err() {
            tracing::error!("closing the store panicked");
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let engine = self.0.engine.clone();
        if self.0.queue.is_none() {
            return engine.read(read);
        }
        match tokio::time::timeout(READ_WITHIN, tokio::task::spawn_blocking(move || engine.read(read))).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(StoreError::Closed),
            Err(_) => Err(StoreError::Unavailable("the disk does not answer".into())),
        }
    }
}

impl Shared {
    fn close(&self) {
        if self.queue.as_ref().is_none_or(Queue::finish) {
            self.engine.close();
        }
    }
}

impl Drop for Shared {
    /// Waits for the writer, so that whoever opens the store next finds it free.
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.0.engine.place)
    }
}

#[cfg(test)]
mod tests;
