//! The model behind the agent: whose API, where, and how a turn is put to it.
//!
//! Three APIs cover all providers: OpenAI's chat completions, Anthropic's messages and Google's Gemini. Each turns a
//! [`Turn`] into a body and an answer into a [`Completion`]; everything else is done once:
//!
//! ```text
//! Turn ─► body ─► what was learned of this model ─► http ─► reader ─► Completion
//!   ▲        ▲                                         │
//!   │        └── refused parameter, other address ◄────┤ refusal
//!   │        └── pause, and once more ◄────────────────┤ may pass
//!   └── next provider or model of the settings ◄───────┘ final
//! ```

mod anthropic;
mod body;
mod error;
mod gemini;
mod http;
mod learned;
mod message;
mod openai;
mod reader;
mod redact;
mod route;
mod thoughts;
mod words;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tokio::sync::mpsc;

pub(super) use error::{ModelError, Reason, whole_seconds};
pub(super) use learned::Learned;
pub(super) use message::{AssistantMessage, Completion, Message, ToolCall, ToolSpec, Usage, spoken};
pub(super) use route::{Route, is_loopback_host};

use self::http::Call;
use self::learned::Adaptation;
use self::reader::Pieces;
use self::route::{Dialect, Endpoint};
use super::config::Config;
use super::outbound::HttpClients;
use crate::domain::Secret;

/// Longest pause between two tries, also when the server asks for more: then the caller gets the error now.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// Changes of one call after refusals that name a parameter.
const CHANGES: u32 = 6;

/// What the model is asked.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    pub(super) messages: Vec<Message>,
    pub(super) tools: Vec<ToolSpec>,
    /// The tools are ours: a model that takes none answers without.
    pub(super) own_tools: bool,
    /// The model must answer now; the tools are there only for the calls that were made.
    pub(super) must_answer: bool,
    pub(super) temperature: Option<f64>,
    /// Longest answer; the provider's own limit if left out.
    pub(super) max_tokens: Option<u32>,
    /// OpenAI's name for it, which differs by model.
    pub(super) max_tokens_name: &'static str,
    /// What else the caller set, by OpenAI's names.
    pub(super) options: Map<String, Value>,
    /// No pause is made that ends after this.
    pub(super) deadline: Option<Instant>,
}

/// What a caller may choose for one answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Tuning {
    pub(super) model: Option<String>,
    pub(super) temperature: Option<f64>,
    pub(super) max_tokens: Option<u32>,
    /// The caller used the newer name of the limit.
    pub(super) newer_limit_name: bool,
    pub(super) options: Map<String, Value>,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            tools: Vec::new(),
            own_tools: false,
            must_answer: false,
            temperature: None,
            max_tokens: None,
            max_tokens_name: "max_tokens",
            options: Map::new(),
            deadline: None,
        }
    }
}

/// How often and how patiently a failed call is tried again.
#[derive(Debug, Clone, Copy)]
struct Retries {
    count: u32,
    first_pause: Duration,
}

/// A model of one provider.
#[derive(Debug, Clone)]
struct Target {
    route: Route,
    key: Option<Secret<String>>,
    name: String,
}

/// A model that can be called, with those that stand in for it.
pub(super) struct Model {
    /// The configured one first; empty where the settings name none that can be used.
    targets: Vec<Target>,
    name: String,
    temperature: Option<f64>,
    retries: Retries,
}

