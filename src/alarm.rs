//! A deadline for each request in turn, over one timer that is seldom set.
//!
//! A timer is entered into the runtime's wheel when it is first waited for, and taken out of it when it is dropped, both under a lock
//! that all threads share. Nearly every request meets its deadline, and the next one's is later: so the timer stays where it is. Where
//! it rings too early, it is set to what is wanted by then.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// One timer, for deadlines that follow each other. Nothing is in the wheel before it is first polled.
#[derive(Default)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready once the deadline is over. Whoever polled last is woken, by now and then without a need.
    pub(crate) fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_rings_at_each_deadline_whether_earlier_or_later_than_the_one_before() {
        let (began, mut alarm) = (Instant::now(), Alarm::default());
        for secs in [5, 7, 60, 61] {
            poll_fn(|cx| alarm.poll(began + SECOND * secs, cx)).await;
            assert_eq!(began.elapsed().as_secs(), u64::from(secs));
        }
        assert!(futures_util::poll!(poll_fn(|cx| alarm.poll(began + SECOND * 100, cx))).is_pending());
        poll_fn(|cx| alarm.poll(began + SECOND * 70, cx)).await;
        assert_eq!(began.elapsed().as_secs(), 70, "sooner than it was set before");
        poll_fn(|cx| alarm.poll(began + SECOND * 3, cx)).await;
        assert_eq!(began.elapsed().as_secs(), 70, "over long ago");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_set_for_an_earlier_request_rings_for_the_last() {
        let (began, mut alarm) = (Instant::now(), Alarm::default());
        for secs in 10..20 {
            assert!(futures_util::poll!(poll_fn(|cx| alarm.poll(began + SECOND * secs, cx))).is_pending());
        }
        poll_fn(|cx| alarm.poll(began + SECOND * 19, cx)).await;
        assert_eq!(began.elapsed().as_secs(), 19);
    }
}
