//! Bodies on their way: bounded, with an end to silence, and never silently cut.

use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::poll;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::limits::{Bound, Meets as _, Place};
use super::pace::Pace;
use crate::zeroclaw::client::connections::Lease;
use crate::zeroclaw::client::handover::Handover;

/// Bodies up to this size are read whole before they are sent: a message is one, and it may have to be sent again.
pub const MAX_REPLAYED: usize = 64 * 1024;

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
    /// It did not arrive in time.
    Late,
}

impl Outgoing {
    /// Reads small bodies whole, and bounds the others.
    pub(super) async fn of(body: Body, announced: Option<u64>, max: u64, within: Duration) -> Result<Self, Unusable> {
        if announced.is_some_and(|length| length > max) {
            return Err(Unusable::TooLarge);
        }
        if body.is_end_stream() {
            return Ok(Self::Whole(Bytes::new()));
        }
        if announced.is_some_and(|length| length <= MAX_REPLAYED as u64) {
            let mut all = pin!(whole(body));
            // Nearly always it came with the head.
            let all = match poll!(all.as_mut()) {
                Poll::Ready(all) => all,
                Poll::Pending => timeout(within, all).await.map_err(|_elapsed| Unusable::Late)?,
            };
            return Ok(Self::Whole(all.map_err(|_| Unusable::Broken)?));
        }
        let fault = Fault::default();
        let silence = Box::pin(sleep(within));
        let bounded = Bounded { inner: body, left: max, within, silence, waited: false, fault: fault.clone() };
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
        matches!(self, Self::Whole(_) | Self::Stream(Some(_), _))
    }

    /// What was wrong with what was streamed of it.
    pub(super) fn fault(&self) -> Option<Unusable> {
        match self {
            Self::Whole(_) => None,
            Self::Stream(_, fault) => fault.0.get().copied(),
        }
    }
}

/// All of a body whose length is announced, and small. Nearly every one is one piece, and is not copied. Trailers of a body with a
/// length do not exist in HTTP/1.1.
async fn whole(mut body: Body) -> Result<Bytes, axum::Error> {
    let mut pieces = Vec::new();
    while let Some(frame) = body.frame().await {
        pieces.extend(frame?.into_data());
    }
    Ok(match pieces.len() {
        1 => pieces.remove(0),
        _ => pieces.concat().into(),
    })
}

struct Bounded {
    inner: Body,
    left: u64,
    /// How long its sender may be silent while it is waited for.
    within: Duration,
    silence: Pin<Box<Sleep>>,
    waited: bool,
    fault: Fault,
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) else {
            if !std::mem::replace(&mut self.waited, true) {
                let until = Instant::now() + self.within;
                self.silence.as_mut().reset(until);
            }
            ready!(self.silence.as_mut().poll(cx));
            let _ = self.fault.0.set(Unusable::Late);
            return Poll::Ready(Some(Err(axum::Error::new("the body did not arrive in time"))));
        };
        self.waited = false;
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
    /// `None` once the answer is at its end.
    lease: Option<Lease<Body>>,
    /// The request's body as far as the gateway did not ask for it.
    unread: Option<Handover<Body>>,
    place: Place,
    ends: Ends,
    /// `None` before the first wait: most answers come without one.
    silence: Option<Pin<Box<Sleep>>>,
    /// Whether the next frame is waited for, with `silence` set for it.
    waited: bool,
    /// Holds up those who may not have all at once.
    pace: Option<Box<Pace>>,
    /// Whether it was held up before.
    held_up: bool,
    /// Frames since it was looked last whether the caller may still listen.
    unlooked: u8,
    /// An event stream tells in its own words that it broke off; other answers are cut, which their clients notice.
    events: bool,
}

/// What ends an answer that does not end by itself.
pub(super) struct Ends {
    /// Nothing came for this long.
    pub(super) idle: Duration,
    /// The caller may no longer listen.
    pub(super) until: BoxFuture<'static, ()>,
}

