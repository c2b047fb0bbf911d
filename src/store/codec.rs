//! A value on the disk: a checksum of 8 bytes, then JSON.
//!
//! redb verifies its own checksums only when a file is opened, so a bit that flips later would be read as data. The
//! checksum covers table and key too: a value that turns up under another key is as wrong as a changed one. It is a
//! truncated SHA-256, since that is in the program already; it guards against decay, not against forgers.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::error::StoreError;

const CHECKSUM: usize = 8;

/// The table and key that a value belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) table: &'static str,
    pub(super) key: &'a [u8],
}

impl Place<'_> {
    pub(super) fn encode(self, record: &impl Serialize) -> Vec<u8> {
        let mut value = vec![0; CHECKSUM];
        serde_json::to_writer(&mut value, record)
            .expect("records have string keys and are written to memory, so nothing of theirs can fail");
        let checksum = self.checksum(&value[CHECKSUM..]);
        value[..CHECKSUM].copy_from_slice(&checksum);
        value
    }

    /// # Errors
    /// [`StoreError::Corrupt`] if the value is not what was written here.
    pub(super) fn decode<T: DeserializeOwned>(self, value: &[u8]) -> Result<T, StoreError> {
        let (checksum, json) = value.split_at_checked(CHECKSUM).ok_or_else(|| self.corrupt())?;
        if checksum != self.checksum(json) {
            return Err(self.corrupt());
        }
        serde_json::from_slice(json).map_err(|_| self.corrupt())
    }

    /// Bytes as they are, with their checksum.
    pub(super) fn encode_bytes(self, bytes: &[u8]) -> Vec<u8> {
        [self.checksum(bytes).as_slice(), bytes].concat()
    }

    /// # Errors
    /// As [`Place::decode`].
    pub(super) fn decode_bytes(self, value: &[u8]) -> Result<Vec<u8>, StoreError> {
        let (checksum, bytes) = value.split_at_checked(CHECKSUM).ok_or_else(|| self.corrupt())?;
        if checksum == self.checksum(bytes) { Ok(bytes.to_vec()) } else { Err(self.corrupt()) }
    }

    pub(super) fn corrupt(self) -> StoreError {
        StoreError::Corrupt { table: self.table, key: self.key.iter().map(|byte| format!("{byte:02x}")).collect() }
    }

    fn checksum(self, json: &[u8]) -> [u8; CHECKSUM] {
        let mut digest = Sha256::new();
        for part in [self.table.as_bytes(), self.key] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        digest.update(json);
        let mut checksum = [0; CHECKSUM];
        checksum.copy_from_slice(&digest.finalize()[..CHECKSUM]);
        checksum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Place<'_> = Place { table: "agents", key: b"\x01\xff" };

    #[test]
    fn any_two_flipped_bits_are_noticed() {
        let value = HERE.encode(&"a record");
        assert_eq!(HERE.decode::<String>(&value).unwrap(), "a record");
        let bits = value.len() * 8;
        for first in 0..bits {
            for second in first + 1..bits {
                let mut flipped = value.clone();
                flipped[first / 8] ^= 1 << (first % 8);
                flipped[second / 8] ^= 1 << (second % 8);
                let error = HERE.decode::<String>(&flipped).unwrap_err();
                assert_eq!(
                    error.to_string(),
                    "the store's record agents/01ff is damaged; restore a backup of the store"
                );
            }
        }
    }

    #[test]
    fn a_value_under_another_key_or_cut_short_is_damaged() {
        let value = HERE.encode(&7);
        assert!(Place { table: "users", ..HERE }.decode::<u8>(&value).is_err());
        assert!(Place { key: b"\x01", ..HERE }.decode::<u8>(&value).is_err());
        assert!((0..value.len()).all(|length| HERE.decode::<u8>(&value[..length]).is_err()));
    }
}
