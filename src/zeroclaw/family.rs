//! Which of ZeroClaw 0.8's provider families serves an agent, and under which address.
//!
//! Not every family can be sent to another address: `groq`, `openrouter` and `gemini` ignore `uri`, so that a key meant for
//! an address of the user's own would go to the real provider (measured with 0.8.7). Such an agent uses the family
//! `custom`, which speaks OpenAI's protocol to whatever address it is given.

use crate::domain::{AgentSpec, Provider};

/// Where an Ollama on the machine listens. ZeroClaw looks for it on the loopback, where inside a container nothing listens.
pub(super) const OLLAMA_PORT: u16 = 11_434;

/// The entry `[providers.models.<family>.default]` of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModelFamily {
    pub(super) name: &'static str,
    /// `None`: the family's own address.
    pub(super) uri: Option<String>,
}

impl ModelFamily {
    /// `host` is the machine as the instance reaches it.
    pub(super) fn of(spec: &AgentSpec, host: &str) -> Self {
        match (spec.provider, &spec.provider_url) {
            (Provider::Ollama, None) => Self { name: "ollama", uri: Some(format!("http://{host}:{OLLAMA_PORT}")) },
            (Provider::Ollama, Some(url)) => Self { name: "ollama", uri: Some(url.clone()) },
            (provider, None) => Self { name: provider.as_str(), uri: None },
            // The family adds `/v1/messages` by itself.
            (Provider::Anthropic, Some(url)) => {
                let url = url.trim_end_matches('/');
                Self { name: "anthropic", uri: Some(url.strip_suffix("/v1").unwrap_or(url).to_owned()) }
            }
            (
                Provider::Openrouter
                | Provider::Openai
                | Provider::Groq
                | Provider::Gemini
                | Provider::Mistral
                | Provider::Deepseek,
                Some(url),
            ) => Self { name: "custom", uri: Some(url.trim_end_matches('/').to_owned()) },
        }
    }

    /// How an agent names the entry.
    pub(super) fn reference(&self) -> String {
        format!("{}.default", self.name)
    }

    /// The variable that holds the entry's key. A key in the file would stay there in plain text.
    pub(super) fn key_variable(&self) -> String {
        format!("ZEROCLAW_providers__models__{}__default__api_key", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(provider: &str, url: Option<&str>) -> (&'static str, Option<String>) {
        let provider = Provider::parse(provider).unwrap();
        let spec = AgentSpec { provider_url: url.map(Into::into), ..AgentSpec::new("a", provider, "m") };
        let family = ModelFamily::of(&spec, "host.test");
        (family.name, family.uri)
    }

    #[test]
    fn each_provider_has_its_own_family_without_an_override() {
        for &provider in Provider::ALL {
            let uri = (provider == Provider::Ollama).then(|| "http://host.test:11434".to_owned());
            assert_eq!(family(provider.as_str(), None), (provider.as_str(), uri));
        }
    }

    #[test]
    fn override_never_reaches_a_family_that_ignores_it() {
        for (provider, name) in [
            ("openrouter", "custom"),
            ("openai", "custom"),
            ("anthropic", "anthropic"),
            ("ollama", "ollama"),
            ("groq", "custom"),
            ("gemini", "custom"),
            ("mistral", "custom"),
            ("deepseek", "custom"),
        ] {
            let (family, uri) = family(provider, Some("http://m:1/x"));
            assert_eq!((family, uri.as_deref()), (name, Some("http://m:1/x")), "{provider}");
        }
    }

    #[test]
    fn anthropic_gets_its_address_without_the_version() {
        for url in ["http://m:1/v1", "http://m:1/v1/", "http://m:1"] {
            assert_eq!(family("anthropic", Some(url)).1.as_deref(), Some("http://m:1"), "{url}");
        }
        assert_eq!(family("openai", Some("http://m:1/v1/")).1.as_deref(), Some("http://m:1/v1"));
    }

    #[test]
    fn key_variable_follows_the_family() {
        let custom = ModelFamily { name: "custom", uri: None };
        assert_eq!(custom.key_variable(), "ZEROCLAW_providers__models__custom__default__api_key");
        assert_eq!(custom.reference(), "custom.default");
    }
}
