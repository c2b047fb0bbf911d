//! Sending a call to a model's server: clients made at first use, bounded answers, tries repeated where that is safe.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, redirect};
use rustls_platform_verifier::BuilderVerifierExt as _;
use serde_json::Value;

use super::{Dialect, ModelError, Retries, Route};
use crate::domain::Secret;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle connections are kept this long, so that a conversation does not shake hands for each message.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest answer that is read, in bytes. No model writes this much; a broken server may.
const ANSWER_LIMIT: usize = 8 << 20;
/// Longest pause between two tries, also when the server asks for more: then the caller is told now.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
const ANTHROPIC_VERSION: &str = "2023-06-01";
/// Anthropic's "overloaded".
const OVERLOADED: u16 = 529;

/// HTTP clients, made when first needed: loading the system's certificates costs more memory than all the rest.
#[derive(Default)]
pub(in crate::gateway) struct HttpClients {
    plain: OnceLock<Client>,
    tls: OnceLock<Client>,
}

impl HttpClients {
    /// The client for a URL.
    ///
    /// # Errors
    /// [`ModelError::Tls`] or [`ModelError::Unreachable`], when it cannot be built.
    pub(in crate::gateway) fn client(&self, url: &str) -> Result<Client, ModelError> {
        let tls = url.starts_with("https:");
        let slot = if tls { &self.tls } else { &self.plain };
        if let Some(client) = slot.get() {
            return Ok(client.clone());
        }
        let made = build(tls)?;
        Ok(slot.get_or_init(|| made).clone())
    }
}

fn build(tls: bool) -> Result<Client, ModelError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ModelError::Tls)?;
    let config = if tls {
        versions.with_platform_verifier().map_err(ModelError::Tls)?.with_no_client_auth()
    } else {
        // Trusts nobody: this client is for plain HTTP only.
        versions.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
    };
    Client::builder()
        .tls_backend_preconfigured(config)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        // A redirect would carry the key to a place that nobody configured.
        .redirect(redirect::Policy::none())
        .build()
        .map_err(ModelError::Unreachable)
}

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
