use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Wake;

use futures_util::pin_mut;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// A gateway that gives these bytes to each request, a piece after the other, and the connection to it.
async fn gateway(pieces: &'static [&'static [u8]]) -> Lease<Full<Bytes>> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        while stream.read(&mut request).await.unwrap() > 0 {
            for piece in pieces {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    Connections::<u8, _>::default().lease(0, at, 1).await.unwrap()
}

/// All of an answer.
async fn ask(lease: &mut Lease<Full<Bytes>>) -> Vec<u8> {
    let request = Request::post("/webhook").header("host", "gateway").body(Full::from("a message")).unwrap();
    let mut body = lease.send(request).await.map_err(TrySendError::into_error).unwrap().into_body();
    let mut whole = Vec::new();
    while let Some(frame) = lease.frame(&mut body).await {
        whole.extend(frame.unwrap().into_data().unwrap());
    }
    whole
}

/// Wakes a task, and counts those wakes that come while it is polled: all of them come from itself.
struct Own {
    task: Waker,
    polled: AtomicBool,
    wakes: AtomicUsize,
}

impl Wake for Own {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(usize::from(self.polled.load(Ordering::SeqCst)), Ordering::SeqCst);
        self.task.wake_by_ref();
    }
}

/// What a future gives, and how often it has woken itself.
async fn own_wakes<T>(of: impl Future<Output = T>) -> (T, usize) {
    pin_mut!(of);
    let mut own = None;
    let done = poll_fn(|cx| {
        let own = own.get_or_insert_with(|| {
            Arc::new(Own { task: cx.waker().clone(), polled: AtomicBool::new(false), wakes: AtomicUsize::new(0) })
        });
        own.polled.store(true, Ordering::SeqCst);
        let polled = of.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(own))));
        own.polled.store(false, Ordering::SeqCst);
        polled
    })
    .await;
    (done, own.map_or(0, |own| own.wakes.load(Ordering::SeqCst)))
}

/// Each wake of that kind would be one more turn of the whole task, often on another thread.
#[tokio::test]
async fn a_call_wakes_nobody_itself() {
    for pieces in [
        &[b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello" as &[u8]][..],
        &[b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"],
        &[b"HTTP/1.1 200 OK\r\n", b"content-length: 5\r\n\r\n", b"he", b"llo"],
    ] {
        let mut lease = gateway(pieces).await;
        ask(&mut lease).await;
        for _ in 0..3 {
            assert!(lease.open.is_usable());
            let (answer, wakes) = own_wakes(ask(&mut lease)).await;
            assert_eq!(answer, b"hello");
            assert_eq!(wakes, 0, "{}", pieces.concat().escape_ascii());
        }
    }
}

/// All of it may be there before the first piece is taken, so that nothing more comes which would wake the reader.
#[tokio::test]
async fn an_answer_of_many_pieces_arrives_whole_however_slowly_it_is_taken() {
    const LENGTH: usize = 300_000;
    static BODY: [u8; LENGTH] = [b'x'; LENGTH];
    static PIECES: [&[u8]; 2] = [b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n", &BODY];
    let mut lease = gateway(&PIECES).await;
    for pause in [false, true] {
        let request = Request::get("/").header("host", "gateway").body(Full::default()).unwrap();
        let mut body = lease.send(request).await.map_err(TrySendError::into_error).unwrap().into_body();
        let (mut length, mut pieces) = (0, 0);
        while let Some(frame) = timeout(Duration::from_secs(30), lease.frame(&mut body)).await.expect("the next piece")
        {
            (length, pieces) = (length + frame.unwrap().into_data().unwrap().len(), pieces + 1);
            if pause {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(length, LENGTH);
        assert!(pieces > 1, "{pieces}");
    }
}

#[tokio::test]
async fn a_connection_that_its_gateway_has_closed_is_not_usable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = Connections::<u8, Full<Bytes>>::default();
    let mut lease = open.lease(0, listener.local_addr().unwrap(), 1).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let answered = async {
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        stream
    };
    let (stream, answer) = tokio::join!(answered, ask(&mut lease));
    assert!(answer.is_empty() && lease.open.is_usable());
    drop(stream);
    let mut looks = 0;
    while lease.open.is_usable() {
        looks += 1;
        assert!(looks < 10_000, "it is never noticed");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What wakes a reader comes by other threads: a piece of the body that is sent, a piece of the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_goes_and_comes_back_at_once_arrives_whole() {
    const PIECES: usize = 20_000;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let echo = async |request: Request<Incoming>| Ok::<_, hyper::Error>(Response::new(request.into_body()));
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), hyper::service::service_fn(echo))
            .await
    });
    let (pieces, body) = tokio::sync::mpsc::channel::<Bytes>(4);
    let body = futures_util::stream::unfold(body, async |mut body| {
        let piece = body.recv().await?;
        Some((Ok::<_, std::io::Error>(Frame::data(piece)), body))
    });
    let body = http_body_util::StreamBody::new(Box::pin(body));
    let mut lease = Connections::<u8, _>::default().lease(0, at, 1).await.unwrap();
    let sending = tokio::spawn(async move {
        for nth in 0..PIECES {
            pieces.send(Bytes::from_static(b"piece")).await.unwrap();
            if nth % 7 == 0 {
                tokio::task::yield_now().await;
            }
        }
    });
    let reading = tokio::spawn(async move {
        let request = Request::post("/").header("host", "gateway").body(body).unwrap();
        let mut body = lease.send(request).await.map_err(|error| error.into_error().to_string()).unwrap().into_body();
        let mut length = 0;
        while let Some(frame) = lease.frame(&mut body).await {
            length += frame.unwrap().into_data().unwrap().len();
        }
        length
    });
    let length = timeout(Duration::from_secs(60), reading).await.expect("it goes on").unwrap();
    assert_eq!(length, PIECES * b"piece".len());
    sending.await.unwrap();
}

/// Its connection still has the rest of the request's body: the next request would have to wait behind that.
#[tokio::test]
async fn an_answer_before_the_end_of_the_request_leaves_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (told, closed) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
        told.send(()).unwrap();
    });
    let open = Connections::<u8, _>::default();
    let mut lease = open.lease(0, at, 1).await.unwrap();
    let first = futures_util::stream::iter([Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"begun")))]);
    let unfinished = futures_util::StreamExt::chain(first, futures_util::stream::pending());
    let body = http_body_util::StreamBody::new(Box::pin(unfinished));
    let request = Request::post("/").header("host", "gateway").body(body).unwrap();
    let mut body = lease.send(request).await.map_err(|error| error.into_error().to_string()).unwrap().into_body();
    while let Some(frame) = lease.frame(&mut body).await {
        frame.unwrap();
    }
    lease.give_back();
    assert!(!open.lease(0, at, 1).await.unwrap().is_used());
    timeout(Duration::from_secs(10), closed).await.expect("the gateway sees that no more comes").unwrap();
}
