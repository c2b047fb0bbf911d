//! One job at a time for each agent.
//!
//! A job that changes an instance must not be cut off: nobody would know what it did, and the next job could overtake it.
//! So a job that is superseded is asked to end where it safely can, and the next one begins when it has.

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

#[derive(Default)]
pub struct Lane {
    last: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Lane {
    /// Runs `job` after the one before it, which is asked to end. A job is bounded by itself.
    pub fn run<F: Future<Output = ()> + Send + 'static>(&mut self, job: impl FnOnce(CancellationToken) -> F) {
        let before = self.last.take();
        let cancel = CancellationToken::new();
        let job = job(cancel.clone());
        let handle = tokio::spawn(async move {
            if let Some((cancel, handle)) = before {
                cancel.cancel();
                // A panic in it was its own; it is over either way.
                let _ = handle.await;
            }
            job.await;
        });
        self.last = Some((cancel, handle));
    }
}

impl Drop for Lane {
    /// The actor is gone; its successor finds out what was done. Jobs stop where they safely can.
    fn drop(&mut self) {
        if let Some((cancel, _)) = &self.last {
            cancel.cancel();
        }
    }
}
