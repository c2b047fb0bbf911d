//! A cell's answer on its way to the caller: as fast as the caller reads it, with an end to silence.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use super::fleet::Place;
use crate::zeroclaw::client::connections::Lease;

/// Gives the connection back at its end; dropped before, it ends the request at the cell.
pub(super) struct Answer {
    inner: Incoming,
    /// `None` once the answer is at its end.
    lease: Option<Lease<Body>>,
    idle: Duration,
    silence: Pin<Box<Sleep>>,
    /// The cell answers nothing any more, or the router ends.
    until: BoxFuture<'static, ()>,
    /// An event stream tells in its own words that it broke off; other answers are cut, which their clients notice.
    events: bool,
    _place: Place,
}

/// Blank lines end an event that was begun; the code is a problem's.
const BROKEN: &str =
    "\n\nevent: error\ndata: {\"code\":\"cell-failed\",\"message\":\"The cell ended before its answer did.\"}\n\n";

impl Answer {
    pub(super) fn new(
        inner: Incoming,
        lease: Lease<Body>,
        place: Place,
        idle: Duration,
        until: BoxFuture<'static, ()>,
        events: bool,
    ) -> Self {
        let silence = Box::pin(sleep(idle));
        let mut answer = Self { inner, lease: Some(lease), idle, silence, until, events, _place: place };
        answer.end_if_whole();
        answer
    }

    fn end_if_whole(&mut self) {
        if self.inner.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }

    fn break_off(&mut self, why: axum::Error) -> Option<Result<Frame<Bytes>, axum::Error>> {
        self.lease = None;
        tracing::debug!(%why, "a cell's answer broke off");
        Some(if self.events { Ok(Frame::data(Bytes::from_static(BROKEN.as_bytes()))) } else { Err(why) })
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let Some(lease) = &mut this.lease else { return Poll::Ready(None) };
        match lease.poll_frame(&mut this.inner, cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let until = Instant::now() + this.idle;
                this.silence.as_mut().reset(until);
                this.end_if_whole();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(this.break_off(axum::Error::new(error))),
            Poll::Ready(None) => {
                if let Some(lease) = this.lease.take() {
                    lease.give_back();
                }
                Poll::Ready(None)
            }
            Poll::Pending => {
                if this.until.as_mut().poll(cx).is_pending() {
                    ready!(this.silence.as_mut().poll(cx));
                }
                Poll::Ready(this.break_off(axum::Error::new("nothing comes any more")))
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
