//! The environment variable by which an instance's processes are known again.
//!
//! The kernel keeps it for as long as the process lives, and children inherit it. So what a service needs to know about
//! an instance that an earlier service started cannot get lost, whenever that one was killed.

use crate::domain::{AgentId, HostPort, InstallationId, Slug, Timestamp};

/// Which run of which agent a process belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) installation: InstallationId,
    pub(super) agent: AgentId,
    pub(super) generation: u64,
    pub(super) slug: Slug,
    pub(super) spec_hash: String,
    pub(super) port: HostPort,
    /// When the run began: its name among the runs of this agent.
    pub(super) started: Timestamp,
}

impl Marker {
    pub(super) const VARIABLE: &str = "ZEROONE_INSTANCE";

    /// `installation/agent/generation/slug/hash/port/started`; no part can hold a slash.
    pub(super) fn value(&self) -> String {
        let Self { installation, agent, generation, slug, spec_hash, port, started } = self;
        format!("{installation}/{agent}/{generation}/{slug}/{spec_hash}/{port}/{}", started.as_nanosecond())
    }

    fn parse(value: &str) -> Option<Self> {
        let parts = value.split('/').collect::<Vec<_>>();
        let [installation, agent, generation, slug, spec_hash, port, started] = parts[..] else { return None };
        Some(Self {
            installation: installation.parse().ok()?,
            agent: agent.parse().ok()?,
            generation: generation.parse().ok()?,
            slug: Slug::parse(slug).ok()?,
            spec_hash: spec_hash.to_owned(),
            port: HostPort::try_from(port.parse::<u16>().ok()?).ok()?,
            started: Timestamp::from_nanosecond(started.parse().ok()?).ok()?,
        })
    }

    /// Finds the marker in an environment as the kernel shows it: `NAME=value`, each with a zero behind it.
    pub(super) fn find(environment: &[u8]) -> Option<Self> {
        environment
            .split(|byte| *byte == 0)
            .find_map(|entry| entry.strip_prefix(Self::VARIABLE.as_bytes())?.strip_prefix(b"="))
            .and_then(|value| Self::parse(std::str::from_utf8(value).ok()?))
    }

    /// One for tests.
    #[cfg(test)]
    pub(super) fn example() -> Self {
        Self {
            installation: InstallationId::from_bytes([1; 16]),
            agent: AgentId::from_bytes([2; 16]),
            generation: 3,
            slug: Slug::parse("my-agent").unwrap(),
            spec_hash: "00ff".into(),
            port: HostPort::try_from(40_001).unwrap(),
            started: Timestamp::UNIX_EPOCH,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_found_again_and_a_broken_one_is_none() {
        let marker = Marker { started: Timestamp::now(), ..Marker::example() };
        let environment = format!("HOME=/x\0XZEROONE_INSTANCE=no\0ZEROONE_INSTANCE={}\0LANG=C\0", marker.value());
        assert_eq!(Marker::find(environment.as_bytes()), Some(marker.clone()));
        let cut = environment.replace(&format!("/{}", marker.port), "");
        assert_eq!(Marker::find(cut.as_bytes()), None);
        assert_eq!(Marker::find(b"HOME=/x\0ZEROONE_INSTANCE=\xff\0"), None);
        assert_eq!(Marker::find(b""), None);
    }
}
