//! The names by which this service may be addressed.
//!
//! A page of another site can make its own name point to this machine (DNS rebinding) and then read what is open to
//! requests without a key. Its requests carry that name in `Host`, which is how they are told apart.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::{HeaderMap, Uri, Version, header};

use super::problem::{Code, Problem};
use super::state::Api;

/// Whether the request names this service as its host. Requests without a host (HTTP/1.0, a router that is called without a
/// connection) name no other.
pub fn is_known(api: &Api, request: &Request) -> bool {
    names_us(api, request.uri(), request.headers())
}

pub fn names_us(api: &Api, uri: &Uri, headers: &HeaderMap) -> bool {
    let authority = uri.host().map(ToOwned::to_owned).or_else(|| {
        let host = headers.get(header::HOST)?.to_str().ok()?;
        Some(without_port(host).to_owned())
    });
    authority.is_none_or(|host| is_ours(&host, &api.options.hosts, api.plane.domain()))
}

fn is_ours(host: &str, hosts: &[String], domain: Option<&str>) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    let below = |domain: &str| host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    address
        || host == "localhost"
        || host.ends_with(".localhost")
        || hosts.iter().any(|known| known.eq_ignore_ascii_case(&host))
        || domain.is_some_and(below)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            // `::1` is an address and no name with a port.
            if name.contains(':') && !name.ends_with(']') { host } else { name }
        }
        _ => host,
    }
}

pub fn unknown() -> Problem {
    Problem::new(Code::Forbidden, "This service does not know the host name of the request; see `hosts` in [server].")
}

/// What is wrong with the host of a request from a connection: RFC 9112 (section 3.2) wants exactly one in HTTP/1.1.
pub fn check(version: Version, headers: &HeaderMap) -> Option<&'static str> {
    let hosts = headers.get_all(header::HOST).iter().count();
    match (version, hosts) {
        (_, 2..) => Some("The request has more than one Host."),
        (Version::HTTP_11, 0) => Some("The request has no Host."),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_service_are_known() {
        let hosts = ["zeroone.example".to_owned()];
        let ours = |host: &str| is_ours(without_port(host), &hosts, Some("agents.example"));
        for host in [
            "localhost",
            "localhost:3001",
            "127.0.0.1:3001",
            "[::1]:3001",
            "::1",
            "LOCALHOST.",
            "zeroone.example:443",
            "agents.example",
            "ada.agents.example",
            "10.1.2.3",
        ] {
            assert!(ours(host), "{host}");
        }
        for host in ["attacker.example", "attacker.example:3001", "notagents.example", "localhost.attacker.example", ""]
        {
            assert!(!ours(host), "{host}");
        }
    }
}
