//! Fetching from the web, within an allow-list, and never from the networks that this machine is in.
//!
//! The model reads pages that strangers wrote, so a URL is not what the owner wants but what somebody put into a page.
//! Names are resolved by a resolver that leaves out every address that is not public, at the moment of connecting: a
//! name that changes its address between check and use gains nothing. Redirects are followed by hand, each checked anew.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::LOCATION;
use reqwest::{Client, Url};
use serde::Deserialize;

use crate::gateway::config::HttpRequest;
use crate::gateway::shared::App;

const REDIRECTS: usize = 3;

#[derive(Deserialize)]
pub(super) struct Fetch {
    url: String,
}

pub(super) async fn run(app: &App, fetch: Fetch) -> Result<String, String> {
    let config = app.config();
    let rules = &config.http_request;
    let mut url = Url::parse(&fetch.url).map_err(|_| "that is not a URL".to_owned())?;
    for _ in 0..=REDIRECTS {
        let private_allowed = check(rules, &url)?;
        let client = app.http.fetching(url.as_str(), private_allowed).map_err(|error| error.to_string())?;
        let response = get(&client, url.clone(), rules.timeout_secs).await?;
        let Some(target) = redirect(&response) else { return read(response, rules.max_response_size).await };
        url = url.join(&target).map_err(|_| "it redirects to something that is not a URL".to_owned())?;
    }
    Err(format!("it redirects more than {REDIRECTS} times"))
}

async fn get(client: &Client, url: Url, timeout_secs: u64) -> Result<reqwest::Response, String> {
    let request = client.get(url).timeout(Duration::from_secs(timeout_secs));
    request.send().await.map_err(|error| match error.is_timeout() {
        true => "it did not answer in time".to_owned(),
        false => "it cannot be reached, or its address is not a public one".to_owned(),
    })
}

fn redirect(response: &reqwest::Response) -> Option<String> {
    let redirects = response.status().is_redirection();
    let target = response.headers().get(LOCATION)?.to_str().ok()?;
    redirects.then(|| target.to_owned())
}

async fn read(mut response: reqwest::Response, limit: usize) -> Result<String, String> {
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| "the connection broke".to_owned())? {
        body.extend_from_slice(&chunk);
        if body.len() > limit {
            body.truncate(limit);
            break;
        }
    }
    let text = String::from_utf8_lossy(&body);
    if status.is_success() { Ok(text.into_owned()) } else { Err(format!("it answered {status}: {text}")) }
}

/// Whether the URL may be fetched, and if so whether from an address that is not public.
fn check(rules: &HttpRequest, url: &Url) -> Result<bool, String> {
    let host = url.host_str().filter(|_| matches!(url.scheme(), "http" | "https"));
    let host = host.ok_or("only http:// and https:// URLs can be fetched")?.to_ascii_lowercase();
    let matches = |rule: &String| {
        let rule = rule.trim().to_ascii_lowercase();
        rule == "*" || host == rule || host.strip_suffix(&rule).is_some_and(|sub| sub.ends_with('.'))
    };
    if !rules.allowed_domains.iter().any(matches) {
        return Err("that host is not among the allowed ones".into());
    }
    if rules.allowed_private_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(&host)) {
        return Ok(true);
    }
    // A literal address is never resolved, so that it must be looked at here.
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    if literal.is_ok_and(|address| !is_public(address)) {
        return Err("that address is not a public one".into());
    }
    Ok(false)
}

/// Resolves names as the system does, and keeps only public addresses.
pub(in crate::gateway) struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err("the name has no public address".into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b));
    !special
}

/// Only the global unicast space, without the parts that carry an IPv4 address inside or are for documentation.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let global = first & 0xe000 == 0x2000;
    let carries_v4 = first == 0x2002 || (first == 0x2001 && second == 0);
    let documentation = (first == 0x2001 && second == 0x0db8) || first & 0xfff0 == 0x3ff0;
    global && !carries_v4 && !documentation
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(url: &str) -> Result<bool, String> {
        let rules = HttpRequest {
            allowed_domains: vec!["example.org".into(), "10.0.0.9".into(), "127.0.0.1".into(), "[::1]".into()],
            allowed_private_hosts: vec!["10.0.0.9".into()],
            ..HttpRequest::default()
        };
        check(&rules, &Url::parse(url).unwrap())
    }

    #[test]
    fn only_allowed_hosts_pass_and_private_ones_only_when_named_as_such() {
        assert_eq!(allowed("https://example.org/a"), Ok(false));
        assert_eq!(allowed("https://sub.Example.org"), Ok(false));
        assert_eq!(allowed("http://10.0.0.9:8080/"), Ok(true));
        for bad in [
            "https://notexample.org",
            "https://example.org.evil.net",
            "ftp://example.org",
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://[::1]/",
        ] {
            assert!(allowed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_that_are_not_public_are_known() {
        for bad in [
            "127.0.0.1",
            "10.1.1.1",
            "172.16.0.1",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "2001:db8::1",
            "2001:0:1::",
        ] {
            assert!(!is_public(bad.parse().unwrap()), "{bad}");
        }
        for good in ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "2a00:1450::1"] {
            assert!(is_public(good.parse().unwrap()), "{good}");
        }
    }

    #[tokio::test]
    async fn the_resolver_leaves_private_addresses_out() {
        assert!(PublicOnly.resolve("localhost".parse().unwrap()).await.is_err());
    }
}
