//! What is said to `zeroone carry`: HTTP to a Pod of our own, within deadlines and a bound of size.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::domain::{Secret, StagedFile};
use crate::runtime::{MAX_DATA, RuntimeError, RuntimeResult, archive, too_much_data};

const CONNECT: Duration = Duration::from_secs(5);
/// Until the answer begins; for a write that is when all of it is on the disk.
const ANSWER: Duration = Duration::from_secs(120);
/// Each part has the deadline: a large folder may take long as long as it comes.
const PART: Duration = Duration::from_secs(20);
const REFUSAL: usize = 4 * 1024;
/// Of an archive beyond the files in it: a head and padding for each.
const OVERHEAD: usize = MAX_DATA / 4;

/// Whether it hears requests. A way that is forwarded takes a connection before there is anybody at its end.
pub(super) async fn answers(at: SocketAddr, token: &Secret<String>) -> bool {
    let asked = ask(at, token, Method::GET, Uri::from_static("/"), Bytes::new());
    // It is asked for nothing, and says so.
    timeout(CONNECT, asked).await.is_ok_and(|answer| matches!(answer, Ok(_) | Err(RuntimeError::Invalid(_))))
}

pub(super) async fn get(at: SocketAddr, token: &Secret<String>, folder: &str) -> RuntimeResult<Vec<StagedFile>> {
    let uri = Uri::try_from(format!("/{folder}"))
        .map_err(|_| RuntimeError::Invalid(format!("{folder} is no folder of an agent's data")))?;
    let mut body = ask(at, token, Method::GET, uri, Bytes::new()).await?;
    let mut archived = Vec::new();
    while let Some(part) = part(&mut body).await? {
        if archived.len() + part.len() > MAX_DATA + OVERHEAD {
            return Err(too_much_data(folder));
        }
        archived.extend_from_slice(&part);
    }
    let files = archive::untar(&archived, "")
        .map_err(|error| RuntimeError::Failed(format!("an unreadable archive: {error}")))?;
    let size: usize = files.iter().map(|file| file.content.expose().len()).sum();
    if size > MAX_DATA { Err(too_much_data(folder)) } else { Ok(files) }
}

pub(super) async fn put(at: SocketAddr, token: &Secret<String>, archive: Vec<u8>) -> RuntimeResult<()> {
    ask(at, token, Method::PUT, Uri::from_static("/"), archive.into()).await.map(drop)
}

/// The body of an answer that is a yes.
async fn ask(at: SocketAddr, token: &Secret<String>, method: Method, uri: Uri, body: Bytes) -> RuntimeResult<Incoming> {
    let lost =
        |error: &dyn std::fmt::Display| RuntimeError::Unavailable(format!("the Pod that reaches its data: {error}"));
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .header(HOST, at.to_string())
        .header(AUTHORIZATION, format!("Bearer {}", token.expose()))
        .body(Full::new(body))
        .map_err(|error| RuntimeError::Failed(error.to_string()))?;
    let asked = async {
        let stream = TcpStream::connect(at).await.map_err(|error| lost(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| lost(&error))?;
        // It ends with the answer, or when nobody reads that any more.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(|error| lost(&error))
    };
    let answer = timeout(ANSWER, asked).await.map_err(|_| lost(&"no answer in time"))??;
    let (status, mut body) = (answer.status(), answer.into_body());
    if status.is_success() {
        return Ok(body);
    }
    let mut said = Vec::new();
    while let Some(part) = part(&mut body).await?.filter(|_| said.len() < REFUSAL) {
        said.extend_from_slice(&part);
    }
    let said = String::from_utf8_lossy(&said).into_owned();
    Err(match status {
        StatusCode::INSUFFICIENT_STORAGE => RuntimeError::Capacity(format!("its volume is full: {said}")),
        StatusCode::BAD_REQUEST => RuntimeError::Invalid(said),
        _ => RuntimeError::Failed(format!("its data cannot be reached: {said}")),
    })
}

async fn part(body: &mut Incoming) -> RuntimeResult<Option<Bytes>> {
    let late = |_| RuntimeError::Unavailable("the Pod that reaches its data stopped sending".into());
    loop {
        match timeout(PART, body.frame()).await.map_err(late)?.transpose() {
            Ok(Some(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Ok(None) => return Ok(None),
            Err(error) => return Err(RuntimeError::Unavailable(format!("its data broke off: {error}"))),
        }
    }
}
