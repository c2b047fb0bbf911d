//! The queue of messages in front of an agent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Semaphore;

/// Messages to one agent that wait, and the one that is under way.
#[derive(Debug)]
pub struct SendQueue {
    /// One message at a time passes from waiting to sending, first come first served: held messages keep their order.
    pub turn: Arc<Semaphore>,
    /// Messages waiting or under way.
    held: AtomicU32,
}

impl Default for SendQueue {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), held: AtomicU32::new(0) }
    }
}

impl SendQueue {
    /// Counts a message in, unless `max` are there already.
    pub fn enter(self: &Arc<Self>, max: u32) -> Option<Held> {
        let entered = self
            .held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| (held < max).then_some(held + 1))
            .is_ok();
        entered.then(|| Held(Arc::clone(self)))
    }
}

/// A message that is counted in; counted out when dropped.
#[derive(Debug)]
pub struct Held(Arc<SendQueue>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}
