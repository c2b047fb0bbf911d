//! One call of a model's server: sent once, answered or refused.

use std::time::{Duration, SystemTime};

use reqwest::header::{ACCEPT_ENCODING, HeaderMap};
use reqwest::{RequestBuilder, Response, Url};
use serde_json::Value;

use super::body::Body;
use super::error::ModelError;
use super::message::Completion;
use super::reader::{self, Pieces};
use super::route::{Dialect, Endpoint};
use crate::domain::Secret;
use crate::gateway::outbound::HttpClients;
use crate::gateway::pause;

const ANTHROPIC_VERSION: &str = "2023-06-01";
/// Longest answer to a check that is read, in bytes.
const CHECK_LIMIT: usize = 4 << 20;

/// A call that is ready to be sent.
pub(super) struct Call<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) url: Url,
    pub(super) key: Option<&'a Secret<String>>,
    pub(super) body: &'a Value,
}

/// Sends the call and reads its answer.
pub(super) async fn send(clients: &HttpClients, call: Call<'_>, pieces: &Pieces<'_>) -> Result<Completion, ModelError> {
    let request = clients.client(call.url.as_str()).map_err(|error| ModelError::no_client(&error))?.post(call.url);
    let request = authorised(request.json(call.body), call.endpoint.dialect, call.key);
    let response = request.send().await.map_err(|error| ModelError::from_transport(&error.without_url()))?;
    if response.status().is_success() {
        reader::read(Body::of(response), call.endpoint.dialect, pieces).await
    } else {
        Err(refused(response).await)
    }
}

/// Asks for what costs nothing. Gives the answer of a server that did not refuse.
pub(super) async fn ask(
    clients: &HttpClients,
    endpoint: &Endpoint,
    url: Url,
    key: Option<&Secret<String>>,
) -> Result<Response, ModelError> {
    let request = clients.client(url.as_str()).map_err(|error| ModelError::no_client(&error))?.get(url);
    let request = authorised(request, endpoint.dialect, key);
    let response = request.send().await.map_err(|error| ModelError::from_transport(&error.without_url()))?;
    if response.status().is_success() { Ok(response) } else { Err(refused(response).await) }
}

/// Asks for the list of models: it costs nothing, and proves address and key. Gives the names that it holds.
pub(super) async fn models(
    clients: &HttpClients,
    endpoint: &Endpoint,
    key: Option<&Secret<String>>,
) -> Result<Vec<String>, ModelError> {
    let mut response = Body::of(ask(clients, endpoint, endpoint.below("/models"), key).await?);
    let mut body = Vec::new();
    while let Some(bytes) = response.chunk().await? {
        body.extend_from_slice(&bytes);
        if body.len() > CHECK_LIMIT {
            return Err(ModelError::unreadable("its list of models is too long"));
        }
    }
    if reader::is_web_page(&body) {
        return Err(ModelError::new(super::error::Reason::WebPage, "it is a web page"));
    }
    let list: Value = serde_json::from_slice(&body).map_err(|_| ModelError::unreadable("it is not JSON"))?;
    if let Some(error) = ModelError::from_body(200, &list) {
        return Err(error);
    }
    let models = [&list["data"], &list["models"], &list].into_iter().find_map(Value::as_array);
    let name = |model: &Value| {
        let name = model["id"].as_str().or_else(|| model["name"].as_str())?;
        Some(name.trim_start_matches("models/").to_owned())
    };
    Ok(models.into_iter().flatten().filter_map(name).collect())
}

/// Answers come as they are: compressing the few bytes of a stream only delays them. What is compressed all the same is
/// decoded.
fn authorised(request: RequestBuilder, dialect: Dialect, key: Option<&Secret<String>>) -> RequestBuilder {
    let request = request.header(ACCEPT_ENCODING, "identity");
    match (dialect, key) {
        (Dialect::OpenAi, Some(key)) => request.bearer_auth(key.expose()),
        (Dialect::Gemini, Some(key)) => request.header("x-goog-api-key", key.expose()),
        (Dialect::Anthropic, Some(key)) => {
            request.header("anthropic-version", ANTHROPIC_VERSION).header("x-api-key", key.expose())
        }
        (Dialect::Anthropic, None) => request.header("anthropic-version", ANTHROPIC_VERSION),
        (Dialect::OpenAi | Dialect::Gemini, None) => request,
    }
}

async fn refused(response: Response) -> ModelError {
    let status = response.status().as_u16();
    #[expect(clippy::disallowed_methods, reason = "the date in an answer is of the real time")]
    let ours = SystemTime::now();
    let now = pause::clock(response.headers(), ours);
    let asked = pause::in_headers(response.headers(), now);
    let limited = if status == 429 { limit_resets(response.headers()) } else { None };
    let body = reader::refusal(Body::of(response)).await;
    let json: Option<Value> = serde_json::from_slice(&body).ok();
    let told = json.as_ref().and_then(|body| ModelError::from_body(status, body));
    // A router passes on the headers of the provider behind it.
    let behind = json.as_ref().and_then(|body| {
        let reset = &body["error"]["metadata"]["headers"]["X-RateLimit-Reset"];
        pause::until(reset.as_f64().or_else(|| reset.as_str()?.parse().ok())?, now)
    });
    let mut error = told.unwrap_or_else(|| {
        let text = String::from_utf8_lossy(&body);
        ModelError::refused(
            status,
            match text.trim() {
                _ if (300..400).contains(&status) => "it redirects to another address",
                _ if reader::is_web_page(&body) => "a web page",
                "" | "{}" | "[]" | "null" => "no reason given",
                text => text,
            },
        )
    });
    error.retry_after = asked.or(error.retry_after).or(behind).or(limited);
    error
}

/// When the limit that was met is over, as OpenAI and others tell with every answer.
fn limit_resets(headers: &HeaderMap) -> Option<Duration> {
    ["x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"]
        .iter()
        .filter_map(|name| pause::alone(headers.get(*name)?.to_str().ok()?))
        .max()
}
