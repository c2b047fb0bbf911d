//! Takes an agent's secrets out of what the agent printed.

use crate::control::AgentHandle;
use crate::domain::Secret;
use crate::zeroclaw::pairing::shown_code;

/// What must not be shown.
pub struct Secrets(Vec<Secret<String>>);

const MASK: &str = "[secret]";
/// Shorter ones are part of ordinary words; real secrets are longer.
const SHORTEST: usize = 4;

impl Secrets {
    /// The model's key, the channels' tokens and the bearer token of the agent, and the keys and tokens that it had before.
    pub fn of(agent: &AgentHandle) -> Self {
        let credentials = agent.credentials().unwrap_or_default();
        let token = agent.view().and_then(|view| view.access.as_ref().map(|access| access.token.clone()));
        let all = credentials.secrets().cloned().chain(token).chain(agent.retired_secrets());
        Self(all.filter(|secret| secret.expose().len() >= SHORTEST).collect())
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

    #[cfg(feature = "testkit")]
    #[tokio::test]
    async fn secrets_that_an_agent_had_before_are_masked() {
        use crate::control::{AgentPatch, Agents};
        use crate::domain::{Channels, Plan, Telegram};
        use crate::testkit;

        let test = testkit::plane(4, Plan::Pro).await;
        let agent = test.running("a").await;
        let telegram = Telegram { bot_token: "1:bot-token".into(), allowed_users: Vec::new() };
        let channels = Channels { telegram: Some(telegram), ..Channels::default() };
        for patch in [
            AgentPatch { api_key: Some(Some("sk-second".into())), ..AgentPatch::default() },
            AgentPatch { channels: Some(channels), ..AgentPatch::default() },
            AgentPatch { api_key: Some(Some("sk-third".into())), ..AgentPatch::default() },
            AgentPatch { channels: Some(Channels::default()), ..AgentPatch::default() },
        ] {
            agent.update(patch).await.unwrap();
        }
        for secret in [testkit::API_KEY, "sk-second", "1:bot-token", "sk-third"] {
            assert_eq!(Secrets::of(&agent).mask(format!("x{secret}y")), "x[secret]y", "{secret}");
        }
        assert_eq!(agent.retired_secrets().len(), 3, "the present one is not among them");
        test.plane.shutdown(Agents::Leave).await;
    }
}
