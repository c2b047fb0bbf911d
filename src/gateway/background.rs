//! Work that no answer waits for: remembering a message, writing its cost down.
//!
//! One piece at a time, in the order in which they came, so that a slow disk never takes the threads that answers need.
//! When too many wait, the next answer waits for room: nothing is dropped.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore};

/// Pieces that may wait.
const WAITING: u32 = 64;

pub(super) struct Background {
    slots: Arc<Semaphore>,
    turn: Arc<Mutex<()>>,
}

impl Background {
    pub(super) fn new() -> Self {
        Self { slots: Arc::new(Semaphore::new(WAITING as usize)), turn: Arc::default() }
    }

    /// Has the work done soon.
    pub(super) async fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        // The semaphore is never closed.
        let Ok(slot) = self.slots.clone().acquire_owned().await else { return };
        let turn = self.turn.clone();
        tokio::spawn(async move {
            let turn = turn.lock().await;
            work.await;
            drop((turn, slot));
        });
    }

    /// Waits until nothing waits, but not longer than this.
    pub(super) async fn drain(&self, within: Duration) {
        let _ = tokio::time::timeout(within, self.slots.acquire_many(WAITING)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_in_order_and_all_of_it_before_the_end() {
        let background = Background::new();
        let done = Arc::new(std::sync::Mutex::new(vec![]));
        for number in 0..200 {
            let done = done.clone();
            background
                .run(async move {
                    tokio::task::yield_now().await;
                    done.lock().unwrap().push(number);
                })
                .await;
        }
        background.drain(Duration::from_secs(20)).await;
        assert_eq!(*done.lock().unwrap(), (0..200).collect::<Vec<_>>());
    }
}
