//! Where agents may be sent for their models.
//!
//! A `providerUrl` makes an agent, and so this network, call a server of its owner's choice. What is checked here is the
//! address when the agent is made or changed; a name that points elsewhere later is not found out.

use std::net::IpAddr;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

use super::problem::{FieldError, Problem};
use super::state::Api;
use crate::domain::AgentSpec;
use crate::zeroclaw::outward::is_on_this_machine;

/// How long a name may take to resolve.
const RESOLVED_WITHIN: Duration = Duration::from_secs(3);

/// Where agents may be sent for their models.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ProviderUrls {
    /// Everywhere, this machine and its network included.
    #[default]
    Any,
    /// Only to addresses of the public internet.
    Public,
    /// Only to these origins, such as `https://models.example:8443`.
    List(Vec<String>),
}

/// Whether an agent may be made to use its model's server.
///
/// # Errors
/// 422 where it may not be sent there, or has no way there.
pub async fn check(api: &Api, spec: &AgentSpec) -> Result<(), Problem> {
    api.options.provider_urls.check(spec.provider_url.as_deref()).await?;
    if api.plane.caps().host.is_none() && is_on_this_machine(spec) {
        let detail = "stands for the machine itself, which agents have no way to where they run: give an address that they \
            reach, such as http://ollama.models.svc:11434 for a Service of the cluster";
        return Err(Problem::invalid(vec![FieldError::at("/providerUrl", detail)]));
    }
    Ok(())
}

impl ProviderUrls {
    /// Whether agents may be sent to this address. Host names are resolved where only public addresses are allowed.
    ///
    /// # Errors
    /// 422 where they may not, or the name does not resolve.
    pub(super) async fn check(&self, url: Option<&str>) -> Result<(), Problem> {
        let Some(url) = url else { return Ok(()) };
        let refused = |detail: &str| Err(Problem::invalid(vec![FieldError::at("/providerUrl", detail)]));
        let Ok(parsed) = url::Url::parse(url) else { return refused("must be a URL") };
        match self {
            Self::Any => Ok(()),
            Self::List(origins) => {
                let origin = parsed.origin();
                let listed = |known: &String| url::Url::parse(known).is_ok_and(|known| known.origin() == origin);
                if origins.iter().any(listed) {
                    Ok(())
                } else {
                    refused("is not one of the servers that this service allows")
                }
            }
            Self::Public => match addresses(&parsed).await {
                Some(addresses) if !addresses.is_empty() && addresses.iter().all(|address| is_public(*address)) => {
                    Ok(())
                }
                Some(_) => refused("must be a server of the public internet"),
                None => refused("has a host name that does not resolve"),
            },
        }
    }
}

async fn addresses(url: &url::Url) -> Option<Vec<IpAddr>> {
    let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = url.port_or_known_default()?;
    let found = timeout(RESOLVED_WITHIN, lookup_host((host, port))).await.ok()?.ok()?;
    Some(found.map(|address| address.ip()).collect())
}

fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            let shared = a == 100 && (b & 0xc0) == 64;
            let protocol = a == 192 && b == 0 && c == 0;
            let benchmark = a == 198 && (b & 0xfe) == 18;
            let reserved = a >= 240 || a == 0;
            !(address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_documentation()
                || address.is_multicast()
                || shared
                || protocol
                || benchmark
                || reserved)
        }
        IpAddr::V6(address) => {
            let [first, second, ..] = address.segments();
            let documentation = first == 0x2001 && second == 0x0db8;
            // 64:ff9b::/96, 2002::/16 and 2001::/32 carry IPv4 addresses inside.
            let translated = first == 0x64 || first == 0x2002 || (first == 0x2001 && second == 0);
            (first & 0xe000) == 0x2000 && !documentation && !translated
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_internet_are_public() {
        for public in ["1.1.1.1", "203.0.112.1", "2606:4700::1111", "::ffff:1.1.1.1"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for inside in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "198.18.0.1",
            "192.0.0.8",
            "203.0.113.9",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "ff02::1",
        ] {
            assert!(!is_public(inside.parse().unwrap()), "{inside}");
        }
    }

    #[tokio::test]
    async fn what_is_allowed_is_as_configured() {
        let listed = ProviderUrls::List(vec!["http://models.example:8080".into()]);
        for (urls, url, allowed) in [
            (&ProviderUrls::Any, "http://127.0.0.1:1/v1", true),
            (&ProviderUrls::Public, "http://127.0.0.1:1/v1", false),
            (&ProviderUrls::Public, "http://localhost/v1", false),
            (&ProviderUrls::Public, "http://[::1]/v1", false),
            (&ProviderUrls::Public, "http://2130706433/v1", false),
            (&ProviderUrls::Public, "https://1.1.1.1/v1", true),
            (&listed, "http://models.example:8080/v1", true),
            (&listed, "https://models.example:8080/v1", false),
            (&listed, "http://models.example:8080.attacker.example/v1", false),
        ] {
            assert_eq!(urls.check(Some(url)).await.is_ok(), allowed, "{urls:?} {url}");
        }
        assert!(ProviderUrls::Public.check(None).await.is_ok());
    }
}
