//! Accepts HTTP connections within bounds. The service and the embedded gateway share it; it knows neither.
//!
//! ```text
//! accept ─► place (all, per address) ─► first bytes (deadline) ─► head of the first request (deadline) ─► served
//!              └─ full: the oldest connection that has not asked for anything yet gives way
//! ```
//! `axum::serve` has no bounds. hyper's own header deadline starts only once it has read enough bytes to tell HTTP/1 from
//! HTTP/2, so a connection that sends nothing would stay open for ever: the first bytes are read here, with a deadline.

mod places;
mod timer;

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use self::places::{Places, Word};
use self::timer::RequestTimer;
use crate::packed::Packed;
use crate::woken::Woken;

/// What every HTTP/2 connection begins with (RFC 9113, section 3.4). No HTTP/1 request begins like it.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Pause after an accept that failed, most likely for want of file descriptors: another one at once would fail as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a listener allows.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Connections at once; more wait in the system's queue.
    pub connections: usize,
    /// Of these, how many one address may have. An IPv6 network of 64 bits counts as one address.
    pub per_address: usize,
    /// How long the first bytes of a connection may take.
    pub first_bytes_within: Duration,
    /// How long the head of a request may take; also how long a connection may be idle between two requests.
    pub head_within: Duration,
    /// hyper's limits for a head: bytes and lines. It refuses more by itself, without a body.
    pub head_buffer: usize,
    pub head_lines: usize,
    pub http2: bool,
}

/// Connections that are still open after the listener closed.
pub struct Draining(Arc<Places>);

impl Draining {
    /// Lets requests in flight finish, and cuts off those that take longer than `grace`. Whether none was cut off.
    pub async fn finish(self, grace: Duration) -> bool {
        let finished = tokio::time::timeout(grace, self.0.empty()).await.is_ok();
        self.0.tell(Word::End);
        finished
    }
}

/// Accepts until `stop`. `call` answers a request from this address.
pub async fn accept<F, A, B, E>(listener: TcpListener, bounds: Bounds, stop: CancellationToken, call: F) -> Draining
where
    F: Fn(Request<Incoming>, SocketAddr) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<Response<B>, E>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
    E: Into<Box<dyn Error + Send + Sync>> + 'static,
{
    let places = Places::new(bounds.connections, bounds.per_address);
    let http = builder(&bounds);
    loop {
        let next = async {
            places.room().await;
            listener.accept().await
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = next => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                places.give_way(None);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = places.enter(peer.ip()) else { continue };
        // Answers are small and written whole: waiting to fill a packet only adds latency.
        let _ = stream.set_nodelay(true);
        let (mut http, call, within) = (http.clone(), call.clone(), bounds.first_bytes_within);
        http.http1().timer(RequestTimer::default());
        tokio::spawn(async move {
            let Some(stream) = place.unless_told(first_bytes(stream, within)).await else {
                tracing::debug!(
                    "a connection that had not asked for anything gave way to others, or to the end of the service"
                );
                return;
            };
            let served = async {
                let service = service_fn(|request| {
                    place.request_began();
                    call(request, peer)
                });
                let connection = pin!(http.serve_connection_with_upgrades(TokioIo::new(Packed::new(stream?)), service));
                let mut connection = Woken::new(connection);
                let mut finishing = false;
                poll_fn(|cx| {
                    match place.told.hear(cx) {
                        Word::Serve => {}
                        Word::Finish if finishing => {}
                        Word::Finish => {
                            finishing = true;
                            connection.change(|connection| connection.as_mut().graceful_shutdown());
                        }
                        Word::End => {
                            tracing::debug!("a connection gave way to others, or to the end of the service");
                            return Poll::Ready(Ok(()));
                        }
                    }
                    Pin::new(&mut connection).poll(cx)
                })
                .await
            };
            if let Err(error) = served.await {
                // The client's doing: a connection cut short, too slow, or bytes that are not HTTP.
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    places.tell(Word::Finish);
    Draining(places)
}

fn builder(bounds: &Bounds) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    if !bounds.http2 {
        http = http.http1_only();
    }
    // A timer is that of one connection: see `accept`.
    http.http1()
        .header_read_timeout(bounds.head_within)
        .max_buf_size(bounds.head_buffer)
        .max_headers(bounds.head_lines);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(bounds.head_within))
        .keep_alive_timeout(bounds.head_within);
    http
}

/// Reads until it is clear which version of HTTP the connection speaks.
async fn first_bytes(mut stream: TcpStream, within: Duration) -> io::Result<Replayed> {
    let mut read = Vec::with_capacity(PREFACE.len());
    let reading = async {
        while read.len() < PREFACE.len() && PREFACE.starts_with(&read) {
            let mut chunk = [0; PREFACE.len()];
            let wanted = PREFACE.len() - read.len();
            match stream.read(&mut chunk[..wanted]).await? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                length => read.extend_from_slice(&chunk[..length]),
            }
        }
        Ok(())
    };
    tokio::time::timeout(within, reading).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    Ok(Replayed { read, at: 0, stream })
}

/// A connection whose first bytes were read already, and are read again.
struct Replayed {
    read: Vec<u8>,
    at: usize,
    stream: TcpStream,
}

impl AsyncRead for Replayed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &self.read[self.at..];
        if rest.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..length]);
        self.at += length;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replayed {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
