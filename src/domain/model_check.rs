//! A question to a provider that costs nothing: which models there are, for this key.

use std::fmt;

use super::provider::Provider;
use super::secret::Secret;

/// Whom to ask, and as whom.
#[derive(Debug, Clone)]
#[non_exhaustive]
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

impl ModelQuestion {
    /// At the provider's own address, without a key.
    pub const fn new(provider: Provider) -> Self {
        Self { provider, url: None, key: None, public_only: false }
    }

    setters! {
        with_url(url: impl Into<String> => Some(url.into()));
        with_key(key: impl Into<Secret<String>> => Some(key.into()));
        with_public_only(public_only: bool);
    }
}

/// Why there is no list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelRefusal {
    /// What the provider's server answered, where it did.
    pub status: Option<u16>,
    /// A sentence without any secret.
    pub reason: String,
}

impl ModelRefusal {
    /// Without an answer of the server's; the reason must hold no secret.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { status: None, reason: reason.into() }
    }

    setters! {
        with_status(status: impl Into<Option<u16>> => status.into());
    }
}

impl fmt::Display for ModelRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}
