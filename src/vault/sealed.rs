//! A sealed value: `version | key id | nonce | ciphertext and tag`, opaque to everyone but the vault.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::RingKeyId;

pub(super) const VERSION: u8 = 1;
const KEY: usize = 4;
const NONCE: usize = 12;
const TAG: usize = 16;
const HEADER: usize = 1 + KEY + NONCE;

/// An encrypted value, safe to store and to print. Cheap to clone. In JSON it is a base64 string.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Arc<[u8]>);

/// Bytes that no vault has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealedError {
    /// Fewer bytes than the smallest sealed value has.
    #[error("a sealed value is too short")]
    Short,
    /// The first byte names a format of a later version of the program.
    #[error("a sealed value has version {0}, which this program does not know")]
    Version(u8),
}

impl Sealed {
    /// # Errors
    /// If the bytes cannot be a sealed value of a version that this program knows.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealedError> {
        match bytes.first() {
            Some(&version) if version != VERSION => Err(SealedError::Version(version)),
            Some(_) if bytes.len() >= HEADER + TAG => Ok(Self(bytes.into())),
            _ => Err(SealedError::Short),
        }
    }

    /// The bytes that [`Sealed::from_bytes`] takes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key that it was sealed with.
    pub fn key(&self) -> RingKeyId {
        RingKeyId(self.part(1))
    }

    pub(super) fn assemble(key: RingKeyId, nonce: &[u8], ciphertext: &[u8]) -> Self {
        let parts = [&[VERSION][..], &key.0, nonce, ciphertext];
        Self(parts.concat().into())
    }

    pub(crate) fn nonce(&self) -> [u8; NONCE] {
        self.part(1 + KEY)
    }

    pub(super) fn ciphertext(&self) -> &[u8] {
        &self.0[HEADER..]
    }

    fn part<const N: usize>(&self, from: usize) -> [u8; N] {
        let mut part = [0; N];
        part.copy_from_slice(&self.0[from..from + N]);
        part
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[sealed with {}]", self.key())
    }
}

impl Serialize for Sealed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Sealed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text.as_bytes()).map_err(|_| de::Error::custom("a sealed value is not base64"))?;
        Self::from_bytes(&bytes).map_err(de::Error::custom)
    }
}
