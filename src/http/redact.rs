//! Takes an agent's secrets out of what the agent printed.

use crate::control::AgentHandle;
use crate::domain::Secret;
use crate::zeroclaw::pairing::shown_code;

/// What must not be shown.
pub struct Secrets(Vec<Secret<String>>);

const MASK: &str = "[secret]";
/// Shorter ones are in every other word; nobody's real secret is that short.
const SHORTEST: usize = 4;

impl Secrets {
    /// The model's key, the channels' tokens and the bearer token of the agent.
    pub fn of(agent: &AgentHandle) -> Self {
        let credentials = agent.credentials().unwrap_or_default();
        let channels = credentials.channels;
        let slack = channels.slack.map(|slack| (slack.bot_token, slack.app_token));
        let (slack_bot, slack_app) = slack.unzip();
        let token = agent.view().and_then(|view| view.access.as_ref().map(|access| access.token.clone()));
        let all = [
            credentials.api_key,
            channels.telegram.map(|telegram| telegram.bot_token),
            channels.discord.map(|discord| discord.bot_token),
            slack_bot,
            slack_app.flatten(),
            token,
        ];
        Self(all.into_iter().flatten().filter(|secret| secret.expose().len() >= SHORTEST).collect())
    }

    /// Pairing codes are hidden as well: until it is redeemed, a code gives whoever has it a token.
    pub fn mask(&self, text: String) -> String {
        let text = match shown_code(&text) {
            Some(code) => text.replace(code, MASK),
            None => text,
        };
        self.0.iter().fold(text, |text, secret| {
            if text.contains(secret.expose().as_str()) { text.replace(secret.expose().as_str(), MASK) } else { text }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_wherever_they_are() {
        let secrets = Secrets(vec!["sk-planted".into(), "1:bot".into()]);
        assert_eq!(secrets.mask("key=sk-planted,sk-planted 1:bot".into()), "key=[secret],[secret] [secret]");
        assert_eq!(secrets.mask("nothing".into()), "nothing");
        assert_eq!(secrets.mask("     │  622406  │".into()), "     │  [secret]  │");
    }
}
