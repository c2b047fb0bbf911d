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

    /// Whether the key of the model would go to another provider or server if this became `other`.
    pub fn sends_key_elsewhere(&self, other: &Self) -> bool {
        let origin = |spec: &Self| {
            let url = spec.provider_url.as_deref().unwrap_or(spec.provider.base_url());
            reqwest::Url::parse(url).map(|url| url.origin()).ok()
        };
        self.provider != other.provider || origin(self) != origin(other)
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
    if value.len() > 500 || value.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(remedy.into());
    }
    let url = reqwest::Url::parse(value).map_err(|_| remedy.to_owned())?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.has_host();
    // The parser also takes `http:host`, `http:\\host` and `http:///host`, and drops tabs: nobody means that.
    let authority = value.get(url.scheme().len()..).and_then(|rest| rest.strip_prefix("://"));
    let spelled = authority.is_some_and(|rest| !rest.starts_with(['/', '@'])) && !value.contains('\\');
    if matches!(url.scheme(), "http" | "https") && plain && spelled {
        Ok(url.as_str().trim_end_matches('/').to_owned())
    } else {
        Err(remedy.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn draft() -> SpecDraft {
        SpecDraft {
            name: Some("Bob".into()),
            provider: Some("openai".into()),
            model: Some("gpt-4o".into()),
            ..SpecDraft::default()
        }
    }

    fn checked(draft: &SpecDraft) -> Result<AgentSpec, Vec<String>> {
        let mut problems = Problems::default();
        let spec = draft.check(&mut problems);
        let pointers: Vec<String> = problems.into_vec().into_iter().map(|problem| problem.pointer).collect();
        assert_eq!(spec.is_some(), pointers.is_empty(), "no specification without a reason, and none in spite of one");
        spec.ok_or(pointers)
    }

    #[test]
    fn what_was_not_sent_has_its_default() {
        let spec = checked(&draft()).unwrap();
        let expected = AgentSpec {
            name: "Bob".into(),
            agent_name: "ZeroClaw".into(),
            user_name: None,
            timezone: "UTC".into(),
            communication_style: None,
            provider: Provider::Openai,
            model: "gpt-4o".into(),
            provider_url: None,
            temperature: 0.7,
            memory_backend: MemoryBackend::Sqlite,
            auto_save: true,
        };
        assert_eq!(spec, expected);
        assert_eq!(checked(&SpecDraft::from(&spec)), Ok(spec), "a specification is a good draft of itself");
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let text = |length: usize| Some("x".repeat(length));
        let draft = SpecDraft {
            name: text(51),
            agent_name: Some(String::new()),
            user_name: text(101),
            timezone: Some("Mars/Olympus".into()),
            communication_style: text(501),
            provider: Some("OpenAI".into()),
            model: None,
            provider_url: Some("ftp://host".into()),
            temperature: Some(2.01),
            memory_backend: Some("redis".into()),
            auto_save: None,
        };
        let expected = [
            "/name",
            "/provider",
            "/model",
            "/agentName",
            "/userName",
            "/timezone",
            "/communicationStyle",
            "/providerUrl",
            "/temperature",
            "/memoryBackend",
        ];
        assert_eq!(checked(&draft).unwrap_err(), expected);
        assert_eq!(checked(&SpecDraft::default()).unwrap_err(), ["/name", "/provider", "/model"]);
    }

    #[test]
    fn lengths_are_counted_in_characters_and_limits_are_included() {
        for (name, good) in [("é".repeat(50), true), ("é".repeat(51), false), (String::new(), false)] {
            assert_eq!(checked(&SpecDraft { name: Some(name), ..draft() }).is_ok(), good);
        }
        for (style, good) in [(0, true), (500, true), (501, false)] {
            let communication_style = Some("x".repeat(style));
            assert_eq!(checked(&SpecDraft { communication_style, ..draft() }).is_ok(), good);
        }
    }

    #[test]
    fn text_that_would_break_a_file_elsewhere_is_data_here() {
        for name in ["a\"b", "a\nb", "[gateway]", "'''", "#", "${HOME}", "\\", "日本"] {
            assert_eq!(checked(&SpecDraft { name: Some(name.into()), ..draft() }).unwrap().name, name);
        }
        for name in ["a\0b", "a\u{1b}[31m", "a\u{7f}", "a\r"] {
            assert!(checked(&SpecDraft { name: Some(name.into()), ..draft() }).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_temperature_is_a_number_from_nought_to_two() {
        for (temperature, good) in
            [(0.0, true), (2.0, true), (-0.1, false), (2.1, false), (f64::NAN, false), (f64::INFINITY, false)]
        {
            assert_eq!(
                checked(&SpecDraft { temperature: Some(temperature), ..draft() }).is_ok(),
                good,
                "{temperature}"
            );
        }
    }

    #[test]
    fn a_time_zone_is_a_name_and_never_a_path() {
        for (timezone, good) in [
            ("UTC", true),
            ("Europe/Zurich", true),
            ("America/Argentina/Buenos_Aires", true),
            ("", false),
            ("CET-1CEST,M3.5.0,M10.5.0/3", false),
            ("../../../etc/passwd", false),
            ("/etc/localtime", false),
        ] {
            assert_eq!(checked(&SpecDraft { timezone: Some(timezone.into()), ..draft() }).is_ok(), good, "{timezone}");
        }
    }

    #[test]
    fn a_provider_url_is_a_plain_web_address() {
        for (url, kept) in [
            ("http://127.0.0.1:8080/v1", Some("http://127.0.0.1:8080/v1")),
            ("https://models.example/v1/", Some("https://models.example/v1")),
            ("https://[::1]:1/v1", Some("https://[::1]:1/v1")),
            ("https://user:secret@models.example", None),
            ("https://models.example/v1?key=secret", None),
            ("https://models.example/#x", None),
            ("https://", None),
            ("models.example", None),
            ("file:///etc/passwd", None),
            ("https://a b", None),
            ("http:h", None),
            ("http:///h", None),
            ("http://@h", None),
            ("http:\\\\h\\v1", None),
            ("http://h/\0", None),
            ("http://h/\u{1b}[2J", None),
            ("https://a\n[gateway]", None),
        ] {
            let provider_url = Some(url.to_owned());
            let spec = checked(&SpecDraft { provider_url, ..draft() }).ok();
            assert_eq!(spec.and_then(|spec| spec.provider_url).as_deref(), kept, "{url}");
        }
        let provider_url = Some(format!("https://models.example/{}", "x".repeat(500)));
        assert!(checked(&SpecDraft { provider_url, ..draft() }).is_err());
    }

    #[test]
    fn a_key_is_asked_for_where_the_provider_wants_one() {
        let pointers = |provider, key: Option<&str>| {
            let mut problems = Problems::default();
            AgentSpec::check_key(provider, key.map(Secret::from).as_ref(), &mut problems);
            problems.into_vec().len()
        };
        for provider in Provider::ALL {
            assert_eq!(pointers(provider, None), usize::from(provider != Provider::Ollama), "{provider}");
            assert_eq!(pointers(provider, Some("sk-1")), 0, "{provider}");
        }
        for key in ["", "two words", "line\nbreak", &"x".repeat(1025)] {
            assert_eq!(pointers(Provider::Ollama, Some(key)), 1, "{key:?}");
        }
    }

    #[test]
    fn only_a_rename_goes_unseen_by_the_instance() {
        let spec = checked(&draft()).unwrap();
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
            AgentSpec { temperature: 0.8, ..spec.clone() },
            AgentSpec { memory_backend: MemoryBackend::None, ..spec.clone() },
            AgentSpec { auto_save: false, ..spec.clone() },
        ] {
            assert!(spec.differs_inside(&changed), "{changed:?}");
        }
    }

    proptest! {
        /// What was sent in the wrong place may be a secret.
        #[test]
        fn no_remedy_repeats_what_was_sent(planted in "[a-z0-9]{12}[\u{0}\u{1b}]") {
            let sent = || Some(planted.clone());
            let draft = SpecDraft {
                name: sent(),
                agent_name: sent(),
                user_name: sent(),
                timezone: sent(),
                communication_style: sent(),
                provider: sent(),
                model: sent(),
                provider_url: sent(),
                temperature: Some(-1.0),
                memory_backend: sent(),
                auto_save: None,
            };
            let mut problems = Problems::default();
            prop_assert!(draft.check(&mut problems).is_none());
            AgentSpec::check_key(Provider::Openai, Some(&Secret::new(planted.clone())), &mut problems);
            let problems = problems.into_vec();
            prop_assert_eq!(problems.len(), 11);
            for problem in problems {
                prop_assert!(!problem.detail.contains(&planted[..12]), "{}", problem.detail);
            }
        }
    }
}
