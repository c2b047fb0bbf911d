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

    pub const fn get(self) -> u16 {
        self.0
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
