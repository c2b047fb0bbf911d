//! Who is calling: the peer of the connection, or whom a trusted proxy names.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;

use super::limits::ClientKey;
use super::shared::App;
use crate::forwarded::{client_address, named_by};

/// The address that rate limits and lockouts count.
pub(super) struct Client {
    pub(super) address: IpAddr,
}

impl Client {
    pub(super) fn key(&self) -> ClientKey {
        self.address.into()
    }
}

impl FromRequestParts<App> for Client {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        // The server puts the peer into every request; a request made in memory has none and counts as local.
        let peer =
            parts.extensions.get::<ConnectInfo<SocketAddr>>().map_or(IpAddr::from([127, 0, 0, 1]), |info| info.ip());
        let gateway = &app.config().gateway;
        let is_proxy = |address| gateway.trusted_proxies.iter().any(|network| network.contains(address));
        let address = if gateway.trust_forwarded_headers {
            named_by(peer, &parts.headers, is_proxy)
        } else {
            client_address(peer, &parts.headers, is_proxy)
        };
        Ok(Self { address })
    }
}
