//! What an agent is, as flags: those of `agent create` and `agent update`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::Environment;
use crate::cli::account::given;
use crate::cli::model_key::ModelKeyArgs;
use crate::cli::outcome::Failure;

#[derive(Debug, Args)]
pub(in crate::cli) struct CreateArgs {
    name: String,
    /// openrouter, openai, anthropic, ollama, groq, gemini, mistral or deepseek.
    #[arg(long)]
    provider: String,
    #[arg(long)]
    model: String,
    #[arg(long)]
    slug: Option<String>,
    #[command(flatten)]
    spec: SpecArgs,
    /// Wait until it runs.
    #[arg(long)]
    pub(super) wait: bool,
}

/// Only what is given changes. A running agent is restarted where its instance must see the change.
#[derive(Debug, Args)]
pub(in crate::cli) struct UpdateArgs {
    pub(super) agent: String,
    #[arg(long)]
    name: Option<String>,
    /// Needs the new provider's key as well.
    #[arg(long)]
    provider: Option<String>,
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    spec: SpecArgs,
    /// Wait until it runs with the change.
    #[arg(long)]
    pub(super) wait: bool,
}

#[derive(Debug, Args)]
struct SpecArgs {
    #[command(flatten)]
    key: ModelKeyArgs,
    /// Instead of the provider's own URL.
    #[arg(long, value_name = "URL")]
    provider_url: Option<String>,
    /// 0 to 2.
    #[arg(long)]
    temperature: Option<f64>,
    /// Longest answer in tokens.
    #[arg(long, value_name = "TOKENS")]
    max_tokens: Option<u32>,
    /// What it calls itself.
    #[arg(long)]
    agent_name: Option<String>,
    /// What it calls its user.
    #[arg(long)]
    user_name: Option<String>,
    /// Such as Europe/Zurich.
    #[arg(long)]
    timezone: Option<String>,
    #[arg(long)]
    communication_style: Option<String>,
    /// sqlite, markdown or none.
    #[arg(long)]
    memory_backend: Option<String>,
    /// Whether it keeps what it is told by itself.
    #[arg(long, value_name = "BOOL")]
    auto_save: Option<bool>,
    /// File with the channels as JSON: {"telegram": {"botToken": "…"}}.
    #[arg(long, value_name = "FILE")]
    channels: Option<PathBuf>,
}

impl CreateArgs {
    pub(super) fn body(&self, environment: &Environment) -> Result<Value, Failure> {
        let own = json!({ "name": self.name, "provider": self.provider, "model": self.model, "slug": self.slug });
        Ok(given(joined(own, self.spec.body(environment)?)))
    }
}

impl UpdateArgs {
    pub(super) fn body(&self, environment: &Environment) -> Result<Value, Failure> {
        let own = json!({ "name": self.name, "provider": self.provider, "model": self.model });
        let body = given(joined(own, self.spec.body(environment)?));
        if body.as_object().is_some_and(serde_json::Map::is_empty) {
            return Err(Failure::Usage("say what to change, e.g. --model NAME; `zeroone agent update --help`".into()));
        }
        Ok(body)
    }
}

impl SpecArgs {
    fn body(&self, environment: &Environment) -> Result<Value, Failure> {
        let channels = self.channels.as_ref().map(|path| {
            let text = std::fs::read_to_string(path);
            let json = text.map_err(|error| error.to_string());
            let json = json.and_then(|text| serde_json::from_str::<Value>(&text).map_err(|_| "not valid JSON".into()));
            json.map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))
        });
        Ok(json!({
            "apiKey": self.key.read(environment)?, "providerUrl": self.provider_url, "temperature": self.temperature,
            "maxTokens": self.max_tokens, "agentName": self.agent_name, "userName": self.user_name,
            "timezone": self.timezone, "communicationStyle": self.communication_style,
            "memoryBackend": self.memory_backend, "autoSave": self.auto_save, "channels": channels.transpose()?
        }))
    }
}

/// The members of both.
fn joined(one: Value, other: Value) -> Value {
    match (one, other) {
        (Value::Object(mut one), Value::Object(other)) => {
            one.extend(other);
            one.into()
        }
        (one, _) => one,
    }
}
