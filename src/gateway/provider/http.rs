//! Sending a call to a model's server: bounded answers, tries repeated where that is safe.

use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;

use super::{Dialect, ModelError, Retries, Route};
use crate::domain::Secret;
use crate::gateway::outbound::HttpClients;

/// Longest answer that is read, in bytes. No model writes this much; a broken server may.
const ANSWER_LIMIT: usize = 8 << 20;
/// Longest pause between two tries, also when the server asks for more: then the caller is told now.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
const ANTHROPIC_VERSION: &str = "2023-06-01";
/// Anthropic's "overloaded".
const OVERLOADED: u16 = 529;

/// A call that is ready to be sent, as often as it takes.
pub(super) struct Call<'a> {
    pub(super) route: &'a Route,
    pub(super) key: Option<&'a Secret<String>>,
    pub(super) body: Value,
    pub(super) retries: Retries,
}

/// Sends the call until it is accepted or not worth another try.
pub(super) async fn send(clients: &HttpClients, call: Call<'_>) -> Result<Response, ModelError> {
    let client = clients.client(&call.route.endpoint)?;
    let mut pause = Duration::from_millis(call.retries.first_pause_ms);
    let mut left = call.retries.count;
    loop {
        let (error, asked_pause) = match request(&client, &call).send().await {
            Ok(response) if response.status().is_success() => return Ok(response),
            Ok(response) => {
                let (retry, asked) = (worth_retrying(response.status()), retry_after(response.headers()));
                let error = refused(response).await;
                if !retry {
                    return Err(error);
                }
                (error, asked)
            }
            // Nothing was sent: trying again cannot ask the model twice.
            Err(error) if error.is_connect() => (ModelError::Unreachable(error.without_url()), None),
            Err(error) => return Err(ModelError::Broken(error.without_url())),
        };
        let wait = asked_pause.unwrap_or(pause);
        if left == 0 || wait > LONGEST_PAUSE {
            return Err(error);
        }
        left -= 1;
        tracing::warn!(error = &error as &dyn std::error::Error, ?wait, "model call failed, trying again");
        tokio::time::sleep(wait).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn request(client: &Client, call: &Call<'_>) -> reqwest::RequestBuilder {
    let request = client.post(&call.route.endpoint).json(&call.body);
    match (call.route.dialect, call.key) {
        (Dialect::OpenAi, Some(key)) => request.bearer_auth(key.expose()),
        (Dialect::OpenAi, None) => request,
        (Dialect::Anthropic, key) => {
            let request = request.header("anthropic-version", ANTHROPIC_VERSION);
            match key {
                Some(key) => request.header("x-api-key", key.expose()),
                None => request,
            }
        }
    }
}

fn worth_retrying(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504 | OVERLOADED)
}

/// The pause that a server asks for, in its form of whole or broken seconds; dates are rare and not understood.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: f64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// Keeps of an error answer its status and its code, if that looks like one.
async fn refused(response: Response) -> ModelError {
    let status = response.status().as_u16();
    let body: Value = read(response).await.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default();
    let code = ["code", "type"].iter().find_map(|key| body["error"][key].as_str());
    let looks_like_one = |code: &&str| code.len() <= 64 && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    ModelError::Status { status, code: code.filter(looks_like_one).map(str::to_owned) }
}

/// The whole answer, as long as it is not longer than [`ANSWER_LIMIT`].
pub(super) async fn read(mut response: Response) -> Result<Vec<u8>, ModelError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| ModelError::Broken(error.without_url()))? {
        if body.len() + chunk.len() > ANSWER_LIMIT {
            return Err(ModelError::Garbage("it is too long"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_seconds() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(read("2"), Some(Duration::from_secs(2)));
        assert_eq!(read("0.5"), Some(Duration::from_millis(500)));
        assert_eq!(read("-1"), None);
        assert_eq!(read("Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }
}
