//! Who calls from behind a proxy: the peer of the connection, or whom a trusted proxy names in `X-Forwarded-For`.
//!
//! The service and the embedded gateway share it; it knows neither.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

/// Written as a name once: text would be read as one at each request.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A network of proxies whose `X-Forwarded-For` is believed: an address, or one with a prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Whether the address is in it. An IPv4 address that is written as an IPv6 one counts as what it is.
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let network = text.parse().or_else(|_| text.parse().map(|address: IpAddr| IpNet::from(address.to_canonical())));
        network.map(Self).map_err(|_| "must be an IP address or a network such as 10.0.0.0/8")
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Whoever is at the other end: the peer, or whom it names if it is a proxy.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, is_proxy: impl Fn(IpAddr) -> bool) -> IpAddr {
    let peer = peer.to_canonical();
    if is_proxy(peer) { named_by(peer, headers, is_proxy) } else { peer }
}

/// The last hop that is no proxy, else the peer. Whatever stands further left was written by the caller, and need not be read.
pub fn named_by(peer: IpAddr, headers: &HeaderMap, is_proxy: impl Fn(IpAddr) -> bool) -> IpAddr {
    let lines = headers.get_all(FORWARDED_FOR).iter().rev().filter_map(|value| value.to_str().ok());
    let mut hops = lines.flat_map(|line| line.rsplit(',')).map_while(named_address);
    hops.find(|hop| !is_proxy(*hop)).unwrap_or(peer)
}

/// An address as proxies write it, some of them with the port.
fn named_address(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let address = hop.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn address(peer: &str, forwarded: &[&'static str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_static(line));
        }
        let trusted: Vec<Network> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let is_proxy = |address| trusted.iter().any(|network| network.contains(address));
        client_address(peer.parse().unwrap(), &headers, is_proxy).to_string()
    }

    #[test]
    fn only_trusted_proxies_may_name_another_client() {
        for (peer, forwarded, seen) in [
            ("9.9.9.9", &["1.1.1.1"][..], "9.9.9.9"),
            ("10.1.2.3", &["1.1.1.1"], "1.1.1.1"),
            ("10.1.2.3", &["6.6.6.6, 1.1.1.1, 10.0.0.7"], "1.1.1.1"),
            ("10.1.2.3", &["6.6.6.6", "1.1.1.1", "10.0.0.7"], "1.1.1.1"),
            ("10.1.2.3", &[], "10.1.2.3"),
            ("10.1.2.3", &["garbage"], "10.1.2.3"),
            // A caller's own words do not hide what the proxy has seen.
            ("10.1.2.3", &["garbage, 1.1.1.1"], "1.1.1.1"),
            ("10.1.2.3", &["1.1.1.1, garbage"], "10.1.2.3"),
            // Whoever is in the same network as the proxies is believed about nothing.
            ("10.1.2.3", &["10.0.0.9, 10.0.0.7"], "10.1.2.3"),
            ("10.1.2.3", &["1.1.1.1:4711"], "1.1.1.1"),
            ("10.1.2.3", &["[2001:db8::7]:4711"], "2001:db8::7"),
            ("10.1.2.3", &["::ffff:1.1.1.1"], "1.1.1.1"),
            ("::ffff:10.1.2.3", &["1.1.1.1"], "1.1.1.1"),
        ] {
            assert_eq!(address(peer, forwarded, &["10.0.0.0/8"]), seen, "{peer} {forwarded:?}");
        }
        assert_eq!(address("10.1.2.3", &["1.1.1.1"], &["10.1.2.3"]), "1.1.1.1");
        assert_eq!(address("10.1.2.4", &["1.1.1.1"], &["10.1.2.3"]), "10.1.2.4");
    }

    #[test]
    fn networks_are_parsed_and_compared_by_prefix() {
        let contains =
            |network: &str, address: &str| network.parse::<Network>().unwrap().contains(address.parse().unwrap());
        assert!(contains("0.0.0.0/0", "8.8.8.8"));
        assert!(contains("::/0", "2001:db8::1"));
        assert!(contains("192.168.1.7/24", "192.168.1.255"));
        assert!(!contains("192.168.1.0/24", "192.168.2.0"));
        assert!(!contains("192.168.1.0/24", "::1"));
        for bad in ["", "10.0.0.0/33", "10.0.0.0/x", "host", "10.0.0.0/8 "] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
