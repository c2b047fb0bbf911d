//! Requests whose body the gateway asks for, so that it is known whether it may have read it.
//!
//! ```text
//! head, Expect: 100-continue ──► 100: it is being read ──► body ──► answer
//!   └─ connection lost, or no 100: certainly not delivered   └─ connection lost: unknown
//! ```
//! hyper, which ZeroClaw's gateways are built on, sends the 100 when its handler begins to read the body. So a body that was
//! never asked for was certainly not delivered, however far its head came: into the buffers of a process that was stopped,
//! or that died before it looked. A server that does not know the expectation gets the body after a second, and later at once.
//!
//! Asking first costs a way there and back. An agent that gave an answer a moment ago is not asked: under load that would cost
//! a third of the throughput, for the few requests that meet its death in just this moment.

use std::error::Error;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::time::{Instant, sleep};

use super::SentMark;
use super::cause::chain;
use super::connections::{Lease, Outgoing};
use super::handover::{HandedBody, Handover};
use crate::by_id::ById;

/// How long a server of which nothing is known may take to ask for the body.
const FIRST_ASK: Duration = Duration::from_secs(1);
/// How long one that asks may take: a gateway that does not even read is not well.
const ASK: Duration = Duration::from_secs(5);
/// An answer so recent proves that the gateway is there.
const RECENT: Duration = Duration::from_millis(20);
/// How old that knowledge may be before it is written anew. Under load each answer would else make all threads wait for its entry.
const NOTED_EVERY: Duration = Duration::from_millis(5);
/// Gateways of which it is kept in mind how they treat the expectation.
const KNOWN: usize = 4096;

/// What the last answers of a gateway told.
#[derive(Debug, Clone, Copy)]
struct Manners {
    /// Whether it asks for bodies.
    asks: bool,
    answered: Instant,
}

impl Manners {
    /// Whether it is asked first, before it gets a body now.
    fn are_asked(&self, now: Instant) -> bool {
        self.asks && now.duration_since(self.answered) > RECENT
    }

    /// Whether an answer now says nothing new.
    fn are_fresh(&self, now: Instant) -> bool {
        now.duration_since(self.answered) < NOTED_EVERY
    }
}

/// How gateways treat the expectation.
#[derive(Default)]
pub(crate) struct Expectations {
    known: ById<SocketAddr, Manners>,
}

/// How a request went.
pub(crate) enum Sent<B> {
    /// The answer begins. A body that was not asked for until then can be taken back when the answer is read; such a
    /// connection cannot be used again.
    Answered(Response<Incoming>, Option<Handover<B>>),
    /// Certainly nothing of the body reached the gateway.
    Not(B, String),
    /// It may have been acted on.
    Unknown(String),
    /// The same, and no answer came in time.
    Late,
}

