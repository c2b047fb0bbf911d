//! Open connections to gateways, a few for each of them.
//!
//! A connection belongs to one attempt of one agent: after a restart another process may listen at the same address, so
//! what an earlier attempt left is thrown away. It is given back when its answer has been read to the end; an answer that
//! is dropped before ends the connection, and with it the call at the gateway.
//!
//! A connection has no task of its own: whoever waits for its answer drives it, by [`Lease::send`] and [`Lease::drive`]. A
//! task would have to be woken for each request and to wake back for each answer, often on another thread, which costs more
//! than what it does.

use std::error::Error;
use std::future::poll_fn;
use std::hash::Hash;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use http::{HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep, timeout};

use crate::alarm::Alarm;
use crate::by_id::ById;
use crate::packed::Packed;
use crate::woken::Woken;

/// Kept open for one gateway: as many as callers that come at once have use for.
const IDLE_PER_GATEWAY: usize = 64;
/// Shorter than any gateway's own patience, so that a connection is seldom closed under a request.
const IDLE: Duration = Duration::from_secs(20);
/// An address on this machine or its networks answers at once, or not at all.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// By what a gateway is known: an agent, or an address.
pub(crate) trait Key: Copy + Eq + Hash {}
impl<K: Copy + Eq + Hash> Key for K {}

/// What requests are made of.
pub(crate) trait Outgoing:
    HttpBody<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static
{
}
impl<B: HttpBody<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static> Outgoing for B {}

pub(crate) struct Connections<K: Key, B>(Arc<Gateways<K, B>>);

struct Gateways<K: Key, B> {
    known: ById<K, Arc<Mutex<Idle<B>>>>,
    /// Whether a task closes what nobody uses.
    swept: Mutex<bool>,
    /// How long a connection is kept that nobody uses.
    kept: Duration,
}

struct Idle<B> {
    attempt: u64,
    parked: Vec<Parked<B>>,
}

struct Parked<B> {
    open: Open<B>,
    since: Instant,
}

/// An open connection.
struct Open<B> {
    /// The `Host` of requests on it.
    host: HeaderValue,
    sender: SendRequest<B>,
    /// For the deadlines of its answers.
    alarm: Alarm,
    /// What moves its bytes; `None` once it has ended.
    wire: Option<Wire>,
}

/// It is driven only where it has something to do. A request is polled many times on its way, by which nothing happens here.
type Wire = Woken<BoxFuture<'static, ()>>;

/// A connection in use. [`Lease::give_back`] keeps it open for the next call; dropping it closes it.
pub(crate) struct Lease<B> {
    open: Open<B>,
    /// Whether it was open before, so that the gateway may have closed it.
    used: bool,
    attempt: u64,
    idle: Arc<Mutex<Idle<B>>>,
}

/// The beginning of an answer; else the request, where nothing of it was sent.
type Begun<B> = Result<Response<Incoming>, TrySendError<Request<B>>>;

impl<K: Key, B> Default for Connections<K, B> {
    fn default() -> Self {
        Self::keeping(IDLE)
    }
}

impl<K: Key, B> Connections<K, B> {
    /// For servers with another patience: a connection that nobody uses is kept for so long.
    pub(crate) fn keeping(kept: Duration) -> Self {
        Self(Arc::new(Gateways { known: ById::default(), swept: Mutex::new(false), kept }))
    }
}

impl<K: Key + Send + Sync + 'static, B: Outgoing> Connections<K, B> {
    /// A connection to this attempt of a gateway, which listens at `at`: one that is open already if there is any.
    ///
    /// # Errors
    /// None could be opened: nothing was sent.
    pub(crate) async fn lease(&self, gateway: K, at: SocketAddr, attempt: u64) -> Result<Lease<B>, std::io::Error> {
        let known = self.0.known.get(&gateway).map(|idle| Arc::clone(&idle));
        let idle = known.unwrap_or_else(|| self.enter(gateway));
        while let Some(mut open) = take(&idle, attempt, self.0.kept) {
            if open.is_usable() {
                return Ok(Lease { open, used: true, attempt, idle });
            }
        }
        // In a box: a new connection is rare, and what it needs would else be kept with every request.
        let open = connect(at).boxed().await?;
        Ok(Lease { open, used: false, attempt, idle })
    }

    /// A gateway that is new here. With the first one begins the task that closes what nobody uses.
    fn enter(&self, gateway: K) -> Arc<Mutex<Idle<B>>> {
        let mut swept = lock(&self.0.swept);
        let new = || Arc::new(Mutex::new(Idle { attempt: 0, parked: Vec::new() }));
        let idle = Arc::clone(&self.0.known.entry(gateway).or_insert_with(new));
        if !std::mem::replace(&mut *swept, true) {
            tokio::spawn(sweep(Arc::downgrade(&self.0), self.0.kept));
        }
        idle
    }
}

/// Closes connections that were not used lately, also those that their gateway has closed, and forgets gateways without any.
/// Ends when none is left.
async fn sweep<K: Key, B>(gateways: Weak<Gateways<K, B>>, kept: Duration) {
    loop {
        sleep(kept).await;
        let Some(gateways) = gateways.upgrade() else { return };
        let now = Instant::now();
        gateways.known.retain(|_, idle| Arc::strong_count(idle) > 1 || has_fresh(idle, now, kept));
        let mut swept = lock(&gateways.swept);
        if gateways.known.is_empty() {
            *swept = false;
            return;
        }
    }
}

impl<B> Open<B> {
    /// Moves what can be moved.
    fn drive(&mut self, cx: &mut Context<'_>) {
        drive(&mut self.wire, cx);
    }

