//! `/api/agents/{id}/gateway/{path}`: everything that the agent's own gateway can do, for its owner.
//!
//! Who may call is decided here, the rest by [`crate::proxy`]. An idempotency key is passed on like any other header: what
//! it means is the gateway's business, and an answer that is streamed cannot be kept.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::ready;
use futures_util::stream;
use http_body::Body as _;
use http_body_util::BodyExt;

use tokio::time::Instant;

use super::agents::OwnedAgent;
use super::dashboard::check_scope;
use super::prefer::hold_secs;
use super::problem::{Code, Problem};
use super::request::peer_of;
use super::session::FORWARDED_PROTO;
use super::state::Api;
use crate::control::AgentHandle;
use crate::proxy::{self, Bound, Call, Client, ForwardError, Mount, Refused};
use crate::zeroclaw::client::{ModelFailure, WebhookAnswer};

/// Paths of a gateway's at which its model is asked.
const ASK_MODELS: [&str; 4] = ["/webhook", "/api/chat", "/v1/chat/completions", "/v1/responses"];

/// What is passed on; CONNECT and TRACE are not, nor what nobody knows.
pub const PASSED: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// Whatever is longer is no refusal with a reason.
const LONGEST_REFUSAL: u64 = 64 * 1024;

/// When a place may be free again that streams hold.
const PLACE_RETRY_SECS: u64 = 5;

/// Passes a request on to the agent's gateway: method, query, body and answer as they are, streamed both ways, event
/// streams and WebSockets included. The agent's token is put in. Pairing, administration and self-upgrade are refused, and
/// so are writes of the configuration: PATCH the agent instead. Reading needs `agents:read`, everything else
/// `messages:send`. A WebSocket may also present the key as query parameter `token` or as subprotocol `bearer.…`.
#[utoipa::path(
    method(get, head, post, put, patch, delete, options),
    path = "/api/agents/{id}/gateway/{*path}", tag = "agents",
    params(
        ("id" = uuid::Uuid, Path),
        ("path" = String, Path, description = "The gateway's own path, e.g. `api/memory`"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: hold it up to N seconds while the agent comes up, 30 by default, at most 120")
    ),
    responses((status = 200, description = "The gateway's answer, whatever its status"))
)]
pub async fn gateway(state: State<Api>, own: OwnedAgent, request: Request) -> Result<Response, Problem> {
    let (at, peer) = (own_path(request.uri().path()), peer_of(request.extensions()));
    Ok(pass(state.0, own, request, at, peer).await)
}

/// Passes it on. The gateway's own path begins at this place in the request's.
pub fn pass(
    api: Api,
    own: OwnedAgent,
    request: Request,
    at: usize,
    peer: Option<SocketAddr>,
) -> impl Future<Output = Response> + Send + 'static {
    // Made before the future, which would else hold what it is made from as well.
    let call = call(&api, own, request, at, peer);
    async move {
        let (call, asked) = match call {
            Ok(call) => call,
            Err(problem) => return problem.into_response(),
        };
        match (api.proxy.forward(call).await, asked) {
            (Ok(answer), Some(agent)) => noted(&api, &agent, answer).await,
            (Ok(answer), None) => answer,
            (Err(error), _) => Problem::from(error).into_response(),
        }
    }
}

/// The request as a call, with the agent where its model is asked.
fn call(
    api: &Api,
    own: OwnedAgent,
    request: Request,
    at: usize,
    peer: Option<SocketAddr>,
) -> Result<(Call, Option<AgentHandle>), Problem> {
    let OwnedAgent { caller, handle, .. } = own;
    let (prefix, path) = request.uri().path().split_at(at);
    let (prefix, path) = (prefix.to_owned(), with_query(path, request.uri().query())?);
    let (parts, body) = request.into_parts();
    let websocket = proxy::is_websocket(&parts.method, parts.version, &parts.headers);
    let route = proxy::judge(&parts.method, path.path(), websocket).map_err(refused)?;
    check_scope(&caller, route)?;
    let hold = Duration::from_secs(hold_secs(&parts.headers));
    let asks_model = parts.method == Method::POST && ASK_MODELS.contains(&path.path());
    let asked = asks_model.then(|| handle.clone());
    let call = Call {
        agent: handle,
        path,
        body,
        client: client(&parts.headers, peer),
        mount: Mount::Path(prefix),
        hold,
        deadline: Instant::now() + hold,
        turn: None,
        until: Box::pin(api.over(caller)),
        parts,
    };
    Ok((call, asked))
}

