//! Sealing an agent's secrets with the vault's active key.
//!
//! The actor does it, because it is the one writer of its record: another one's write would be undone by its next commit.
//! Nothing else changes, not even the revision, so that timers and observations under way stay valid.

use ractor::{ActorProcessingErr, RpcReplyPort};

use super::ActorState;
use crate::actor::jobs::{API_KEY_FIELD, CHANNELS_FIELD, RETIRED_FIELD, TOKEN_FIELD};
use crate::store::{AgentRecord, Batch, StoreError};
use crate::vault::{Binding, Vault};

impl ActorState {
    pub(super) async fn reseal(
        &mut self,
        reply: RpcReplyPort<Result<usize, StoreError>>,
    ) -> Result<(), ActorProcessingErr> {
        let (next, count) = resealed(&self.services.vault, &self.view.record);
        let stored = if count == 0 { Ok(()) } else { self.services.store.commit(Batch::reseal_agent(&next)).await };
        let unknown = matches!(stored, Err(StoreError::Unknown(_)));
        if stored.is_ok() && count > 0 {
            self.show(next, self.view.port);
        }
        let _ = reply.send(stored.map(|()| count));
        if unknown { Err(Box::new(StoreError::Unknown("a commit of an agent".into()))) } else { Ok(()) }
    }
}

/// The record with its secrets sealed by the active key, and how many were sealed by another one.
fn resealed(vault: &Vault, record: &AgentRecord) -> (AgentRecord, usize) {
    let (mut next, mut count) = (record.clone(), 0);
    let id = record.id;
    for (field, secret) in [
        (API_KEY_FIELD, &mut next.api_key),
        (CHANNELS_FIELD, &mut next.channels),
        (TOKEN_FIELD, &mut next.token),
        (RETIRED_FIELD, &mut next.retired),
    ] {
        let Some(sealed) = secret.as_ref().filter(|sealed| vault.is_outdated(sealed)) else { continue };
        let binding = Binding::agent(id, field);
        match vault.open(&binding, sealed) {
            Ok(plain) => {
                *secret = Some(vault.seal(&binding, plain.expose()));
                count += 1;
            }
            // No key of the ring opens it, so none is needed for it.
            Err(error) => tracing::warn!(agent = %id, field, %error, "a secret cannot be sealed again"),
        }
    }
    (next, count)
}
