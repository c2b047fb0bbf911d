//! Who is calling: the peer of the connection, or whom a trusted proxy names.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use serde::{Deserialize, Deserializer};

use super::limits::ClientKey;
use super::shared::App;

/// A network of proxies whose `X-Forwarded-For` is believed: an address, or one with a prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    base: IpAddr,
    prefix: u8,
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        let (base, address, width) = match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => (u128::from(base.to_bits()), u128::from(address.to_bits()), 32),
            (IpAddr::V6(base), IpAddr::V6(address)) => (base.to_bits(), address.to_bits(), 128),
            _ => return false,
        };
        // A shift by the whole width is no shift: a prefix of 0 contains everything.
        (base ^ address).checked_shr(width - u32::from(self.prefix)).unwrap_or(0) == 0
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const REMEDY: &str = "must be an IP address or a network such as 10.0.0.0/8";
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let base: IpAddr = address.parse().map_err(|_| REMEDY)?;
        let width = if base.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(width), str::parse).map_err(|_| REMEDY)?;
        if prefix > width { Err(REMEDY) } else { Ok(Self { base, prefix }) }
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

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
        Ok(Self {
            address: client_address(peer, &parts.headers, &gateway.trusted_proxies, gateway.trust_forwarded_headers),
        })
    }
}

/// The last hop that is not one of our proxies. Whatever stands further left was written by the caller, and need not be read.
fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[Network], trust_any_peer: bool) -> IpAddr {
    let is_proxy = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    if !(trust_any_peer || is_proxy(peer)) {
        return peer;
    }
    let hops = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = hops.flat_map(|value| value.split(',')).collect();
    hops.into_iter().rev().map_while(named_address).find(|hop| !is_proxy(*hop)).unwrap_or(peer)
}

/// An address as proxies write it, some of them with the port.
fn named_address(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    hop.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(peer: &str, forwarded: &str, trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", forwarded.parse().unwrap());
        let trusted: Vec<Network> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        client_address(peer.parse().unwrap(), &headers, &trusted, false).to_string()
    }

    #[test]
    fn only_trusted_proxies_may_name_another_client() {
        assert_eq!(address("9.9.9.9", "1.1.1.1", &["10.0.0.0/8"]), "9.9.9.9");
        assert_eq!(address("10.1.2.3", "1.1.1.1", &["10.0.0.0/8"]), "1.1.1.1");
        assert_eq!(address("10.1.2.3", "6.6.6.6, 1.1.1.1, 10.0.0.7", &["10.0.0.0/8"]), "1.1.1.1");
        assert_eq!(address("10.1.2.3", "garbage", &["10.0.0.0/8"]), "10.1.2.3");
        // A caller's own words do not hide what the proxy has seen.
        assert_eq!(address("10.1.2.3", "garbage, 1.1.1.1", &["10.0.0.0/8"]), "1.1.1.1");
        assert_eq!(address("10.1.2.3", "1.1.1.1, garbage", &["10.0.0.0/8"]), "10.1.2.3");
        assert_eq!(address("10.1.2.3", "1.1.1.1:4711", &["10.0.0.0/8"]), "1.1.1.1");
        assert_eq!(address("10.1.2.3", "[2001:db8::7]:4711", &["10.0.0.0/8"]), "2001:db8::7");
        assert_eq!(address("::ffff:10.1.2.3", "1.1.1.1", &["10.1.2.3"]), "1.1.1.1");
    }

    #[test]
    fn networks_are_parsed_and_compared_by_prefix() {
        let contains =
            |network: &str, address: &str| network.parse::<Network>().unwrap().contains(address.parse().unwrap());
        assert!(contains("0.0.0.0/0", "8.8.8.8"));
        assert!(contains("::/0", "2001:db8::1"));
        assert!(contains("192.168.1.0/24", "192.168.1.255"));
        assert!(!contains("192.168.1.0/24", "192.168.2.0"));
        assert!(!contains("192.168.1.0/24", "::1"));
        for bad in ["", "10.0.0.0/33", "10.0.0.0/x", "host"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
