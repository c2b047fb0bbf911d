//! Against a server of raw sockets, which can do what no HTTP server lets one do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::super::{SentMark, WebhookCall};
use super::*;
use crate::domain::SessionName;

const SOON: Duration = Duration::from_secs(10);
/// For calls that are meant to run out of time.
const BRIEFLY: Duration = Duration::from_millis(100);

/// What a connection gets after its request was read.
#[derive(Clone)]
enum Reply {
    Whole(&'static str, &'static str, String),
    /// These bytes, then the end.
    Raw(Vec<u8>),
    /// Nothing, for ever.
    Silence,
}

struct Server {
    at: SocketAddr,
    requests: Arc<AtomicUsize>,
    last: Arc<std::sync::Mutex<String>>,
}

impl Server {
    /// Answers every request on every connection alike.
    async fn answering(reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (requests, last) = (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::Mutex::new(String::new())));
        let (counter, seen) = (Arc::clone(&requests), Arc::clone(&last));
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let (counter, seen, reply) = (Arc::clone(&counter), Arc::clone(&seen), reply.clone());
                tokio::spawn(async move {
                    while let Some(request) = read_request(&mut socket).await {
                        counter.fetch_add(1, Ordering::SeqCst);
                        *seen.lock().unwrap() = request;
                        match &reply {
                            Reply::Whole(status, kind, body) => {
                                let head = format!(
                                    "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
                                    body.len()
                                );
                                socket.write_all(head.as_bytes()).await.unwrap();
                                socket.write_all(body.as_bytes()).await.ok();
                            }
                            Reply::Raw(bytes) => {
                                socket.write_all(bytes).await.ok();
                                return;
                            }
                            Reply::Silence => std::future::pending().await,
                        }
                    }
                });
            }
        });
        Self { at, requests, last }
    }

    async fn json(status: &'static str, body: &str) -> Self {
        Self::answering(Reply::Whole(status, "application/json", body.to_owned())).await
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn last(&self) -> String {
        self.last.lock().unwrap().clone()
    }
}

/// Head and body of the next request; `None` at the end of the connection. A body is asked for, as hyper does.
async fn read_request(socket: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut asked = false;
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(text);
            }
            if !asked && head.contains("expect: 100-continue") {
                asked = true;
                socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok();
            }
        }
        let mut chunk = [0; 4096];
        match socket.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
        }
    }
}

fn gateway() -> HttpGateway {
    HttpGateway::new()
}

fn token() -> Secret<String> {
    "zc_planted".into()
}

fn call(sent: &SentMark) -> WebhookCall {
    WebhookCall {
        body: Bytes::from_static(br#"{"message":"hi"}"#),
        request_id: Some("r-1".into()),
        traceparent: Some("not\na header".into()),
        session: SessionName::parse("chat-1").ok(),
        sent: sent.clone(),
    }
}

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_message_is_answered() {
    let server = Server::json("200 OK", r#"{"response":"hello"}"#).await;
    let sent = SentMark::default();
    let answer = gateway().webhook(server.at, &token(), call(&sent), SOON).await.unwrap();
    assert_eq!((answer.status, &*answer.body), (200, &br#"{"response":"hello"}"#[..]));
    assert_eq!(answer.content_type.as_deref(), Some("application/json"));
    assert!(sent.is_set());
    let request = server.last();
    for part in [
        "POST /webhook HTTP/1.1\r\n",
        "authorization: Bearer zc_planted\r\n",
        "content-type: application/json\r\n",
        "content-length: 16\r\n",
        "x-request-id: r-1\r\n",
        "x-session-id: chat-1\r\n",
        "\r\n\r\n{\"message\":\"hi\"}",
    ] {
        assert!(request.contains(part), "{part:?} in {request:?}");
    }
    assert!(!request.contains("traceparent"));
}

#[tokio::test]
async fn any_status_of_a_message_is_an_answer() {
    for status in ["401 Unauthorized", "408 Request Timeout", "500 Internal Server Error", "302 Found"] {
        let server = Server::json(status, "{}").await;
        let answer = gateway().webhook(server.at, &token(), call(&SentMark::default()), SOON).await.unwrap();
        assert!(status.starts_with(&answer.status.to_string()));
        assert_eq!(server.requests(), 1, "{status}");
    }
}

#[tokio::test]
async fn where_nobody_listens_nothing_was_sent() {
    let (at, sent) = (nobody().await, SentMark::default());
    let failed = gateway().webhook(at, &token(), call(&sent), SOON).await.unwrap_err();
    assert!(matches!(failed, GatewayError::NotSent(_)), "{failed:?}");
    assert!(!sent.is_set());
    let failed = gateway().pair(at, &"123456".into(), SOON).await.unwrap_err();
    assert!(matches!(failed, GatewayError::NotSent(_)), "{failed:?}");
}

#[tokio::test]
async fn a_connection_that_ends_after_the_request_leaves_it_unknown() {
    for raw in [&b""[..], b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", b"no HTTP at all\r\n\r\n"] {
        let server = Server::answering(Reply::Raw(raw.to_vec())).await;
        let sent = SentMark::default();
        let failed = gateway().webhook(server.at, &token(), call(&sent), SOON).await.unwrap_err();
        assert!(matches!(failed, GatewayError::Unknown(_)), "{failed:?}");
        assert!(sent.is_set());
        assert_eq!(server.requests(), 1);
        let failed = gateway().pair(server.at, &"622406".into(), SOON).await.unwrap_err();
        assert!(matches!(failed, GatewayError::Unknown(_)), "{failed:?}");
        assert_eq!(server.requests(), 2);
    }
}

/// What a connection does with a head that expects to be asked for its body.
async fn unasked(then: &'static [u8]) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, bodies) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&bodies);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                let mut seen = Vec::new();
                let headed = |seen: &[u8]| seen.windows(4).any(|end| end == b"\r\n\r\n");
                while !headed(&seen) && socket.read_buf(&mut seen).await.unwrap_or(0) > 0 {}
                if then.is_empty() {
                    return;
                }
                while !seen.ends_with(b"}") && socket.read_buf(&mut seen).await.unwrap_or(0) > 0 {}
                counter.fetch_add(usize::from(seen.ends_with(b"}")), Ordering::SeqCst);
                socket.write_all(then).await.ok();
            });
        }
    });
    (at, bodies)
}

