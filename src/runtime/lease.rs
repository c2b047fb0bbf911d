//! The lease: one live control plane for each installation and engine.
//!
//! The installation id is stored with the records, so a copied or restored data folder has the id of the original. Two
//! control planes with one id would end each other's instances. The engine is the one thing that both see, so the lease is
//! kept there. [`decide`] is the rule that all engines share; an engine only has to read, compare and write one
//! [`LeaseRecord`] in one step that no other writer can come between.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::{Timestamp, elapsed};

/// How often a lease is renewed.
pub const LEASE_RENEWAL: Duration = Duration::from_secs(10);
/// A lease that was not renewed for this long may be taken by another holder: its holder has ended or hangs.
pub const LEASE_STALE_AFTER: Duration = Duration::from_secs(60);

/// What the engine keeps for an installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeaseRecord {
    /// Grows with every claim, so that an older claim can be told apart even of the same holder.
    pub epoch: u64,
    /// The place of the holder's store: the same after a restart, another one for a copy.
    pub holder: String,
    /// The holder in words, e.g. `process 4711, data folder /var/lib/zeroone`.
    pub description: String,
    /// By the clock of the holder's machine.
    pub renewed_at: Timestamp,
    /// The holder has ended in order and gave it back.
    pub released: bool,
}

/// What a control plane asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseRequest {
    /// See [`LeaseRecord::holder`].
    pub holder: String,
    /// See [`LeaseRecord::description`].
    pub description: String,
    /// What is to be done with the lease.
    pub purpose: LeasePurpose,
}

impl LeaseRequest {
    /// With all of it.
    pub fn new(holder: impl Into<String>, description: impl Into<String>, purpose: LeasePurpose) -> Self {
        Self { holder: holder.into(), description: description.into(), purpose }
    }
}

/// What is to be done with a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeasePurpose {
    /// At the start.
    Claim {
        /// Also from a holder that seems to live, because an administrator said so.
        take_over: bool,
    },
    /// Every [`LEASE_RENEWAL`].
    Renew {
        /// That of the claim.
        epoch: u64,
    },
    /// At an orderly end.
    Release {
        /// That of the claim.
        epoch: u64,
    },
}

impl LeaseRequest {
    /// The answer of an engine that no other control plane can reach.
    pub const fn granted(&self) -> LeaseAnswer {
        let epoch = match self.purpose {
            LeasePurpose::Claim { .. } => 1,
            LeasePurpose::Renew { epoch } | LeasePurpose::Release { epoch } => epoch,
        };
        LeaseAnswer::Held { epoch }
    }
}

/// The engine's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// The lease is the caller's. Also the answer to a release.
    Held {
        /// To be named when it is renewed or released.
        epoch: u64,
    },
    /// Another one holds it. The caller must change nothing on the engine.
    InUse(LeaseRecord),
}

