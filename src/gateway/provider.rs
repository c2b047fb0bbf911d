//! The model behind the agent: whose API, where, and how a turn is put to it.
//!
//! Two dialects cover all providers: OpenAI's chat completions and Anthropic's messages. A dialect turns a [`Turn`] into
//! a body and an answer into a [`Completion`]; sending and trying again is done once, in [`http`].

mod anthropic;
mod http;
mod openai;
mod sse;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

use super::config::Config;
use super::outbound::{HttpClients, OutboundError};
use crate::domain::{Provider, Secret};

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Message {
    System(String),
    User(String),
    Assistant { text: String, tool_calls: Vec<ToolCall> },
    ToolResult { call_id: String, content: String },
}

/// What the model is asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Turn {
    pub(super) messages: Vec<Message>,
    pub(super) tools: Vec<ToolSpec>,
    /// Longest answer; the provider's own limit if left out.
    pub(super) max_tokens: Option<u32>,
}

/// What a caller may choose for one answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Tuning {
    pub(super) model: Option<String>,
    pub(super) temperature: Option<f64>,
    pub(super) max_tokens: Option<u32>,
}

/// A tool that the model may call; `parameters` is a JSON Schema.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ToolSpec {
    pub(super) name: String,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) parameters: Value,
}

/// The model's wish to call a tool.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ToolCall {
    pub(super) id: String,
    pub(super) name: String,
    /// JSON text as the model wrote it; it need not be valid.
    pub(super) arguments: String,
}

/// What the model answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Completion {
    pub(super) text: String,
    pub(super) tool_calls: Vec<ToolCall>,
    pub(super) usage: Usage,
    /// The answer was cut at the model's length limit.
    pub(super) cut: bool,
}

/// Tokens, as the provider counted them; zero where it did not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Usage {
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
}

