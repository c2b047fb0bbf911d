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

use std::borrow::Cow;
use std::fmt;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use aes_gcm::aead::{Aead, Generate, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};

use crate::domain::{Secret, Timestamp, UserId};

pub use binding::Binding;
use master::RootKey;
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
#[non_exhaustive]
pub enum VaultError {
    /// The key is in no ring that was given: nothing is wrong with the data.
    #[error("sealed with key {key}, which is not in the key ring; add that master key to the ring")]
    UnknownKey {
        /// The one that it was sealed with.
        key: RingKeyId,
    },
    /// The key is known, and the value or its place is not the one that was sealed.
    #[error("does not open with key {key}: the data was altered, or belongs to another place")]
    Refused {
        /// The one that it was sealed with.
        key: RingKeyId,
    },
}

/// Seals with the active key of a ring and opens with any of them.
pub struct Vault {
    /// Never empty; the first is the active one.
    ring: RwLock<Vec<RingKey>>,
}

struct RingKey {
    id: RingKeyId,
    /// For what lasts: secrets of agents.
    cipher: Aes256Gcm,
    /// From which the keys of one user's answers of one day are derived.
    answers: Secret<[u8; 32]>,
}

impl RingKey {
    fn new(key: &RootKey) -> Self {
        Self {
            id: RingKeyId(*key.derive::<4>("vault key id").expose()),
            cipher: Aes256Gcm::new(key.derive::<32>("vault aes-256-gcm").expose().into()),
            answers: key.derive::<32>("vault answers"),
        }
    }

    /// The cipher for this purpose.
    fn cipher(&self, period: Option<&Period>) -> Cow<'_, Aes256Gcm> {
        match period {
            None => Cow::Borrowed(&self.cipher),
            Some(period) => {
                let key = RootKey::from(self.answers.clone()).derive::<32>(&period.0);
                Cow::Owned(Aes256Gcm::new(key.expose().into()))
            }
        }
    }
}

/// Values that are sealed often have a key for each owner and day, so that the number of nonces under one key stays small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period(String);

impl Period {
    /// The day (in UTC) of this time, for this owner.
    pub fn day_of(time: Timestamp, owner: UserId) -> Self {
        const DAY: i64 = 24 * 60 * 60;
        Self(format!("{owner} day {}", time.as_second().div_euclid(DAY)))
    }
}

impl Vault {
    /// A vault with this ring: it seals with the active key, and opens with all.
    pub fn new(master: &MasterKey) -> Self {
        Self { ring: RwLock::new(master.ring().map(RingKey::new).collect()) }
    }

    /// Takes another ring: from now on its first key seals, and all of its keys open.
    pub(crate) fn replace_ring(&self, master: &MasterKey) {
        let ring = master.ring().map(RingKey::new).collect();
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = ring;
    }

    fn ring(&self) -> RwLockReadGuard<'_, Vec<RingKey>> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key that seals.
    pub fn active_key(&self) -> RingKeyId {
        self.ring()[0].id
    }

    /// How many keys there are.
    pub fn keys(&self) -> usize {
        self.ring().len()
    }

    /// Seals `plain` for one place. Every call uses a fresh random nonce of 96 bits: safe for 2^32 values under one key. For
    /// secrets of agents, which change a few times a day, that is enough for any installation; what is sealed with every
    /// request has [`Vault::seal_in`].
    pub fn seal(&self, binding: &Binding, plain: &[u8]) -> Sealed {
        self.seal_with(None, binding, plain)
    }

    /// The same with a key of this period: 2^32 values for one owner in one day.
    pub fn seal_in(&self, period: &Period, binding: &Binding, plain: &[u8]) -> Sealed {
        self.seal_with(Some(period), binding, plain)
    }

    fn seal_with(&self, period: Option<&Period>, binding: &Binding, plain: &[u8]) -> Sealed {
        let ring = self.ring();
        let key = &ring[0];
        let nonce = Nonce::generate();
        let aad = binding.authenticate(key.id);
        let ciphertext = key
            .cipher(period)
            .encrypt(&nonce, Payload { msg: plain, aad: &aad })
            .expect("AES-GCM refuses only messages above 64 GiB, which no caller can hold");
        Sealed::assemble(key.id, &nonce, &ciphertext)
    }

    /// # Errors
    /// [`VaultError::UnknownKey`] if no key of the ring sealed it, [`VaultError::Refused`] if it was altered or sealed
    /// for another place.
    pub fn open(&self, binding: &Binding, sealed: &Sealed) -> Result<Secret<Vec<u8>>, VaultError> {
        self.open_with(None, binding, sealed)
    }

    /// What [`Vault::seal_in`] sealed.
    ///
    /// # Errors
    /// As [`Vault::open`].
    pub fn open_in(&self, period: &Period, binding: &Binding, sealed: &Sealed) -> Result<Secret<Vec<u8>>, VaultError> {
        self.open_with(Some(period), binding, sealed)
    }

    fn open_with(
        &self,
        period: Option<&Period>,
        binding: &Binding,
        sealed: &Sealed,
    ) -> Result<Secret<Vec<u8>>, VaultError> {
        let key = sealed.key();
        let aad = binding.authenticate(key);
        let mut error = VaultError::UnknownKey { key };
        // More than one key may have the id: 32 bits do collide, if rarely.
        for ring_key in self.ring().iter().filter(|ring_key| ring_key.id == key) {
            let payload = Payload { msg: sealed.ciphertext(), aad: &aad };
            match ring_key.cipher(period).decrypt(&Nonce::from(sealed.nonce()), payload) {
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
        f.debug_struct("Vault").field("ring", &self.ring().iter().map(|key| key.id).collect::<Vec<_>>()).finish()
    }
}

#[cfg(test)]
mod tests;
