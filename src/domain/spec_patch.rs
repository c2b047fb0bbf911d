//! What a caller sends to create or to change an agent: one set of fields, checked in one place.
//!
//! A create applies the patch to the defaults, a PATCH to the agent's present specification. Every field that is wrong is
//! reported at once, by its JSON Pointer and without repeating what was sent.

use serde::Deserialize;

use super::channels::Channels;
use super::field::{Problems, opaque, text};
use super::patch::Patch;
use super::provider::{MemoryBackend, Provider};
use super::secret::Secret;
use super::slug::Slug;
use super::spec::AgentSpec;

/// The fields of an agent as they are sent: nothing checked, everything optional. [`SpecPatch::new`] begins a new agent,
/// `SpecPatch::default()` a change that changes nothing yet.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct SpecPatch {
    /// Shown in lists.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = Option<String>, min_length = 1, max_length = 50))]
    pub name: Patch<String>,
    /// Whose model answers.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = Option<Provider>, inline))]
    pub provider: Patch<String>,
    /// The model, by the provider's name for it.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = Option<String>, min_length = 1, max_length = 200))]
    pub model: Patch<String>,
    /// Needed by all providers but ollama, and again when the provider or the host of its URL changes.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = Option<String>, max_length = 1024))]
    pub api_key: Patch<Secret<String>>,
    /// Instead of the provider's own base URL.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = Option<String>, max_length = 500))]
    pub provider_url: Patch<String>,
    /// Shown as 0.7 where it was not set; ZeroClaw before 0.8 uses that, everything else leaves it to the model.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = Option<f64>, minimum = 0, maximum = 2, default = 0.7))]
    pub temperature: Patch<f64>,
    /// Longest answer in tokens. ZeroClaw before 0.6 cannot be told.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000))]
    pub max_tokens: Patch<u32>,
    /// What the agent calls itself.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = Option<String>, min_length = 1, max_length = 50, default = "ZeroClaw"))]
    pub agent_name: Patch<String>,
    /// What the agent calls its user.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = Option<String>, min_length = 1, max_length = 100))]
    pub user_name: Patch<String>,
    /// An IANA name.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = Option<String>, default = "UTC"))]
    pub timezone: Patch<String>,
    /// How it is to talk, in free words.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = Option<String>, max_length = 500))]
    pub communication_style: Patch<String>,
    /// Where it keeps what it remembers.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = Option<MemoryBackend>, inline, default = "sqlite"))]
    pub memory_backend: Patch<String>,
    /// Whether messages are remembered without being asked to.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = Option<bool>, default = true))]
    pub auto_save: Patch<bool>,
    /// Replaced as a whole.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = Option<Channels>))]
    pub channels: Patch<Channels>,
    /// Made from the name where it is absent. Cannot be changed later.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = Option<String>, max_length = 40, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub slug: Patch<String>,
}

/// A patch that was checked and applied.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AppliedPatch {
    /// All of the specification, changed or not.
    pub spec: AgentSpec,
    /// What becomes of the model provider's key.
    pub api_key: Patch<Secret<String>>,
    /// What becomes of the channels, as a whole.
    pub channels: Patch<Channels>,
    /// Of a create only.
    pub slug: Option<Slug>,
}

const API_KEY_LENGTH: usize = 1024;

impl SpecPatch {
    /// The least that a new agent needs; all but Ollama want an `api_key` as well.
    pub fn new(name: impl Into<String>, provider: Provider, model: impl Into<String>) -> Self {
        Self {
            name: Patch::Set(name.into()),
            provider: Patch::Set(provider.as_str().to_owned()),
            model: Patch::Set(model.into()),
            ..Self::default()
        }
    }

    setters! {
        with_api_key(api_key: impl Into<Secret<String>> => Patch::Set(api_key.into()));
        with_provider_url(provider_url: impl Into<String> => Patch::Set(provider_url.into()));
        with_temperature(temperature: f64 => Patch::Set(temperature));
        with_max_tokens(max_tokens: u32 => Patch::Set(max_tokens));
        with_agent_name(agent_name: impl Into<String> => Patch::Set(agent_name.into()));
        with_user_name(user_name: impl Into<String> => Patch::Set(user_name.into()));
        with_timezone(timezone: impl Into<String> => Patch::Set(timezone.into()));
        with_communication_style(communication_style: impl Into<String> => Patch::Set(communication_style.into()));
        with_auto_save(auto_save: bool => Patch::Set(auto_save));
        with_channels(channels: Channels => Patch::Set(channels));
        with_slug(slug: impl Into<String> => Patch::Set(slug.into()));
        with_memory_backend(memory_backend: MemoryBackend => Patch::Set(memory_backend.as_str().to_owned()));
    }

