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
