//! Host ports for agents.

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// A TCP port of the host that belongs to one agent, 40000 to 50000.
///
/// The range overlaps the kernel's ephemeral ports, so a stranger may hold one: that shows when an instance starts, and
/// the agent then gets another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct HostPort(u16);

impl HostPort {
    /// All ports that agents may have.
    pub const RANGE: RangeInclusive<u16> = 40_000..=50_000;

    /// All of them, lowest first.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::RANGE.map(Self)
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// How many ports are below it.
    pub(crate) const fn index(self) -> usize {
        (self.0 - *Self::RANGE.start()) as usize
    }
}

/// A run of ports, both ends included: those that one installation gives out. Control planes that share a machine have
/// disjoint ones, or keep finding each other's agents on the ports that they try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    first: HostPort,
    last: HostPort,
}

impl PortRange {
    /// `count` ports from `first` on, fewer where the ports end before; `None` for no port at all.
    pub fn from(first: HostPort, count: u16) -> Option<Self> {
        let last = first.0.saturating_add(count.checked_sub(1)?).min(*HostPort::RANGE.end());
        Some(Self { first, last: HostPort(last) })
    }

    /// Whether this port is one of them.
    pub const fn contains(self, port: HostPort) -> bool {
        self.first.0 <= port.0 && port.0 <= self.last.0
    }

    /// Where its ports stand among all of them.
    pub(crate) const fn indexes(self) -> std::ops::Range<usize> {
        self.first.index()..self.last.index() + 1
    }
}

/// All ports that agents may have.
impl Default for PortRange {
    fn default() -> Self {
        Self { first: HostPort(*HostPort::RANGE.start()), last: HostPort(*HostPort::RANGE.end()) }
    }
}

impl TryFrom<u16> for HostPort {
    type Error = String;

    fn try_from(port: u16) -> Result<Self, String> {
        if Self::RANGE.contains(&port) {
            Ok(Self(port))
        } else {
            Err(format!("must be {} to {}", Self::RANGE.start(), Self::RANGE.end()))
        }
    }
}

impl From<HostPort> for u16 {
    fn from(port: HostPort) -> Self {
        port.0
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_where_the_ports_end() {
        let port = |number| HostPort::try_from(number).unwrap();
        let range = PortRange::from(port(40_100), 20).unwrap();
        assert!(range.contains(port(40_100)) && range.contains(port(40_119)));
        assert!(!range.contains(port(40_099)) && !range.contains(port(40_120)));
        let last = PortRange::from(port(49_999), u16::MAX).unwrap();
        assert_eq!(last.indexes(), 9_999..10_001);
        assert_eq!(PortRange::from(port(40_000), 10_001), Some(PortRange::default()));
        assert_eq!(PortRange::from(port(40_000), 0), None);
    }
}