    /// A new agent: the patch applied to the defaults. `null` is the same as absent.
    ///
    /// # Errors
    /// Everything that is wrong or missing.
    pub fn create(self) -> Result<AppliedPatch, Problems> {
        self.apply(None, false)
    }

    /// A changed agent: the patch applied to its specification. `has_key` tells whether an API key is kept for it.
    ///
    /// # Errors
    /// Everything that is wrong, or that cannot be removed or changed.
    pub fn change(self, spec: &AgentSpec, has_key: bool) -> Result<AppliedPatch, Problems> {
        self.apply(Some(spec), has_key)
    }

    /// A new agent like one whose specification was out of our control. The key that its model needs may follow later.
    ///
    /// # Errors
    /// Everything that is wrong with either, or that cannot be changed.
    pub fn like(self, spec: &AgentSpec) -> Result<AppliedPatch, Problems> {
        self.change(&Self::recheck(spec)?, true)
    }

    /// A specification that was out of our control, such as on an instance's label, checked like what a caller sends.
    pub(super) fn recheck(spec: &AgentSpec) -> Result<AgentSpec, Problems> {
        let read = serde_json::to_value(spec).and_then(serde_json::from_value::<Self>);
        let patch = read.map_err(|_| {
            let mut problems = Problems::default();
            problems.push("", "is no specification");
            problems
        })?;
        patch.change(spec, true).map(|applied| applied.spec)
    }

    fn apply(self, kept: Option<&AgentSpec>, has_key: bool) -> Result<AppliedPatch, Problems> {
        let mut spec = kept.cloned().unwrap_or_else(|| AgentSpec::new("", Provider::Openai, ""));
        let mut fields = Fields { new: kept.is_none(), problems: Problems::default() };
        fields.required("/name", &mut spec.name, self.name, |v| text(v, 1, 50));
        let provider_known =
            fields.required("/provider", &mut spec.provider, self.provider, |v| Provider::parse(v.as_str()));
        fields.required("/model", &mut spec.model, self.model, |v| text(v, 1, 200));
        fields.defaulted("/agentName", &mut spec.agent_name, self.agent_name, |v| text(v, 1, 50));
        fields.optional("/userName", &mut spec.user_name, self.user_name, |v| text(v, 1, 100));
        fields.defaulted("/timezone", &mut spec.timezone, self.timezone, |v| timezone(v));
        fields.optional("/communicationStyle", &mut spec.communication_style, self.communication_style, |v| {
            text(v, 0, 500)
        });
        fields.optional("/providerUrl", &mut spec.provider_url, self.provider_url, |v| http_url(v));
        fields.optional("/temperature", &mut spec.temperature, self.temperature, |v| temperature(*v));
        fields.optional("/maxTokens", &mut spec.max_tokens, self.max_tokens, |v| max_tokens(*v));
        fields.defaulted("/memoryBackend", &mut spec.memory_backend, self.memory_backend, |v| MemoryBackend::parse(v));
        fields.defaulted("/autoSave", &mut spec.auto_save, self.auto_save, |v| Ok(*v));
        if provider_known {
            let elsewhere = kept.is_some_and(|kept| !same_recipient(kept, &spec));
            fields.key(spec.provider, &self.api_key, has_key, elsewhere);
        }
        if let Patch::Set(channels) = &self.channels {
            channels.check(&mut fields.problems);
        }
        let slug = fields.slug(self.slug);
        if !fields.problems.is_empty() {
            return Err(fields.problems);
        }
        Ok(AppliedPatch { spec, api_key: self.api_key, channels: self.channels, slug })
    }
}

/// Fields under way: what is wrong with them is collected.
struct Fields {
    /// For a create: nothing is kept, and `null` is the same as absent.
    new: bool,
    problems: Problems,
}

impl Fields {
    /// A field without a default. Answers whether its value is good.
    fn required<T, S>(
        &mut self,
        pointer: &str,
        value: &mut T,
        sent: Patch<S>,
        parse: impl FnOnce(&S) -> Result<T, String>,
    ) -> bool {
        if self.new && !matches!(sent, Patch::Set(_)) {
            self.problems.push(pointer, "is required");
            return false;
        }
        self.defaulted(pointer, value, sent, parse)
    }

