//! The secrets that a user gives an agent.

use super::channels::Channels;
use super::secret::Secret;

/// What an agent needs to talk to its model and its channels, in clear text: in memory only, never stored like this.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub api_key: Option<Secret<String>>,
    pub channels: Channels,
}