impl Model {
    pub(super) fn new(config: &Config) -> Self {
        let name = config.default_model.clone();
        Self {
            targets: targets(config, &name),
            name,
            temperature: config.default_temperature,
            retries: Retries {
                count: config.reliability.provider_retries,
                first_pause: Duration::from_millis(config.reliability.provider_backoff_ms),
            },
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The same with what a caller wants different. A model that the caller names has no other in its place.
    #[must_use]
    pub(super) fn tuned(mut self, tuning: &Tuning, config: &Config) -> Self {
        if let Some(name) = &tuning.model {
            self.name.clone_from(name);
            self.targets = targets(config, name);
        }
        self.temperature = tuning.temperature.or(self.temperature);
        self
    }

    /// Puts the turn to the model. What may succeed on another try is tried again, as long as nothing was passed on; the
    /// caller bounds the time. With `deltas` the answer is streamed, and each piece of text sent there as it comes.
    ///
    /// # Errors
    /// See [`ModelError`]: that of the configured model, where others stood in for it and failed as well.
    pub(super) async fn complete(
        &self,
        clients: &HttpClients,
        learned: &Learned,
        turn: &Turn,
        deltas: Option<&mpsc::Sender<String>>,
    ) -> Result<Completion, ModelError> {
        let passed_on = AtomicBool::new(false);
        let pieces = Pieces { to: deltas, passed_on: &passed_on };
        let mut first: Option<ModelError> = None;
        for (at, target) in self.targets.iter().enumerate() {
            let error = match self.call(target, clients, learned, turn, &pieces).await {
                Ok(completion) => return Ok(completion),
                Err(error) if passed_on.load(Ordering::Relaxed) => return Err(error),
                Err(error) => error,
            };
            if at + 1 < self.targets.len() {
                tracing::warn!(error = &error as &dyn std::error::Error, "model call failed, asking the next provider");
            }
            first.get_or_insert(error);
        }
        Err(first.unwrap_or_else(|| ModelError::new(Reason::NotConfigured, "no provider is configured")))
    }

    /// Asks the first provider for its models: free of cost, and a proof of address and key.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub(super) async fn check(&self, clients: &HttpClients) -> Result<Vec<String>, ModelError> {
        let Some(target) = self.targets.first() else {
            return Err(ModelError::new(Reason::NotConfigured, "no provider is configured"));
        };
        target.route.models(clients, target.key.as_ref()).await
    }

    /// Calls one target until it answers or nothing helps.
    async fn call(
        &self,
        target: &Target,
        clients: &HttpClients,
        learned: &Learned,
        turn: &Turn,
        pieces: &Pieces<'_>,
    ) -> Result<Completion, ModelError> {
        let address = target.route.endpoints.first().map(Endpoint::as_str).unwrap_or_default();
        let mut adaptation = learned.of(address, &target.name);
        let known = adaptation.clone();
        let mut tries = Tries::new(self.retries, target.route.endpoints.len());
        loop {
            let Some(endpoint) = target.route.endpoints.get(adaptation.endpoint) else {
                return Err(ModelError::new(Reason::NotConfigured, "no provider is configured"));
            };
            let key = target.key.as_ref();
            let named = |error: ModelError| error.at(&endpoint.host(), key.map(|key| key.expose().as_str()));
            let mut body = self.body(endpoint, target, turn, pieces.to.is_some()).map_err(named)?;
            adaptation.apply(&mut body);
            let url = endpoint.url(&target.name, pieces.to.is_some());
            let error = match http::send(clients, Call { endpoint, url, key, body: &body }, pieces).await {
                Ok(completion) if completion.message.is_empty() => named(empty(&completion)),
                Ok(completion) => {
                    if adaptation != known {
                        learned.remember(address, &target.name, adaptation);
                    }
                    return Ok(signed(completion, &endpoint.host(), &target.name));
                }
                Err(error) => named(error),
            };
            if pieces.passed_on.load(Ordering::Relaxed) {
                return Err(error);
            }
            tries.again(error, &mut adaptation, &body, turn).await?;
        }
    }

    fn body(&self, endpoint: &Endpoint, target: &Target, turn: &Turn, streamed: bool) -> Result<Value, ModelError> {
        let turn = Turn { temperature: turn.temperature.or(self.temperature), ..turn.clone() };
        let host = endpoint.host();
        let mut body = match endpoint.dialect {
            Dialect::OpenAi => openai::body(&target.name, &host, &turn),
            Dialect::Anthropic => anthropic::body(&target.name, &host, &turn)?,
            Dialect::Gemini => gemini::body(&host, &turn)?,
        };
        if streamed && endpoint.dialect != Dialect::Gemini {
            body["stream"] = true.into();
            if endpoint.dialect == Dialect::OpenAi && target.route.usage_on_request {
                body["stream_options"] = serde_json::json!({ "include_usage": true });
            }
        }
        Ok(body)
    }
}

/// The servers that are asked for the configured model, each with the key that it gets.
pub(super) fn recipients(config: &Config) -> Vec<(String, Secret<String>)> {
    let targets = targets(config, &config.default_model).into_iter();
    let keyed = targets.filter_map(|target| Some((target.route, target.key?)));
    keyed.flat_map(|(route, key)| route.endpoints.into_iter().map(move |at| (at.origin(), key.clone()))).collect()
}

impl Route {
    /// Asks for the models, at the first address that has any.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub(super) async fn models(
        &self,
        clients: &HttpClients,
        key: Option<&Secret<String>>,
    ) -> Result<Vec<String>, ModelError> {
        let mut first = None;
        for endpoint in &self.endpoints {
            match http::models(clients, endpoint, key).await {
                Ok(models) => return Ok(models),
                Err(error) => {
                    let more = is_elsewhere(&error);
                    first.get_or_insert(error.at(&endpoint.host(), key.map(|key| key.expose().as_str())));
                    if !more {
                        break;
                    }
                }
            }
        }
        Err(first.unwrap_or_else(|| ModelError::new(Reason::NotConfigured, "no provider is configured")))
    }

