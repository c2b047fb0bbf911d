//! `zeroone carry`: gives out the files of an agent's volume, and takes files for it. A Pod of the cluster runs it beside the
//! agent or in its absence, while somebody exports, copies or upgrades the agent; after a while without a request it ends.
//!
//! ```text
//! GET /<folder>   its regular files as a tar archive, links left out    PUT /   an archive's files, each whole or not at all
//! ```
//! Only who made the Pod knows the token: the Pod has its hash.

use std::convert::Infallible;
use std::fs;
use std::io::{self, BufWriter, Read as _, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http::header::AUTHORIZATION;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyDataStream, BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::outcome::Failure;
use super::stage::{is_plain, put};

/// Without a request for so long it ends. Whoever made the Pod counts on less.
const IDLE: Duration = Duration::from_secs(60);
/// Until the head of a request is there, and until all of one is done.
const HEAD: Duration = Duration::from_secs(10);
const REQUEST: Duration = Duration::from_secs(300);
const CONNECTIONS: usize = 16;
/// Of an archive on its way.
const CHUNK: usize = 64 * 1024;
const CHUNKS: usize = 4;

#[derive(Debug, Args)]
pub(super) struct CarryArgs {
    /// The agent's data.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// SHA-256 of the token that requests must have, in hexadecimal.
    #[arg(long, value_name = "HEX")]
    token_hash: String,
    #[arg(long)]
    port: u16,
}

type Answer = Response<BoxBody<Bytes, io::Error>>;

pub(super) async fn run(args: &CarryArgs) -> Result<(), Failure> {
    // On all addresses, or on those of the older kind where there are no others.
    let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, args.port)).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, args.port)).await?,
    };
    serve(&listener, &args.data, &args.token_hash, IDLE).await;
    Ok(())
}

async fn serve(listener: &TcpListener, data: &Path, token_hash: &str, idle: Duration) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if open.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => { open.spawn(connection(stream, data.to_owned(), token_hash.to_owned())); }
                Err(_) => sleep(Duration::from_millis(50)).await,
            },
            Some(_) = open.join_next() => {}
            () = sleep(idle), if open.is_empty() => return,
        }
    }
}

/// One request for each, so that an open one means work.
async fn connection(stream: TcpStream, data: PathBuf, token_hash: String) {
    let service = service_fn(async |request| Ok::<_, Infallible>(answer(request, &data, &token_hash).await));
    let served = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(REQUEST, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => eprintln!("a request broke off: {error}"),
        Err(_) => eprintln!("a request took too long"),
    }
}

async fn answer(request: Request<Incoming>, data: &Path, token_hash: &str) -> Answer {
    let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(token.unwrap_or_default()));
    if !bool::from(hash.as_bytes().ct_eq(token_hash.as_bytes())) {
        return said(StatusCode::UNAUTHORIZED, "another token is wanted");
    }
    let data = data.to_owned();
    match *request.method() {
        Method::GET => {
            let folder = PathBuf::from(request.uri().path().trim_start_matches('/'));
            if is_plain(&folder) { given(data, folder) } else { said(StatusCode::BAD_REQUEST, "no such folder") }
        }
        Method::PUT => {
            let body = BodyDataStream::new(request.into_body()).map_err(io::Error::other);
            let archive = SyncIoBridge::new(StreamReader::new(body));
            match spawn_blocking(move || unpack(&data, archive)).await.map_err(io::Error::other).flatten() {
                Ok(()) => said(StatusCode::NO_CONTENT, ""),
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    said(StatusCode::INSUFFICIENT_STORAGE, &error.to_string())
                }
                Err(error) => said(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
            }
        }
        _ => said(StatusCode::METHOD_NOT_ALLOWED, "GET or PUT"),
    }
}

fn said(status: StatusCode, text: &str) -> Answer {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|never| match never {});
    let mut answer = Response::new(body.boxed());
    *answer.status_mut() = status;
    answer
}

/// An archive while it is made. One that cannot be finished breaks the answer off, so that no part is taken for all of it.
fn given(data: PathBuf, folder: PathBuf) -> Answer {
    let (sender, chunks) = mpsc::channel(CHUNKS);
    spawn_blocking(move || {
        let mut archive = tar::Builder::new(BufWriter::with_capacity(CHUNK, Chunks(sender.clone())));
        let packed = pack(&data, &folder, &mut archive);
        if let Err(error) = packed.and_then(|()| archive.into_inner()?.flush()) {
            let _ = sender.blocking_send(Err(error));
        }
    });
    let frames = ReceiverStream::new(chunks).map(|chunk| chunk.map(Frame::data));
    Response::new(BoxBody::new(StreamBody::new(frames)))
}

