//! What is checked of every request before any endpoint sees it: its framing, the name it was sent to, and the page that
//! sent it; and the headers that every answer has.

use std::net::IpAddr;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::config::Gateway;
use super::provider::is_loopback_host;
use super::shared::App;

/// How long a browser may remember that it may ask, in seconds.
const PREFLIGHT_SECS: &str = "600";

pub(super) async fn check(State(app): State<App>, request: Request, next: Next) -> Response {
    let config = app.config();
    let gateway = &config.gateway;
    if let Some(fault) = framing_fault(&request) {
        return refuse(StatusCode::BAD_REQUEST, fault);
    }
    // Where no token is needed, the name is all that tells a page of another server from one of ours.
    if !app.pairing.required() && !is_own_host(gateway, request.headers()) {
        return refuse(
            StatusCode::FORBIDDEN,
            "This name is not one of this gateway's; add it to [gateway] allowed_hosts of config.toml",
        );
    }
    let origin = request.headers().get(header::ORIGIN).cloned();
    let allowed = origin.filter(|origin| is_allowed_origin(gateway, origin));
    let asks_first =
        request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match (asks_first, &allowed) {
        (true, Some(_)) => preflight(request.headers()),
        (true, None) => refuse(
            StatusCode::FORBIDDEN,
            "This origin may not call the gateway; add it to [gateway] cors_origins of config.toml",
        ),
        (false, _) => next.run(request).await,
    };
    let headers = response.headers_mut();
    if let Some(origin) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    // Answers hold what was said: no cache keeps them, and no browser guesses what they are.
    let set = |headers: &mut HeaderMap, name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    set(headers, header::CACHE_CONTROL, "no-store");
    set(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    response
}

fn refuse(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
}

/// What HTTP forbids and a proxy before us may read in another way.
fn framing_fault(request: &Request) -> Option<&'static str> {
    let count = |name| request.headers().get_all(name).iter().count();
    match count(header::HOST) {
        0 if request.version() >= Version::HTTP_11 => return Some("A request must have a Host header"),
        0 | 1 => {}
        _ => return Some("A request must have one Host header"),
    }
    (count(header::TRANSFER_ENCODING) > 1).then_some("A request must have one Transfer-Encoding header")
}

/// What a browser may send, as it asked.
fn preflight(asked: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    );
    if let Some(wanted) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_SECS));
    response
}

fn is_allowed_origin(gateway: &Gateway, origin: &HeaderValue) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    let same = |listed: &String| listed == "*" || listed.trim_end_matches('/').eq_ignore_ascii_case(origin);
    gateway.cors_origins.iter().any(same)
}

/// Whether a request was sent to a name of this gateway. A page on the internet can let its own name lead here, but not
/// an address, a name without a dot, or one that only a local network has.
pub(super) fn is_own_host(gateway: &Gateway, headers: &HeaderMap) -> bool {
    const LOCAL_ENDINGS: [&str; 6] = [".local", ".internal", ".lan", ".home.arpa", ".svc", ".cluster.local"];
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else {
        // HTTP/1.0: no browser.
        return !headers.contains_key(header::HOST);
    };
    let name = without_port(host).trim_end_matches('.').to_ascii_lowercase();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    let local = is_loopback_host(&name) || !name.contains('.') || LOCAL_ENDINGS.iter().any(|end| name.ends_with(end));
    let listed = |allowed: &String| {
        let allowed = allowed.to_ascii_lowercase();
        allowed == "*" || allowed == name || (allowed.starts_with('.') && name.ends_with(&allowed))
    };
    address || local || name == gateway.host.to_ascii_lowercase() || gateway.allowed_hosts.iter().any(listed)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(host: &str, allowed: &[&str]) -> bool {
        let gateway =
            Gateway { allowed_hosts: allowed.iter().map(|name| (*name).into()).collect(), ..Gateway::default() };
        let headers = [(header::HOST, host.parse().unwrap())].into_iter().collect();
        is_own_host(&gateway, &headers)
    }

    #[test]
    fn names_of_this_machine_and_of_its_network_are_own_and_others_must_be_listed() {
        for host in [
            "127.0.0.1:42617",
            "localhost",
            "[::1]:8080",
            "192.168.1.4",
            "zeroclaw:42617",
            "agent.local",
            "host.docker.internal",
        ] {
            assert!(own(host, &[]), "{host}");
        }
        for host in ["evil.example", "evil.example:42617", "localhost.evil.example", "127.0.0.1.evil.example"] {
            assert!(!own(host, &[]), "{host}");
        }
        assert!(own("ada.example.org:443", &["ada.example.org"]));
        assert!(own("ada.example.org", &[".example.org"]));
        assert!(!own("example.org.evil.net", &[".example.org"]));
    }

    #[test]
    fn origins_must_be_listed_as_they_are() {
        let gateway = Gateway { cors_origins: vec!["https://chat.example/".into()], ..Gateway::default() };
        let allowed = |origin: &str| is_allowed_origin(&gateway, &origin.parse().unwrap());
        assert!(allowed("https://chat.example"));
        for other in ["http://chat.example", "https://chat.example.net", "null", "https://chat.example:444"] {
            assert!(!allowed(other), "{other}");
        }
    }
}
