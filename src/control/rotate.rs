//! Another master key, while everything runs on.
//!
//! ```text
//! new key in front of the ring that is kept ─► vault seals with it ─► every sealed value again ─► old keys leave the ring
//! ```
//! A service that is killed in between starts with both keys, and goes on from there: what is sealed already is not sealed
//! again. Only when nothing needs an old key any more does it leave the ring.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::sleep;

use super::{ACTOR_PATIENCE, ControlPlane};
use crate::actor::{AgentMsg, AskError, ask};
use crate::audit;
use crate::domain::AgentId;
use crate::store::{Answer, Batch, Conflict, IdempotencyRecord, IdempotencyState, OpenError, StoreError};
use crate::vault::{MasterKey, MasterKeyError, MasterKeySource, RingKeyId};

/// What was sealed with the old key a moment ago may be committed a moment later: the last pass comes after this.
const STRAGGLERS: Duration = Duration::from_secs(1);
/// Passes until nothing is left: each finds only what was written during the one before.
const MAX_PASSES: usize = 20;
/// How long a rotation that was interrupted waits before it is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// Keeps the master keys: a [`KeyFile`], or what an embedder has for it, such as a key management service that wraps them.
///
/// A call may be dropped before it has answered; what it began may happen or not.
pub trait KeyKeeper: fmt::Debug + Send + Sync + 'static {
    /// The ring as it is kept now.
    fn load(&self) -> BoxFuture<'_, Result<MasterKey, KeeperError>>;

    /// Keeps this ring in place of the last. It is durable when this answers; on an error the last one is still kept, or this one.
    fn keep<'a>(&'a self, ring: &'a MasterKey) -> BoxFuture<'a, Result<(), KeeperError>>;

    /// Whether keys that nothing needs any more may leave the ring without being asked: at a start that ends the rotation of a
    /// service that was killed.
    fn may_tidy(&self) -> bool {
        true
    }
}

/// Why a [`KeyKeeper`] could not do it. Never holds a key.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct KeeperError(Box<str>);

impl KeeperError {
    /// `why` in words, for whoever runs the service.
    pub fn new(why: impl fmt::Display) -> Self {
        Self(why.to_string().into())
    }
}

/// Master keys in a file.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct KeyFile {
    /// The file with the key ring. Rotations write it.
    pub path: PathBuf,
    /// Whether the service made it. Then old keys leave it by themselves after a restart too; a file of the operator's is
    /// only changed when a rotation is asked for.
    pub own: bool,
}

impl KeyFile {
    /// A file of the operator's.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), own: false }
    }

    setters! {
        with_own(own: bool);
    }
}

impl KeyKeeper for KeyFile {
    fn load(&self) -> BoxFuture<'_, Result<MasterKey, KeeperError>> {
        let path = self.path.clone();
        in_thread(move || MasterKey::load(MasterKeySource::File(path)))
    }

    fn keep<'a>(&'a self, ring: &'a MasterKey) -> BoxFuture<'a, Result<(), KeeperError>> {
        let (path, ring) = (self.path.clone(), ring.clone());
        in_thread(move || ring.replace(&path))
    }

    fn may_tidy(&self) -> bool {
        self.own
    }
}

/// A file system may take its time.
fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MasterKeyError> + Send + 'static,
) -> BoxFuture<'static, Result<T, KeeperError>> {
    let work = tokio::task::spawn_blocking(work);
    async { work.await.map_err(|_| KeeperError::new("the work on the file ended early"))?.map_err(KeeperError::new) }
        .boxed()
}

/// A rotation that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rotation {
    /// The key that seals now.
    pub key: RingKeyId,
    /// How many values were sealed again.
    pub resealed: usize,
}