/// Why there is no completion. No message holds what the provider wrote: it likes to repeat parts of the key.
#[derive(Debug, thiserror::Error)]
pub(super) enum ModelError {
    #[error("the model's server cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("the connection to the model's server broke")]
    Broken(#[source] reqwest::Error),
    #[error("the model's server answered {status}{}", code.as_deref().map(|code| format!(" ({code})")).unwrap_or_default())]
    Status { status: u16, code: Option<String> },
    #[error("the model's answer cannot be used: {0}")]
    Garbage(&'static str),
    #[error(transparent)]
    NoClient(#[from] OutboundError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    OpenAi,
    Anthropic,
}

/// Where calls go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    dialect: Dialect,
    endpoint: String,
    /// Streams tell the token count only when asked to. Mistral always tells it, and refuses the question.
    usage_on_request: bool,
}

impl Route {
    /// Reads ZeroClaw's provider value: a name, `custom:<url>` (OpenAI's dialect) or `anthropic-custom:<url>`.
    /// `override_url` replaces a named provider's base URL.
    ///
    /// # Errors
    /// A sentence that does not repeat the value: a URL may hold a password.
    pub(super) fn parse(provider: &str, override_url: Option<&str>) -> Result<Self, String> {
        let provider = provider.trim();
        if let Some(url) = provider.strip_prefix("custom:") {
            return Self::new(Dialect::OpenAi, url);
        }
        if let Some(url) = provider.strip_prefix("anthropic-custom:") {
            return Self::new(Dialect::Anthropic, url);
        }
        let named = Provider::parse(&provider.to_ascii_lowercase())
            .map_err(|names| format!("the provider {names}, custom:<url> or anthropic-custom:<url>"))?;
        let dialect = if named == Provider::Anthropic { Dialect::Anthropic } else { Dialect::OpenAi };
        let route = match override_url.map(str::trim).filter(|url| !url.is_empty()) {
            None => Self::new(dialect, named.base_url()),
            // Ollama's own address has no path; its OpenAI-compatible side is under /v1.
            Some(url) if named == Provider::Ollama && has_no_path(url) => {
                Self::new(dialect, &format!("{}/v1", url.trim_end_matches('/')))
            }
            Some(url) => Self::new(dialect, url),
        }?;
        Ok(Self { usage_on_request: route.usage_on_request && named != Provider::Mistral, ..route })
    }

    fn new(dialect: Dialect, base: &str) -> Result<Self, String> {
        let base = base.trim().trim_end_matches('/');
        let url = reqwest::Url::parse(base).map_err(|_| "the provider's URL is not a URL".to_owned())?;
        // A password in it would be shown wherever the provider is.
        let named = !url.username().is_empty() || url.password().is_some();
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() || named {
            return Err("the provider's URL must start with http:// or https:// and have no user name".into());
        }
        // People give the base with and without its last parts; both mean the same place.
        let endpoint = match dialect {
            Dialect::OpenAi => format!("{}/chat/completions", base.trim_end_matches("/chat/completions")),
            Dialect::Anthropic => {
                format!("{}/v1/messages", base.trim_end_matches("/messages").trim_end_matches("/v1"))
            }
        };
        Ok(Self { dialect, endpoint, usage_on_request: dialect == Dialect::OpenAi })
    }
}

fn has_no_path(url: &str) -> bool {
    reqwest::Url::parse(url).is_ok_and(|url| url.path() == "/")
}

/// How often and how patiently a failed call is tried again.
#[derive(Debug, Clone, Copy)]
struct Retries {
    count: u32,
    first_pause_ms: u64,
}

/// A model that can be called.
pub(super) struct Model {
    route: Option<Route>,
    key: Option<Secret<String>>,
    name: String,
    temperature: f64,
    retries: Retries,
}

impl Model {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            // `Config::check` has seen to it that there is one.
            route: Route::parse(config.provider(), config.api_url.as_deref()).ok(),
            key: config.api_key.clone(),
            name: config.default_model.clone(),
            temperature: config.default_temperature,
            retries: Retries {
                count: config.reliability.provider_retries,
                first_pause_ms: config.reliability.provider_backoff_ms,
            },
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The host and port that calls go to.
    pub(super) fn host(&self) -> Option<(String, u16)> {
        let url = reqwest::Url::parse(&self.route.as_ref()?.endpoint).ok()?;
        let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        Some((host, url.port_or_known_default()?))
    }

    /// The same with what a caller wants different.
    #[must_use]
    pub(super) fn tuned(mut self, tuning: &Tuning) -> Self {
        if let Some(name) = &tuning.model {
            self.name.clone_from(name);
        }
        self.temperature = tuning.temperature.unwrap_or(self.temperature);
        self
    }

    /// Puts the turn to the model. What may succeed on another try is tried again, as long as nothing was passed on; the
    /// caller bounds the time. With `deltas` the answer is streamed, and each piece of text sent there as it comes.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub(super) async fn complete(
        &self,
        clients: &HttpClients,
        turn: &Turn,
        deltas: Option<&mpsc::Sender<String>>,
    ) -> Result<Completion, ModelError> {
        let Some(route) = &self.route else { return Err(ModelError::Garbage("no provider is configured")) };
        let mut body = match route.dialect {
            Dialect::OpenAi => openai::body(&self.name, self.temperature, turn),
            Dialect::Anthropic => anthropic::body(&self.name, self.temperature, turn),
        };
        if deltas.is_some() {
            body["stream"] = true.into();
            if route.usage_on_request {
                body["stream_options"] = serde_json::json!({ "include_usage": true });
            }
        }
        let call = http::Call { route, key: self.key.as_ref(), body, retries: self.retries };
        let response = http::send(clients, call).await?;
        match (route.dialect, deltas) {
            (Dialect::OpenAi, None) => openai::parse(&http::read(response).await?),
            (Dialect::Anthropic, None) => anthropic::parse(&http::read(response).await?),
            (Dialect::OpenAi, Some(deltas)) => sse::read(response, openai::Streamed::default(), deltas).await,
            (Dialect::Anthropic, Some(deltas)) => sse::read(response, anthropic::Streamed::default(), deltas).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(provider: &str, url: Option<&str>) -> String {
        Route::parse(provider, url).unwrap().endpoint
    }

    #[test]
    fn every_way_to_name_a_provider_leads_to_its_endpoint() {
        assert_eq!(endpoint("groq", None), "https://api.groq.com/openai/v1/chat/completions");
        assert_eq!(endpoint("OpenAI", Some("http://h:1/v1/")), "http://h:1/v1/chat/completions");
        assert_eq!(endpoint("ollama", Some("http://h:11434")), "http://h:11434/v1/chat/completions");
        assert_eq!(endpoint("custom:http://h:1/v1", Some("http://other")), "http://h:1/v1/chat/completions");
        assert_eq!(endpoint("custom:http://h/v1/chat/completions", None), "http://h/v1/chat/completions");
        assert_eq!(endpoint("anthropic", None), "https://api.anthropic.com/v1/messages");
        assert_eq!(endpoint("anthropic-custom:http://h:1", None), "http://h:1/v1/messages");
        assert_eq!(endpoint("anthropic", Some("http://h:1/v1")), "http://h:1/v1/messages");
    }

    #[test]
    fn what_is_no_provider_is_refused_without_being_repeated() {
        for bad in
            ["gtp", "custom:", "custom:ftp://planted@h", "custom:http://user:planted@h/v1", "anthropic-custom:planted"]
        {
            let error = Route::parse(bad, None).unwrap_err();
            assert!(!error.contains("planted"), "{error}");
        }
    }
}
