//! Open connections to gateways, a few for each of them.
//!
//! A connection belongs to one attempt of one agent: after a restart another process may listen at the same address, so
//! what an earlier attempt left is thrown away. It is given back when its answer has been read to the end; an answer that
//! is dropped before ends the connection, and with it the call at the gateway.

use std::error::Error;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use http_body::Body as HttpBody;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Kept open for one gateway: as many as callers that come at once have use for.
const IDLE_PER_GATEWAY: usize = 64;
/// Shorter than any gateway's own patience, so that a connection is seldom closed under a request.
const IDLE: Duration = Duration::from_secs(20);
/// An address on this machine or its networks answers at once, or not at all.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// How long the end of the last answer may take to be digested by the connection's own task.
const SETTLE: Duration = Duration::from_millis(5);

/// By what a gateway is known: an agent, or an address.
pub(crate) trait Key: Copy + Eq + Hash {}
impl<K: Copy + Eq + Hash> Key for K {}

/// What requests are made of.
pub(crate) trait Outgoing:
    HttpBody<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static
{
}
impl<B: HttpBody<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static> Outgoing for B {}

pub(crate) struct Connections<K: Key, B> {
    gateways: DashMap<K, Arc<Mutex<Idle<B>>>>,
    /// When unused gateways were forgotten last.
    swept: Mutex<Option<Instant>>,
}

struct Idle<B> {
    attempt: u64,
    parked: Vec<Parked<B>>,
}

struct Parked<B> {
    sender: SendRequest<B>,
    since: Instant,
}

/// A connection in use. [`Lease::give_back`] keeps it open for the next call; dropping it closes it.
pub(crate) struct Lease<B> {
    pub(crate) sender: SendRequest<B>,
    attempt: u64,
    idle: Arc<Mutex<Idle<B>>>,
}

impl<K: Key, B> Default for Connections<K, B> {
    fn default() -> Self {
        Self { gateways: DashMap::new(), swept: Mutex::new(None) }
    }
}

impl<K: Key, B: Outgoing> Connections<K, B> {
    /// A connection to this attempt of a gateway, which listens at `at`: one that is open already if there is any.
    ///
    /// # Errors
    /// None could be opened: nothing was sent.
    pub(crate) async fn lease(&self, gateway: K, at: SocketAddr, attempt: u64) -> Result<Lease<B>, std::io::Error> {
        let idle = Arc::clone(&self.gateways.entry(gateway).or_insert_with(|| Arc::new(Mutex::new(Idle::new()))));
        while let Some(mut sender) = take(&idle, attempt) {
            let usable = sender.is_ready() || matches!(timeout(SETTLE, sender.ready()).await, Ok(Ok(())));
            if usable && !sender.is_closed() {
                return Ok(Lease { sender, attempt, idle });
            }
        }
        self.forget_unused();
        let sender = connect(at).await?;
        Ok(Lease { sender, attempt, idle })
    }

    /// Forgets gateways to which nothing was sent lately, those that are gone among them. Only before a connection is opened,
    /// which takes far longer, and at most once in [`IDLE`].
    fn forget_unused(&self) {
        let now = Instant::now();
        {
            let mut last = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| now.duration_since(last) < IDLE) {
                return;
            }
            *last = Some(now);
        }
        self.gateways.retain(|_, idle| Arc::strong_count(idle) > 1 || has_fresh(idle, now));
    }
}

impl<B> Idle<B> {
    const fn new() -> Self {
        Self { attempt: 0, parked: Vec::new() }
    }
}

impl<B> Lease<B> {
    pub(crate) fn give_back(self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.attempt == self.attempt && idle.parked.len() < IDLE_PER_GATEWAY && !self.sender.is_closed() {
            idle.parked.push(Parked { sender: self.sender, since: Instant::now() });
        }
    }
}

fn has_fresh<B>(idle: &Mutex<Idle<B>>, now: Instant) -> bool {
    let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
    idle.parked.retain(|parked| now.duration_since(parked.since) < IDLE);
    !idle.parked.is_empty()
}

/// The connection that was used last: the others grow old and are dropped.
fn take<B>(idle: &Mutex<Idle<B>>, attempt: u64) -> Option<SendRequest<B>> {
    let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
    if idle.attempt != attempt {
        idle.attempt = attempt;
        idle.parked.clear();
    }
    let now = Instant::now();
    idle.parked.retain(|parked| now.duration_since(parked.since) < IDLE);
    idle.parked.pop().map(|parked| parked.sender)
}

async fn connect<B: Outgoing>(to: SocketAddr) -> Result<SendRequest<B>, std::io::Error> {
    let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "no connection in time");
    let stream = timeout(CONNECT_WITHIN, TcpStream::connect(to)).await.map_err(|_| late())??;
    stream.set_nodelay(true)?;
    let handshake = http1::Builder::new().handshake(TokioIo::new(stream));
    let (sender, connection) =
        timeout(CONNECT_WITHIN, handshake).await.map_err(|_| late())?.map_err(std::io::Error::other)?;
    tokio::spawn(async move {
        // Its end is seen by whoever holds the sender.
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to a gateway ended early");
        }
    });
    Ok(sender)
}
