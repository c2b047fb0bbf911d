//! How the Docker runtime is set up.

use std::time::Duration;

use ipnet::Ipv4Net;

use crate::domain::{InstallationId, Profile};
use crate::runtime::{RuntimeError, RuntimeResult};

/// Settings of a [`DockerRuntime`](super::DockerRuntime); [`DockerOptions::new`] has the defaults.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DockerOptions {
    /// Where the engine listens: `unix:///path` or `tcp://host:port`.
    pub host: String,
    /// ZeroClaw's image, by tag or digest.
    pub image: String,
    /// How every image's ZeroClaw behaves; `None`: each image tells.
    pub profile: Option<Profile>,
    /// The agents' network, made if it is missing. With [`Isolation::PerAgent`] the stem of their networks' names.
    pub network: String,
    /// Whose containers these are. All others are left alone.
    pub installation: InstallationId,
    /// How agents are kept from each other.
    pub isolation: Isolation,
    /// How the control plane talks to gateways.
    pub reach: Reach,
    /// Labels for a Traefik that routes the agents' host names; `None`: no labels.
    pub traefik: Option<Traefik>,
    /// Most starts in flight. Beyond eight the engine gets slower, not faster.
    pub start_throttle: usize,
    /// Most time that a pull of the image may take.
    pub pull_deadline: Duration,
    /// Most that one file of a container's log may hold, in the engine's notation, e.g. `10m`.
    pub log_size: String,
    /// How many files of a container's log are kept.
    pub log_files: u32,
}

/// The names that a Traefik's own configuration gives.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Traefik {
    /// The entry point that takes HTTPS, e.g. `websecure`.
    pub entrypoint: String,
    /// The certificate resolver, e.g. `letsencrypt`.
    pub resolver: String,
}

impl Traefik {
    /// With both names.
    pub fn new(entrypoint: impl Into<String>, resolver: impl Into<String>) -> Self {
        Self { entrypoint: entrypoint.into(), resolver: resolver.into() }
    }
}

/// How agents are kept from each other: a neighbour that reaches a gateway could use its pairing or guess its code.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Isolation {
    /// One network for all, whose bridge lets nothing pass between containers. The host itself still reaches each of
    /// them. For a control plane that runs on the host. A bridge of Linux has room for a thousand containers.
    Bridge,
    /// A network for each agent, which the given containers join. For a control plane, or a reverse proxy, that is a
    /// container itself: such a bridge as above would keep it out as well. The barrier between networks is the engine's:
    /// version 20.10 was seen to lift it for some milliseconds while it makes another network. The bridge has no such gap.
    PerAgent {
        /// Names or ids of the containers that join each network.
        joined: Vec<String>,
        /// Where the networks get their addresses from.
        subnets: Subnets,
    },
}

/// By which address the control plane talks to a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reach {
    /// The container's own address where it is in a network of ours, else the published port.
    Auto,
    /// The container's own address.
    Container,
    /// The port published on the host's loopback. It costs two thirds of the throughput.
    HostPort,
}

impl DockerOptions {
    /// The socket of an engine on this machine.
    pub const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
    /// The newest image that the ZeroClaw project publishes.
    pub const DEFAULT_IMAGE: &str = "ghcr.io/zeroclaw-labs/zeroclaw:latest";
    /// The network that agents get where none is named.
    pub const DEFAULT_NETWORK: &str = "zeroone-net";

    /// The defaults for an engine on this machine.
    pub fn new(installation: InstallationId) -> Self {
        Self {
            host: Self::DEFAULT_HOST.into(),
            image: Self::DEFAULT_IMAGE.into(),
            profile: None,
            network: Self::DEFAULT_NETWORK.into(),
            installation,
            isolation: Isolation::Bridge,
            reach: Reach::Auto,
            traefik: None,
            start_throttle: 6,
            pull_deadline: Duration::from_secs(600),
            log_size: "10m".into(),
            log_files: 3,
        }
    }

    setters! {
        with_host(host: impl Into<String> => host.into());
        with_image(image: impl Into<String> => image.into());
        with_profile(profile: impl Into<Option<Profile>> => profile.into());
        with_network(network: impl Into<String> => network.into());
        with_isolation(isolation: Isolation);
        with_reach(reach: Reach);
        with_traefik(traefik: impl Into<Option<Traefik>> => traefik.into());
        with_installation(installation: InstallationId);
        with_start_throttle(start_throttle: usize);
        with_pull_deadline(pull_deadline: Duration);
        with_log_size(log_size: impl Into<String> => log_size.into());
        with_log_files(log_files: u32);
    }
}

/// A range of private addresses, cut into one small subnet for each agent. The engine's own pools give about thirty
/// networks and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnets(Ipv4Net);

impl Subnets {
    /// Sixteen addresses: the bridge, the agent, the control plane, a reverse proxy, and spare ones.
    const PREFIX: u8 = 28;

    /// Reads a range such as `10.213.0.0/16`, of /28 or larger.
    ///
    /// # Errors
    /// [`RuntimeError::Invalid`] with the expected form.
    pub fn parse(text: &str) -> RuntimeResult<Self> {
        let range = text.parse::<Ipv4Net>().ok().filter(|range| (8..=Self::PREFIX).contains(&range.prefix_len()));
        let expected = "subnets must be an IPv4 range such as 10.213.0.0/16, /8 to /28";
        range.map(|range| Self(range.trunc())).ok_or_else(|| RuntimeError::Invalid(expected.into()))
    }

    /// All subnets of the range, in order. Not public: how a network is written is the engine's client's matter.
    pub(super) fn iter(self) -> impl Iterator<Item = Ipv4Net> {
        self.0.subnets(Self::PREFIX).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_into_subnets() {
        let subnets = Subnets::parse("10.213.7.9/24").unwrap();
        let all: Vec<String> = subnets.iter().map(|subnet| subnet.to_string()).collect();
        assert_eq!(all.len(), 16);
        assert_eq!(all[..2], ["10.213.7.0/28", "10.213.7.16/28"]);
        assert_eq!(all[15], "10.213.7.240/28");
        assert_eq!(Subnets::parse("10.213.0.0/16").unwrap().iter().count(), 4096);
        assert_eq!(Subnets::parse("10.0.0.3/28").unwrap().iter().count(), 1);
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/29", "10.0.0.0/7", "10.0.0/16", "::/16", "10.0.0.0/x"] {
            assert!(matches!(Subnets::parse(text), Err(RuntimeError::Invalid(_))), "{text}");
        }
    }
}
