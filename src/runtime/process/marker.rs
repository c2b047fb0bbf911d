//! The environment variable by which an instance's processes are known again.
//!
//! The kernel keeps it for as long as the process lives, and children inherit it. So what a service needs to know about
//! an instance that an earlier service started cannot get lost, whenever that one was killed.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::domain::{AgentId, HostPort, InstallationId, Slug, Timestamp};

/// Which folder on this machine, whatever its path is called: one that was moved is the same, a copy is another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RootId(String);

impl RootId {
    /// # Errors
    /// There is no such folder, or it cannot be looked at.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let found = std::fs::metadata(path)?;
        Ok(Self(format!("{}-{}", found.dev(), found.ino())))
    }
}

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
    /// The agents' folder that it works in; `None` in a run of a version that did not say.
    pub(super) root: Option<RootId>,
}

impl Marker {
    pub(super) const VARIABLE: &str = "ZEROONE_INSTANCE";

    /// `installation/agent/generation/slug/hash/port/started/root`; no part can hold a slash, and the last may be missing.
    pub(super) fn value(&self) -> String {
        let Self { installation, agent, generation, slug, spec_hash, port, started, root } = self;
        let started = started.as_nanosecond();
        let root = root.as_ref().map_or_else(String::new, |root| format!("/{}", root.0));
        format!("{installation}/{agent}/{generation}/{slug}/{spec_hash}/{port}/{started}{root}")
    }

    fn parse(value: &str) -> Option<Self> {
        let parts = value.split('/').collect::<Vec<_>>();
        let (parts, root) = match parts[..] {
            [ref parts @ .., root] if parts.len() == 7 => (parts, Some(RootId(root.to_owned()))),
            ref parts => (parts, None),
        };
        let [installation, agent, generation, slug, spec_hash, port, started] = *parts else { return None };
        Some(Self {
            installation: installation.parse().ok()?,
            agent: agent.parse().ok()?,
            generation: generation.parse().ok()?,
            slug: Slug::parse(slug).ok()?,
            spec_hash: spec_hash.to_owned(),
            port: HostPort::try_from(port.parse::<u16>().ok()?).ok()?,
            started: Timestamp::from_nanosecond(started.parse().ok()?).ok()?,
            root,
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
            root: None,
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
        let folder = tempfile::tempdir().unwrap();
        let in_a_folder = Marker { root: Some(RootId::of(folder.path()).unwrap()), ..marker.clone() };
        let said = format!("ZEROONE_INSTANCE={}\0", in_a_folder.value());
        assert_eq!(Marker::find(said.as_bytes()), Some(in_a_folder));
        let cut = environment.replace(&format!("/{}", marker.port), "");
        assert_eq!(Marker::find(cut.as_bytes()), None);
        assert_eq!(Marker::find(b"HOME=/x\0ZEROONE_INSTANCE=\xff\0"), None);
        assert_eq!(Marker::find(b""), None);
    }
}
