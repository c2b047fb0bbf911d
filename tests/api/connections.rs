//! Connections that ask for nothing: they are closed in time, and do not keep others out.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use zeroone::domain::Plan;
use zeroone::http::{HttpOptions, ServeOptions, router, serve};
use zeroone::testkit;

use crate::world::PATIENCE;

/// A service with these bounds; ends with the guard.
async fn service(options: ServeOptions) -> (std::net::SocketAddr, tokio_util::sync::DropGuard) {
    let plane = testkit::plane(5, Plan::Pro).await.plane;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let closing = CancellationToken::new();
    let http = HttpOptions::default().with_closing(closing.clone());
    tokio::spawn(serve(listener, router(plane, http), closing.clone(), options));
    (at, closing.drop_guard())
}

async fn silent(at: std::net::SocketAddr, sent: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(sent).await.unwrap();
    stream
}

/// Waits until the other side closed it, and gives what it sent before.
async fn closed(mut stream: TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut read)).await;
    // A reset is an end as well.
    let _ = ended.expect("the connection stays open");
    read
}

async fn answers(at: std::net::SocketAddr) -> bool {
    let stream = silent(at, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    closed(stream).await.starts_with(b"HTTP/1.1 200")
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_in_time() {
    let options = ServeOptions::default().with_header_within(Duration::from_millis(200));
    let (at, _service) = service(options).await;
    let beginnings: [&[u8]; 6] =
        [b"", b"P", b"PRI * HTTP/2.0\r\n", b"G", b"GET /livez HTTP/1.1\r\nHost", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"];
    for beginning in beginnings {
        closed(silent(at, beginning).await).await;
    }
    assert!(answers(at).await);
}

#[tokio::test]
async fn connections_without_a_request_keep_nobody_out() {
    // Only eviction can end them: no deadline is near.
    let options =
        ServeOptions::default().with_max_connections(8).with_max_per_address(4).with_header_within(PATIENCE * 10);
    let (at, _service) = service(options).await;
    let mut open = Vec::new();
    for sent in [b"".as_slice(), b"P", b"GET /livez HTTP/1.1\r\n"].into_iter().cycle().take(60) {
        open.push(silent(at, sent).await);
    }
    assert!(answers(at).await);
    // The oldest one gave way.
    closed(open.remove(0)).await;
}

#[tokio::test]
async fn an_address_has_a_bound_of_its_own() {
    let options = ServeOptions::default().with_max_connections(64).with_max_per_address(2);
    let (at, _service) = service(options).await;
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut stream = silent(at, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        busy.push(stream);
    }
    assert!(!answers(at).await, "two places are taken");
    drop(busy);
    tokio::time::timeout(PATIENCE, async { while !answers(at).await {} }).await.expect("the places are free again");
}
