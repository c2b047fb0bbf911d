//! Seals what must not be read from the disk: tokens, model keys, channel secrets.
//!
//! AES-256-GCM under keys derived from one master key. A sealed value carries the id of its key and is bound to its
//! place: the same bytes moved to another agent or field do not open. The ring may hold several keys, so that a key can
//! be replaced without a stop: the first one seals, all of them open.
//!
//! The vault is not a store (it keeps nothing) and not a key server (the master key lives in this process's memory).
//! It protects a copied or lost disk, not a process that is already broken into.

mod binding;
mod master;
mod sealed;

use std::fmt;

use aes_gcm::aead::{Aead, Generate, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};

use crate::domain::Secret;

pub use binding::Binding;
pub use master::{MasterKey, MasterKeyError, MasterKeySource};
pub use sealed::{Sealed, SealedError};

/// Names a key of the ring without saying anything about it: 32 bits derived from the key, shown as 8 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RingKeyId([u8; 4]);

impl fmt::Display for RingKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for RingKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a sealed value does not open. Names the key, never the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    #[error("sealed with key {key}, which is not in the key ring; add that master key to the ring")]
    UnknownKey { key: RingKeyId },
    #[error("does not open with key {key}: the data was altered, or belongs to another place")]
    Refused { key: RingKeyId },
}

/// Seals with the active key of a ring and opens with any of them.
pub struct Vault {
    /// Never empty; the first is the active one.
    ring: Vec<(RingKeyId, Aes256Gcm)>,
}

impl Vault {
    pub fn new(master: &MasterKey) -> Self {
        let ring = master
            .ring()
            .map(|key| {
                let id = RingKeyId(*key.derive::<4>("vault key id").expose());
                let cipher = Aes256Gcm::new(key.derive::<32>("vault aes-256-gcm").expose().into());
                (id, cipher)
            })
            .collect();
        Self { ring }
    }

    /// The key that seals.
    pub fn active_key(&self) -> RingKeyId {
        self.ring[0].0
    }

    /// Seals `plain` for one place. Every call uses a fresh random nonce of 96 bits: safe for 2^32 values under one
    /// key, which is more than a century at one per second.
    pub fn seal(&self, binding: &Binding, plain: &[u8]) -> Sealed {
        let (id, cipher) = &self.ring[0];
        let nonce = Nonce::generate();
        let aad = binding.authenticate(*id);
        let ciphertext = cipher
            .encrypt(&nonce, Payload { msg: plain, aad: &aad })
            .expect("AES-GCM refuses only messages above 64 GiB, which no caller can hold");
        Sealed::assemble(*id, &nonce, &ciphertext)
    }

    /// # Errors
    /// [`VaultError::UnknownKey`] if no key of the ring sealed it, [`VaultError::Refused`] if it was altered or sealed
    /// for another place.
    pub fn open(&self, binding: &Binding, sealed: &Sealed) -> Result<Secret<Vec<u8>>, VaultError> {
        let key = sealed.key();
        let aad = binding.authenticate(key);
        let mut error = VaultError::UnknownKey { key };
        // More than one key may have the id: 32 bits do collide, if rarely.
        for (_, cipher) in self.ring.iter().filter(|(id, _)| *id == key) {
            let payload = Payload { msg: sealed.ciphertext(), aad: &aad };
            match cipher.decrypt(&Nonce::from(sealed.nonce()), payload) {
                Ok(plain) => return Ok(Secret::new(plain)),
                Err(_) => error = VaultError::Refused { key },
            }
        }
        Err(error)
    }

    /// Whether the value should be sealed again because another key is active now.
    pub fn is_outdated(&self, sealed: &Sealed) -> bool {
        sealed.key() != self.active_key()
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("ring", &self.ring.iter().map(|(id, _)| id).collect::<Vec<_>>()).finish()
    }
}

#[cfg(test)]
mod tests;
