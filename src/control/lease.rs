//! Claims, renews and gives back the lease of the installation. See [`crate::runtime::lease`] for what it is.

use std::sync::Arc;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::actor::{Lease, Services};
use crate::runtime::lease::LEASE_RENEWAL;
use crate::runtime::{
    ContainerRuntime, LeaseAnswer, LeasePurpose, LeaseRecord, LeaseRequest, RuntimeError, RuntimeResult,
};

/// How long the engine may take to answer: renewals must not pile up.
const CALL: std::time::Duration = LEASE_RENEWAL;
/// Pause before an engine that did not answer is asked again, where nothing is held yet.
const CLAIM_PAUSE: std::time::Duration = std::time::Duration::from_millis(500);
/// The same for an engine that said no: somebody has to change its settings, or those of a filter before it.
const REFUSED_PAUSE: std::time::Duration = std::time::Duration::from_secs(5);

/// Why a first claim failed for good.
#[derive(Debug)]
pub(super) enum ClaimError {
    InUse(LeaseRecord),
    Engine(RuntimeError),
}

/// Who claims.
#[derive(Debug, Clone)]
pub(super) struct Claimant {
    pub(super) holder: String,
    pub(super) description: String,
    pub(super) take_over: bool,
}

impl Claimant {
    async fn ask(&self, runtime: &dyn ContainerRuntime, purpose: LeasePurpose) -> RuntimeResult<LeaseAnswer> {
        let Self { holder, description, .. } = self.clone();
        let request = LeaseRequest { holder, description, purpose };
        let silent = |_| Err(RuntimeError::Unavailable("no answer in time".into()));
        timeout(CALL, runtime.lease(&request)).await.unwrap_or_else(silent)
    }

    /// The first claim. An engine that is away or refuses is no reason not to start: the claim is repeated until it is
    /// granted, nothing is changed before, and agents say why.
    pub(super) async fn claim(&self, runtime: &dyn ContainerRuntime, lease: &Lease) -> Result<(), ClaimError> {
        match self.ask(runtime, LeasePurpose::Claim { take_over: self.take_over }).await {
            Ok(LeaseAnswer::Held { epoch }) => lease.renew(epoch),
            Ok(LeaseAnswer::InUse(holder)) => return Err(ClaimError::InUse(holder)),
            Err(error @ RuntimeError::NotOwned(_)) => return Err(ClaimError::Engine(error)),
            Err(error) => not_granted(lease, &error),
        }
        Ok(())
    }

    /// Renews until `closing`. Where another control plane has taken the lease, this one ends.
    pub(super) async fn keep(self, services: Arc<Services>, closing: CancellationToken) {
        loop {
            let pause = match (services.lease.is_held(), services.lease.refusal()) {
                (true, _) => LEASE_RENEWAL,
                (false, Some(_)) => REFUSED_PAUSE,
                (false, None) => CLAIM_PAUSE,
            };
            if closing.run_until_cancelled(sleep(pause)).await.is_none() {
                return;
            }
            let purpose = match services.lease.epoch() {
                Some(epoch) => LeasePurpose::Renew { epoch },
                None => LeasePurpose::Claim { take_over: self.take_over },
            };
            match self.ask(&*services.runtime, purpose).await {
                Ok(LeaseAnswer::Held { epoch }) => services.lease.renew(epoch),
                Ok(LeaseAnswer::InUse(holder)) => {
                    tracing::error!(holder = holder.description, "another control plane has taken this installation");
                    services.lease.lose(holder);
                    return;
                }
                Err(error) => not_granted(&services.lease, &error),
            }
        }
    }

    /// Gives it back at an orderly end, so that the next holder need not wait. Where that fails it becomes stale.
    pub(super) async fn release(&self, services: &Services) {
        let Some(epoch) = services.lease.epoch() else { return };
        if let Err(error) = self.ask(&*services.runtime, LeasePurpose::Release { epoch }).await {
            tracing::warn!(%error, "the lease of the installation could not be given back");
        }
    }
}

/// A refusal is told once, and kept for those who ask what is wrong with an agent.
fn not_granted(lease: &Lease, error: &RuntimeError) {
    let why = error.to_string();
    if lease.not_granted(matches!(error, RuntimeError::Invalid(_)).then_some(&why)) {
        tracing::warn!(%error, "the lease of the installation could not be claimed or renewed");
    }
}

/// In words, for whoever finds the installation in use.
pub(super) fn in_use(holder: &LeaseRecord) -> String {
    format!("{}, last seen at {}", holder.description, holder.renewed_at)
}