struct Chunks(mpsc::Sender<io::Result<Bytes>>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes))).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The regular files below a folder of the data, by their paths in it. What goes away meanwhile is left out.
fn pack(data: &Path, folder: &Path, archive: &mut tar::Builder<impl Write>) -> io::Result<()> {
    let mut folders = vec![folder.to_owned()];
    // A link on the way to the folder is the agent's own doing, and leads out of its data.
    let is_link = |path: &Path| fs::symlink_metadata(data.join(path)).is_ok_and(|there| there.is_symlink());
    if folder.ancestors().any(|path| !path.as_os_str().is_empty() && is_link(path)) {
        return Ok(());
    }
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(data.join(&folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let (kind, path) = (entry.file_type()?, folder.join(entry.file_name()));
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                append(data, &path, archive)?;
            }
        }
    }
    Ok(())
}

fn append(data: &Path, path: &Path, archive: &mut tar::Builder<impl Write>) -> io::Result<()> {
    let file = match fs::File::open(data.join(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let there = file.metadata()?;
    // It may grow while it is read.
    let mut content = Vec::with_capacity(usize::try_from(there.len()).unwrap_or_default());
    file.take(there.len()).read_to_end(&mut content)?;
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&there);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, path, content.as_slice())
}

fn unpack(data: &Path, archive: impl io::Read) -> io::Result<()> {
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path()?.into_owned();
        if !is_plain(&path) {
            return Err(io::Error::other(format!("{} does not lie in the agent's data", path.display())));
        }
        let mode = entry.header().mode()?;
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        put(&data.join(path), &content, mode)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn said_to(at: std::net::SocketAddr, head: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(format!("{head}host: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn only_who_has_the_token_is_answered_and_it_ends_by_itself() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join("a")).unwrap();
        fs::write(data.path().join("a/b.md"), "what it knows").unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let hash = data_encoding::HEXLOWER.encode(&Sha256::digest("secret"));
        let asked = async {
            for refused in ["", "authorization: Bearer other\r\n", "authorization: secret\r\n"] {
                let answer = said_to(at, &format!("GET /a HTTP/1.1\r\n{refused}")).await;
                assert!(answer.starts_with("HTTP/1.1 401") && !answer.contains("it knows"), "{answer}");
            }
            let bearer = "authorization: Bearer secret\r\n";
            let given = said_to(at, &format!("GET /a HTTP/1.1\r\n{bearer}")).await;
            assert!(given.starts_with("HTTP/1.1 200") && given.contains("what it knows"), "{given}");
            for outside in ["/", "/../x", "/a/../../x"] {
                let answer = said_to(at, &format!("GET {outside} HTTP/1.1\r\n{bearer}")).await;
                assert!(answer.starts_with("HTTP/1.1 400"), "{outside}: {answer}");
            }
        };
        tokio::select! {
            () = serve(&listener, data.path(), &hash, IDLE) => panic!("it ended while it was asked"),
            () = asked => {}
        }
        let unasked = serve(&listener, data.path(), &hash, Duration::from_millis(10));
        timeout(REQUEST, unasked).await.expect("it ends by itself");
    }

    #[test]
    fn an_archive_has_the_regular_files_of_one_folder() {
        let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = data.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/c.md"), "c").unwrap();
        fs::write(root.join("a/d.md"), "").unwrap();
        fs::write(root.join("elsewhere"), "x").unwrap();
        std::os::unix::fs::symlink(root.join("elsewhere"), root.join("a/link")).unwrap();
        std::os::unix::fs::symlink("a", root.join("z")).unwrap();
        let packed = |folder: &str| {
            let mut archive = tar::Builder::new(Vec::new());
            pack(root, Path::new(folder), &mut archive).unwrap();
            archive.into_inner().unwrap()
        };
        unpack(other.path(), packed("a").as_slice()).unwrap();
        assert_eq!(fs::read_to_string(other.path().join("a/b/c.md")).unwrap(), "c");
        assert_eq!(fs::read_to_string(other.path().join("a/d.md")).unwrap(), "");
        assert_eq!(fs::read_dir(other.path().join("a")).unwrap().count(), 2);
        let entries = |bytes: Vec<u8>| tar::Archive::new(bytes.as_slice()).entries().unwrap().count();
        assert_eq!((entries(packed("a/b")), entries(packed("none")), entries(packed("z/b"))), (1, 0, 0));
    }
}
