//! A future that is polled only where something has woken it.
//!
//! The parts of one task wake each other: whoever takes a piece of a body wakes the connection that brings it, whoever hands a
//! request over wakes the one that sends it. The runtime knows tasks and no parts. It puts the whole task into its queue once more,
//! wakes another thread that may take it from there, and all parts are polled again, nearly always for nothing: of four polls
//! of a connection for each request two were of this kind.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Nothing has happened.
const IDLE: u8 = 0;
/// Something has happened that the future has not seen yet.
const WOKEN: u8 = 1;
/// Whoever polls looks after this one, and need not be woken.
const BUSY: u8 = 2;
/// How often the future is polled at once when it wakes itself each time. After that others have their turn.
const TURNS: usize = 4;

/// A future with a waker of its own.
pub(crate) struct Woken<F> {
    future: F,
    bell: Arc<Bell>,
    waker: Waker,
}

struct Bell {
    state: AtomicU8,
    /// Whoever polled last.
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.fetch_or(WOKEN, Ordering::AcqRel) == IDLE {
            self.task.wake();
        }
    }
}

impl<F> Woken<F> {
    pub(crate) fn new(future: F) -> Self {
        let bell = Arc::new(Bell { state: AtomicU8::new(WOKEN), task: AtomicWaker::new() });
        Self { future, waker: Waker::from(Arc::clone(&bell)), bell }
    }

    /// Changes the future, which may then have something to do: it is polled the next time.
    #[cfg(any(test, feature = "server", feature = "gateway"))]
    pub(crate) fn change<T>(&mut self, change: impl FnOnce(&mut F) -> T) -> T {
        self.bell.state.fetch_or(WOKEN, Ordering::AcqRel);
        change(&mut self.future)
    }

    /// Looks for what the future has brought. The look itself may wake it, which is not worth a wake of the task: whoever finds
    /// something comes again, and polls first. Where there is nothing, whatever else happened meanwhile wakes the task.
    pub(crate) fn look<T>(&self, cx: &Context<'_>, look: impl FnOnce() -> Poll<T>) -> Poll<T> {
        self.bell.state.fetch_or(BUSY, Ordering::AcqRel);
        let found = look();
        let woken = self.bell.state.fetch_and(!BUSY, Ordering::AcqRel) & WOKEN != 0;
        if woken && found.is_pending() {
            cx.waker().wake_by_ref();
        }
        found
    }
}

