//! A request body that knows whether the transport took it.
//!
//! A message must never be sent twice, and must be sent again where it safely can be. So somebody has to know for certain
//! whether the gateway may have seen it, also when a deadline passes in the very moment in which the connection comes
//! up. The body lies in one place, and whoever takes it first has it: the transport, or the sender who takes it back. The
//! transport may take it only when the receiver asked for it, or the sender permits it.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};

use super::SentMark;

/// The sender's end. Dropped, it takes the body back, so that a request that was given up cannot be sent later.
pub(crate) struct Handover<B>(Arc<Between<B>>);

/// What both ends share.
struct Between<B> {
    /// `None` once one of them has it.
    body: Mutex<Option<B>>,
    permitted: AtomicBool,
    asked: AtomicBool,
    transport: AtomicWaker,
    /// Set when the transport takes the body.
    mark: SentMark,
}

impl<B> Between<B> {
    fn body(&self) -> MutexGuard<'_, Option<B>> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn permit(&self) {
        self.permitted.store(true, Ordering::Release);
        self.transport.wake();
    }
}

/// Lets the receiver ask for the body.
pub(crate) struct Asking<B>(Arc<Between<B>>);

impl<B> Asking<B> {
    pub(super) fn ask(&self) {
        self.0.asked.store(true, Ordering::Release);
        self.0.permit();
    }
}

impl<B: Body + Unpin> Handover<B> {
    /// A body for one request, and what tells of its fate. `mark` is set when the transport takes the body.
    pub(crate) fn of(body: B, mark: SentMark) -> (Self, HandedBody<B>) {
        let hint = body.size_hint();
        let between = Arc::new(Between {
            body: Mutex::new(Some(body)),
            permitted: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            transport: AtomicWaker::new(),
            mark,
        });
        (Self(Arc::clone(&between)), HandedBody { between, taken: None, hint, over: false })
    }
}

impl<B> Handover<B> {
    /// Takes the body back: the transport never had it and never gets it. `None` where the transport has it.
    pub(crate) fn withdraw(&self) -> Option<B> {
        let body = self.0.body().take();
        if body.is_some() {
            // The transport ends the request.
            self.0.transport.wake();
        }
        body
    }

    /// The body may go although nobody asked.
    pub(super) fn permit(&self) {
        self.0.permit();
    }

    pub(super) fn is_permitted(&self) -> bool {
        self.0.permitted.load(Ordering::Acquire)
    }

    /// Whether the receiver asked for it.
    pub(super) fn was_asked(&self) -> bool {
        self.0.asked.load(Ordering::Acquire)
    }

    /// Whether the transport has it.
    pub(super) fn is_taken(&self) -> bool {
        self.0.mark.is_set()
    }

    pub(super) fn asking(&self) -> Asking<B> {
        Asking(Arc::clone(&self.0))
    }
}

impl<B> Drop for Handover<B> {
    fn drop(&mut self) {
        self.withdraw();
    }
}

impl<B> fmt::Debug for Handover<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handover").field("taken", &self.is_taken()).finish_non_exhaustive()
    }
}

/// The transport's end.
pub(crate) struct HandedBody<B> {
    between: Arc<Between<B>>,
    taken: Option<B>,
    /// The body's own.
    hint: SizeHint,
    over: bool,
}

/// The sender took the body back before the transport came for it. Makes the transport drop the connection.
#[derive(Debug, thiserror::Error)]
#[error("the request was withdrawn before it was sent")]
pub(super) struct Withdrawn;

impl<B> HandedBody<B> {
    /// Whether it can be told who gets the body.
    fn is_decided(&self) -> bool {
        self.between.permitted.load(Ordering::Acquire) || self.between.body().is_none()
    }
}

impl<B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin> Body for HandedBody<B> {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if self.taken.is_none() {
            if !self.is_decided() {
                self.between.transport.register(cx.waker());
                // Looked at once more: it may have been permitted meanwhile.
                if !self.is_decided() {
                    return Poll::Pending;
                }
            }
            let Some(body) = self.between.body().take() else {
                self.over = true;
                return Poll::Ready(Some(Err(Withdrawn.into())));
            };
            self.between.mark.set();
            self.taken = Some(body);
        }
        match &mut self.taken {
            Some(body) => Pin::new(body).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into))),
            None => Poll::Ready(None),
        }
    }

    /// Never at its end before it was taken: the transport would not ask for it.
    fn is_end_stream(&self) -> bool {
        self.over || self.taken.as_ref().is_some_and(Body::is_end_stream)
    }

    /// Unknown for an empty body, for the same reason: nobody asks for what is known to be nothing.
    fn size_hint(&self) -> SizeHint {
        match (&self.taken, self.hint.exact()) {
            (Some(body), _) => body.size_hint(),
            (None, Some(0)) => SizeHint::default(),
            (None, _) => self.hint,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Waker;

    use http_body_util::Full;

    use super::*;

    type Text = Full<Bytes>;

    fn text() -> (Handover<Text>, HandedBody<Text>, SentMark) {
        let mark = SentMark::default();
        let (handover, body) = Handover::of(Full::from("hi"), mark.clone());
        (handover, body, mark)
    }

    fn poll(body: &mut HandedBody<Text>) -> Poll<Option<Result<Frame<Bytes>, String>>> {
        let polled = pin!(body).poll_frame(&mut Context::from_waker(Waker::noop()));
        polled.map(|frame| frame.map(|frame| frame.map_err(|error| error.to_string())))
    }

    #[test]
    fn what_the_transport_took_cannot_be_withdrawn() {
        let (handover, mut body, mark) = text();
        handover.permit();
        assert!(!mark.is_set());
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Ok(_)))));
        assert!(mark.is_set() && handover.is_taken() && handover.withdraw().is_none());
        assert!(matches!(poll(&mut body), Poll::Ready(None)));
    }

    #[test]
    fn what_was_withdrawn_is_never_sent() {
        let (handover, mut body, mark) = text();
        handover.permit();
        assert!(handover.withdraw().is_some() && handover.withdraw().is_none());
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Err(_)))));
        assert!(!mark.is_set() && !handover.is_taken());
        assert!(matches!(poll(&mut body), Poll::Ready(None)));
    }

    #[test]
    fn a_call_that_is_dropped_is_withdrawn() {
        let (handover, mut body, mark) = text();
        handover.permit();
        drop(handover);
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Err(_)))));
        assert!(!mark.is_set());
    }

    #[test]
    fn the_transport_gets_nothing_that_nobody_asked_for() {
        let (handover, mut body, mark) = text();
        assert!(poll(&mut body).is_pending() && !mark.is_set());
        handover.asking().ask();
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Ok(_)))));
        assert!(handover.was_asked() && mark.is_set() && handover.withdraw().is_none());
    }

    #[test]
    fn what_is_withdrawn_unasked_ends_its_request() {
        let (handover, mut body, _) = text();
        assert!(poll(&mut body).is_pending());
        assert!(handover.withdraw().is_some());
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Err(_)))));
    }

    #[test]
    fn the_length_of_a_body_is_known_before_it_is_taken_unless_there_is_none() {
        let (_handover, body, _) = text();
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(2), false));
        let (_handover, empty) = Handover::of(Text::default(), SentMark::default());
        assert_eq!((empty.size_hint().exact(), empty.is_end_stream()), (None, false));
    }
}
