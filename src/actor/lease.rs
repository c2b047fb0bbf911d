//! Whether this control plane may change anything on its engine.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::runtime::LeaseRecord;
use crate::runtime::lease::LEASE_STALE_AFTER;

/// A renewal counts for half of the time after which another control plane may take the lease: one that slept, or whose
/// engine was away, asks again before it changes anything.
const GOOD_FOR: Duration = Duration::from_secs(LEASE_STALE_AFTER.as_secs() / 2);

/// The lease as the actors see it.
#[derive(Debug)]
pub struct Lease {
    renewed: Mutex<Option<(u64, Instant)>>,
    /// Why the engine refused the last claim or renewal, if it did.
    refusal: Mutex<Option<Arc<str>>>,
    /// Who took it from us.
    lost: watch::Sender<Option<LeaseRecord>>,
}

impl Default for Lease {
    fn default() -> Self {
        Self { renewed: Mutex::new(None), refusal: Mutex::new(None), lost: watch::Sender::new(None) }
    }
}

impl Lease {
    /// Claimed or renewed just now.
    pub fn renew(&self, epoch: u64) {
        *self.renewed() = Some((epoch, Instant::now()));
        *self.refused() = None;
    }

    /// It was neither claimed nor renewed: refused for this reason, or there was no answer. Gives whether that is news.
    pub fn not_granted(&self, refusal: Option<&str>) -> bool {
        let before = std::mem::replace(&mut *self.refused(), refusal.map(Into::into));
        refusal.is_none() || before.as_deref() != refusal
    }

    pub fn refusal(&self) -> Option<Arc<str>> {
        self.refused().clone()
    }

    /// Another control plane has the installation.
    pub fn lose(&self, to: LeaseRecord) {
        *self.renewed() = None;
        self.lost.send_replace(Some(to));
    }

    /// The epoch of the last claim, whether it still counts or not.
    pub fn epoch(&self) -> Option<u64> {
        self.renewed().map(|(epoch, _)| epoch)
    }

    /// Whether instances may be changed now.
    pub fn is_held(&self) -> bool {
        self.renewed().is_some_and(|(_, at)| at.elapsed() < GOOD_FOR)
    }

    /// Waits until another control plane has taken the lease.
    pub async fn lost(&self) -> LeaseRecord {
        let mut lost = self.lost.subscribe();
        loop {
            if let Some(to) = lost.borrow_and_update().clone() {
                return to;
            }
            // The sender is ours, so it is not closed.
            let _ = lost.changed().await;
        }
    }

    fn refused(&self) -> MutexGuard<'_, Option<Arc<str>>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn renewed(&self) -> MutexGuard<'_, Option<(u64, Instant)>> {
        self.renewed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn renewal_counts_for_half_of_the_time_after_which_another_may_take_it() {
        let lease = Lease::default();
        assert!(!lease.is_held());
        lease.renew(7);
        assert_eq!((lease.is_held(), lease.epoch()), (true, Some(7)));
        tokio::time::advance(LEASE_STALE_AFTER / 2 - Duration::from_millis(1)).await;
        assert!(lease.is_held());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!((lease.is_held(), lease.epoch()), (false, Some(7)), "the epoch is known all the same");
        lease.renew(7);
        assert!(lease.is_held());
    }

    #[test]
    fn refusal_is_news_once_and_no_answer_is_news_each_time() {
        let lease = Lease::default();
        let told = [
            (Some("not allowed"), true),
            (Some("not allowed"), false),
            (Some("no such volume"), true),
            (None, true),
            (None, true),
            (Some("no such volume"), true),
        ];
        for (nth, (refusal, news)) in told.into_iter().enumerate() {
            assert_eq!(lease.not_granted(refusal), news, "{nth}");
            assert_eq!(lease.refusal().as_deref(), refusal, "{nth}");
        }
        lease.renew(1);
        assert_eq!(lease.refusal(), None);
    }
}
