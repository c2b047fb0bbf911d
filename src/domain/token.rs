//! Secrets that let a person in: what a browser keeps of a session, and what a one-time link carries.

use super::cell::Cell;
use super::key::ApiKey;
use super::secret::Secret;

/// A prefix that says what it is, and 256 random bits in hex. Only its hash is stored; a plain SHA-256 is enough, as for
/// an [`ApiKey`].
#[derive(Debug, Clone)]
pub struct Token(Secret<String>);

impl Token {
    /// Prefix of what a browser keeps of a sign-in.
    pub const SESSION: &str = "zs_";
    /// Prefix of what an invitation or a link carries.
    pub const TICKET: &str = "zt_";

    /// A new token, from the system's source of randomness.
    pub fn generate(prefix: &str) -> Self {
        Self::generate_in(prefix, None)
    }

    /// A new token of this cell.
    pub fn generate_in(prefix: &str, cell: Option<Cell>) -> Self {
        let random: [u8; 32] = rand::random();
        Self(Secret::new(format!("{}{}", Cell::prefix(cell, prefix), data_encoding::HEXLOWER.encode(&random))))
    }

    /// The token itself, to be sent once. The caller must not log or store it.
    pub const fn expose(&self) -> &String {
        self.0.expose()
    }

    /// What the store keeps of it, and looks it up by.
    pub fn hash(&self) -> [u8; 32] {
        Self::hash_of(self.0.expose())
    }

    /// The same for what a caller presents.
    pub fn hash_of(presented: &str) -> [u8; 32] {
        ApiKey::hash_of(presented)
    }
}
