//! Open connections to gateways, a few for each agent.
//!
//! A connection belongs to one attempt of one agent: after a restart another process may listen at the same address, so
//! what an earlier attempt left is thrown away. It is given back when its answer has been read to the end; an answer that
//! is dropped before ends the connection, and with it the call at the gateway.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use dashmap::DashMap;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::domain::AgentId;
use crate::view::Access;

/// Kept open for one agent: as many as callers that come at once have use for.
const IDLE_PER_AGENT: usize = 64;
/// Shorter than any gateway's own patience, so that a connection is seldom closed under a request.
const IDLE: Duration = Duration::from_secs(20);
/// An address on this machine or its networks answers at once, or not at all.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// How long the end of the last answer may take to be digested by the connection's own task.
const SETTLE: Duration = Duration::from_millis(5);

#[derive(Default)]
pub(super) struct Pool {
    agents: DashMap<AgentId, Arc<Mutex<Idle>>>,
    /// When unused agents were forgotten last.
    swept: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Idle {
    attempt: u64,
    parked: Vec<Parked>,
}

struct Parked {
    sender: SendRequest<Body>,
    since: Instant,
}

/// A connection in use. [`Lease::give_back`] keeps it open for the next call; dropping it closes it.
pub(super) struct Lease {
    pub(super) sender: SendRequest<Body>,
    attempt: u64,
    idle: Arc<Mutex<Idle>>,
}

impl Pool {
    /// A connection to the agent's gateway, one that is open already if there is any.
    ///
    /// # Errors
    /// None could be opened: nothing was sent.
    pub(super) async fn lease(&self, agent: AgentId, access: &Access) -> Result<Lease, std::io::Error> {
        let idle = Arc::clone(&self.agents.entry(agent).or_default());
        while let Some(mut sender) = take(&idle, access.attempt) {
            let usable = sender.is_ready() || matches!(timeout(SETTLE, sender.ready()).await, Ok(Ok(())));
            if usable && !sender.is_closed() {
                return Ok(Lease { sender, attempt: access.attempt, idle });
            }
        }
        self.forget_unused();
        let sender = connect(access.endpoint).await?;
        Ok(Lease { sender, attempt: access.attempt, idle })
    }

    /// Forgets agents to which nothing was sent lately, those that are gone among them. Only before a connection is opened,
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
        self.agents.retain(|_, idle| Arc::strong_count(idle) > 1 || has_fresh(idle, now));
    }
}

impl Lease {
    pub(super) fn give_back(self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.attempt == self.attempt && idle.parked.len() < IDLE_PER_AGENT && !self.sender.is_closed() {
            idle.parked.push(Parked { sender: self.sender, since: Instant::now() });
        }
    }
}

fn has_fresh(idle: &Mutex<Idle>, now: Instant) -> bool {
    let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
    idle.parked.retain(|parked| now.duration_since(parked.since) < IDLE);
    !idle.parked.is_empty()
}

/// The connection that was used last: the others grow old and are dropped.
fn take(idle: &Mutex<Idle>, attempt: u64) -> Option<SendRequest<Body>> {
    let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
    if idle.attempt != attempt {
        idle.attempt = attempt;
        idle.parked.clear();
    }
    let now = Instant::now();
    idle.parked.retain(|parked| now.duration_since(parked.since) < IDLE);
    idle.parked.pop().map(|parked| parked.sender)
}

async fn connect(to: SocketAddr) -> Result<SendRequest<Body>, std::io::Error> {
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
