//! Connections: accepted up to a bound, with a deadline for their headers, ended in order.
//!
//! `axum::serve` has neither bound nor deadlines; this loop has both.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::request::Peer;

/// How connections are treated.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Connections at once; more wait in the system's queue.
    pub max_connections: usize,
    /// How long a client may take to send a request's headers.
    pub header_within: Duration,
    /// How long requests under way may take once the service shuts down.
    pub grace: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self { max_connections: 4096, header_within: Duration::from_secs(10), grace: Duration::from_secs(10) }
    }
}

/// What hyper takes of headers before it refuses them by itself, without a problem body: far more than we accept.
const HEADER_BUFFER: usize = 512 * 1024;
const HEADER_COUNT: usize = 512;
/// Pause after an accept that failed, most likely for want of file descriptors: trying at once would only burn time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown`; then lets requests under way end within the grace, and cuts off those that do not.
///
/// # Errors
/// None that it could not outlive; the type leaves room for listeners that break for good.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
    options: ServeOptions,
) -> io::Result<()> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_within)
        .max_buf_size(HEADER_BUFFER)
        .max_headers(HEADER_COUNT);
    http.http2().timer(TokioTimer::new()).keep_alive_interval(Some(options.header_within));
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(options.max_connections));
    // Connections that are not done when the grace is over end with this.
    let cut_off = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, peer, place)) = accepted else { continue };
        let router = router.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            router.clone().oneshot(request)
        });
        let connection = http.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        let cut_off = cut_off.clone();
        tokio::spawn(async move {
            tokio::select! {
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection ended early");
                    }
                }
                () = cut_off.cancelled() => {}
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(options.grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("some connections were cut off: their requests took longer than the shutdown may");
    }
    cut_off.cancel();
    Ok(())
}

type Accepted = (TcpStream, Peer, tokio::sync::OwnedSemaphorePermit);

/// The next connection, when there is a place for it.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<Accepted> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Answers are written whole; waiting for more would only delay them.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "no TCP_NODELAY");
            }
            Some((stream, Peer(peer), place))
        }
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}