/// Frames that go on before it is looked whether they still may. Nearly every answer has fewer, and is spared the look; one whose
/// next frame is always there must not go on for ever.
const UNLOOKED: u8 = 8;

/// Why an answer ends before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// Its gateway went away in the middle.
    Gateway,
    Idle,
    Closed,
}

impl Broken {
    /// What an event stream ends with. The blank lines end an event that was begun; the codes are those of problems.
    const fn event(self) -> &'static str {
        match self {
            Self::Gateway => {
                "\n\nevent: error\ndata: {\"code\":\"gateway-error\",\"message\":\"The agent's gateway ended before its answer did.\"}\n\n"
            }
            Self::Idle => {
                "\n\nevent: error\ndata: {\"code\":\"stream-idle\",\"message\":\"Nothing came for too long.\"}\n\n"
            }
            Self::Closed => {
                "\n\nevent: error\ndata: {\"code\":\"stream-closed\",\"message\":\"The service ends, or the key no longer works.\"}\n\n"
            }
        }
    }
}

impl Answer {
    pub(super) fn new(
        inner: Incoming,
        lease: Lease<Body>,
        unread: Option<Handover<Body>>,
        place: Place,
        ends: Ends,
        pace: Option<NonZeroU32>,
        events: bool,
    ) -> Self {
        let mut answer = Self {
            inner,
            lease: Some(lease),
            unread,
            place,
            silence: None,
            waited: false,
            ends,
            pace: pace.map(|rate| Box::new(Pace::new(rate))),
            held_up: false,
            unlooked: 0,
            events,
        };
        if answer.inner.is_end_stream() {
            answer.end();
        }
        answer
    }

    fn end(&mut self) {
        // One that answered without the body has left a connection on which that is still expected.
        let unread = self.unread.take().and_then(|unread| unread.withdraw()).is_some();
        if let Some(lease) = self.lease.take().filter(|_| !unread) {
            lease.give_back();
        }
    }

    fn no_longer(&mut self) -> Option<Result<Frame<Bytes>, axum::Error>> {
        self.break_off(Broken::Closed, axum::Error::new("the caller may no longer listen"))
    }

    fn break_off(&mut self, why: Broken, error: axum::Error) -> Option<Result<Frame<Bytes>, axum::Error>> {
        self.lease = None;
        tracing::debug!(%error, "a gateway's answer broke off");
        Some(if self.events { Ok(Frame::data(Bytes::from_static(why.event().as_bytes()))) } else { Err(error) })
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let held_up = self.pace.as_mut().is_some_and(|pace| pace.poll(cx).is_pending());
        if (held_up || self.unlooked >= UNLOOKED) && self.lease.is_some() {
            self.unlooked = 0;
            if self.ends.until.as_mut().poll(cx).is_ready() {
                return Poll::Ready(self.no_longer());
            }
        }
        if held_up {
            if !self.held_up {
                self.held_up = true;
                self.place.meets(Bound::Pace);
            }
            return Poll::Pending;
        }
        let this = &mut *self;
        let Some(lease) = &mut this.lease else { return Poll::Ready(None) };
        match lease.poll_frame(&mut this.inner, cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(pace), Some(data)) = (&mut self.pace, frame.data_ref()) {
                    pace.count(data.len());
                }
                self.unlooked += 1;
                self.waited = false;
                if self.inner.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(self.break_off(Broken::Gateway, axum::Error::new(error))),
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
            Poll::Pending => {
                if self.ends.until.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(self.no_longer());
                }
                let idle = self.ends.idle;
                let waited = std::mem::replace(&mut self.waited, true);
                let silence = self.silence.get_or_insert_with(|| Box::pin(sleep(idle)));
                if !waited {
                    silence.as_mut().reset(Instant::now() + idle);
                }
                ready!(silence.as_mut().poll(cx));
                self.place.meets(Bound::Idle);
                Poll::Ready(self.break_off(Broken::Idle, axum::Error::new("nothing came for too long")))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.lease.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests;
