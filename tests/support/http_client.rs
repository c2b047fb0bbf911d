//! A client for HTTP on this machine.

use std::time::Duration;

use reqwest::Client;

/// A client whose every answer comes within this time or is a failure.
///
/// With the gateway's feature reqwest can do TLS and wants a configuration of it, even for plain HTTP: this one trusts nobody.
pub fn http_client(within: Duration) -> Client {
    let builder = Client::builder().no_proxy().timeout(within);
    #[cfg(feature = "gateway")]
    let builder = {
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        builder.tls_backend_preconfigured(tls)
    };
    builder.build().expect("a client")
}
