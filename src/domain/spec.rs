//! What a user wants an agent to be, without its secrets.

use serde::{Deserialize, Serialize};

use super::provider::{MemoryBackend, Provider};

/// An agent's specification; secrets are in [`Credentials`](super::Credentials).
///
/// [`SpecPatch`](super::SpecPatch) makes valid ones of what a caller sends. A new field is added here, to the patch, to its
/// [`apply`](super::SpecPatch::change), and where it takes effect; the API's record shows it by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct AgentSpec {
    /// Shown in lists, 1 to 50 characters.
    pub name: String,
    /// The persona's own name, written to IDENTITY.md.
    pub agent_name: String,
    /// What the agent calls its user.
    pub user_name: Option<String>,
    /// IANA time zone, e.g. `Europe/Zurich`.
    pub timezone: String,
    /// Written to SOUL.md.
    pub communication_style: Option<String>,
    /// Whose model answers.
    #[cfg_attr(feature = "server", schema(inline))]
    pub provider: Provider,
    /// The model, by the provider's name for it.
    pub model: String,
    /// Replaces the provider's own base URL.
    pub provider_url: Option<String>,
    /// Sampling temperature, 0 to 2. Where it was not set, ZeroClaw before 0.8 uses 0.7; later ones and the embedded gateway
    /// leave it to the model.
    #[cfg_attr(feature = "server", schema(value_type = f64))]
    pub temperature: Option<f64>,
    /// Longest answer in tokens; the provider's own limit where it is absent. ZeroClaw before 0.6 cannot be told.
    #[serde(default)]
    pub max_tokens: Option<u32>,
    /// Where it keeps what it remembers.
    #[cfg_attr(feature = "server", schema(inline))]
    pub memory_backend: MemoryBackend,
    /// Whether messages are kept in the agent's memory without being asked to.
    pub auto_save: bool,
}

/// What ZeroClaw itself uses, and what the API shows where nothing was set.
pub const DEFAULT_TEMPERATURE: f64 = 0.7;

impl AgentSpec {
    /// This agent with the defaults for everything else.
    pub fn new(name: impl Into<String>, provider: Provider, model: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            agent_name: "ZeroClaw".into(),
            user_name: None,
            timezone: "UTC".into(),
            communication_style: None,
            provider,
            model: model.into(),
            provider_url: None,
            temperature: None,
            max_tokens: None,
            memory_backend: MemoryBackend::Sqlite,
            auto_save: true,
        }
    }

    /// As the API shows it: `temperature` is always a number there.
    pub fn shown(&self) -> Self {
        Self { temperature: self.temperature.or(Some(DEFAULT_TEMPERATURE)), ..self.clone() }
    }

    /// Whether an instance that runs `self` must be restarted to run `other`. The name is not visible to it.
    pub fn differs_inside(&self, other: &Self) -> bool {
        let renamed = Self { name: other.name.clone(), ..self.clone() };
        renamed != *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_rename_is_invisible_to_the_instance() {
        let spec = AgentSpec::new("Bob", Provider::Openai, "gpt-4o");
        assert!(!spec.differs_inside(&spec));
        assert!(!spec.differs_inside(&AgentSpec { name: "Eve".into(), ..spec.clone() }));
        for changed in [
            AgentSpec { agent_name: "Claw".into(), ..spec.clone() },
            AgentSpec { user_name: Some("Ann".into()), ..spec.clone() },
            AgentSpec { timezone: "Europe/Zurich".into(), ..spec.clone() },
            AgentSpec { communication_style: Some("short".into()), ..spec.clone() },
            AgentSpec { provider: Provider::Groq, ..spec.clone() },
            AgentSpec { model: "o3".into(), ..spec.clone() },
            AgentSpec { provider_url: Some("http://localhost".into()), ..spec.clone() },
            AgentSpec { temperature: Some(0.8), ..spec.clone() },
            AgentSpec { max_tokens: Some(9), ..spec.clone() },
            AgentSpec { memory_backend: MemoryBackend::None, ..spec.clone() },
            AgentSpec { auto_save: false, ..spec.clone() },
        ] {
            assert!(spec.differs_inside(&changed), "{changed:?}");
        }
    }

    #[test]
    fn a_record_of_an_older_version_is_read() {
        let stored = r#"{"name":"a","agentName":"b","userName":null,"timezone":"UTC","communicationStyle":null,
            "provider":"openai","model":"m","providerUrl":null,"temperature":0.7,"memoryBackend":"sqlite","autoSave":true}"#;
        let spec: AgentSpec = serde_json::from_str(stored).unwrap();
        assert_eq!((spec.temperature, spec.max_tokens, spec.provider), (Some(0.7), None, Provider::Openai));
    }
}
