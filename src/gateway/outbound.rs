//! HTTP clients for everything that the gateway calls: models, platforms, web pages.
//!
//! Each is made when first needed: loading the system's certificates costs more memory than all the rest of an idle
//! agent. None follows redirects, which would carry keys to places that nobody configured.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::{Client, ClientBuilder, Url, redirect};
use rustls_platform_verifier::BuilderVerifierExt as _;

use super::provider::is_loopback_host;
use super::tools::PublicOnly;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle connections are kept this long, so that a conversation does not shake hands for each message.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub(super) enum OutboundError {
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    #[error("an HTTP client cannot be made")]
    Client(#[source] reqwest::Error),
}

#[derive(Default)]
pub(super) struct HttpClients {
    plain: OnceLock<Client>,
    tls: OnceLock<Client>,
    /// For this machine and what `NO_PROXY` names, which no proxy is asked for.
    local_plain: OnceLock<Client>,
    local_tls: OnceLock<Client>,
    public_only: OnceLock<Client>,
    unproxied: OnceLock<Unproxied>,
    /// Whether there is only that one.
    is_public_only: bool,
}

impl HttpClients {
    /// Those that connect to nothing but public addresses.
    pub(super) fn public_only() -> Self {
        Self { is_public_only: true, ..Self::default() }
    }

    /// The client for a configured URL. `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` count, but never for
    /// this machine: a proxy elsewhere has a loopback of its own.
    ///
    /// # Errors
    /// See [`OutboundError`].
    pub(super) fn client(&self, url: &str) -> Result<Client, OutboundError> {
        if self.is_public_only {
            return self.to_public();
        }
        let url = Url::parse(url).ok();
        let is_tls = url.as_ref().is_some_and(|url| url.scheme() == "https");
        let is_local = url.as_ref().and_then(|url| url.host_str()).is_some_and(is_loopback_host);
        let unproxied = self.unproxied.get_or_init(Unproxied::of_environment);
        let is_direct = is_local || url.as_ref().is_some_and(|url| unproxied.has(url));
        match (is_tls, is_direct) {
            (true, false) => made(&self.tls, || base(system_roots()?)),
            (false, false) => made(&self.plain, || base(no_roots()?)),
            (true, true) => made(&self.local_tls, || Ok(base(system_roots()?)?.no_proxy())),
            (false, true) => made(&self.local_plain, || Ok(base(no_roots()?)?.no_proxy())),
        }
    }

    /// The client for a URL that a model made up. Unless private addresses are allowed for it, it connects to public
    /// ones only, and through no proxy, which would resolve names by itself.
    ///
    /// # Errors
    /// See [`OutboundError`].
    pub(super) fn fetching(&self, url: &str, private_allowed: bool) -> Result<Client, OutboundError> {
        if private_allowed { self.client(url) } else { self.to_public() }
    }

    fn to_public(&self) -> Result<Client, OutboundError> {
        made(&self.public_only, || Ok(base(system_roots()?)?.no_proxy().dns_resolver(Arc::new(PublicOnly))))
    }
}

/// The names in `NO_PROXY`, with the port that each is meant for. [`reqwest`] reads the variable too, and passes over what
/// other programs understand: `*.example.org`, and names with a port. Networks, and `*` alone, are left to it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Unproxied(Vec<(String, Option<u16>)>);

impl Unproxied {
    /// Read when it is first needed, as reqwest reads the variables of proxies.
    fn of_environment() -> Self {
        let list = ["NO_PROXY", "no_proxy"].into_iter().find_map(|name| std::env::var(name).ok());
        Self::parse(&list.unwrap_or_default())
    }

    fn parse(list: &str) -> Self {
        Self(list.split([',', ' ']).filter_map(Self::entry).collect())
    }

    fn entry(text: &str) -> Option<(String, Option<u16>)> {
        let text = text.trim().to_ascii_lowercase();
        // The colons in an address of IPv6 are before no port.
        let is_address = text.parse::<IpAddr>().is_ok();
        let with_port = text.rsplit_once(':').filter(|_| !is_address);
        let with_port = with_port.and_then(|(name, port)| Some((name, Some(port.parse().ok()?))));
        let (name, port) = with_port.unwrap_or((&text, None));
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let name = name.strip_prefix('*').unwrap_or(name).trim_matches('.');
        (!name.is_empty()).then(|| (name.to_owned(), port))
    }

    /// Whether a URL is at one of the names or below it.
    fn has(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
        let is_name = host.parse::<IpAddr>().is_err();
        let below = |name: &str| host.strip_suffix(name).is_some_and(|before| before.ends_with('.'));
        self.0.iter().any(|(name, port)| {
            let is_host = host == *name || (is_name && below(name));
            is_host && (port.is_none() || *port == url.port_or_known_default())
        })
    }
}

fn made(
    slot: &OnceLock<Client>,
    builder: impl FnOnce() -> Result<ClientBuilder, OutboundError>,
) -> Result<Client, OutboundError> {
    if let Some(client) = slot.get() {
        return Ok(client.clone());
    }
    let client = builder()?.build().map_err(OutboundError::Client)?;
    Ok(slot.get_or_init(|| client).clone())
}

fn base(tls: rustls::ClientConfig) -> Result<ClientBuilder, OutboundError> {
    Ok(Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .user_agent(concat!("zeroone/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none()))
}

fn system_roots() -> Result<rustls::ClientConfig, OutboundError> {
    let config = versions()?.with_platform_verifier().map_err(OutboundError::Tls)?;
    Ok(config.with_no_client_auth())
}

/// Trusts nobody: for plain HTTP, where there is nobody to trust.
fn no_roots() -> Result<rustls::ClientConfig, OutboundError> {
    Ok(versions()?.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}

/// The cryptography is named here rather than installed for the process, which may have its own.
fn versions() -> Result<rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier>, OutboundError> {
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(OutboundError::Tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_direct(list: &str, url: &str) -> bool {
        Unproxied::parse(list).has(&Url::parse(url).unwrap())
    }

    #[test]
    fn names_that_need_no_proxy_are_known_in_every_form() {
        for list in [
            "model.example.org",
            "example.org",
            ".example.org",
            "*.example.org",
            "*.Example.ORG.",
            "localhost, *.example.org",
            "localhost *.example.org",
            "model.example.org:443",
            ".example.org:443",
            "*.example.org:443",
        ] {
            assert!(is_direct(list, "https://model.example.org/v1"), "{list}");
        }
        for list in ["", "*", "ample.org", "*.example.com", "other.example.org", "10.0.0.0/8", ":443", "*:443"] {
            assert!(!is_direct(list, "https://model.example.org/v1"), "{list}");
        }
        assert!(!is_direct("model.example.org:443", "https://model.example.org:8443/"), "that port is not named");
        assert!(is_direct("model.example.org:8443", "https://model.example.org:8443/"));
        assert!(is_direct("model.example.org:80", "http://model.example.org/"));
    }

    #[test]
    fn addresses_that_need_no_proxy_are_compared_as_a_whole() {
        assert!(is_direct("192.0.2.7:8080", "http://192.0.2.7:8080/"));
        assert!(!is_direct("0.2.7", "http://192.0.2.7/") && !is_direct("192.0.2.7:80", "http://192.0.2.7:8080/"));
        for list in ["2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:443"] {
            assert!(is_direct(list, "https://[2001:db8::1]/"), "{list}");
        }
        assert!(!is_direct("2001:db8::443", "https://[2001:db8::1]/"));
    }
}
