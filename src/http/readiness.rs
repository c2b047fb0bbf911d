//! Whether the service can do its work: the store commits, and the actors answer.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::control::ControlPlane;
use crate::domain::UserId;
use crate::store::Batch;

/// How long a commit, or an actor's answer, may take.
const WITHIN: Duration = Duration::from_secs(2);
/// How long a result is used again: a client that asks all the time must not write all the time.
const HOLDS_FOR: Duration = Duration::from_secs(1);

/// What was found when it was last checked.
#[derive(Debug, Clone, Copy)]
pub struct Checked {
    pub store: bool,
    /// The registry, which is there only while the supervisor is.
    pub actors: bool,
}

impl Checked {
    pub const fn is_ready(self) -> bool {
        self.store && self.actors
    }
}

#[derive(Default)]
pub struct Readiness(Mutex<Option<(Instant, Checked)>>);

impl Readiness {
    pub async fn check(&self, plane: &ControlPlane) -> Checked {
        let mut last = self.0.lock().await;
        match *last {
            Some((at, checked)) if at.elapsed() < HOLDS_FOR => checked,
            _ => {
                let commit = timeout(WITHIN, plane.store().commit(Batch::touch()));
                // Any question to the registry would do.
                let answer = timeout(WITHIN, plane.used(UserId::from_bytes([0; 16])));
                let (commit, answer) = tokio::join!(commit, answer);
                let checked = Checked { store: matches!(commit, Ok(Ok(()))), actors: matches!(answer, Ok(Ok(_))) };
                *last = Some((Instant::now(), checked));
                checked
            }
        }
    }
}
