//! So many bytes a second, a second's worth at once.

use std::future::poll_fn;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// What goes on may be ahead of its pace by what may go on in this time.
const BURST: Duration = Duration::from_secs(1);

/// Holds up those who may not have all at once. What is held up is not read from its sender, who so is held up too.
pub(super) struct Pace {
    rate: NonZeroU32,
    /// When all that went on would have gone at this rate.
    due: Instant,
    turn: Pin<Box<Sleep>>,
}

impl Pace {
    pub(super) fn new(rate: NonZeroU32) -> Self {
        let now = Instant::now();
        Self { rate, due: now, turn: Box::pin(sleep_until(now)) }
    }

    /// So much went on.
    pub(super) fn count(&mut self, bytes: usize) {
        let now = Instant::now();
        self.due = self.due.max(now) + Duration::from_secs_f64(bytes as f64 / f64::from(self.rate.get()));
        self.turn.as_mut().reset(self.due - BURST);
    }

    /// Waits until more may go on. Whether that took time.
    pub(super) async fn turn(&mut self) -> bool {
        let mut waited = false;
        poll_fn(|cx| {
            let turn = self.poll(cx);
            waited |= turn.is_pending();
            turn
        })
        .await;
        waited
    }

    /// Ready when more may go on.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // A timer that is due now ends with the next millisecond: what keeps to its pace would count as held up.
        if self.due <= Instant::now() + BURST { Poll::Ready(()) } else { self.turn.as_mut().poll(cx) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_seconds_worth_goes_at_once_and_the_rest_at_its_rate() {
        let began = Instant::now();
        let mut pace = Pace::new(NonZeroU32::new(1000).unwrap());
        for (bytes, waited_ms) in [(1000, 0), (500, 500), (1500, 2000), (1, 2001)] {
            pace.count(bytes);
            assert_eq!(pace.turn().await, waited_ms > 0);
            let waited = began.elapsed().as_millis();
            assert!((waited_ms..waited_ms + 10).contains(&waited), "{bytes} bytes after {waited} ms");
        }
        tokio::time::advance(Duration::from_secs(60)).await;
        let quiet = Instant::now();
        pace.count(1000);
        pace.turn().await;
        assert!(quiet.elapsed() < Duration::from_millis(10), "silence saves up no more than a second");
    }
}
