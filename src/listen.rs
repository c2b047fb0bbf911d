//! Accepts HTTP connections within bounds. The service and the embedded gateway share it; it knows neither.
//!
//! ```text
//! accept ─► place (all, per address) ─► first bytes (deadline) ─► head of the first request (deadline) ─► served
//!              └─ full: the oldest connection that has not asked for anything yet gives way
//! ```
//! `axum::serve` has no bounds. hyper's own header deadline starts only once it has read enough bytes to tell HTTP/1 from
//! HTTP/2, so a connection that sends nothing would stay open for ever: the first bytes are read here, with a deadline.

mod timer;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::timer::RequestTimer;

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
                let mut connection = pin!(http.serve_connection_with_upgrades(TokioIo::new(stream?), service));
                let mut finishing = false;
                poll_fn(|cx| {
                    match place.told.hear(cx) {
                        Word::Serve => {}
                        Word::Finish if finishing => {}
                        Word::Finish => {
                            finishing = true;
                            connection.as_mut().graceful_shutdown();
                        }
                        Word::End => {
                            tracing::debug!("a connection gave way to others, or to the end of the service");
                            return Poll::Ready(Ok(()));
                        }
                    }
                    connection.as_mut().poll(cx)
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

/// The places of a listener, and who has them.
struct Places {
    table: Mutex<Table>,
    freed: Notify,
    all: usize,
    per_address: usize,
}

#[derive(Default)]
struct Table {
    /// By the order in which they came.
    open: BTreeMap<u64, Open>,
    /// Those that have not asked for anything yet.
    silent: BTreeSet<u64>,
    by_address: HashMap<IpAddr, usize>,
    next: u64,
}

struct Open {
    address: IpAddr,
    told: Arc<Told>,
}

/// What a connection is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Word {
    Serve,
    /// The request in flight is the last; one that has not begun ends.
    Finish,
    End,
}

/// What one connection was told last. It is looked at whenever something comes on the connection: this costs a tenth of what a
/// cancellation token does, which knows of children and of many who wait.
#[derive(Default)]
struct Told {
    word: AtomicU8,
    connection: AtomicWaker,
}

impl Told {
    fn tell(&self, word: Word) {
        self.word.fetch_max(word as u8, Ordering::AcqRel);
        self.connection.wake();
    }

    fn word(&self) -> Word {
        match self.word.load(Ordering::Acquire) {
            0 => Word::Serve,
            1 => Word::Finish,
            _ => Word::End,
        }
    }

    /// What was told; whoever asked last is woken when there is more.
    fn hear(&self, cx: &Context<'_>) -> Word {
        self.connection.register(cx.waker());
        self.word()
    }
}

/// One connection's place, given up when dropped.
struct Place {
    id: u64,
    told: Arc<Told>,
    asked: AtomicBool,
    places: Arc<Places>,
}

impl Places {
    fn new(all: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), freed: Notify::new(), all, per_address })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a connection can be let in, if need be in place of one that has not asked for anything.
    async fn room(&self) {
        loop {
            let freed = self.freed.notified();
            {
                let table = self.table();
                if table.open.len() < self.all || !table.silent.is_empty() {
                    return;
                }
            }
            freed.await;
        }
    }

    /// `None` where this address has all its places, and has asked for something on each of them.
    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = client(address);
        let mut table = self.table();
        if table.by_address.get(&address).is_some_and(|open| *open >= self.per_address) {
            table.evict(Some(address))?;
        }
        if table.open.len() >= self.all {
            table.evict(None)?;
        }
        let (id, told) = (table.next, Arc::<Told>::default());
        table.next += 1;
        table.open.insert(id, Open { address, told: Arc::clone(&told) });
        table.silent.insert(id);
        *table.by_address.entry(address).or_default() += 1;
        Some(Place { id, told, asked: AtomicBool::new(false), places: Arc::clone(self) })
    }

    /// Ends the oldest connection that has not asked for anything.
    fn give_way(&self, address: Option<IpAddr>) {
        self.table().evict(address);
    }

    /// Tells all of them.
    fn tell(&self, word: Word) {
        self.table().open.values().for_each(|open| open.told.tell(word));
    }

    /// Waits until nobody has a place any more. For the one who waits when nobody is let in.
    async fn empty(&self) {
        loop {
            let freed = self.freed.notified();
            if self.table().open.is_empty() {
                return;
            }
            freed.await;
        }
    }
}

