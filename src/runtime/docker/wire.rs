//! Reads of the engine's API, answered in types of ours.
//!
//! The client library has complete and strict types: one container in a state that it does not know makes a whole list
//! unreadable, and other engines that speak this API have states and words of their own. What is read here takes the few
//! fields that are needed, and everything else may be as it likes. Each read has a connection of its own, as the library's
//! calls have.

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, unfold};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::address::Address;
use super::failure::{Failure, chain};

/// The longest answer that is read: a thousand containers take two megabytes.
const LONGEST_ANSWER: usize = 64 * 1024 * 1024;
/// The longest refusal, and the longest line of a stream.
const LONGEST_REFUSAL: usize = 64 * 1024;
const LONGEST_LINE: usize = 1024 * 1024;

/// Lines of a stream of JSON objects, as they are.
pub(super) type Lines = BoxStream<'static, Result<Bytes, Failure>>;

/// An engine's address, and the version in which it is asked.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    address: Address,
    /// `/v1.41`, or nothing.
    prefix: String,
}

impl Wire {
    pub(super) const fn new(address: Address) -> Self {
        Self { address, prefix: String::new() }
    }

    pub(super) fn versioned(&self, version: &str) -> Self {
        Self { address: self.address.clone(), prefix: format!("/v{version}") }
    }

    /// An answer as a value.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let response = self.ok(path).await?;
        let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
        let body = body.map_err(|error| Failure::Lost(chain(error.as_ref())))?.to_bytes();
        // The answer came: whatever is in it, the engine is there.
        serde_json::from_slice(&body)
            .map_err(|error| Failure::refused(500, &format!("cannot read the answer: {error}")))
    }

    /// A header of an answer, whatever its status.
    pub(super) async fn header(&self, path: &str, name: &str) -> Result<(u16, Option<String>), Failure> {
        let response = self.send(path).await?;
        let value = response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok((response.status().as_u16(), value))
    }

    /// The lines of an answer that goes on.
    pub(super) async fn lines(&self, path: &str) -> Result<Lines, Failure> {
        let body = self.ok(path).await?.into_body();
        Ok(unfold((body, Vec::new()), |(mut body, mut rest)| async move {
            loop {
                if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    return Some((Ok(line.into()), (body, rest)));
                }
                if rest.len() > LONGEST_LINE {
                    return Some((Err(Failure::Lost("a line without an end".into())), (body, Vec::new())));
                }
                match body.frame().await? {
                    Ok(frame) => rest.extend_from_slice(&frame.into_data().unwrap_or_default()),
                    Err(error) => return Some((Err(Failure::Lost(chain(&error))), (body, rest))),
                }
            }
        })
        .boxed())
    }

    async fn ok(&self, path: &str) -> Result<Response<Incoming>, Failure> {
        let response = self.send(path).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = Limited::new(response.into_body(), LONGEST_REFUSAL).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        Err(Failure::refused(status.as_u16(), &said(&body)))
    }

    async fn send(&self, path: &str) -> Result<Response<Incoming>, Failure> {
        let target = format!("{}{path}", self.prefix);
        match &self.address {
            Address::Unix(socket) => {
                let stream = UnixStream::connect(socket).await;
                exchange(stream.map_err(|error| self.away(&error))?, "localhost", &target).await
            }
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await;
                exchange(stream.map_err(|error| self.away(&error))?, host, &target).await
            }
        }
    }

    fn away(&self, error: &std::io::Error) -> Failure {
        let address = &self.address;
        Failure::Away(match error.kind() {
            std::io::ErrorKind::PermissionDenied => format!(
                "permission denied for {address}: the user that zeroone runs as is not in the socket's group; add it, or \
                 run zeroone as a user who may open it"
            ),
            _ => format!("cannot connect to {address}: {error}"),
        })
    }
}

async fn exchange<S>(stream: S, host: &str, target: &str) -> Result<Response<Incoming>, Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let lost = |error: hyper::Error| Failure::Lost(chain(&error));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
    // Ends with the answer's body, or when that is dropped.
    tokio::spawn(connection);
    let request = Request::get(target).header(HOST, host).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| Failure::refused(400, &error.to_string()))?;
    sender.send_request(request).await.map_err(lost)
}

/// The words of a refusal: the engine's `message`, or whatever was sent.
fn said(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Refusal {
        message: String,
    }
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => refusal.message,
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    }
}

/// A path with its query.
pub(super) fn path(path: &str, query: &[(&str, &str)]) -> String {
    let mut encoded = form_urlencoded::Serializer::new(String::new());
    encoded.extend_pairs(query);
    match encoded.finish() {
        query if query.is_empty() => path.to_owned(),
        query => format!("{path}?{query}"),
    }
}

/// A name inside a path: nothing of it can be taken for more path or a query.
pub(super) fn segment(name: &str) -> String {
    form_urlencoded::byte_serialize(name.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
        .replace("%2F", "/")
        .replace("%3A", ":")
        .replace("%40", "@")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_names_in_a_path() {
        assert_eq!(segment("ghcr.io/zeroclaw-labs/zeroclaw:latest"), "ghcr.io/zeroclaw-labs/zeroclaw:latest");
        assert_eq!(segment("a?b c#d"), "a%3Fb%20c%23d");
        assert_eq!(
            path("/x", &[("all", "1"), ("filters", "{\"a\":[\"b=c\"]}")]),
            "/x?all=1&filters=%7B%22a%22%3A%5B%22b%3Dc%22%5D%7D"
        );
        assert_eq!(path("/x", &[]), "/x");
    }

    #[test]
    fn a_refusal_is_told_in_the_words_that_were_sent() {
        assert_eq!(said(b"{\"message\":\"no\"}"), "no");
        assert_eq!(said(b"Forbidden"), "Forbidden");
        assert_eq!(said(b"{\"cause\":\"other\",\"message\":7}"), "{\"cause\":\"other\",\"message\":7}");
    }
}