    /// A field that always has a value. Answers whether it is good.
    fn defaulted<T, S>(
        &mut self,
        pointer: &str,
        value: &mut T,
        sent: Patch<S>,
        parse: impl FnOnce(&S) -> Result<T, String>,
    ) -> bool {
        match sent {
            Patch::Keep => return true,
            Patch::Clear if self.new => return true,
            Patch::Clear => self.problems.push(pointer, "cannot be removed"),
            Patch::Set(sent) => {
                if let Some(parsed) = self.problems.keep(pointer, parse(&sent)) {
                    *value = parsed;
                    return true;
                }
            }
        }
        false
    }

    /// A field that may be absent.
    fn optional<T, S>(
        &mut self,
        pointer: &str,
        value: &mut Option<T>,
        sent: Patch<S>,
        parse: impl FnOnce(&S) -> Result<T, String>,
    ) {
        match sent {
            Patch::Keep => {}
            Patch::Clear => *value = None,
            Patch::Set(sent) => *value = self.problems.keep(pointer, parse(&sent)),
        }
    }

    /// A kept key goes only to whom it was given for: who may change the address must not learn the key by that.
    fn key(&mut self, provider: Provider, sent: &Patch<Secret<String>>, has_key: bool, elsewhere: bool) {
        match sent {
            Patch::Set(key) => {
                self.problems.keep("/apiKey", opaque(key.expose(), API_KEY_LENGTH));
            }
            Patch::Keep if has_key && elsewhere => {
                let remedy = "must be sent again, because the provider or the host of its URL changes; null removes it";
                self.problems.push("/apiKey", remedy);
            }
            Patch::Keep if has_key => {}
            Patch::Keep | Patch::Clear if provider.needs_key() => {
                self.problems.push("/apiKey", format!("is required by {provider}; only ollama works without"));
            }
            Patch::Keep | Patch::Clear => {}
        }
    }

    fn slug(&mut self, sent: Patch<String>) -> Option<Slug> {
        match sent {
            Patch::Set(slug) if self.new => self.problems.keep("/slug", Slug::parse(&slug)),
            Patch::Keep => None,
            Patch::Clear if self.new => None,
            Patch::Set(_) | Patch::Clear => {
                self.problems.push("/slug", "cannot be changed");
                None
            }
        }
    }
}

/// Whether both send their key to the same provider at the same host.
fn same_recipient(one: &AgentSpec, other: &AgentSpec) -> bool {
    let host = |spec: &AgentSpec| {
        let url = spec.provider_url.as_deref().unwrap_or_else(|| spec.provider.base_url());
        url::Url::parse(url).map(|url| url.origin().ascii_serialization()).unwrap_or_default()
    };
    one.provider == other.provider && host(one) == host(other)
}

fn temperature(value: f64) -> Result<f64, String> {
    if (0.0..=2.0).contains(&value) { Ok(value) } else { Err("must be 0 to 2".into()) }
}

fn max_tokens(value: u32) -> Result<u32, String> {
    if (1..=1_000_000).contains(&value) { Ok(value) } else { Err("must be 1 to 1000000".into()) }
}

fn timezone(name: &str) -> Result<String, String> {
    jiff::tz::TimeZone::get(name)
        .map(|_| name.to_owned())
        .map_err(|_| "must be an IANA time zone such as UTC or Europe/Zurich".into())
}

fn http_url(value: &str) -> Result<String, String> {
    let remedy = "must be an http:// or https:// URL of at most 500 characters, without user name, query or fragment";
    if value.len() > 500 || value.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(remedy.into());
    }
    let url = url::Url::parse(value).map_err(|_| remedy.to_owned())?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.has_host();
    // The parser also takes `http:host`, `http:\\host` and `http:///host`, and drops tabs: such an address is a mistake.
    let authority = value.get(url.scheme().len()..).and_then(|rest| rest.strip_prefix("://"));
    let spelled = authority.is_some_and(|rest| !rest.starts_with(['/', '@'])) && !value.contains('\\');
    if matches!(url.scheme(), "http" | "https") && plain && spelled {
        Ok(url.as_str().trim_end_matches('/').to_owned())
    } else {
        Err(remedy.into())
    }
}

#[cfg(test)]
mod tests;
