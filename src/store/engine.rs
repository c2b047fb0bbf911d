//! The open database: groups of batches go in, reads come out, and after a failure it is opened anew.
//!
//! After the first failed write redb refuses all others until it is opened again. So a failure closes the database at
//! once; reads then say that it is not available, and whoever writes opens it again: see [`Engine::reopen`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use redb::{Database, ReadTransaction, ReadableDatabase};
use tokio::sync::watch;

use super::apply::{Failure, Ledger};
use super::batch::Batch;
use super::disk::Disk;
use super::error::{OpenError, StoreError, from_redb};
use super::event_log::EventLogBounds;
use super::place::{Lock, Opening, Place};
use super::schema::{self, Identity};
use super::tables::Tables;

pub(super) struct Engine {
    pub(super) place: Place,
    pub(super) identity: Identity,
    opening: Opening,
    events_per_agent: u64,
    event_log: EventLogBounds,
    audit: EventLogBounds,
    /// The newest offset of the event log, for those who wait for the next.
    pub(super) appended: watch::Sender<u64>,
    gate: RwLock<Gate>,
    lock: Mutex<Option<Lock>>,
    /// Held by whoever writes or opens anew: stores in memory have no single writer's thread.
    writing: Mutex<()>,
}

/// Readers hold it shared for as long as they read, so that a database is never closed under them.
enum Gate {
    Open(Database),
    Down(Arc<str>),
    Closed,
}

/// How the writing of a group ended, where it did not end well.
enum Broken {
    /// Before the commit: nothing is written.
    Before(Arc<str>),
    /// In the commit: nobody knows.
    Within(Arc<str>),
}

type Answers = Vec<Result<(), StoreError>>;

impl Engine {
    pub(super) fn open(
        place: Place,
        opening: Opening,
        events_per_agent: u64,
        event_log: EventLogBounds,
        audit: EventLogBounds,
    ) -> Result<Self, OpenError> {
        let lock = place.lock()?;
        let (database, identity) = place.open(&opening)?;
        Ok(Self {
            place,
            identity,
            opening,
            events_per_agent,
            event_log,
            audit,
            appended: watch::Sender::new(0),
            gate: RwLock::new(Gate::Open(database)),
            lock: Mutex::new(Some(lock)),
            writing: Mutex::new(()),
        })
    }

    /// Writes the batches in one durable commit and answers each. If the medium fails, the database is opened anew
    /// before this returns, or left down if that fails too.
    pub(super) fn write(&self, batches: &[Batch]) -> Answers {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // redb may panic where the file decayed. The writer must outlive that.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.attempt(batches)));
        let broken = match outcome {
            Ok(Ok(answers)) => return answers,
            Ok(Err(broken)) => broken,
            Err(_) => Broken::Within("the database contradicts itself".into()),
        };
        let (Broken::Before(reason) | Broken::Within(reason)) = &broken;
        tracing::error!(store = %self.place, %reason, "the store failed to write; opening it anew");
        self.shut(Gate::Down(reason.clone()));
        if let Err(error) = self.revive() {
            tracing::error!(store = %self.place, %error, "the store stays down");
        }
        let error = match broken {
            Broken::Before(reason) => StoreError::Unavailable(reason),
            Broken::Within(reason) => StoreError::Unknown(reason),
        };
        vec![Err(error); batches.len()]
    }

    /// Opens the database if it is down.
    pub(super) fn reopen(&self) -> Result<(), OpenError> {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.revive()
    }

    fn revive(&self) -> Result<(), OpenError> {
        if !self.is_down() {
            return Ok(());
        }
        match self.place.reopen(&self.opening) {
            Ok((database, _)) => {
                self.shut(Gate::Open(database));
                Ok(())
            }
            Err(error) => {
                self.shut(Gate::Down(error.to_string().into()));
                Err(error)
            }
        }
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(*self.gate.read().unwrap_or_else(PoisonError::into_inner), Gate::Down(_))
    }

    /// Closes the database and lets others have it.
    pub(super) fn close(&self) {
        self.shut(Gate::Closed);
        // Those who wait for events find the store closed.
        self.appended.send_modify(|_| ());
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&ReadTransaction) -> Result<T, ReadError>) -> Result<T, StoreError> {
        self.with_database(|database| match catch_unwind(AssertUnwindSafe(|| read(&database.begin_read()?))) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(ReadError::Store(error))) => Err(error),
            Ok(Err(ReadError::Medium(error))) => Err(StoreError::Unavailable(error.to_string().into())),
            Err(_) => Err(StoreError::Unavailable("the database contradicts itself".into())),
        })
    }

    pub(super) fn with_database<T>(
        &self,
        run: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match &*self.gate.read().unwrap_or_else(PoisonError::into_inner) {
            Gate::Open(database) => run(database),
            Gate::Down(reason) => Err(StoreError::Unavailable(reason.clone())),
            Gate::Closed => Err(StoreError::Closed),
        }
    }

    fn attempt(&self, batches: &[Batch]) -> Result<Answers, Broken> {
        let written = self.with_database(|database| Ok(self.commit(database, batches)));
        written.unwrap_or_else(|error| Ok(vec![Err(error); batches.len()]))
    }

    fn commit(&self, database: &Database, batches: &[Batch]) -> Result<Answers, Broken> {
        let txn = schema::begin(database).map_err(before)?;
        let tables = Tables::open(&txn).map_err(before)?;
        let mut ledger = Ledger {
            tables,
            events_per_agent: self.events_per_agent,
            event_log: self.event_log,
            audit: self.audit,
            newest_event: 0,
        };
        let mut answers = Vec::with_capacity(batches.len());
        for batch in batches {
            answers.push(match ledger.apply(batch) {
                Ok(()) => Ok(()),
                Err(Failure::Batch(error)) => Err(error),
                Err(Failure::Medium(error)) => return Err(before(error)),
            });
        }
        let newest_event = ledger.newest_event;
        drop(ledger);
        if answers.iter().all(Result::is_err) {
            txn.abort().map_err(before)?;
            return Ok(answers);
        }
        self.hook(|disk| disk.before_commit()).map_err(before)?;
        txn.commit().map_err(within)?;
        self.hook(|disk| disk.after_commit()).map_err(within)?;
        if newest_event > 0 {
            self.appended.send_replace(newest_event);
        }
        Ok(answers)
    }

    fn hook(&self, call: impl FnOnce(&dyn Disk) -> std::io::Result<()>) -> std::io::Result<()> {
        match &self.place {
            Place::File(_) => Ok(()),
            Place::Memory(disk) => call(disk.as_ref()),
        }
    }

    /// The old database is dropped before the lock on the gate is released: a file cannot be opened twice.
    fn shut(&self, next: Gate) {
        let mut gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        // A closed store stays closed, whoever still tries to open it.
        if matches!(*gate, Gate::Closed) {
            return;
        }
        *gate = next;
    }
}

/// Why a read gave nothing.
pub(super) enum ReadError {
    Store(StoreError),
    Medium(redb::Error),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

from_redb!(ReadError);

fn before(error: impl std::fmt::Display) -> Broken {
    Broken::Before(error.to_string().into())
}

fn within(error: impl std::fmt::Display) -> Broken {
    Broken::Within(error.to_string().into())
}
