//! Who is acting: goes along with a request, so that the commit of what it does says who did it.
//!
//! ```text
//! http: acting(who, handler) ─► message to an actor, with current() ─► acting(…, its handler) ─► commit(batch)
//! ```
//! A change and its record are in one transaction: neither is there without the other. What has no commit of its own, such
//! as a refusal, is written by whoever began, who asks [`Acting::is_written`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::UserId;
use crate::store::{AuditOutcome, AuditRecord, Batch, Store, StoreError};

tokio::task_local! {
    static ACTING: Arc<Acting>;
}

/// Somebody who does something.
pub struct Acting {
    /// As it is written if it is done.
    record: AuditRecord,
    /// Who it was, where that came out only later; and whose things it concerns.
    found: Mutex<Found>,
    written: AtomicBool,
}

#[derive(Default, Clone, Copy)]
struct Found {
    user: Option<UserId>,
    owner: Option<UserId>,
}

impl Acting {
    /// An action that begins; `record` is what is written of it once it is done.
    pub fn new(record: AuditRecord) -> Arc<Self> {
        Arc::new(Self { record, found: Mutex::default(), written: AtomicBool::new(false) })
    }

    /// Whether a commit has said it.
    pub fn is_written(&self) -> bool {
        self.written.load(Ordering::Acquire)
    }

    /// The line as it is written with this end. `code` is that of the refusal, as in a problem's type.
    pub fn record(&self, outcome: AuditOutcome, code: Option<&str>) -> AuditRecord {
        let found = *self.found.lock().unwrap_or_else(PoisonError::into_inner);
        AuditRecord {
            user: self.record.user.or(found.user),
            owner: self.record.owner.or(found.owner),
            outcome,
            code: code.map(ToOwned::to_owned),
            ..self.record.clone()
        }
    }

    fn note(&self, note: impl FnOnce(&mut Found)) {
        note(&mut self.found.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Does the work as this one.
pub async fn acting<T>(acting: Option<Arc<Acting>>, work: impl Future<Output = T>) -> T {
    match acting {
        Some(acting) => ACTING.scope(acting, work).await,
        None => work.await,
    }
}

/// Who is acting, to go along with a message or a task.
pub fn current() -> Option<Arc<Acting>> {
    ACTING.try_with(Arc::clone).ok()
}

/// Whoever is acting has turned out to be this user.
pub fn identified(user: UserId) {
    if let Some(acting) = current() {
        acting.note(|found| found.user = Some(user));
    }
}

/// It concerns this user, whoever is acting.
pub fn concerns(user: UserId) {
    if let Some(acting) = current() {
        acting.note(|found| found.owner = Some(user));
    }
}

/// Commits a change, and with the first change of whoever is acting that they did it.
///
/// # Errors
/// The store's.
pub(crate) async fn commit(store: &Store, batch: Batch) -> Result<(), StoreError> {
    let acting = current().filter(|acting| !acting.is_written());
    let batch = match &acting {
        Some(acting) => batch.audited(acting.record(AuditOutcome::Done, None)),
        None => batch,
    };
    store.commit(batch).await?;
    if let Some(acting) = acting {
        acting.written.store(true, Ordering::Release);
    }
    Ok(())
}