impl Expectations {
    /// Sends a request over this connection, at most once. `mark` is set when the transport takes the body; `outgoing` makes it
    /// what the connection takes.
    pub(crate) fn send<'a, B, O>(
        &'a self,
        at: SocketAddr,
        lease: &'a mut Lease<O>,
        (head, body): (Request<()>, B),
        outgoing: impl FnOnce(HandedBody<B>) -> O,
        mark: SentMark,
        deadline: Instant,
    ) -> impl Future<Output = Sent<B>>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
        O: Outgoing,
    {
        let known = self.known.get(&at).map(|manners| *manners);
        let asks = known.is_none_or(|known| known.are_asked(Instant::now()));
        let (handover, body) = Handover::of(body, mark);
        let mut request = head.map(|()| outgoing(body));
        if asks {
            request.headers_mut().insert(header::EXPECT, HeaderValue::from_static("100-continue"));
            let asking = handover.asking();
            hyper::ext::on_informational(&mut request, move |response| {
                if response.status() == StatusCode::CONTINUE {
                    asking.ask();
                }
            });
        } else {
            handover.permit();
        }
        let patience = known.map_or(Patience::Permits(FIRST_ASK), |_| Patience::GivesUp(ASK));
        let sending = lease.send_until(request, deadline);
        async move {
            let begun = begun(pin!(sending), &handover, patience).await;
            self.came_of(at, (known, asks), begun, handover)
        }
    }

    /// What came of it in the time that it had.
    fn came_of<B>(
        &self,
        at: SocketAddr,
        (known, asked): (Option<Manners>, bool),
        begun: Begun<B>,
        handover: Handover<B>,
    ) -> Sent<B> {
        match begun {
            Some(Ok(response)) => {
                if response.status() == StatusCode::EXPECTATION_FAILED
                    && let Some(body) = handover.withdraw()
                {
                    self.learn(at, Some(false));
                    return Sent::Not(body, "it does not know the expectation".into());
                }
                let noted = !asked && known.is_some_and(|known| known.are_fresh(Instant::now()));
                if !noted && handover.is_taken() {
                    self.learn(at, asked.then(|| handover.was_asked()));
                }
                Sent::Answered(response, Some(handover))
            }
            Some(Err((Some(body), why))) => Sent::Not(body, why),
            // Whether it was delivered is told by its body's fate, whatever the failure.
            Some(Err((None, why))) => match handover.withdraw() {
                Some(body) => Sent::Not(body, why),
                None => Sent::Unknown(why),
            },
            None => match handover.withdraw() {
                Some(body) => Sent::Not(body, "it did not answer in time".into()),
                None => Sent::Late,
            },
        }
    }

    /// Keeps in mind that it answered, and whether it asked where it could.
    fn learn(&self, at: SocketAddr, asked: Option<bool>) {
        let now = Instant::now();
        if let Some(mut manners) = self.known.get_mut(&at) {
            manners.answered = now;
            manners.asks = asked.unwrap_or(manners.asks);
            return;
        }
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        self.known.insert(at, Manners { asks: asked.unwrap_or(true), answered: now });
    }
}

/// What becomes of a body that is not asked for in this time.
#[derive(Clone, Copy)]
enum Patience {
    /// It is sent: the server may know no expectations.
    Permits(Duration),
    /// It is not: the server does know them, and does not read.
    GivesUp(Duration),
}

/// How a sent request went on; `None` where it had no answer at its deadline.
type Begun<B> = Option<Result<Response<Incoming>, (Option<B>, String)>>;

/// Waits until the answer begins. A body that was not asked for in time is permitted, or taken back.
async fn begun<B, O, S>(mut sending: Pin<&mut S>, handover: &Handover<B>, patience: Patience) -> Begun<B>
where
    S: Future<Output = Option<Result<Response<Incoming>, TrySendError<Request<O>>>>>,
{
    if !handover.is_permitted() {
        let (Patience::Permits(limit) | Patience::GivesUp(limit)) = patience;
        tokio::select! {
            answer = &mut sending => return read(answer),
            () = sleep(limit) => {}
        }
        if !handover.is_permitted() {
            match patience {
                Patience::Permits(_) => handover.permit(),
                Patience::GivesUp(_) => {
                    if let Some(body) = handover.withdraw() {
                        return Some(Err((Some(body), "it does not read".into())));
                    }
                }
            }
        }
    }
    read(sending.await)
}

fn read<B, O>(answer: Option<Result<Response<Incoming>, TrySendError<Request<O>>>>) -> Begun<B> {
    answer.map(|answer| answer.map_err(|error| (None, chain(error.error()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_goes_on_answering_is_not_asked_and_its_answers_are_seldom_noted() {
        let began = Instant::now();
        let (mut known, mut noted) = (Manners { asks: true, answered: began }, 0);
        for at in (1..1000).map(|ms| began + Duration::from_millis(ms)) {
            assert!(!known.are_asked(at), "{:?}", at - began);
            if !known.are_fresh(at) {
                (known.answered, noted) = (at, noted + 1);
            }
        }
        assert!(noted <= 200, "{noted}");
        let later = known.answered + 2 * RECENT;
        assert!(known.are_asked(later) && !known.are_fresh(later));
        assert!(!Manners { asks: false, ..known }.are_asked(later), "one that knows no expectations");
    }
}