#[tokio::test]
async fn a_message_that_was_never_asked_for_was_certainly_not_delivered() {
    let (at, _) = unasked(b"").await;
    for _ in 0..3 {
        let sent = SentMark::default();
        let failed = gateway().webhook(at, &token(), call(&sent), SOON).await.unwrap_err();
        assert!(matches!(failed, GatewayError::NotSent(_)), "{failed:?}");
        assert!(!sent.is_set());
    }
    // Refused without being read: the answer counts, and the message did not go.
    let refused =
        Server::answering(Reply::Raw(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n".to_vec())).await;
    let answer = gateway().webhook(refused.at, &token(), call(&SentMark::default()), SOON).await.unwrap();
    assert_eq!(answer.status, 401);
}

#[tokio::test]
async fn a_server_that_knows_no_expectations_gets_the_message_all_the_same() {
    let (at, bodies) = unasked(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}").await;
    let (gateway, sent) = (gateway(), SentMark::default());
    assert_eq!(gateway.webhook(at, &token(), call(&sent), SOON).await.unwrap().status, 200);
    assert!(sent.is_set());
    // It is known from then on.
    let began = std::time::Instant::now();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(gateway.webhook(at, &token(), call(&SentMark::default()), SOON).await.unwrap().status, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(1), "each waited to be asked");
    assert_eq!(bodies.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_silent_gateway_times_out_and_the_message_counts_as_sent() {
    let server = Server::answering(Reply::Silence).await;
    let sent = SentMark::default();
    let failed = gateway().webhook(server.at, &token(), call(&sent), BRIEFLY).await.unwrap_err();
    assert_eq!(failed, GatewayError::TimedOut);
    assert!(sent.is_set());
    assert_eq!(gateway().health(server.at, BRIEFLY).await.unwrap_err(), GatewayError::TimedOut);
}

/// A listener whose queue is full: the connection never comes up, so the deadline passes with nothing sent.
#[tokio::test]
async fn a_deadline_before_the_connection_means_not_sent() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let at = listener.local_addr().unwrap();
    let mut fillers = Vec::new();
    while let Ok(Ok(filler)) = tokio::time::timeout(BRIEFLY, TcpStream::connect(at)).await {
        fillers.push(filler);
    }
    let sent = SentMark::default();
    let failed = gateway().webhook(at, &token(), call(&sent), BRIEFLY).await.unwrap_err();
    assert!(matches!(failed, GatewayError::NotSent(_)), "{failed:?}");
    assert!(!sent.is_set());
}

/// The gateway closes kept connections just as the next message goes out on one: whatever happens, the message arrives
/// at most once, and a failure tells the truth about it.
#[tokio::test]
async fn a_kept_connection_that_dies_is_never_a_silent_resend() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (received, close) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (counter, closing) = (Arc::clone(&received), Arc::clone(&close));
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (counter, closing) = (Arc::clone(&counter), Arc::clone(&closing));
            tokio::spawn(async move {
                // Answers one request, then closes as the next one comes.
                if read_request(&mut socket).await.is_some() {
                    counter.fetch_add(1, Ordering::SeqCst);
                    socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                    closing.notified().await;
                }
            });
        }
    });
    for _ in 0..50 {
        let gateway = gateway();
        gateway.webhook(at, &token(), call(&SentMark::default()), SOON).await.unwrap();
        let (before, sent) = (received.load(Ordering::SeqCst), SentMark::default());
        close.notify_one();
        let outcome = gateway.webhook(at, &token(), call(&sent), SOON).await;
        let arrived = received.load(Ordering::SeqCst) - before;
        match outcome {
            Ok(_) => assert_eq!(arrived, 1),
            Err(GatewayError::NotSent(_)) => assert!(arrived == 0 && !sent.is_set()),
            Err(GatewayError::Unknown(_)) => assert!(arrived <= 1 && sent.is_set()),
            Err(other) => panic!("{other:?}"),
        }
        close.notify_waiters();
    }
}

