//! Who a person is to an identity provider.

use serde::{Deserialize, Serialize};

/// Names one person for ever, unlike an e-mail address: OpenID Connect Core 1.0, section 5.7.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The provider, as a URL.
    pub issuer: String,
    /// The person, as the provider calls them.
    pub subject: String,
}
