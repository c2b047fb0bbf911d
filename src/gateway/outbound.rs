//! HTTP clients for everything that the gateway calls: models, platforms, web pages.
//!
//! Each is made when first needed: loading the system's certificates costs more memory than all the rest of an idle
//! agent. None follows redirects, which would carry keys to places that nobody configured.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::{Client, ClientBuilder, redirect};
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
    /// For this machine, which no proxy is asked for.
    local_plain: OnceLock<Client>,
    local_tls: OnceLock<Client>,
    public_only: OnceLock<Client>,
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
            return self.fetching(false);
        }
        let url = reqwest::Url::parse(url).ok();
        let is_tls = url.as_ref().is_some_and(|url| url.scheme() == "https");
        let is_local = url.as_ref().and_then(|url| url.host_str()).is_some_and(is_loopback_host);
        match (is_tls, is_local) {
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
    pub(super) fn fetching(&self, private_allowed: bool) -> Result<Client, OutboundError> {
        if private_allowed {
            return made(&self.tls, || base(system_roots()?));
        }
        made(&self.public_only, || Ok(base(system_roots()?)?.no_proxy().dns_resolver(Arc::new(PublicOnly))))
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
