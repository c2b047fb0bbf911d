//! A kept answer, and how it is sealed.

use crate::domain::{Secret, Timestamp, UserId};
use crate::vault::{Binding, Period, Sealed, Vault, VaultError};

/// Which answer it is: everything that its seal is bound to.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Who asked.
    pub user: UserId,
    /// The idempotency key of the request.
    pub key: &'a str,
    /// When it is forgotten; names the day whose key seals it.
    pub expires_at: Timestamp,
}

impl Answer<'_> {
    /// Seals the body of the answer with the key of the day on which it is forgotten.
    pub fn seal(&self, vault: &Vault, body: &[u8]) -> Sealed {
        vault.seal_in(&self.period(), &self.binding("idempotency answer"), body)
    }

    /// The body again.
    ///
    /// # Errors
    /// As [`Vault::open`].
    pub fn open(&self, vault: &Vault, sealed: &Sealed) -> Result<Secret<Vec<u8>>, VaultError> {
        vault
            .open_in(&self.period(), &self.binding("idempotency answer"), sealed)
            // Version 0.1.0 had one key for everything.
            .or_else(|_| vault.open(&self.binding("idempotency"), sealed))
    }

    fn period(&self) -> Period {
        Period::day_of(self.expires_at, self.user)
    }

    fn binding(&self, what: &str) -> Binding {
        Binding::named(what, &[self.user.as_bytes(), self.key.as_bytes()].concat())
    }
}
