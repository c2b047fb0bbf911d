//! One job at a time for each agent.
//!
//! A job that changes an instance must not be cut off: nobody would know what it did, and the next job could overtake it.
//! So a job that is superseded is asked to end where it safely can, and the next one begins when it has. That holds beyond
//! the actor that began it: if that one crashes, its successor's first job waits for what is still under way.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

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
    handle: JoinHandle<()>,
}

/// Leaves the lane at a job's end, also at a bad one: what is over keeps no memory.
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
        let job = job(cancel.clone());
        // Held until the job is noted, so that it cannot leave before it was.
        let mut jobs = self.jobs();
        jobs.begun += 1;
        let number = jobs.begun;
        let before = jobs.last.remove(&agent);
        let leave = Leave { job_queues: self.clone(), agent, number };
        let handle = tokio::spawn(async move {
            let _leave = leave;
            if let Some(Last { cancel, handle, .. }) = before {
                cancel.cancel();
                // A panic in it was its own; it is over either way.
                let _ = handle.await;
            }
            job.await;
        });
        jobs.last.insert(agent, Last { number, cancel, handle });
    }

    /// Asks the agent's last job to end where it safely can: nobody waits for it any more.
    pub fn cancel(&self, agent: AgentId) {
        if let Some(last) = self.jobs().last.get(&agent) {
            last.cancel.cancel();
        }
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
