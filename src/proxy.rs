//! The data path to an agent's own gateway: whole HTTP requests, event streams and WebSockets, passed on as they are.
//!
//! ```text
//! request ─► route: may this path pass? ─► headers: ours off, the agent's token on
//!              └─► limits: a place for the stream ─► forward: wait until the agent runs ─► pool: a connection
//!                                                       └─ not sent: wait and try again      └─► answer, streamed
//! ```
//! Nothing is buffered whole but small request bodies, which may have to be sent a second time. A request that was
//! certainly not sent is held and tried again until its wait is over; one that may have been read is never sent twice. A body
//! goes when the gateway asks for it (`Expect: 100-continue`), so that one that it never read is known not to be delivered.
//!
//! It knows agents and HTTP, and neither keys nor problems: the facade decides who may call, and what an error looks like.

mod body;
mod forward;
mod headers;
mod limits;
mod pace;
mod route;
mod socket;
pub(crate) mod tunnel;

use std::num::NonZeroU32;
use std::time::Duration;

pub use self::body::MAX_REPLAYED;
pub use self::forward::{Call, ForwardError, is_websocket};
pub use self::headers::{Client, Mount, VISIT_PREFIX, socket_credential};
#[cfg(feature = "cli")]
pub(crate) use self::headers::{remove_hop_by_hop, strip_connection};
#[cfg(feature = "cli")]
pub(crate) use self::limits::Meets;
pub use self::limits::{Bound, Limited};
pub use self::route::{Refused, Route, judge, judge_open};
pub use self::socket::Socket;

use axum::body::Body;

use self::limits::Limits;
use crate::domain::AgentId;
use crate::zeroclaw::client::connections::Connections;
use crate::zeroclaw::client::expect::Expectations;

/// How the data path behaves. All of it is configuration.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProxyOptions {
    /// Requests, streams and WebSockets that may be open to one agent.
    pub per_agent: usize,
    /// The same for all agents of one user.
    pub per_user: usize,
    /// A stream or a WebSocket in which nothing moves for this long is closed.
    pub idle: Duration,
    /// The largest request body, in bytes.
    pub max_body: u64,
    /// How long the gateway may take until its answer begins.
    pub answer_within: Duration,
    /// How much of one answer, or of a WebSocket in each direction, goes on in a second; `None` for as much as its reader takes.
    pub bytes_per_sec: Option<NonZeroU32>,
}

impl ProxyOptions {
    setters! {
        with_per_agent(per_agent: usize);
        with_per_user(per_user: usize);
        with_idle(idle: Duration);
        with_max_body(max_body: u64);
        with_answer_within(answer_within: Duration);
        with_bytes_per_sec(bytes_per_sec: impl Into<Option<NonZeroU32>> => bytes_per_sec.into());
    }
}

impl Default for ProxyOptions {
    fn default() -> Self {
        Self {
            per_agent: 128,
            per_user: 512,
            idle: Duration::from_secs(900),
            max_body: 64 * 1024 * 1024,
            answer_within: Duration::from_secs(120),
            bytes_per_sec: None,
        }
    }
}

/// Connections to gateways and the bounds on them. One for each facade.
pub struct Proxy {
    connections: Connections<AgentId, Body>,
    expectations: Expectations,
    limits: Limits,
    options: ProxyOptions,
}

impl Proxy {
    /// Connections are opened as calls need them.
    pub fn new(options: ProxyOptions) -> Self {
        let limits = Limits::new(options.per_agent, options.per_user);
        Self { connections: Connections::default(), expectations: Expectations::default(), limits, options }
    }

    /// The bounds, as they were given.
    pub const fn options(&self) -> &ProxyOptions {
        &self.options
    }

    /// Requests, streams and WebSockets that are open now.
    pub fn open(&self) -> usize {
        self.limits.open()
    }

    /// Calls that met a bound, since the start: were refused, held up or ended for it.
    pub fn met(&self, bound: Bound) -> u64 {
        self.limits.met(bound)
    }
}

#[cfg(test)]
mod tests;
