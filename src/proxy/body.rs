//! Bodies on their way: bounded, with an end to silence, and never silently cut.

use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::limits::Place;
use crate::zeroclaw::client::connections::Lease;

/// Bodies up to this size are read whole before they are sent: a message is one, and it may have to be sent again.
pub const MAX_REPLAYED: usize = 64 * 1024;

/// An answer may be ahead of its pace by what goes on in this time.
const BURST: Duration = Duration::from_secs(1);

/// A request's body.
pub(super) enum Outgoing {
    /// Can be sent again.
    Whole(Bytes),
    /// Is sent while it comes; gone once it was given away.
    Stream(Option<Body>, Fault),
}

/// Whether a streamed body grew beyond its bound, or broke. The gateway then sees a broken request, and the caller what it
/// did wrong.
#[derive(Debug, Clone, Default)]
pub(super) struct Fault(Arc<OnceLock<Unusable>>);

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
        let fault = Fault::default();
        let bounded = Bounded { inner: body, left: max, fault: fault.clone() };
        Ok(Self::Stream(Some(Body::new(bounded)), fault))
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

    /// What was wrong with what was streamed of it.
    pub(super) fn fault(&self) -> Option<Unusable> {
        match self {
            Self::Whole(_) => None,
            Self::Stream(_, fault) => fault.0.get().copied(),
        }
    }
}

struct Bounded {
    inner: Body,
    left: u64,
    fault: Fault,
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if matches!(frame, Some(Err(_))) {
            let _ = self.fault.0.set(Unusable::Broken);
        }
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let length = data.len() as u64;
            if length > self.left {
                let _ = self.fault.0.set(Unusable::TooLarge);
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
    lease: Option<Lease<Body>>,
    _place: Place,
    ends: Ends,
    silence: Pin<Box<Sleep>>,
    /// Holds up those who may not have all at once.
    pace: Option<Box<Pace>>,
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

/// So many bytes a second, a second's worth at once. What was held up is not read from the gateway, which so is held up too.
struct Pace {
    rate: NonZeroU32,
    /// When all that went on would have gone at this rate.
    due: Instant,
    turn: Pin<Box<Sleep>>,
}

impl Pace {
    fn new(rate: NonZeroU32) -> Self {
        let now = Instant::now();
        Self { rate, due: now, turn: Box::pin(sleep_until(now)) }
    }

    fn count(&mut self, bytes: usize) {
        let now = Instant::now();
        self.due = self.due.max(now) + Duration::from_secs_f64(bytes as f64 / f64::from(self.rate.get()));
        self.turn.as_mut().reset(self.due - BURST);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.turn.as_mut().poll(cx)
    }
}

/// What an event stream ends with when its gateway went away in the middle. The blank lines end an event that was begun.
const BROKEN_OFF: &str = "\n\nevent: error\ndata: {\"code\":\"gateway-error\",\"message\":\"The agent's gateway ended before its answer did.\"}\n\n";

impl Answer {
    pub(super) fn new(
        inner: Incoming,
        lease: Lease<Body>,
        place: Place,
        ends: Ends,
        pace: Option<NonZeroU32>,
        events: bool,
    ) -> Self {
        let mut answer = Self {
            inner,
            lease: Some(lease),
            _place: place,
            silence: Box::pin(sleep(ends.idle)),
            ends,
            pace: pace.map(|rate| Box::new(Pace::new(rate))),
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
        if let Some(pace) = &mut self.pace {
            ready!(pace.poll(cx));
        }
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(pace), Some(data)) = (&mut self.pace, frame.data_ref()) {
                    pace.count(data.len());
                }
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