    /// Whether the next request can be sent. Its gateway may have closed it meanwhile. Nobody is told what happens from now on:
    /// whoever sends drives it first, and should not be woken by the request itself.
    fn is_usable(&mut self) -> bool {
        self.drive(&mut nobody());
        self.wire.is_some() && self.sender.is_ready()
    }
}

impl<B: Outgoing> Lease<B> {
    /// Sends a request, and gives the beginning of its answer. Dropping the future closes the connection.
    ///
    /// # Errors
    /// The connection failed; the request is in the error where nothing of it was sent.
    pub(crate) fn send(&mut self, request: Request<B>) -> impl Future<Output = Begun<B>> {
        poll_fn(handed_over(&mut self.open.sender, &mut self.open.wire, request))
    }

    /// The same; `None` where there is no answer at the deadline.
    ///
    /// # Errors
    /// As [`Lease::send`].
    pub(crate) fn send_until(
        &mut self,
        request: Request<B>,
        deadline: Instant,
    ) -> impl Future<Output = Option<Begun<B>>> {
        let Open { sender, wire, alarm, .. } = &mut self.open;
        let mut answer = handed_over(sender, wire, request);
        poll_fn(move |cx| match answer(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => alarm.poll(deadline, cx).map(|()| None),
        })
    }
}

impl<B> Lease<B> {
    /// Whether calls were made on this connection before.
    pub(crate) const fn is_used(&self) -> bool {
        self.used
    }

    /// The `Host` of a request to where it leads. It is made once: written anew, an address costs as much as reading a request.
    pub(crate) const fn host(&self) -> &HeaderValue {
        &self.open.host
    }

    /// The next part of the answer's body, as [`HttpBody::poll_frame`] gives it.
    pub(crate) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.open.drive(cx);
        let look = || Pin::new(body).poll_frame(&mut nobody());
        match &self.open.wire {
            Some(wire) => wire.look(cx, look),
            None => look(),
        }
    }

    /// The same as a future.
    pub(crate) async fn frame(&mut self, body: &mut Incoming) -> Option<Result<Frame<Bytes>, hyper::Error>> {
        poll_fn(|cx| self.poll_frame(body, cx)).await
    }

    /// Lets the connection go on by itself: it changes its protocol.
    #[cfg(feature = "server")]
    pub(crate) fn release(self) {
        if let Some(wire) = self.open.wire {
            tokio::spawn(wire);
        }
    }

    /// Keeps the connection for the next call: the answer was read to its end. One whose answer came before the request's end is
    /// closed: the next request would wait behind the rest, and who sends that would wait for nobody.
    pub(crate) fn give_back(mut self) {
        let usable = self.open.is_usable();
        let mut idle = lock(&self.idle);
        if usable && idle.attempt == self.attempt && idle.parked.len() < IDLE_PER_GATEWAY {
            idle.parked.push(Parked { open: self.open, since: Instant::now() });
        }
    }
}

/// Hands a request over, and asks for the beginning of its answer. In a box: what is made from this would else hold the request twice.
fn handed_over<'a, B: Outgoing>(
    sender: &mut SendRequest<B>,
    wire: &'a mut Option<Wire>,
    request: Request<B>,
) -> impl FnMut(&mut Context<'_>) -> Poll<Begun<B>> + use<'a, B> {
    let mut answer = Box::pin(unconstrained(sender.try_send_request(request)));
    move |cx| {
        drive(wire, cx);
        answer.as_mut().poll(&mut nobody())
    }
}

/// For what only the wire brings: whoever waits for it drives that, looks again, and need not be woken by it. It is asked outside of
/// the runtime's budget, which would want to wake whoever has used it up.
fn nobody() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn drive(wire: &mut Option<Wire>, cx: &mut Context<'_>) {
    if wire.as_mut().is_some_and(|wire| wire.poll_unpin(cx).is_ready()) {
        *wire = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn has_fresh<B>(idle: &Mutex<Idle<B>>, now: Instant, kept: Duration) -> bool {
    let mut idle = lock(idle);
    idle.parked.retain(|parked| now.duration_since(parked.since) < kept);
    !idle.parked.is_empty()
}

/// The connection that was used last: the others grow old and are dropped.
fn take<B>(idle: &Mutex<Idle<B>>, attempt: u64, kept: Duration) -> Option<Open<B>> {
    let mut idle = lock(idle);
    if idle.attempt != attempt {
        idle.attempt = attempt;
        idle.parked.clear();
    }
    let parked = idle.parked.pop().filter(|parked| parked.since.elapsed() < kept);
    if parked.is_none() {
        // What lies below is older still.
        idle.parked.clear();
    }
    parked.map(|parked| parked.open)
}

async fn connect<B: Outgoing>(to: SocketAddr) -> Result<Open<B>, std::io::Error> {
    let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "no connection in time");
    let stream = timeout(CONNECT_WITHIN, TcpStream::connect(to)).await.map_err(|_| late())??;
    stream.set_nodelay(true)?;
    let (sender, connection) =
        http1::Builder::new().handshake(TokioIo::new(Packed::new(stream))).await.map_err(std::io::Error::other)?;
    let wire = connection.with_upgrades().map(|ended| {
        // Its end is seen by whoever holds the sender.
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection to a gateway ended early");
        }
    });
    Ok(Open {
        host: HeaderValue::try_from(to.to_string()).map_err(std::io::Error::other)?,
        sender,
        alarm: Alarm::default(),
        wire: Some(Woken::new(wire.boxed())),
    })
}

#[cfg(test)]
mod tests;
