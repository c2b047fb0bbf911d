//! What a user wants an agent to be, without its secrets.

use serde::{Deserialize, Serialize};

use super::field::{Problems, opaque, text};
use super::provider::{MemoryBackend, Provider};
use super::secret::Secret;

/// An agent's specification. Valid by construction; secrets are in [`Credentials`](super::Credentials).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentSpec {
    /// Shown in lists, 1 to 50 characters.
    pub name: String,
    /// The persona's own name, written to IDENTITY.md.
    pub agent_name: String,
    pub user_name: Option<String>,
    /// IANA time zone, e.g. `Europe/Zurich`.
    pub timezone: String,
    /// Written to SOUL.md.
    pub communication_style: Option<String>,
    pub provider: Provider,
    pub model: String,
    /// Replaces the provider's own base URL.
    pub provider_url: Option<String>,
    /// Sampling temperature, 0 to 2.
    pub temperature: f64,
    pub memory_backend: MemoryBackend,
    pub auto_save: bool,
}

/// A specification as it was sent: nothing checked, everything optional.
#[derive(Debug, Clone, Default)]
pub struct SpecDraft {
    pub name: Option<String>,
    pub agent_name: Option<String>,
    pub user_name: Option<String>,
    pub timezone: Option<String>,
    pub communication_style: Option<String>,
    pub provider: Option<String>,
    pub model: Option<String>,
    pub provider_url: Option<String>,
    pub temperature: Option<f64>,
    pub memory_backend: Option<String>,
    pub auto_save: Option<bool>,
}

const DEFAULT_TEMPERATURE: f64 = 0.7;
const API_KEY_LENGTH: usize = 1024;

impl SpecDraft {
    /// The specification, or `None` with everything that is wrong noted in `problems`.
    pub fn check(&self, problems: &mut Problems) -> Option<AgentSpec> {
        let name = required(problems, "/name", self.name.as_deref(), |v| text(v, 1, 50));
        let provider = required(problems, "/provider", self.provider.as_deref(), Provider::parse);
        let model = required(problems, "/model", self.model.as_deref(), |v| text(v, 1, 200));
        let agent_name = problems.keep("/agentName", text(self.agent_name.as_deref().unwrap_or("ZeroClaw"), 1, 50));
        let user_name = optional(problems, "/userName", self.user_name.as_deref(), |v| text(v, 1, 100));
        let timezone = problems.keep("/timezone", timezone(self.timezone.as_deref().unwrap_or("UTC")));
        let style = optional(problems, "/communicationStyle", self.communication_style.as_deref(), |v| text(v, 0, 500));
        let url = optional(problems, "/providerUrl", self.provider_url.as_deref(), http_url);
        let temperature = problems.keep("/temperature", temperature(self.temperature.unwrap_or(DEFAULT_TEMPERATURE)));
        let memory =
            problems.keep("/memoryBackend", MemoryBackend::parse(self.memory_backend.as_deref().unwrap_or("sqlite")));
        Some(AgentSpec {
            name: name?,
            agent_name: agent_name?,
            user_name: user_name?,
            timezone: timezone?,
            communication_style: style?,
            provider: provider?,
            model: model?,
            provider_url: url?,
            temperature: temperature?,
            memory_backend: memory?,
            auto_save: self.auto_save.unwrap_or(true),
        })
    }
}

impl From<&AgentSpec> for SpecDraft {
    fn from(spec: &AgentSpec) -> Self {
        Self {
            name: Some(spec.name.clone()),
            agent_name: Some(spec.agent_name.clone()),
            user_name: spec.user_name.clone(),
            timezone: Some(spec.timezone.clone()),
            communication_style: spec.communication_style.clone(),
            provider: Some(spec.provider.as_str().into()),
            model: Some(spec.model.clone()),
            provider_url: spec.provider_url.clone(),
            temperature: Some(spec.temperature),
            memory_backend: Some(spec.memory_backend.as_str().into()),
            auto_save: Some(spec.auto_save),
        }
    }
}

impl AgentSpec {
    /// Notes an API key that cannot be one, or that is missing where the provider wants one.
    pub fn check_key(provider: Provider, key: Option<&Secret<String>>, problems: &mut Problems) {
        match key {
            Some(key) => {
                problems.keep("/apiKey", opaque(key.expose(), API_KEY_LENGTH));
            }
            None if provider.needs_key() => {
                problems.push("/apiKey", format!("is required by {provider}; only ollama works without"));
            }
            None => {}
        }
    }

    /// Whether an instance that runs `self` must be started anew to run `other`. A rename alone is not seen by it.
    pub fn differs_inside(&self, other: &Self) -> bool {
        let renamed = Self { name: other.name.clone(), ..self.clone() };
        renamed != *other
    }
}

fn required<T>(
    problems: &mut Problems,
    pointer: &str,
    value: Option<&str>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<T> {
    match value {
        Some(value) => problems.keep(pointer, parse(value)),
        None => problems.keep(pointer, Err("is required".to_owned())),
    }
}

/// `Some(None)` where nothing was sent, `None` where what was sent is bad.
fn optional<T>(
    problems: &mut Problems,
    pointer: &str,
    value: Option<&str>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<Option<T>> {
    match value {
        Some(value) => problems.keep(pointer, parse(value)).map(Some),
        None => Some(None),
    }
}

fn temperature(value: f64) -> Result<f64, String> {
    if (0.0..=2.0).contains(&value) { Ok(value) } else { Err("must be 0 to 2".into()) }
}

fn timezone(name: &str) -> Result<String, String> {
    jiff::tz::TimeZone::get(name)
        .map(|_| name.to_owned())
        .map_err(|_| "must be an IANA time zone such as UTC or Europe/Zurich".into())
}

fn http_url(value: &str) -> Result<String, String> {
    let remedy = "must be an http:// or https:// URL of at most 500 characters, without user name, query or fragment";
    if value.len() > 500 || value.chars().any(char::is_whitespace) {
        return Err(remedy.into());
    }
    let url = reqwest::Url::parse(value).map_err(|_| remedy.to_owned())?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.has_host();
    if matches!(url.scheme(), "http" | "https") && plain {
        Ok(value.trim_end_matches('/').to_owned())
    } else {
        Err(remedy.into())
    }
}
