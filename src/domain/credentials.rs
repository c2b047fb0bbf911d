//! The secrets that a user gives an agent.

use super::channels::Channels;
use super::secret::Secret;

/// What an agent needs to talk to its model and its channels, in clear text: in memory only, never stored like this.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// The model provider's key; none for a provider that needs none.
    pub api_key: Option<Secret<String>>,
    /// The channels with their tokens.
    pub channels: Channels,
}

impl Credentials {
    setters! {
        with_api_key(api_key: impl Into<Secret<String>> => Some(api_key.into()));
        with_channels(channels: Channels);
    }
}

impl Credentials {
    /// All of them.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret<String>> {
        let Channels { telegram, discord, slack } = &self.channels;
        let channels = [
            telegram.as_ref().map(|telegram| &telegram.bot_token),
            discord.as_ref().map(|discord| &discord.bot_token),
            slack.as_ref().map(|slack| &slack.bot_token),
            slack.as_ref().and_then(|slack| slack.app_token.as_ref()),
        ];
        self.api_key.as_ref().into_iter().chain(channels.into_iter().flatten())
    }
}
