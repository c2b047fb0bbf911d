//! What a sealed value is bound to.

use crate::domain::AgentId;

use super::RingKeyId;
use super::sealed::VERSION;

/// The place that a sealed value belongs to; it opens nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding(Vec<u8>);

impl Binding {
    /// A field of an agent, such as `token`, `api_key` or `channels`.
    pub fn agent(agent: AgentId, field: &str) -> Self {
        Self::of(&[b"agent", agent.as_bytes(), field.as_bytes()])
    }

    /// Anything else: what it is, and which one of them.
    pub fn named(what: &str, which: &[u8]) -> Self {
        Self::of(&[b"named", what.as_bytes(), which])
    }

    /// Lengths go before the parts, so that no two lists of parts give the same bytes.
    fn of(parts: &[&[u8]]) -> Self {
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part);
        }
        Self(bytes)
    }

    /// The associated data: the binding behind the header of the sealed value, so that the header cannot be changed
    /// either.
    pub(super) fn authenticate(&self, key: RingKeyId) -> Vec<u8> {
        let mut aad = Vec::with_capacity(1 + key.0.len() + self.0.len());
        aad.push(VERSION);
        aad.extend_from_slice(&key.0);
        aad.extend_from_slice(&self.0);
        aad
    }
}