#[tokio::test]
async fn an_answer_without_end_is_refused() {
    let server = Server::answering(Reply::Whole("200 OK", "text/plain", "x".repeat(SMALL_ANSWER + 1))).await;
    let failed = gateway().health(server.at, SOON).await.unwrap_err();
    assert!(matches!(failed, GatewayError::Garbage(_)), "{failed:?}");
    let server = Server::answering(Reply::Whole("200 OK", "text/plain", "x".repeat(4 * 1024 * 1024 + 1))).await;
    let failed = gateway().webhook(server.at, &token(), call(&SentMark::default()), SOON).await.unwrap_err();
    assert!(matches!(failed, GatewayError::Garbage(_)), "{failed:?}");
}

#[tokio::test]
async fn health_is_what_the_gateway_says() {
    let server = Server::json("200 OK", r#"{"status":"ok"}"#).await;
    let report = gateway().health(server.at, SOON).await.unwrap();
    assert!(report.healthy());
    assert_eq!(&*report.body, br#"{"status":"ok"}"#);
    let server = Server::json("503 Service Unavailable", "{}").await;
    assert!(!gateway().health(server.at, SOON).await.unwrap().healthy());
}

#[tokio::test]
async fn only_a_clear_answer_judges_a_token() {
    for (status, kind, verdict) in [
        ("200 OK", "application/json", Some(true)),
        ("401 Unauthorized", "application/json", Some(false)),
        ("403 Forbidden", "text/plain", Some(false)),
        ("200 OK", "text/html", None),
        ("404 Not Found", "application/json", None),
        ("429 Too Many Requests", "application/json", None),
        ("500 Internal Server Error", "application/json", None),
    ] {
        let server = Server::answering(Reply::Whole(status, kind, "{}".into())).await;
        let outcome = gateway().accepts_token(server.at, &token(), SOON).await;
        match verdict {
            Some(verdict) => assert_eq!(outcome, Ok(verdict), "{status} {kind}"),
            None => assert!(matches!(outcome, Err(GatewayError::Garbage(_))), "{status} {kind}"),
        }
        assert!(server.last().starts_with("GET /api/status HTTP/1.1\r\n"));
        assert!(server.last().contains("authorization: Bearer zc_planted\r\n"));
    }
}

#[tokio::test]
async fn pairing_ends_in_a_token_a_refusal_or_a_lockout() {
    let paired = |persisted| Pairing::Paired { token: "zc_1".into(), persisted };
    for (status, body, expected) in [
        ("200 OK", r#"{"paired":true,"persisted":true,"token":"zc_1"}"#, Ok(paired(true))),
        ("200 OK", r#"{"paired":true,"persisted":false,"token":"zc_1"}"#, Ok(paired(false))),
        ("200 OK", r#"{"token":"zc_1"}"#, Ok(paired(true))),
        ("403 Forbidden", r#"{"error":"Invalid pairing code"}"#, Ok(Pairing::Refused)),
        ("429 Too Many Requests", r#"{"retry_after":299}"#, Ok(Pairing::LockedOut { retry_after_secs: 299 })),
        ("429 Too Many Requests", "slow down", Ok(Pairing::LockedOut { retry_after_secs: 60 })),
        ("200 OK", r#"{"token":""}"#, Err(())),
        ("200 OK", "<html>", Err(())),
        ("500 Internal Server Error", "{}", Err(())),
    ] {
        let server = Server::json(status, body).await;
        let outcome = gateway().pair(server.at, &"622406".into(), SOON).await;
        match (outcome, expected) {
            (Ok(outcome), Ok(expected)) => assert_eq!(outcome, expected, "{status} {body}"),
            (Err(GatewayError::Garbage(_)), Err(())) => {}
            (outcome, _) => panic!("{status} {body}: {outcome:?}"),
        }
        assert!(server.last().starts_with("POST /pair HTTP/1.1\r\n"));
        assert!(server.last().contains("x-pairing-code: 622406\r\n"));
        assert_eq!(server.last().matches("content-length: 0\r\n").count(), 1);
        assert_eq!(server.requests(), 1);
    }
}

#[tokio::test]
async fn errors_and_debug_output_hold_no_secret() {
    let at = nobody().await;
    let (gateway, secret) = (gateway(), Secret::<String>::from("zc_planted\n"));
    let unsendable = gateway.accepts_token(at, &secret, SOON).await.unwrap_err();
    let unreachable = gateway.pair(at, &"planted".into(), SOON).await.unwrap_err();
    let server = Server::json("200 OK", r#"{"tokn":"zc_planted"}"#).await;
    let garbage = gateway.pair(server.at, &"planted".into(), SOON).await.unwrap_err();
    for error in [unsendable, unreachable, garbage] {
        assert!(!format!("{error} {error:?}").contains("planted"), "{error:?}");
    }
}
