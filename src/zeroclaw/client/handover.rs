//! A request body that knows whether the transport took it.
//!
//! A message must never be sent twice, and must be sent again where it safely can be. So somebody has to know for certain
//! whether the gateway may have seen it, also when a deadline passes in the very moment in which the connection comes
//! up. [`Handover`] decides that race once: either the transport takes the body, or the sender takes it back.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::SentMark;

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// The sender's end: withdraws the body when dropped, so that a request that was given up cannot be sent later.
#[derive(Debug)]
pub(super) struct Handover(Arc<AtomicU8>);

impl Handover {
    /// A body for one request, and what tells of its fate. `mark` is set when the transport takes the body.
    pub(super) fn of(data: Bytes, mark: SentMark) -> (Self, HandedBody) {
        let state = Arc::new(AtomicU8::new(WAITING));
        (Self(Arc::clone(&state)), HandedBody { state, mark, data: Some(data) })
    }

    /// Takes the body back. `true`: the transport never had it and never gets it.
    pub(super) fn withdraw(&self) -> bool {
        match self.0.compare_exchange(WAITING, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(now) => now == WITHDRAWN,
        }
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        self.withdraw();
    }
}

/// The transport's end.
#[derive(Debug)]
pub(super) struct HandedBody {
    state: Arc<AtomicU8>,
    mark: SentMark,
    data: Option<Bytes>,
}

/// The sender gave up before the transport came for the body. Makes the transport drop the connection.
#[derive(Debug, thiserror::Error)]
#[error("the request was withdrawn before it was sent")]
pub(super) struct Withdrawn;

impl Body for HandedBody {
    type Data = Bytes;
    type Error = Withdrawn;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Withdrawn>>> {
        let Some(data) = self.data.take() else { return Poll::Ready(None) };
        match self.state.compare_exchange(WAITING, TAKEN, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                self.mark.set();
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Err(_) => Poll::Ready(Some(Err(Withdrawn))),
        }
    }

    /// Never at its end before it was taken: the transport would not ask for it.
    fn is_end_stream(&self) -> bool {
        self.data.is_none()
    }

    /// Unknown for an empty body, for the same reason: nobody asks for what is known to be nothing.
    fn size_hint(&self) -> SizeHint {
        match &self.data {
            Some(data) if !data.is_empty() => SizeHint::with_exact(data.len() as u64),
            Some(_) | None => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Waker;

    use super::*;

    fn poll(body: &mut HandedBody) -> Poll<Option<Result<Frame<Bytes>, Withdrawn>>> {
        pin!(body).poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn what_the_transport_took_cannot_be_withdrawn() {
        let mark = SentMark::default();
        let (handover, mut body) = Handover::of(Bytes::from_static(b"hi"), mark.clone());
        assert!(!mark.is_set());
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Ok(_)))));
        assert!(mark.is_set() && !handover.withdraw());
        assert!(matches!(poll(&mut body), Poll::Ready(None)));
    }

    #[test]
    fn what_was_withdrawn_is_never_sent() {
        let mark = SentMark::default();
        let (handover, mut body) = Handover::of(Bytes::from_static(b"hi"), mark.clone());
        assert!(handover.withdraw() && handover.withdraw());
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Err(Withdrawn)))));
        assert!(!mark.is_set());
    }

    #[test]
    fn a_call_that_is_dropped_is_withdrawn() {
        let mark = SentMark::default();
        let (handover, mut body) = Handover::of(Bytes::from_static(b"hi"), mark.clone());
        drop(handover);
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Err(Withdrawn)))));
        assert!(!mark.is_set());
    }
}
