//! The service's listener: connections within bounds, ended in order.

use std::io;
use std::time::Duration;

use axum::body::Body;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::front::Front;
use super::host;
use super::request::{BadRequest, Peer};
use crate::listen::{self, Bounds};

/// How connections are treated.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServeOptions {
    /// Connections at once; more wait in the system's queue.
    pub max_connections: usize,
    /// Of these, how many one address may have. Everything behind a reverse proxy is one address.
    pub max_per_address: usize,
    /// How long a client may take to send a request's headers, from the moment that it connects.
    pub header_within: Duration,
    /// How long requests under way may take once the service shuts down.
    pub grace: Duration,
}

impl ServeOptions {
    setters! {
        with_max_connections(max_connections: usize);
        with_max_per_address(max_per_address: usize);
        with_header_within(header_within: Duration);
        with_grace(grace: Duration);
    }
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_per_address: 2048,
            header_within: Duration::from_secs(10),
            grace: Duration::from_secs(10),
        }
    }
}

/// What hyper takes of headers before it refuses them by itself, without a problem body: far more bytes than we accept.
const HEADER_BUFFER: usize = 512 * 1024;
/// More lines than any client sends. For as many hyper has room on the stack; for more it would allocate two tables at each request.
const HEADER_COUNT: usize = 100;

/// Serves the API by its [`front`](super::front), or a router, until `shutdown`; then lets requests under way end within the grace, and cuts off those that do not.
///
/// # Errors
/// None at present: a listener that fails to accept is tried again. The type leaves room for listeners that break.
pub async fn serve(
    listener: TcpListener,
    front: impl Into<Front>,
    shutdown: CancellationToken,
    options: ServeOptions,
) -> io::Result<()> {
    let front = front.into();
    let bounds = Bounds {
        connections: options.max_connections,
        per_address: options.max_per_address,
        first_bytes_within: options.header_within,
        head_within: options.header_within,
        head_buffer: HEADER_BUFFER,
        head_lines: HEADER_COUNT,
        http2: true,
    };
    let draining = listen::accept(listener, bounds, shutdown, move |request, peer| {
        let bad = host::check(request.version(), request.headers()).map(BadRequest);
        front.answer(request.map(Body::new), Peer(peer), bad)
    })
    .await;
    if !draining.finish(options.grace).await {
        tracing::warn!("some connections were cut off: their requests took longer than the shutdown may");
    }
    Ok(())
}