/// Why the master key was not rotated, or not to the end. All that is sealed can still be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RotateError {
    /// No [`KeyKeeper`] was given to the builder.
    #[error(
        "the master key does not come from a file; put the new one in front of it, separated by a comma, and restart"
    )]
    NoKeeper,
    /// Rotations come one at a time.
    #[error("another rotation is going on")]
    InProgress,
    /// The keys cannot be read or kept.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store could not note which key it needs from now on.
    #[error(transparent)]
    Canary(#[from] OpenError),
    /// The actor of an agent did not answer in time.
    #[error("an agent: {0}")]
    Agent(#[from] AskError),
    /// Each pass still found something to seal again.
    #[error("values are still being sealed with the old key; ask again")]
    Unsettled,
    /// The rotation was cut short.
    #[error("the task ended early")]
    Interrupted,
}

impl ControlPlane {
    /// Makes a new master key, seals everything with it, and takes the old one out of the ring. Agents run on.
    ///
    /// When it fails, or its caller stops waiting, both keys are kept; asked again, it goes on.
    ///
    /// # Errors
    /// See [`RotateError`].
    pub async fn rotate_master_key(&self) -> Result<Rotation, RotateError> {
        let keeper = self.shared.key_keeper.as_deref().ok_or(RotateError::NoKeeper)?;
        let _one_at_a_time = self.shared.rotating.try_lock().map_err(|_| RotateError::InProgress)?;
        // Before there is a new key: what comes then goes on even if the service is killed, when nobody knows who began it.
        audit::commit(self.store(), Batch::touch()).await?;
        let ring = keeper.load().await?.with_new();
        keeper.keep(&ring).await?;
        self.vault().replace_ring(&ring);
        tracing::info!(key = %self.vault().active_key(), "sealing everything with a new master key");
        let resealed = self.seal_again().await?;
        self.leave_active(keeper).await?;
        Ok(Rotation { key: self.vault().active_key(), resealed })
    }

    /// Ends a rotation that was interrupted.
    async fn finish_rotation(&self) -> Result<(), RotateError> {
        let _one_at_a_time = self.shared.rotating.lock().await;
        let resealed = self.seal_again().await?;
        tracing::info!(key = %self.vault().active_key(), resealed, "everything is sealed with the active master key");
        match self.shared.key_keeper.as_deref() {
            Some(keeper) if keeper.may_tidy() => self.leave_active(keeper).await,
            Some(_) | None => {
                tracing::info!("older master keys are not needed any more; they can be removed from the ring");
                Ok(())
            }
        }
    }

    async fn leave_active(&self, keeper: &dyn KeyKeeper) -> Result<(), RotateError> {
        let ring = keeper.load().await?.active_alone();
        keeper.keep(&ring).await?;
        self.vault().replace_ring(&ring);
        Ok(())
    }

    /// Seals everything that an older key sealed, and notes in the store which key it needs from now on.
    async fn seal_again(&self) -> Result<usize, RotateError> {
        let mut all = 0;
        for _ in 0..MAX_PASSES {
            let resealed = self.seal_agents_again().await? + self.seal_answers_again().await?;
            all += resealed;
            sleep(STRAGGLERS).await;
            if resealed == 0 {
                self.store().check_key(self.vault()).await?;
                return Ok(all);
            }
        }
        Err(RotateError::Unsettled)
    }

    async fn seal_agents_again(&self) -> Result<usize, RotateError> {
        let mut resealed = 0;
        for view in self.agents(None, None, usize::MAX, &[]).agents {
            let record = &view.record;
            let secrets = [&record.api_key, &record.channels, &record.token, &record.retired];
            if secrets.into_iter().flatten().any(|sealed| self.vault().is_outdated(sealed)) {
                resealed += self.seal_agent_again(record.id).await?;
            }
        }
        Ok(resealed)
    }

    async fn seal_agent_again(&self, id: AgentId) -> Result<usize, RotateError> {
        // One that is being rebuilt is found by the next pass.
        let Some(actor) = self.shared.directory.get(&id).map(|entry| entry.value().clone()) else { return Ok(1) };
        match ask(&actor, AgentMsg::Reseal, ACTOR_PATIENCE).await {
            Ok(Ok(count)) => Ok(count),
            // Removed meanwhile, or written by a later actor: the next pass sees what is there.
            Ok(Err(StoreError::Rejected(_))) | Err(AskError::Gone) => Ok(1),
            Ok(Err(error)) => Err(error.into()),
            Err(error) => Err(error.into()),
        }
    }

    async fn seal_answers_again(&self) -> Result<usize, RotateError> {
        let mut resealed = 0;
        for (user, key, before) in self.store().answers_not_sealed_with(self.vault().active_key()).await? {
            let IdempotencyState::Done { status, headers, body } = &before.state else { continue };
            let answer = Answer { user, key: &key, expires_at: before.expires_at };
            let state = match answer.open(self.vault(), body) {
                Ok(plain) => {
                    let body = answer.seal(self.vault(), plain.expose());
                    IdempotencyState::Done { status: *status, headers: headers.clone(), body }
                }
                Err(_) => IdempotencyState::Withheld { status: *status },
            };
            let after = IdempotencyRecord { state, ..before.clone() };
            match self.store().commit(Batch::reseal_idempotency(user, &key, &before, &after)).await {
                Ok(()) => resealed += 1,
                // Gone or answered anew meanwhile.
                Err(StoreError::Rejected(Conflict::Stale)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(resealed)
    }
}

/// Ends a rotation that was interrupted by the end of the last service.
pub fn resume(plane: ControlPlane) {
    if plane.vault().keys() < 2 {
        return;
    }
    let tasks = plane.shared.services.tasks.clone();
    tasks.spawn(async move {
        let closing = plane.shared.closing.clone();
        let work = async {
            while let Err(error) = plane.finish_rotation().await {
                tracing::warn!(%error, "the change of the master key is not finished yet");
                sleep(RETRY).await;
            }
        };
        tokio::select! {
            biased;
            () = closing.cancelled() => {}
            () = work => {}
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_of_the_services_own_is_tidied_without_being_asked() {
        assert!(!KeyFile::new("master.key").may_tidy());
        assert!(KeyFile::new("master.key").with_own(true).may_tidy());
    }
}
