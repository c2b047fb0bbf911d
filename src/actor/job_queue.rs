//! One job at a time for each agent.
//!
//! A job that changes an instance must not be cut off: nobody would know what it did, and the next job could overtake it.
//! So a job that is superseded is asked to end where it safely can, and the next one begins when it has. That holds beyond
//! the actor that began it: if that one crashes, its successor's first job waits for what is still under way.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::domain::AgentId;

/// The jobs that are under way, the last one of each agent.
#[derive(Clone, Default)]
pub struct JobQueues(Arc<Mutex<Jobs>>);

#[derive(Default)]
struct Jobs {
    begun: u64,
    last: HashMap<AgentId, Last>,
}

struct Last {
    number: u64,
    cancel: CancellationToken,
    /// Aborts the job where the whole queue is aborted; a job that ends by itself is not touched.
    handle: AbortOnDropHandle<()>,
}

/// Removes the entry at a job's end, also after a panic: what is over keeps no memory.
struct Leave {
    job_queues: JobQueues,
    agent: AgentId,
    number: u64,
}

impl Drop for Leave {
    fn drop(&mut self) {
        let mut jobs = self.job_queues.jobs();
        if jobs.last.get(&self.agent).is_some_and(|last| last.number == self.number) {
            jobs.last.remove(&self.agent);
        }
    }
}

impl JobQueues {
    /// Runs `job` after the agent's one before it, which is asked to end. A job is bounded by itself.
    pub fn run<F: Future<Output = ()> + Send + 'static>(
        &self,
        agent: AgentId,
        job: impl FnOnce(CancellationToken) -> F,
    ) {
        let cancel = CancellationToken::new();
        let superseded = cancel.clone();
        let job = job(cancel.clone());
        // Held until the job is noted, so that it cannot leave before it was.
        let mut jobs = self.jobs();
        jobs.begun += 1;
        let number = jobs.begun;
        let before = jobs.last.remove(&agent);
        let leave = Leave { job_queues: self.clone(), agent, number };
        let handle = AbortOnDropHandle::new(tokio::spawn(async move {
            let _leave = leave;
            if let Some(Last { cancel, handle, .. }) = before {
                cancel.cancel();
                // A panic in it was its own; it is over either way.
                let _ = handle.await;
            }
            // Its phase is over already: what it would do may be wrong by now.
            if !superseded.is_cancelled() {
                job.await;
            }
        }));
        jobs.last.insert(agent, Last { number, cancel, handle });
    }

    /// Asks the agent's last job to end where it safely can: its actor has ended.
    pub fn cancel(&self, agent: AgentId) {
        if let Some(last) = self.jobs().last.get(&agent) {
            last.cancel.cancel();
        }
    }

    /// Asks all jobs to end and waits for them; what has not ended within `patience` is dropped. False if that was needed.
    pub async fn shutdown(&self, patience: Duration) -> bool {
        let last: Vec<Last> = {
            let mut jobs = self.jobs();
            let mut last: Vec<_> = jobs.last.drain().collect();
            last.sort_unstable_by_key(|(agent, _)| *agent);
            last.into_iter().map(|(_, last)| last).collect()
        };
        for job in &last {
            job.cancel.cancel();
        }
        let ended = async {
            for mut job in last {
                let _ = (&mut job.handle).await;
            }
        };
        timeout(patience, ended).await.is_ok()
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    /// The first one is not done when the second and the third come: the third takes the place of the second.
    #[tokio::test(start_paused = true)]
    async fn a_job_that_is_superseded_before_it_began_never_begins() {
        let (queues, agent) = (JobQueues::default(), AgentId::new());
        #[expect(clippy::disallowed_methods, reason = "a test makes some notes")]
        let (note, mut notes) = mpsc::unbounded_channel();
        for name in ["first", "second", "third"] {
            let note = note.clone();
            queues.run(agent, move |cancel| async move {
                note.send(name).unwrap();
                if name == "first" {
                    cancel.cancelled().await;
                }
            });
            if name == "first" {
                // It begins, and waits to be asked.
                tokio::task::yield_now().await;
            }
        }
        drop(note);
        let mut begun = Vec::new();
        while let Some(name) = notes.recv().await {
            begun.push(name);
        }
        assert_eq!(begun, ["first", "third"]);
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_waits_for_jobs_and_says_whether_all_have_ended() {
        let (queues, patience) = (JobQueues::default(), Duration::from_secs(5));
        assert!(queues.shutdown(patience).await, "there is none");
        let ended = Arc::new(Mutex::new(0));
        for work in [1, 4] {
            let ended = Arc::clone(&ended);
            queues.run(AgentId::new(), move |cancel| async move {
                cancel.cancelled().await;
                tokio::time::sleep(Duration::from_secs(work)).await;
                *ended.lock().unwrap() += 1;
            });
        }
        // They begin, and wait to be asked.
        tokio::task::yield_now().await;
        assert!(queues.shutdown(patience).await);
        assert_eq!(*ended.lock().unwrap(), 2);
        queues.run(AgentId::new(), |_| std::future::pending());
        tokio::task::yield_now().await;
        assert!(!queues.shutdown(patience).await, "one hears nothing");
    }
}