/// What is to be written and answered; nothing is written where the answer is [`LeaseAnswer::InUse`]. Pure.
///
/// A claim succeeds where there is no record, where it was released, where it is stale, where the holder is the same (its
/// store is locked, so the one before has ended), and with `take_over`. A renewal or a release succeeds only for the
/// epoch that is kept.
pub fn decide(
    found: Option<&LeaseRecord>,
    request: &LeaseRequest,
    now: Timestamp,
) -> (Option<LeaseRecord>, LeaseAnswer) {
    let record = |epoch, released| {
        let LeaseRequest { holder, description, .. } = request.clone();
        (Some(LeaseRecord { epoch, holder, description, renewed_at: now, released }), LeaseAnswer::Held { epoch })
    };
    let in_use = |found: &LeaseRecord| (None, LeaseAnswer::InUse(found.clone()));
    match (request.purpose, found) {
        (LeasePurpose::Claim { .. }, None) => record(1, false),
        (LeasePurpose::Claim { take_over }, Some(found)) => {
            let stale = elapsed(found.renewed_at, now) >= LEASE_STALE_AFTER;
            let free = found.released || stale || found.holder == request.holder || take_over;
            if free { record(found.epoch.saturating_add(1), false) } else { in_use(found) }
        }
        // Removed by hand. Whoever renews first has it.
        (LeasePurpose::Renew { epoch }, None) => record(epoch, false),
        (LeasePurpose::Release { epoch }, None) => (None, LeaseAnswer::Held { epoch }),
        (LeasePurpose::Renew { epoch }, Some(found)) => {
            let ours = found.epoch == epoch && found.holder == request.holder;
            if ours { record(epoch, false) } else { in_use(found) }
        }
        (LeasePurpose::Release { epoch }, Some(found)) => {
            let ours = found.epoch == epoch && found.holder == request.holder;
            if ours { record(epoch, true) } else { in_use(found) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::later;

    fn request(holder: &str, purpose: LeasePurpose) -> LeaseRequest {
        LeaseRequest { holder: holder.into(), description: format!("test {holder}"), purpose }
    }

    fn claim(holder: &str) -> LeaseRequest {
        request(holder, LeasePurpose::Claim { take_over: false })
    }

    fn held(found: Option<&LeaseRecord>, request: &LeaseRequest, now: Timestamp) -> LeaseRecord {
        let (written, answer) = decide(found, request, now);
        let written = written.unwrap_or_else(|| panic!("{request:?} was refused: {answer:?}"));
        assert_eq!(answer, LeaseAnswer::Held { epoch: written.epoch });
        written
    }

    #[test]
    fn a_second_holder_is_refused_until_the_lease_is_stale_released_or_taken_over() {
        let begin = Timestamp::UNIX_EPOCH;
        let first = held(None, &claim("a"), begin);
        let almost = later(begin, LEASE_STALE_AFTER - Duration::from_millis(1));
        assert_eq!(decide(Some(&first), &claim("b"), almost), (None, LeaseAnswer::InUse(first.clone())));

        let stale = held(Some(&first), &claim("b"), later(begin, LEASE_STALE_AFTER));
        assert_eq!((stale.epoch, stale.holder.as_str()), (2, "b"));
        let taken = held(Some(&first), &request("b", LeasePurpose::Claim { take_over: true }), begin);
        assert_eq!((taken.epoch, taken.holder.as_str()), (2, "b"));
        let released = held(Some(&first), &request("a", LeasePurpose::Release { epoch: 1 }), begin);
        assert_eq!(held(Some(&released), &claim("b"), begin).epoch, 2);
    }

    #[test]
    fn the_same_holder_claims_again_at_once_and_its_earlier_claim_is_over() {
        let begin = Timestamp::UNIX_EPOCH;
        let first = held(None, &claim("a"), begin);
        let again = held(Some(&first), &claim("a"), begin);
        assert_eq!(again.epoch, 2);
        let (written, answer) = decide(Some(&again), &request("a", LeasePurpose::Renew { epoch: 1 }), begin);
        assert_eq!((written, answer), (None, LeaseAnswer::InUse(again)));
    }

    #[test]
    fn a_holder_that_lost_its_lease_neither_renews_nor_releases_it() {
        let begin = Timestamp::UNIX_EPOCH;
        let first = held(None, &claim("a"), begin);
        let now = later(begin, LEASE_STALE_AFTER);
        let second = held(Some(&first), &claim("b"), now);
        for purpose in [LeasePurpose::Renew { epoch: 1 }, LeasePurpose::Release { epoch: 1 }] {
            assert_eq!(decide(Some(&second), &request("a", purpose), now), (None, LeaseAnswer::InUse(second.clone())));
        }
        assert_eq!(held(Some(&second), &request("b", LeasePurpose::Renew { epoch: 2 }), now).epoch, 2);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_lease_stale() {
        let first = held(None, &claim("a"), later(Timestamp::UNIX_EPOCH, Duration::from_secs(3600)));
        assert!(matches!(decide(Some(&first), &claim("b"), Timestamp::UNIX_EPOCH), (None, LeaseAnswer::InUse(_))));
    }
}
