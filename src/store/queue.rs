//! The writer: one thread that takes what has piled up and makes it durable in one commit.
//!
//! A commit costs about the same for one batch as for many, so batches that arrive while one commit runs share the
//! next. Nothing waits for company: a lone batch is committed at once.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tracing::subscriber::NoSubscriber;

use super::batch::Batch;
use super::engine::Engine;
use super::error::StoreError;

/// Batches that may wait for the writer; more wait outside, and not for ever. About a fifth of a second's work.
const QUEUE: usize = 1024;

/// Batches that share a commit. More would make each of them wait longer and gain little.
const GROUP: usize = 64;

/// How long a batch waits for a place in the queue. The queue drains in a fraction of it, unless the disk hangs.
const ENQUEUE_WITHIN: Duration = Duration::from_secs(5);

/// How long a batch in the queue waits for its answer: long enough for a disk that stalls and comes back.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// How long closing waits for the queue to be written. After it the disk is taken for dead.
const FINISH_WITHIN: Duration = Duration::from_secs(30);

/// Pauses between attempts to get a failed store back: short at first, then so that a full disk is noticed to have
/// room again within seconds.
const REOPEN_FIRST: Duration = Duration::from_millis(50);
const REOPEN_LAST: Duration = Duration::from_secs(2);

struct Job {
    batch: Batch,
    answer: oneshot::Sender<Result<(), StoreError>>,
    _place: OwnedSemaphorePermit,
}

/// The way to the writer's thread.
pub(super) struct Queue {
    places: Arc<Semaphore>,
    sender: Mutex<Option<Sender<Job>>>,
    writer: Mutex<Option<Writer>>,
}

struct Writer {
    thread: JoinHandle<()>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

impl Queue {
    /// Starts the writer.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start(engine: Arc<Engine>) -> std::io::Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "the places bound it")]
        let (sender, receiver) = channel();
        let (ends, ended): (SyncSender<()>, _) = sync_channel(0);
        // A subscriber that is set for the caller's thread alone gets the writer's lines as well.
        let subscriber = tracing::dispatcher::get_default(Clone::clone);
        let thread = std::thread::Builder::new().name("store-writer".into()).spawn(move || {
            let _ends = ends;
            if subscriber.is::<NoSubscriber>() {
                // One that is set for the whole process later must not be hidden.
                run(&engine, &receiver);
            } else {
                tracing::dispatcher::with_default(&subscriber, || run(&engine, &receiver));
            }
        })?;
        Ok(Self {
            places: Arc::new(Semaphore::new(QUEUE)),
            sender: Mutex::new(Some(sender)),
            writer: Mutex::new(Some(Writer { thread, ended })),
        })
    }

    pub(super) async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let place = tokio::time::timeout(ENQUEUE_WITHIN, self.places.clone().acquire_owned())
            .await
            .map_err(|_| StoreError::Busy)?
            .map_err(|_| StoreError::Closed)?;
        let (answer, answered) = oneshot::channel();
        {
            let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
            let sender = sender.as_ref().ok_or(StoreError::Closed)?;
            sender.send(Job { batch, answer, _place: place }).map_err(|_| StoreError::Closed)?;
        }
        match tokio::time::timeout(ANSWER_WITHIN, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(StoreError::Unknown("the writer ended".into())),
            Err(_) => Err(StoreError::Unknown("the disk does not answer".into())),
        }
    }

    /// Batches that wait or are being written.
    pub(super) fn len(&self) -> usize {
        QUEUE - self.places.available_permits()
    }

    /// Takes no more batches, and returns when those in the queue are answered. False if the disk hangs: then the
    /// writer may still be at work.
    pub(super) fn finish(&self) -> bool {
        self.places.close();
        drop(self.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
        let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() else { return true };
        if writer.ended.recv_timeout(FINISH_WITHIN) == Err(RecvTimeoutError::Timeout) {
            tracing::error!("the store's disk does not answer; what was not acknowledged may be lost");
            return false;
        }
        if writer.thread.join().is_err() {
            tracing::error!("the store's writer panicked");
        }
        true
    }
}

fn run(engine: &Engine, jobs: &Receiver<Job>) {
    let mut recovery = Recovery::default();
    loop {
        let first = match recovery.next_attempt {
            None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => jobs.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        match first {
            Ok(job) => write_group(engine, job, jobs),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        recovery.pursue(engine);
    }
}

fn write_group(engine: &Engine, first: Job, jobs: &Receiver<Job>) {
    let mut batches = vec![first.batch];
    let mut answers = vec![(first.answer, first._place)];
    for job in jobs.try_iter().take(GROUP - 1) {
        batches.push(job.batch);
        answers.push((job.answer, job._place));
    }
    for ((answer, place), outcome) in answers.into_iter().zip(engine.write(&batches)) {
        drop(place);
        // Whoever asked may have stopped waiting: the batch is written all the same.
        let _ = answer.send(outcome);
    }
}

/// When to try next to get a failed store back.
#[derive(Default)]
struct Recovery {
    next_attempt: Option<Instant>,
    pause: Duration,
}

impl Recovery {
    fn pursue(&mut self, engine: &Engine) {
        if self.next_attempt.is_some_and(|due| due <= Instant::now()) && engine.reopen().is_ok() {
            tracing::info!(store = %engine.place, "the store is available again");
        }
        if engine.is_down() { self.wait(Instant::now()) } else { *self = Self::default() }
    }

    /// After an attempt that failed, or before the first one: sets the time of the next.
    fn wait(&mut self, now: Instant) {
        if self.next_attempt.is_none_or(|due| due <= now) {
            self.pause = (self.pause * 2).clamp(REOPEN_FIRST, REOPEN_LAST);
            self.next_attempt = Some(now + self.pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_store_is_tried_again_less_and_less_often_and_at_least_every_two_seconds() {
        let mut recovery = Recovery::default();
        let mut now = Instant::now();
        for pause_ms in [50, 100, 200, 400, 800, 1600, 2000, 2000] {
            recovery.wait(now);
            let due = now + Duration::from_millis(pause_ms);
            assert_eq!(recovery.next_attempt, Some(due));
            recovery.wait(due - Duration::from_millis(1));
            assert_eq!(recovery.next_attempt, Some(due), "batches that come meanwhile change nothing");
            now = due;
        }
    }
}
