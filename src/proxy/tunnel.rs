//! A WebSocket, as two streams of bytes: what it says is between the two ends.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::limits::{Bound, Meets};
use super::pace::Pace;

/// Bytes on their way in one direction: a reader who is slow holds up the writer, and nothing piles up here.
const BUFFER: usize = 8 * 1024;

/// What a WebSocket may take.
pub(crate) struct Bounds<P> {
    pub(crate) place: P,
    /// Nothing moved for this long.
    pub(crate) idle: Duration,
    /// Bytes a second in each direction.
    pub(crate) pace: Option<NonZeroU32>,
}

/// Joins both ends as soon as they have changed their protocol; goes on by itself until one of them ends.
pub(crate) fn open<P: Meets>(caller: OnUpgrade, gateway: OnUpgrade, bounds: Bounds<P>, until: BoxFuture<'static, ()>) {
    tokio::spawn(async move {
        let joined = async {
            let (caller, gateway) = (TokioIo::new(caller.await?), TokioIo::new(gateway.await?));
            join(caller, gateway, &bounds).await;
            Ok::<(), hyper::Error>(())
        };
        tokio::select! {
            joined = joined => {
                if let Err(error) = joined {
                    tracing::debug!(%error, "a WebSocket was not opened");
                }
            }
            () = until => {}
        }
    });
}

/// Copies both ways until one end closes and the other has taken what was left, or nothing moved for too long.
async fn join<P: Meets>(caller: impl AsyncRead + AsyncWrite, gateway: impl AsyncRead + AsyncWrite, bounds: &Bounds<P>) {
    let (caller_reads, caller_writes) = tokio::io::split(caller);
    let (gateway_reads, gateway_writes) = tokio::io::split(gateway);
    let moved = Moved::now();
    // An end that hangs up has nothing more to say, and a WebSocket of which one half is gone is of no use.
    let (one, other) = tokio::join!(
        copy(caller_reads, gateway_writes, &moved, bounds),
        copy(gateway_reads, caller_writes, &moved, bounds),
    );
    if one || other {
        bounds.place.meets(Bound::Idle);
    }
}

/// Copies until the end; `true` where that came because nothing moved.
async fn copy<P: Meets>(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &Moved,
    Bounds { place, idle, pace }: &Bounds<P>,
) -> bool {
    let mut buffer = vec![0; BUFFER];
    let mut pace = pace.map(Pace::new);
    let (mut held_up, mut was_idle) = (false, false);
    loop {
        if let Some(pace) = &mut pace
            && pace.turn().await
        {
            if !std::mem::replace(&mut held_up, true) {
                place.meets(Bound::Pace);
            }
            moved.set();
        }
        let length = match timeout_at(moved.get() + *idle, from.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(length)) => length,
            // The other direction may have been busy meanwhile.
            Err(_) if moved.get().elapsed() < *idle => continue,
            Err(_) => {
                was_idle = true;
                break;
            }
        };
        moved.set();
        let written = timeout_at(moved.get() + *idle, to.write_all(&buffer[..length])).await;
        if !matches!(written, Ok(Ok(()))) {
            was_idle = written.is_err();
            break;
        }
        if let Some(pace) = &mut pace {
            pace.count(length);
        }
        moved.set();
    }
    // Tells the other end, whose answer to it ends the other direction.
    let _ = to.shutdown().await;
    was_idle
}

/// When something moved last, in either direction.
struct Moved(Mutex<Instant>);

impl Moved {
    fn now() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    fn get(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const IDLE: Duration = Duration::from_secs(9);

    /// Counts the bounds that were met, whichever.
    #[derive(Default)]
    struct Met(Arc<AtomicUsize>);

    impl Meets for Met {
        fn meets(&self, _: Bound) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Both ends of a tunnel, and how often it has met a bound when it is over.
    fn tunnel(pace: Option<NonZeroU32>) -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<usize>) {
        let ((caller, near), (gateway, far)) = (duplex(64), duplex(64));
        let joined = tokio::spawn(async move {
            let place = Met::default();
            let met = Arc::clone(&place.0);
            join(near, far, &Bounds { place, idle: IDLE, pace }).await;
            met.load(Ordering::Relaxed)
        });
        (caller, gateway, joined)
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_stays_while_something_moves_either_way_and_no_longer() {
        let began = Instant::now();
        let (mut caller, mut gateway, joined) = tunnel(None);
        for _ in 0..3 {
            tokio::time::sleep(IDLE * 2 / 3).await;
            gateway.write_all(b"news").await.unwrap();
            let mut read = [0; 4];
            caller.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, b"news");
        }
        assert_eq!(joined.await.unwrap(), 1, "that it was silent is counted");
        assert_eq!(began.elapsed(), IDLE * 3);
        assert_eq!(caller.read(&mut [0; 4]).await.unwrap(), 0);
        assert_eq!(gateway.read(&mut [0; 4]).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_given_up_as_well() {
        for hangs_up in [false, true] {
            let began = Instant::now();
            let (mut caller, mut gateway, joined) = tunnel(None);
            if hangs_up {
                gateway.shutdown().await.unwrap();
            }
            let _ = caller.write_all(&[0; 4 * BUFFER]).await;
            assert_eq!(joined.await.unwrap(), 1, "counted once, also where the other direction has ended");
            assert_eq!(began.elapsed(), IDLE);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_closes_ends_the_other_after_what_was_left() {
        let began = Instant::now();
        let (mut caller, mut gateway, joined) = tunnel(NonZeroU32::new(4));
        caller.write_all(b"first").await.unwrap();
        caller.write_all(b", last").await.unwrap();
        caller.shutdown().await.unwrap();
        let mut read = String::new();
        gateway.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "first, last");
        drop(gateway);
        let met = joined.await.unwrap();
        assert!(began.elapsed() < IDLE && met <= 1, "it was held up at most: {met}");
    }
}