/// Notes what an answer says about the agent's model, and gives it on as it came. Of a stream only its beginning is known here.
async fn noted(api: &Api, agent: &AgentHandle, answer: Response) -> Response {
    let kind = answer.headers().get(header::CONTENT_TYPE);
    if answer.status() == StatusCode::OK {
        if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json")) {
            agent.note_model(Ok(()));
        }
        return answer;
    }
    let short = answer.body().size_hint().upper().is_some_and(|length| length <= LONGEST_REFUSAL);
    if !short || !(answer.status().is_server_error() || answer.status() == StatusCode::REQUEST_TIMEOUT) {
        return answer;
    }
    // In a box: what a refusal needs would else be kept with every request.
    refused_by_model(api, agent, answer).boxed().await
}

async fn refused_by_model(api: &Api, agent: &AgentHandle, answer: Response) -> Response {
    let (head, body) = answer.into_parts();
    let body = match body.collect().await {
        Ok(whole) => whole.to_bytes(),
        // It is cut for the caller as well.
        Err(error) => {
            return Response::from_parts(head, Body::from_stream(stream::once(ready(Err::<Bytes, _>(error)))));
        }
    };
    let refused = WebhookAnswer::of(head.status, &head.headers, body.clone());
    if let Some(failure) = ModelFailure::read(&refused) {
        api.metrics.model_failed(failure.class());
        agent.note_model(Err(failure));
    }
    Response::from_parts(head, Body::from(body))
}

/// The gateway's first page.
#[utoipa::path(
    method(get, head, post, put, patch, delete, options),
    path = "/api/agents/{id}/gateway/", tag = "agents",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 200, description = "The gateway's answer, whatever its status"))
)]
pub async fn gateway_root(state: State<Api>, own: OwnedAgent, request: Request) -> Result<Response, Problem> {
    gateway(state, own, request).await
}

/// Where the gateway's own path begins, as it was sent: after `/api/agents/{id}/gateway`.
fn own_path(path: &str) -> usize {
    path.match_indices('/').nth(4).map_or(path.len(), |(at, _)| at)
}

fn with_query(path: &str, query: Option<&str>) -> Result<PathAndQuery, Problem> {
    let path = if path.is_empty() { "/" } else { path };
    let text = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    PathAndQuery::try_from(text).map_err(|_| Problem::new(Code::Malformed, "The path cannot be passed on."))
}

/// Who calls, for the gateway's `Forwarded` headers.
pub fn client(headers: &HeaderMap, address: Option<SocketAddr>) -> Client {
    let https = headers.get(FORWARDED_PROTO).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"https"));
    Client { address, host: headers.get(header::HOST).cloned(), scheme: if https { "https" } else { "http" } }
}

/// Why a path is not passed on.
pub fn refused(refused: Refused) -> Problem {
    match refused {
        Refused::Ambiguous => Problem::new(
            Code::Malformed,
            "Send the gateway's path without dot segments, empty segments, backslashes and encoded separators.",
        ),
        Refused::Reserved => Problem::new(
            Code::Forbidden,
            "Pairing, administration and upgrades of an agent's gateway belong to zeroone: use the agent's own commands.",
        ),
        Refused::Configuration => Problem::new(
            Code::ConfigurationManaged,
            "The agent's configuration is managed by zeroone: change it by PATCH /api/agents/{id}.",
        ),
        Refused::Method => Problem::new(Code::MethodNotAllowed, "This method is not passed on to gateways.")
            .header(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")),
    }
}

impl From<ForwardError> for Problem {
    fn from(error: ForwardError) -> Self {
        match error {
            ForwardError::Delivery(error) => error.into(),
            ForwardError::Limited(limited) => {
                let (code, whose) = match limited.bound {
                    Bound::User => (Code::TooManyStreamsOfUser, "your agents"),
                    _ => (Code::TooManyStreams, "this agent"),
                };
                let detail =
                    format!("{} requests and streams to {whose} are open already; close some, or wait.", limited.limit);
                Self::new(code, detail).with("limit", limited.limit).retry_after(PLACE_RETRY_SECS)
            }
            ForwardError::TooLarge(max) => Self::new(Code::TooLarge, format!("The body may have at most {max} bytes.")),
            ForwardError::LateBody => Self::new(Code::Timeout, "The body did not arrive in time."),
            ForwardError::BrokenBody => Self::new(Code::Malformed, "The body ended before its end."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateways_path_is_what_follows_ours_as_it_was_sent() {
        for (path, rest) in [
            ("/api/agents/1/gateway", "/"),
            ("/api/agents/1/gateway/", "/"),
            ("/api/agents/1/gateway/gateway/x", "/gateway/x"),
            ("/api/agents/gateway/gateway/x", "/x"),
            ("/api/agents/1/gateway/a%20b/", "/a%20b/"),
            ("/api/agents/1/gateway//pair", "//pair"),
        ] {
            let below = with_query(&path[own_path(path)..], None).unwrap();
            assert_eq!(below.as_str(), rest, "{path}");
        }
    }
}
