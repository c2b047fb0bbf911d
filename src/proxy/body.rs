//! Bodies on their way: bounded, with an end to silence, and never silently cut.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use super::limits::Place;
use super::pool::Lease;

/// Bodies up to this size are read whole before they are sent: a message is one, and it may have to be sent again.
pub const MAX_REPLAYED: usize = 64 * 1024;

/// A request's body.
pub(super) enum Outgoing {
    /// Can be sent again.
    Whole(Bytes),
    /// Is sent while it comes; gone once it was given away.
    Stream(Option<Body>, Overrun),
}

/// Whether a streamed body grew beyond its bound. The gateway then sees a broken request, and the caller a 413.
#[derive(Debug, Clone, Default)]
pub(super) struct Overrun(Arc<AtomicBool>);

impl Overrun {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A request's body that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    TooLarge,
    Broken,
}

impl Outgoing {
    /// Reads small bodies whole, and bounds the others.
    pub(super) async fn of(body: Body, announced: Option<u64>, max: u64) -> Result<Self, Unusable> {
        if announced.is_some_and(|length| length > max) {
            return Err(Unusable::TooLarge);
        }
        if body.is_end_stream() {
            return Ok(Self::Whole(Bytes::new()));
        }
        if announced.is_some_and(|length| length <= MAX_REPLAYED as u64) {
            let whole = body.collect().await.map_err(|_| Unusable::Broken)?;
            // Trailers of a body with a length do not exist in HTTP/1.1.
            return Ok(Self::Whole(whole.to_bytes()));
        }
        let overrun = Overrun::default();
        let bounded = Bounded { inner: body, left: max, overrun: overrun.clone() };
        Ok(Self::Stream(Some(Body::new(bounded)), overrun))
    }

    /// The body for one try; `None` where it was given away before.
    pub(super) fn take(&mut self) -> Option<Body> {
        match self {
            Self::Whole(bytes) => Some(Body::from(bytes.clone())),
            Self::Stream(body, _) => body.take(),
        }
    }

    /// Takes back what was certainly not sent.
    pub(super) fn put_back(&mut self, unsent: Body) {
        if let Self::Stream(body, _) = self {
            *body = Some(unsent);
        }
    }

    pub(super) const fn can_repeat(&self) -> bool {
        matches!(self, Self::Whole(_))
    }

    pub(super) fn overran(&self) -> bool {
        matches!(self, Self::Stream(_, overrun) if overrun.is_set())
    }
}

struct Bounded {
    inner: Body,
    left: u64,
    overrun: Overrun,
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let length = data.len() as u64;
            if length > self.left {
                self.overrun.0.store(true, Ordering::Release);
                return Poll::Ready(Some(Err(axum::Error::new("the body is larger than it may be"))));
            }
            self.left -= length;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A gateway's answer on its way to the caller. Gives the connection back at its end.
pub(super) struct Answer {
    inner: Incoming,
    lease: Option<Lease>,
    _place: Place,
    ends: Ends,
    silence: Pin<Box<Sleep>>,
    /// An event stream tells in its own words that it broke off; other answers are cut, which their clients notice.
    events: bool,
    over: bool,
}

/// What ends an answer that does not end by itself.
pub(super) struct Ends {
    /// Nothing came for this long.
    pub(super) idle: Duration,
    /// The caller may no longer listen.
    pub(super) until: BoxFuture<'static, ()>,
}

/// What an event stream ends with when its gateway went away in the middle. The blank lines end an event that was begun.
const BROKEN_OFF: &str = "\n\nevent: error\ndata: {\"code\":\"gateway-error\",\"message\":\"The agent's gateway ended before its answer did.\"}\n\n";

impl Answer {
    pub(super) fn new(inner: Incoming, lease: Lease, place: Place, ends: Ends, events: bool) -> Self {
        let mut answer = Self {
            inner,
            lease: Some(lease),
            _place: place,
            silence: Box::pin(sleep(ends.idle)),
            ends,
            events,
            over: false,
        };
        if answer.inner.is_end_stream() {
            answer.end();
        }
        answer
    }

    fn end(&mut self) {
        self.over = true;
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }

    fn break_off(&mut self, error: axum::Error) -> Option<Result<Frame<Bytes>, axum::Error>> {
        self.over = true;
        self.lease = None;
        tracing::debug!(%error, "a gateway's answer broke off");
        Some(if self.events { Ok(Frame::data(Bytes::from_static(BROKEN_OFF.as_bytes()))) } else { Err(error) })
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let until = Instant::now() + self.ends.idle;
                self.silence.as_mut().reset(until);
                if self.inner.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(self.break_off(axum::Error::new(error))),
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
            Poll::Pending => {
                if self.ends.until.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(self.break_off(axum::Error::new("the caller may no longer listen")));
                }
                ready!(self.silence.as_mut().poll(cx));
                Poll::Ready(self.break_off(axum::Error::new("nothing came for too long")))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
