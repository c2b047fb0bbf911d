//! A request body that knows whether the transport took it.
//!
//! A message must never be sent twice, and must be sent again where it safely can be. So somebody has to know for certain
//! whether the gateway may have seen it, also when a deadline passes in the very moment in which the connection comes
//! up. [`Handover`] decides that race once: either the transport takes the body, or the sender takes it back. The transport
//! gets it with a [`Permission`] only: when the receiver asked for it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};

use super::SentMark;

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// The sender's end: withdraws the body when dropped, so that a request that was given up cannot be sent later.
#[derive(Debug)]
pub(super) struct Handover {
    state: Arc<AtomicU8>,
    permission: Permission,
}

impl Handover {
    /// A body for one request, and what tells of its fate. `mark` is set when the transport takes the body.
    pub(super) fn of(data: Bytes, mark: SentMark) -> (Self, HandedBody, Permission) {
        let (state, permission) = (Arc::new(AtomicU8::new(WAITING)), Permission::default());
        let body = HandedBody { state: Arc::clone(&state), permission: permission.clone(), mark, data: Some(data) };
        (Self { state, permission: permission.clone() }, body, permission)
    }

    /// Takes the body back. `true`: the transport never had it and never gets it.
    pub(super) fn withdraw(&self) -> bool {
        match self.state.compare_exchange(WAITING, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                // The transport ends the request.
                self.permission.0.transport.wake();
                true
            }
            Err(now) => now == WITHDRAWN,
        }
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        self.withdraw();
    }
}

/// Whether the body may go.
#[derive(Debug, Clone, Default)]
pub(super) struct Permission(Arc<Given>);

#[derive(Debug, Default)]
struct Given {
    given: AtomicBool,
    asked: AtomicBool,
    transport: AtomicWaker,
}

impl Permission {
    /// The receiver asks for the body.
    pub(super) fn ask(&self) {
        self.0.asked.store(true, Ordering::Release);
        self.grant();
    }

    /// It may go although nobody asked.
    pub(super) fn grant(&self) {
        self.0.given.store(true, Ordering::Release);
        self.0.transport.wake();
    }

    pub(super) fn is_given(&self) -> bool {
        self.0.given.load(Ordering::Acquire)
    }

    pub(super) fn was_asked(&self) -> bool {
        self.0.asked.load(Ordering::Acquire)
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.is_given() {
            self.0.transport.register(cx.waker());
        }
        // Looked at once more: it may have been given meanwhile.
        if self.is_given() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// The transport's end.
#[derive(Debug)]
pub(super) struct HandedBody {
    state: Arc<AtomicU8>,
    permission: Permission,
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

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Withdrawn>>> {
        // Withdrawn before that, it is not waited for any longer.
        if self.data.is_some() && self.state.load(Ordering::Acquire) == WAITING {
            ready!(self.permission.poll(cx));
        }
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
        let (handover, mut body, permission) = Handover::of(Bytes::from_static(b"hi"), mark.clone());
        permission.grant();
        assert!(!mark.is_set());
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Ok(_)))));
        assert!(mark.is_set() && !handover.withdraw());
        assert!(matches!(poll(&mut body), Poll::Ready(None)));
    }

    #[test]
    fn what_was_withdrawn_is_never_sent() {
        let mark = SentMark::default();
        let (handover, mut body, permission) = Handover::of(Bytes::from_static(b"hi"), mark.clone());
        permission.grant();
        assert!(handover.withdraw() && handover.withdraw());
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Err(Withdrawn)))));
        assert!(!mark.is_set());
    }

    #[test]
    fn a_call_that_is_dropped_is_withdrawn() {
        let mark = SentMark::default();
        let (handover, mut body, permission) = Handover::of(Bytes::from_static(b"hi"), mark.clone());
        permission.grant();
        drop(handover);
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Err(Withdrawn)))));
        assert!(!mark.is_set());
    }

    #[test]
    fn the_transport_gets_nothing_that_nobody_asked_for() {
        let mark = SentMark::default();
        let (handover, mut body, permission) = Handover::of(Bytes::from_static(b"hi"), mark.clone());
        assert!(poll(&mut body).is_pending() && !mark.is_set());
        permission.ask();
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Ok(_)))));
        assert!(permission.was_asked() && mark.is_set() && !handover.withdraw());
    }

    #[test]
    fn what_is_withdrawn_unasked_ends_its_request() {
        let (handover, mut body, _permission) = Handover::of(Bytes::from_static(b"hi"), SentMark::default());
        assert!(poll(&mut body).is_pending());
        assert!(handover.withdraw());
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Err(Withdrawn)))));
    }
}
