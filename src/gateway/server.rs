//! The listening side: one bounded accept loop, and what is printed when it starts.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::shared::{App, Shared};
use super::{channels, cron, footprint, routes};

/// Connections open at once. An agent has one owner and a few dashboards; more is an accident or an attack.
const CONNECTIONS: usize = 512;
/// A connection on which nothing is asked is closed after this long. Longer than clients keep idle connections for
/// another request (30 to 60 seconds as a rule): one that we closed first would cost a client a failed request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(90);
/// What requests in flight are given at the end. A model may take half a minute, and a stop should not.
const DRAIN: Duration = Duration::from_millis(300);
/// What the disk is given at the end for what was answered and not yet written down. Nothing waits as a rule.
const SAVE: Duration = Duration::from_secs(2);
/// Pause after a failed accept: out of file descriptors is not mended by asking at once again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until `stop`, then lets what is in flight finish for [`DRAIN`].
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let router = routes::router(shared.clone());
    shared.health.ok("gateway");
    let mut background = channels::start(&shared);
    background.push(AbortOnDropHandle::new(tokio::spawn(cron::run(shared.clone()))));
    let requests = Arc::new(Notify::new());
    let heard = requests.clone();
    background.push(AbortOnDropHandle::new(tokio::spawn(async move { footprint::stay_small(&heard).await })));
    // However this ends, what would never end by itself ends with it.
    let streams = shared.stop.clone().drop_guard();
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let (stream, peer, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers are small and written whole: waiting to fill a packet only adds latency.
        let _ = stream.set_nodelay(true);
        let (router, requests) = (router.clone(), requests.clone());
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            requests.notify_one();
            call(router.clone(), request, peer)
        });
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // An error here is the client's: a connection cut short or bytes that are not HTTP.
            let _ = connection.await;
            drop(slot);
        });
    }
    drop(listener);
    drop(streams);
    drop(background);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::info!("stopped with requests still in flight");
    }
    shared.background.drain(SAVE).await;
}

type Accepted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> std::io::Result<Accepted> {
    let slot = slots.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, slot))
}

async fn call(
    router: axum::Router,
    request: Request<Incoming>,
    peer: SocketAddr,
) -> Result<Response<Body>, Infallible> {
    use tower::ServiceExt as _;
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(ConnectInfo(peer));
    router.oneshot(request).await
}

/// What the gateway prints when it starts. The pairing lines are ZeroClaw's, to the letter: programs read them.
pub(super) fn banner(app: &App, address: SocketAddr) -> String {
    let mut text = format!(
        "🦀 ZeroClaw Gateway (zeroone {}) listening on http://{address}\n  🌐 Web Dashboard: http://{address}/\n",
        env!("CARGO_PKG_VERSION")
    );
    for line in routes::SUMMARY {
        let _ = writeln!(text, "  {line}");
    }
    match app.pairing.code() {
        Some(code) => {
            let code = code.expose();
            let _ = write!(
                text,
                "\n  🔐 PAIRING REQUIRED — use this one-time code:\n     ┌──────────────┐\n     │  {code}  │\n     \
                 └──────────────┘\n     Send: POST /pair with header X-Pairing-Code: {code}\n"
            );
        }
        None if app.pairing.required() => text.push_str("  🔒 Pairing: ACTIVE (bearer token required)\n"),
        None => text.push_str("  ⚠️  Pairing: DISABLED (all requests accepted)\n"),
    }
    text.push_str("  Press Ctrl+C to stop.\n\n");
    text
}
