use std::future::{pending, poll_fn, ready};

use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::domain::{AgentId, UserId};
use crate::proxy::limits::Limits;
use crate::zeroclaw::client::SentMark;
use crate::zeroclaw::client::connections::Connections;

const WITHIN: Duration = Duration::from_secs(30);

async fn outgoing(length: usize, announced: bool, max: usize) -> Result<Outgoing, Unusable> {
    // In pieces, as from a connection.
    let piece = |n| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 1000.min(length - n)]));
    let pieces: Vec<_> = (0..length).step_by(1000).map(piece).collect();
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    Outgoing::of(body, announced.then_some(length as u64), max as u64, WITHIN).await
}

#[tokio::test]
async fn small_bodies_of_a_known_length_can_be_sent_again_and_others_until_they_were_given_away() {
    for (length, announced, is_whole) in [
        (1, true, true),
        (MAX_REPLAYED, true, true),
        (MAX_REPLAYED + 1, true, false),
        (1, false, false),
        (MAX_REPLAYED, false, false),
    ] {
        let mut outgoing = outgoing(length, announced, 1 << 20).await.unwrap();
        assert!(outgoing.can_repeat());
        let first = outgoing.take().unwrap();
        assert_eq!(outgoing.can_repeat(), is_whole, "{length} bytes, announced: {announced}");
        if !is_whole {
            assert!(outgoing.take().is_none());
            outgoing.put_back(first);
            assert!(outgoing.can_repeat(), "it was not sent");
        }
        let sent = outgoing.take().unwrap().collect().await.unwrap();
        assert_eq!(sent.to_bytes().len(), length);
        assert_eq!(outgoing.fault(), None);
    }
}

#[tokio::test]
async fn a_body_may_have_its_bound_and_no_byte_more_whether_that_was_announced_or_not() {
    let max = MAX_REPLAYED + 500;
    assert_eq!(outgoing(max + 1, true, max).await.err(), Some(Unusable::TooLarge));
    for (length, announced, fault) in [
        (max, true, None),
        (max, false, None),
        (max + 1, false, Some(Unusable::TooLarge)),
        (2 * max, false, Some(Unusable::TooLarge)),
    ] {
        let mut outgoing = outgoing(length, announced, max).await.unwrap();
        let sent = outgoing.take().unwrap().collect().await;
        assert_eq!((sent.is_err(), outgoing.fault()), (fault.is_some(), fault), "{length} bytes");
    }
}

#[tokio::test]
async fn a_streamed_body_says_how_long_it_is_where_that_is_known() {
    let length = MAX_REPLAYED as u64 + 1;
    let body = Body::from(vec![b'x'; MAX_REPLAYED + 1]);
    let mut outgoing = Outgoing::of(body, Some(length), length, WITHIN).await.unwrap();
    let mut streamed = outgoing.take().unwrap();
    assert_eq!(streamed.size_hint().exact(), Some(length));
    assert!(!streamed.is_end_stream());
    streamed.frame().await.unwrap().unwrap();
    assert!(streamed.is_end_stream());
}

/// A gateway that gives this answer to each request on a connection, and what calls it.
struct Called {
    connections: Connections<AgentId, Body>,
    limits: Limits,
    agent: AgentId,
    at: std::net::SocketAddr,
}

impl Called {
    async fn answering(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut read = vec![0; 4096];
                    while connection.read(&mut read).await.is_ok_and(|length| length > 0) {
                        connection.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        Self { connections: Connections::default(), limits: Limits::new(9, 9), agent: AgentId::new(), at }
    }

    async fn lease(&self) -> Lease<Body> {
        self.connections.lease(self.agent, self.at, 1).await.unwrap()
    }

    /// The beginning of an answer that ends when `until` does, at this pace.
    async fn call(
        &self,
        unread: Option<Handover<Body>>,
        until: BoxFuture<'static, ()>,
        pace: Option<NonZeroU32>,
    ) -> Answer {
        let mut lease = self.lease().await;
        let response = lease.send(Request::get("/").header("host", "a").body(Body::empty()).unwrap()).await.unwrap();
        let place = self.limits.enter(self.agent, UserId::new()).ok().unwrap();
        let ends = Ends { idle: WITHIN, until };
        Answer::new(response.into_body(), lease, unread, place, ends, pace, false)
    }
}

#[tokio::test]
async fn an_answer_that_was_read_to_its_end_leaves_its_connection_for_the_next_call() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
    ] {
        let called = Called::answering(answer).await;
        called.call(None, Box::pin(pending()), None).await.collect().await.unwrap();
        assert!(called.lease().await.is_used(), "{answer}");
        // The gateway still waits for that body: the next request would be taken for it.
        let (unread, _transport) = Handover::of(Body::from("a message"), SentMark::default());
        called.call(Some(unread), Box::pin(pending()), None).await.collect().await.unwrap();
        assert!(!called.lease().await.is_used(), "{answer}");
    }
}

#[tokio::test]
async fn an_answer_is_over_with_its_last_byte() {
    let called = Called::answering("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
    let mut answer = called.call(None, Box::pin(pending()), None).await;
    assert!(!answer.is_end_stream());
    assert_eq!(answer.size_hint().exact(), Some(5));
    answer.frame().await.unwrap().unwrap();
    assert!(answer.is_end_stream());
    let called = Called::answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(called.call(None, Box::pin(pending()), None).await.is_end_stream(), "it has none");
}

#[tokio::test]
async fn an_answer_that_never_waits_is_looked_at_from_time_to_time() {
    let called = Called::answering(concat!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "1\r\na\r\n1\r\na\r\n1\r\na\r\n1\r\na\r\n1\r\na\r\n1\r\na\r\n1\r\na\r\n1\r\na\r\n",
        "1\r\na\r\n1\r\na\r\n1\r\na\r\n1\r\na\r\n1\r\na\r\n1\r\na\r\n1\r\na\r\n1\r\na\r\n",
        "0\r\n\r\n"
    ))
    .await;
    let whole = called.call(None, Box::pin(pending()), None).await.collect().await.unwrap();
    assert_eq!(whole.to_bytes().len(), 16);
    let mut cut = called.call(None, Box::pin(ready(())), None).await;
    let mut frames = 0;
    let end = loop {
        match cut.frame().await {
            Some(Ok(_)) => frames += 1,
            end => break end,
        }
    };
    assert_eq!(frames, UNLOOKED, "so many came at once, for a caller who may not listen");
    assert!(matches!(end, Some(Err(_))), "the caller sees that it was cut");
    assert!(cut.is_end_stream() && !called.lease().await.is_used(), "the call at the gateway ends");
}

/// What the answer has to give at this moment.
async fn at_once(answer: &mut Answer) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *answer).poll_frame(cx))).await
}

#[tokio::test]
async fn an_answer_that_is_held_up_is_counted_once() {
    let called = Called::answering("HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\n012345678901234567890123456789").await;
    let met = || called.limits.met(Bound::Pace);
    let mut slow = called.call(None, Box::pin(pending()), NonZeroU32::new(1)).await;
    assert_eq!(slow.frame().await.unwrap().unwrap().into_data().unwrap().len(), 30, "who was quiet before may begin");
    assert_eq!(met(), 0);
    for _ in 0..3 {
        assert!(at_once(&mut slow).await.is_pending());
        assert_eq!(met(), 1);
    }
    let mut fast = called.call(None, Box::pin(pending()), NonZeroU32::new(1000)).await;
    fast.frame().await.unwrap().unwrap();
    assert!(at_once(&mut fast).await.is_ready());
    assert_eq!(met(), 1);
}