impl Table {
    /// Ends the oldest connection (of this address) that has not asked for anything, if there is one.
    fn evict(&mut self, address: Option<IpAddr>) -> Option<()> {
        let of_address =
            |id: &u64| address.is_none_or(|address| self.open.get(id).is_some_and(|it| it.address == address));
        let id = self.silent.iter().copied().find(of_address)?;
        self.remove(id)?.told.tell(Word::End);
        Some(())
    }

    fn remove(&mut self, id: u64) -> Option<Open> {
        self.silent.remove(&id);
        let open = self.open.remove(&id)?;
        if let Some(count) = self.by_address.get_mut(&open.address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&open.address);
            }
        }
        Some(open)
    }
}

impl Place {
    fn request_began(&self) {
        if !self.asked.swap(true, Ordering::Relaxed) {
            self.places.table().silent.remove(&self.id);
        }
    }

    /// Does what is wanted before anything was asked for: there is nothing to finish. `None` where the connection ends first.
    async fn unless_told<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|cx| match self.told.hear(cx) {
            Word::Serve => work.as_mut().poll(cx).map(Some),
            Word::Finish | Word::End => Poll::Ready(None),
        })
        .await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.table().remove(self.id);
        self.places.freed.notify_one();
    }
}

/// What counts as one address: whoever has an IPv6 address has a network of 64 bits of them.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn is_ended(place: &Place) -> bool {
        place.told.word() == Word::End
    }

    #[test]
    fn the_oldest_silent_connection_gives_way() {
        let places = Places::new(3, 2);
        let (first, second) = (places.enter(A).unwrap(), places.enter(A).unwrap());
        let third = places.enter(A).unwrap();
        assert!(is_ended(&first), "the address has two places");
        assert!(!is_ended(&second) && !is_ended(&third));
        let other = places.enter(B).unwrap();
        let newest = places.enter(B).unwrap();
        assert!(is_ended(&second) && !is_ended(&other), "all have three places");
        drop((first, second, third, other, newest));
        assert!(places.table().open.is_empty() && places.table().by_address.is_empty());
    }

    #[test]
    fn a_connection_with_a_request_stays() {
        let places = Places::new(2, 1);
        let busy = places.enter(A).unwrap();
        busy.request_began();
        assert!(places.enter(A).is_none());
        let other = places.enter(B).unwrap();
        other.request_began();
        assert!(!is_ended(&busy));
        drop(busy);
        assert!(places.enter(A).is_some());
    }

    #[tokio::test]
    async fn a_full_listener_waits_for_a_place() {
        let places = Places::new(1, 1);
        let only = places.enter(A).unwrap();
        places.room().await;
        only.request_began();
        let waiting = places.room();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(only);
        waiting.await;
    }

    #[tokio::test]
    async fn who_is_told_to_end_ends_and_who_drains_waits_for_the_last() {
        let places = Places::new(2, 2);
        let (silent, busy) = (places.enter(A).unwrap(), places.enter(A).unwrap());
        let mut empty = pin!(places.empty());
        assert!(futures_util::poll!(&mut empty).is_pending());
        {
            let mut waiting = pin!(silent.unless_told(std::future::pending::<()>()));
            assert!(futures_util::poll!(&mut waiting).is_pending());
            places.tell(Word::Finish);
            assert_eq!(waiting.await, None, "it is woken by the word alone");
        }
        assert_eq!(busy.unless_told(std::future::ready(1)).await, None, "nothing is begun any more");
        places.tell(Word::End);
        places.tell(Word::Finish);
        assert!(is_ended(&busy), "no later word takes the end back");
        drop(silent);
        assert!(futures_util::poll!(&mut empty).is_pending(), "one is left");
        drop(busy);
        empty.await;
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let [a, b, c]: [IpAddr; 3] =
            ["2001:db8::1", "2001:db8::ffff", "2001:db8:0:1::1"].map(|text| text.parse().unwrap());
        assert_eq!(client(a), client(b));
        assert_ne!(client(a), client(c));
        assert_eq!(client("::ffff:192.0.2.1".parse().unwrap()), A);
    }
}
