//! A question to a provider that costs nothing: which models there are, for this key.

use std::fmt;

use super::provider::Provider;
use super::secret::Secret;

/// Whom to ask, and as whom.
#[derive(Debug, Clone)]
pub struct ModelQuestion {
    /// Whose models.
    pub provider: Provider,
    /// Where, if not at the provider's own address.
    pub url: Option<String>,
    /// As whom; none where the provider needs no key.
    pub key: Option<Secret<String>>,
    /// Whether only addresses of the public internet may be asked, whatever the name resolves to.
    pub public_only: bool,
}

/// Why there is no list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRefusal {
    /// What the provider's server answered, where it did.
    pub status: Option<u16>,
    /// A sentence without any secret.
    pub reason: String,
}

impl fmt::Display for ModelRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}
