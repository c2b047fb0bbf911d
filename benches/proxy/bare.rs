//! What the libraries alone cost: hyper's server and hyper's client with nothing between them but a list of open connections.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// The word by which this program is such a proxy.
pub const WORD: &str = "bare";

type Open = Arc<Mutex<Vec<SendRequest<Incoming>>>>;

/// A process of its own, which ends when this is dropped.
pub struct Bare {
    child: Child,
    pub at: SocketAddr,
}

impl Bare {
    pub fn start(upstream: SocketAddr) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        let mut child = command.args([WORD, &upstream.to_string()]).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("it says where it listens");
        Self { child, at: line.trim().parse().expect("an address") }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub async fn run(upstream: SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    let open = Open::default();
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let open = Arc::clone(&open);
        let service = service_fn(move |request| pass(Arc::clone(&open), upstream, request));
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn pass(
    open: Open,
    upstream: SocketAddr,
    request: Request<Incoming>,
) -> Result<hyper::Response<Incoming>, Box<dyn std::error::Error + Send + Sync>> {
    let kept = open.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut sender = match kept {
        Some(kept) => kept,
        None => {
            let stream = TcpStream::connect(upstream).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            sender
        }
    };
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    open.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
    Ok(response)
}
