//! `<slug>.<domain>`: a host name of its own for each agent's gateway, before any route of ours.
//!
//! The gateway is reached as it is: no token is added, so whoever comes needs one of its own, or has been let in by us
//! ([`super::visits`]). An unknown name is a plain 404, whatever else it may be. This works behind any proxy that ends TLS and keeps the `Host`.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use tokio::time::Instant;

use super::error::rate_limited;
use super::gateway::{client, refused};
use super::problem::{Code, Problem};
use super::request::peer_of;
use super::state::Api;
use super::{audited, dashboard};
use crate::control::{AgentHandle, DeliveryError};
use crate::proxy::{self, Call, ForwardError, Mount};

/// A visitor waits for an agent that comes up by loading again, not by an open connection.
const HOLD: Duration = Duration::from_secs(1);
/// When a visitor's browser asks again.
const RELOAD_SECS: u64 = 3;
/// The page that waits: no script, nothing from elsewhere.
const WAITING: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
<title>Starting</title><body><p>The agent is not ready yet. This page reloads by itself.</p></body></html>";

/// The first label of the host name that the request is for, where that is an agent's own.
pub fn label(api: &Api, request: &Request) -> Option<String> {
    label_of(request.uri(), request.headers(), api.plane.domain()?)
}

/// Sends a request for an agent's own host name to its gateway.
pub fn answer(api: Api, label: String, request: Request) -> BoxFuture<'static, Response> {
    async move { answered(&api, &label, request).await }.boxed()
}

async fn answered(api: &Api, label: &str, request: Request) -> Response {
    let visitor = wants_page(request.headers());
    let Some(agent) = api.plane.agent_by_label(label) else { return unknown() };
    let (parts, body) = request.into_parts();
    let pairing = dashboard::pairs(&parts).then(|| (agent.clone(), parts.clone()));
    let response = match pass(api, agent, parts, body).await {
        Ok(response) => response,
        Err(problem) if problem.code() == Code::AgentNotReady && visitor => waiting(),
        Err(problem) => problem.into_response(),
    };
    if let Some((agent, parts)) = pairing
        && matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
    {
        audited::paired(api, &agent, &parts, None).await;
    }
    response
}

async fn pass(api: &Api, agent: AgentHandle, parts: Parts, body: Body) -> Result<Response, Problem> {
    if let Some(paired) = dashboard::pair(api, &agent, &parts).await {
        return Ok(paired);
    }
    let visitor = dashboard::visitor(api, &agent, &parts);
    if let Some(visitor) = &visitor {
        let websocket = proxy::is_websocket(&parts.method, parts.version, &parts.headers);
        let route = proxy::judge(&parts.method, parts.uri.path(), websocket).map_err(refused)?;
        dashboard::check_scope(visitor, route)?;
    } else {
        proxy::judge_open(&parts.method, parts.uri.path()).map_err(refused)?;
    }
    let guess = match &visitor {
        None if counts_guesses(parts.uri.path()) => {
            let token = dashboard::bearer(&parts.headers).unwrap_or_default();
            let guess = api.strangers.guess(agent.id(), token);
            Some(guess.map_err(|wait| rate_limited("requests with tokens that are not known", wait))?)
        }
        _ => None,
    };
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let call = Call {
        agent,
        path,
        body,
        client: client(&parts.headers, peer_of(&parts.extensions)),
        mount: Mount::Host { visit: visitor.is_some() },
        hold: HOLD,
        deadline: Instant::now() + HOLD,
        turn: None,
        until: match visitor {
            Some(visitor) => Box::pin(api.over(visitor)),
            None => Box::pin(api.options.closing.clone().cancelled_owned()),
        },
        parts,
    };
    let answered = api.proxy.forward(call).await;
    if let Some(guess) = guess {
        match &answered {
            Ok(response) if response.status().is_success() => guess.right(),
            Ok(response) if response.status() == StatusCode::UNAUTHORIZED => guess.wrong(),
            // Whatever else it says, it has not looked at the token, or found it right.
            Ok(response) if !matches!(response.status().as_u16(), 403 | 429) => guess.void(),
            Err(ForwardError::Delivery(error)) if error.is_certainly_not_sent() => guess.void(),
            Ok(_) | Err(_) => {}
        }
    }
    match answered {
        Ok(response) => Ok(response),
        // To a stranger a stopped agent is one that is not ready: why is for its owner.
        Err(ForwardError::Delivery(DeliveryError::NotRunning { .. } | DeliveryError::NotReady { .. })) => {
            Err(Problem::new(Code::AgentNotReady, "The agent is not ready.").retry_after(RELOAD_SECS))
        }
        Err(ForwardError::Delivery(DeliveryError::Gone)) => Err(Problem::not_found()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the gateway counts wrong tokens there, and shuts their address out.
fn counts_guesses(path: &str) -> bool {
    path.trim_end_matches('/').eq_ignore_ascii_case("/webhook") || path.contains('%')
}

/// The first label of a host name directly below the domain. The name stands in the target of an HTTP/2 request, and of
/// an HTTP/1.1 request to a proxy; there it counts more than the header.
pub fn label_of(uri: &Uri, headers: &HeaderMap, domain: &str) -> Option<String> {
    let host = match uri.host() {
        Some(host) => host,
        None => headers.get(header::HOST)?.to_str().ok()?,
    };
    let name = without_port(host).trim_end_matches('.').to_ascii_lowercase();
    let label = name.strip_suffix(&domain.to_ascii_lowercase())?.strip_suffix('.')?;
    (!label.is_empty() && !label.contains('.')).then(|| label.to_owned())
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.ends_with(':') && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

fn wants_page(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"))
}

fn unknown() -> Response {
    Problem::new(Code::NotFound, "Nothing is served under this name.").into_response()
}

fn waiting() -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::RETRY_AFTER, HeaderValue::from(RELOAD_SECS)),
        (HeaderName::from_static("refresh"), HeaderValue::from(RELOAD_SECS)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'")),
    ];
    (StatusCode::SERVICE_UNAVAILABLE, headers, WAITING).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(uri: &str, host: Option<&str>) -> Option<String> {
        let mut request = axum::http::Request::builder().uri(uri);
        if let Some(host) = host {
            request = request.header(header::HOST, host);
        }
        let request = request.body(Body::empty()).unwrap();
        label_of(request.uri(), request.headers(), "agents.test")
    }

    #[test]
    fn only_a_name_directly_below_the_domain_is_an_agents() {
        for (host, found) in [
            ("ada.agents.test", Some("ada")),
            ("ADA.Agents.Test:8443", Some("ada")),
            ("ada.agents.test.", Some("ada")),
            ("agents.test", None),
            (".agents.test", None),
            ("x.ada.agents.test", None),
            ("adaagents.test", None),
            ("ada.agents.test.evil", None),
            ("127.0.0.1:3001", None),
            ("[::1]:3001", None),
            ("", None),
        ] {
            assert_eq!(label("/", Some(host)).as_deref(), found, "{host}");
        }
        assert_eq!(label("/", None), None);
        assert_eq!(label("http://bob.agents.test/", Some("ada.agents.test")).as_deref(), Some("bob"));
    }
}
