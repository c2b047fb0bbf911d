//! The listening side: connections within bounds, and what is printed when it starts.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::shared::{App, Shared};
use super::{footprint, incoming, routes, scheduler};
use crate::listen::{self, Bounds};

/// Connections open at once. An agent has one owner and a few dashboards; more is an accident or an attack.
const CONNECTIONS: usize = 512;
/// A connection on which nothing is asked is closed after this long. Longer than clients keep idle connections for
/// another request (30 to 60 seconds as a rule): one that we closed first would cost a client a failed request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(90);
/// What the disk is given at the end for what was answered and not yet written down. Nothing waits as a rule.
const SAVE: Duration = Duration::from_secs(2);
/// How long a new connection may take to send its first bytes; one that sends none also gives way to newer ones.
const FIRST_BYTES: Duration = Duration::from_secs(10);
/// hyper's own limits for a request's head.
const HEADER_BUFFER: usize = 400 * 1024;
const HEADER_LINES: usize = 100;

/// Accepts until `stop`, then lets what is in flight finish for `gateway.shutdown_grace_secs`.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let router = routes::router(shared.clone());
    shared.health.ok("gateway");
    let mut background = incoming::start(&shared);
    background.push(AbortOnDropHandle::new(tokio::spawn(scheduler::run(shared.clone()))));
    let requests = Arc::new(Notify::new());
    let heard = requests.clone();
    background.push(AbortOnDropHandle::new(tokio::spawn(async move { footprint::stay_small(&heard).await })));
    // However this ends, what would never end by itself ends with it.
    let streams = shared.stop.clone().drop_guard();
    let bounds = Bounds {
        connections: CONNECTIONS,
        per_address: CONNECTIONS,
        first_bytes_within: FIRST_BYTES,
        head_within: HEADER_TIMEOUT,
        head_buffer: HEADER_BUFFER,
        head_lines: HEADER_LINES,
        http2: false,
    };
    let draining = listen::accept(listener, bounds, stop, move |request, peer| {
        requests.notify_one();
        call(router.clone(), request, peer)
    })
    .await;
    drop(streams);
    drop(background);
    let grace = Duration::from_secs(shared.config().gateway.shutdown_grace_secs);
    let requests = async {
        if !draining.finish(grace).await {
            tracing::info!("stopped with requests still in flight");
        }
    };
    tokio::join!(requests, shared.incoming.stop(grace));
    shared.background.drain(SAVE).await;
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