    /// Asks OpenRouter what it knows of the key: its list of models is for everybody.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub(super) async fn key_is_taken(
        &self,
        clients: &HttpClients,
        key: Option<&Secret<String>>,
    ) -> Result<(), ModelError> {
        let Some(endpoint) = self.endpoints.first() else { return Ok(()) };
        let asked = http::ask(clients, endpoint, endpoint.below("/key"), key).await;
        asked.map(drop).map_err(|error| error.at(&endpoint.host(), key.map(|key| key.expose().as_str())))
    }
}

/// What is left of the patience with one target.
struct Tries {
    retries: u32,
    pause: Duration,
    changes: u32,
    /// Addresses that were not tried yet, and what the first one answered.
    addresses: usize,
    not_there: Option<ModelError>,
    after_empty: bool,
}

impl Tries {
    fn new(retries: Retries, addresses: usize) -> Self {
        Self {
            retries: retries.count,
            pause: retries.first_pause,
            changes: CHANGES,
            addresses: addresses.saturating_sub(1),
            not_there: None,
            after_empty: true,
        }
    }

    /// Prepares another try and returns, or gives the error back where none is worth it.
    async fn again(
        &mut self,
        error: ModelError,
        adaptation: &mut Adaptation,
        sent: &Value,
        turn: &Turn,
    ) -> Result<(), ModelError> {
        if self.changes > 0 && adaptation.learn(&error, sent, turn.own_tools) {
            self.changes -= 1;
            tracing::info!(error = &error as &dyn std::error::Error, "the model refuses a parameter, trying without");
            return Ok(());
        }
        if is_elsewhere(&error) {
            if self.addresses == 0 {
                return Err(self.not_there.take().unwrap_or(error));
            }
            self.addresses -= 1;
            adaptation.endpoint =
                if self.not_there.is_none() && adaptation.endpoint > 0 { 0 } else { adaptation.endpoint + 1 };
            self.not_there.get_or_insert(error);
            return Ok(());
        }
        if error.reason == Reason::Empty && std::mem::take(&mut self.after_empty) {
            tracing::warn!("the model gave no text, trying once more");
            return Ok(());
        }
        let wait = error.retry_after.unwrap_or(self.pause);
        let too_late = turn.deadline.is_some_and(|deadline| Instant::now() + wait >= deadline);
        if self.retries == 0 || !error.is_worth_another_try() || wait > LONGEST_PAUSE || too_late {
            return Err(error);
        }
        self.retries -= 1;
        tracing::warn!(error = &error as &dyn std::error::Error, ?wait, "model call failed, trying again");
        tokio::time::sleep(wait).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// Whether there is no such endpoint, rather than no such model.
fn is_elsewhere(error: &ModelError) -> bool {
    let text = error.detail().to_ascii_lowercase();
    match error.reason {
        Reason::WebPage => true,
        Reason::Refused => match error.status {
            Some(405) => true,
            Some(404) => !text.contains("model") && !error.code.as_deref().unwrap_or_default().contains("model"),
            _ => false,
        },
        _ => false,
    }
}

fn empty(completion: &Completion) -> ModelError {
    let detail = match (completion.cut, completion.message.extra.is_empty()) {
        (true, _) => "the model reached its length limit before it wrote any text",
        (false, false) => "the model reasoned, and gave no text",
        (false, true) => "the model gave no text",
    };
    ModelError::new(Reason::Empty, detail)
}

/// The completion with whose it is.
fn signed(mut completion: Completion, host: &str, model: &str) -> Completion {
    completion.message.from = host.to_owned();
    completion.model = model.to_owned();
    completion
}

/// The models to ask, one after the other: for each model each provider.
fn targets(config: &Config, model: &str) -> Vec<Target> {
    let providers = config.providers();
    let stand_ins = config.reliability.model_fallbacks.get(model).cloned().unwrap_or_default();
    let models = std::iter::once(model.to_owned()).chain(stand_ins);
    let target = |name: &String, (route, key): &(Route, Option<Secret<String>>)| Target {
        route: route.clone(),
        key: key.clone(),
        name: name.clone(),
    };
    models.flat_map(|name| providers.iter().map(move |provider| target(&name, provider)).collect::<Vec<_>>()).collect()
}
