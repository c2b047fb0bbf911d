//! Request bodies: bounded before they are read, JSON only where JSON is declared.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;

use super::reply::Refusal;
use super::shared::App;

/// Longest body of most requests, in bytes, as in ZeroClaw.
pub(super) const BODY_LIMIT: usize = 65_536;
/// A client that sends its body drop by drop holds a connection for no longer than this.
const READ: Duration = Duration::from_secs(30);

/// A body of at most `LIMIT` bytes, as it was sent.
pub(super) struct Limited<const LIMIT: usize = BODY_LIMIT> {
    pub(super) headers: HeaderMap,
    pub(super) bytes: Bytes,
}

impl<const LIMIT: usize> Limited<LIMIT> {
    /// The body as JSON. The type must be declared: a browser sends other types across sites without asking. One that is
    /// compressed is not unpacked: a small one may become a large one.
    ///
    /// # Errors
    /// `expected` tells the caller what the endpoint takes; the parser's own words may repeat what was sent.
    pub(super) fn json<T: DeserializeOwned>(&self, expected: &'static str) -> Result<T, Refusal> {
        if !declares_json(&self.headers) {
            return Err(Refusal::NotJson);
        }
        if is_compressed(&self.headers) {
            return Err(Refusal::BadBody("The body is compressed (Content-Encoding); send it as it is"));
        }
        serde_json::from_slice(&self.bytes).map_err(|error| unknown_field(&error, expected))
    }
}

impl<const LIMIT: usize> Limited<LIMIT> {
    /// A header as text; empty where it is missing or none.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl<const LIMIT: usize> FromRequest<App> for Limited<LIMIT> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _app: &App) -> Result<Self, Self::Rejection> {
        let (parts, body) = request.into_parts();
        let bytes = read(&parts.headers, body, LIMIT).await?;
        Ok(Self { headers: parts.headers, bytes })
    }
}

/// Names a field that the endpoint does not know; of other mistakes the parser's words may repeat what was sent.
fn unknown_field(error: &serde_json::Error, expected: &'static str) -> Refusal {
    const LONGEST: usize = 64;
    let words = error.to_string();
    let named = words.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
    let plain = |name: &&str| {
        name.len() <= LONGEST && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    match (words.starts_with("unknown field `"), named.filter(plain)) {
        (true, Some(name)) => Refusal::Unusable(format!("Unknown field \"{name}\". {expected}")),
        (true, None) => Refusal::Unusable(format!("Unknown field. {expected}")),
        (false, _) => Refusal::BadBody(expected),
    }
}

/// Reads the body. One that is too long is read on for a while and thrown away: a client that is cut off while it sends
/// never sees the answer.
async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Refusal> {
    /// As much as is thrown away, in bytes.
    const THROWN_AWAY: usize = 16 << 20;
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > limit + THROWN_AWAY) {
        return Err(Refusal::TooLarge);
    }
    let collect = async {
        let mut pieces = body.into_data_stream();
        let (mut taken, mut length) = (Vec::new(), 0);
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|_| Refusal::BrokenBody)?;
            length += piece.len();
            if length <= limit {
                taken.extend_from_slice(&piece);
            } else if length > limit + THROWN_AWAY {
                break;
            }
        }
        if length > limit { Err(Refusal::TooLarge) } else { Ok(Bytes::from(taken)) }
    };
    tokio::time::timeout(READ, collect).await.unwrap_or(Err(Refusal::SlowBody))
}

fn is_compressed(headers: &HeaderMap) -> bool {
    let encodings = headers.get_all(header::CONTENT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    encodings
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|encoding| !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity"))
}

fn declares_json(headers: &HeaderMap) -> bool {
    let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}