impl<F: Future + Unpin> Future for Woken<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Self { future, bell, waker } = self.get_mut();
        bell.task.register(cx.waker());
        for _ in 0..TURNS {
            if bell.state.load(Ordering::Acquire) & WOKEN == 0 {
                return Poll::Pending;
            }
            bell.state.swap(BUSY, Ordering::AcqRel);
            if let Poll::Ready(done) = Pin::new(&mut *future).poll(&mut Context::from_waker(waker)) {
                return Poll::Ready(done);
            }
            if bell.state.compare_exchange(BUSY, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return Poll::Pending;
            }
        }
        bell.state.store(WOKEN, Ordering::Release);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;

    /// The task, as far as it is woken.
    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Polls that were made, and the waker of the last of them.
    #[derive(Default)]
    struct Seen {
        polls: AtomicUsize,
        waker: Mutex<Option<Waker>>,
    }

    impl Seen {
        fn polls(&self) -> usize {
            self.polls.load(Ordering::SeqCst)
        }

        fn wake(&self) {
            self.waker.lock().unwrap().as_ref().unwrap().wake_by_ref();
        }
    }

    /// A future that wakes itself in its first `own` polls, and is ready after `ready`.
    fn waking(seen: &Arc<Seen>, own: usize, ready: usize) -> Woken<impl Future<Output = usize> + Unpin> {
        let seen = Arc::clone(seen);
        Woken::new(poll_fn(move |cx| {
            let nth = seen.polls.fetch_add(1, Ordering::SeqCst) + 1;
            *seen.waker.lock().unwrap() = Some(cx.waker().clone());
            if nth <= own {
                cx.waker().wake_by_ref();
            }
            if nth > ready { Poll::Ready(nth) } else { Poll::Pending }
        }))
    }

    fn poll<F: Future + Unpin>(of: &mut Woken<F>, task: &Arc<Task>) -> Poll<F::Output> {
        Pin::new(of).poll(&mut Context::from_waker(&Waker::from(Arc::clone(task))))
    }

    fn woken(task: &Task) -> usize {
        task.0.load(Ordering::SeqCst)
    }

    #[test]
    fn it_is_polled_once_for_each_time_that_something_woke_it() {
        let (seen, task) = (Arc::<Seen>::default(), Arc::<Task>::default());
        let mut future = waking(&seen, 0, 2);
        for _ in 0..3 {
            assert!(poll(&mut future, &task).is_pending());
        }
        assert_eq!((seen.polls(), woken(&task)), (1, 0));
        seen.wake();
        seen.wake();
        assert_eq!(woken(&task), 1, "the second has nothing to add");
        assert!(poll(&mut future, &task).is_pending());
        assert_eq!(seen.polls(), 2);
        seen.wake();
        assert_eq!(poll(&mut future, &task), Poll::Ready(3));
    }

    #[test]
    fn what_wakes_itself_is_polled_again_at_once_and_its_task_hears_nothing() {
        let (seen, task) = (Arc::<Seen>::default(), Arc::<Task>::default());
        let mut future = waking(&seen, 2, 9);
        assert!(poll(&mut future, &task).is_pending());
        assert_eq!((seen.polls(), woken(&task)), (3, 0));
    }

    #[test]
    fn one_that_never_ends_to_wake_itself_lets_others_have_their_turn() {
        let (seen, task) = (Arc::<Seen>::default(), Arc::<Task>::default());
        let mut future = waking(&seen, 99, 99);
        assert!(poll(&mut future, &task).is_pending());
        assert_eq!((seen.polls(), woken(&task)), (TURNS, 1));
        assert!(poll(&mut future, &task).is_pending());
        assert_eq!((seen.polls(), woken(&task)), (2 * TURNS, 2));
    }

    #[test]
    fn a_look_that_finds_something_wakes_no_task_and_one_that_finds_nothing_loses_no_wake() {
        let (seen, task) = (Arc::<Seen>::default(), Arc::<Task>::default());
        let mut future = waking(&seen, 0, 9);
        let waker = Waker::from(Arc::clone(&task));
        let look = |future: &Woken<_>, found: Poll<()>, wakes: bool| {
            future.look(&Context::from_waker(&waker), || {
                if wakes {
                    seen.wake();
                }
                found
            })
        };
        assert!(poll(&mut future, &task).is_pending());
        assert!(look(&future, Poll::Ready(()), true).is_ready());
        assert_eq!((seen.polls(), woken(&task)), (1, 0));
        assert!(poll(&mut future, &task).is_pending());
        assert_eq!((seen.polls(), woken(&task)), (2, 0), "it is seen by the next poll");
        assert!(look(&future, Poll::Pending, false).is_pending());
        assert_eq!(woken(&task), 0, "nothing has happened");
        assert!(look(&future, Poll::Pending, true).is_pending());
        assert_eq!(woken(&task), 1, "it came between the last poll and the wait");
        assert!(poll(&mut future, &task).is_pending());
        assert_eq!(seen.polls(), 3);
        let task = Arc::<Task>::default();
        assert!(poll(&mut future, &task).is_pending());
        future.change(|_| ());
        assert!(poll(&mut future, &task).is_pending());
        assert_eq!((seen.polls(), woken(&task)), (4, 0));
        seen.wake();
        assert_eq!(woken(&task), 1, "it rings as before");
    }

    /// Each of many wakes by other threads leads to a poll after it, whatever it meets.
    #[test]
    fn no_wake_is_lost_between_two_threads() {
        const WAKES: usize = 20_000;
        let sent = Arc::new(AtomicUsize::new(0));
        let (tell, told) = std::sync::mpsc::sync_channel::<Waker>(1);
        let sending = Arc::clone(&sent);
        let waking = std::thread::spawn(move || {
            let waker = told.recv().unwrap();
            for _ in 0..WAKES {
                sending.fetch_add(1, Ordering::SeqCst);
                waker.wake_by_ref();
            }
        });
        let future = Woken::new(poll_fn(move |cx| {
            let _ = tell.try_send(cx.waker().clone());
            if sent.load(Ordering::SeqCst) == WAKES { Poll::Ready(()) } else { Poll::Pending }
        }));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await.expect("the last wake") });
        waking.join().unwrap();
    }
}
