//! A chat completion request as OpenAI's clients send it. What we do not know in it is ignored, as others do.

use serde::Deserialize;

use crate::gateway::agent::{Ask, Source, Tools};
use crate::gateway::provider::{Message, ToolCall, ToolSpec, Tuning};
use crate::gateway::reply::Refusal;

#[derive(Deserialize)]
pub(super) struct Request {
    model: Option<String>,
    messages: Vec<Said>,
    #[serde(default)]
    pub(super) stream: bool,
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    tools: Vec<Tool>,
    temperature: Option<f64>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Deserialize)]
struct Tool {
    function: ToolSpec,
}

#[derive(Deserialize)]
struct Said {
    role: String,
    content: Option<Content>,
    #[serde(default)]
    tool_calls: Vec<Call>,
    tool_call_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    text: Option<String>,
}

#[derive(Deserialize)]
struct Call {
    id: String,
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    arguments: String,
}

impl Request {
    pub(super) fn wants_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options.include_usage)
    }

    /// The question to the agent.
    ///
    /// # Errors
    /// [`Refusal::Unusable`] for what it cannot be asked.
    pub(super) fn into_ask(self, default_model: &str) -> Result<Ask, Refusal> {
        if self.messages.is_empty() {
            return Err(Refusal::Unusable("messages must not be empty".into()));
        }
        if self.temperature.is_some_and(|temperature| !(0.0..=2.0).contains(&temperature)) {
            return Err(Refusal::Unusable("temperature must be 0 to 2".into()));
        }
        let conversation: Vec<Message> = self.messages.into_iter().map(Said::read).collect::<Result<_, _>>()?;
        // Clients that must name a model and know none say one of these.
        let default = |model: &String| model.is_empty() || model == "default" || model == default_model;
        let tuning = Tuning {
            model: self.model.filter(|model| !default(model)),
            temperature: self.temperature,
            max_tokens: self.max_completion_tokens.or(self.max_tokens),
        };
        let tools = match self.tools.is_empty() {
            true => Tools::Own,
            false => Tools::Callers(self.tools.into_iter().map(|tool| tool.function).collect()),
        };
        Ok(Ask { conversation, tools, tuning, ..Ask::new(Source::OpenAi, "") })
    }
}

impl Said {
    fn read(self) -> Result<Message, Refusal> {
        let text = self.content.map(Content::text).transpose()?.unwrap_or_default();
        match self.role.as_str() {
            "system" | "developer" => Ok(Message::System(text)),
            "user" => Ok(Message::User(text)),
            "assistant" => {
                let calls = self.tool_calls.into_iter();
                let call =
                    |call: Call| ToolCall { id: call.id, name: call.function.name, arguments: call.function.arguments };
                Ok(Message::Assistant { text, tool_calls: calls.map(call).collect() })
            }
            "tool" => {
                let call_id = self.tool_call_id.ok_or(Refusal::BadBody("a tool message needs a tool_call_id"))?;
                Ok(Message::ToolResult { call_id, content: text })
            }
            _ => Err(Refusal::BadBody("a message's role must be system, developer, user, assistant or tool")),
        }
    }
}

impl Content {
    fn text(self) -> Result<String, Refusal> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Parts(parts) => {
                let texts: Option<Vec<String>> = parts.into_iter().map(|part| part.text).collect();
                Ok(texts.ok_or(Refusal::BadBody("only text content is understood"))?.concat())
            }
        }
    }
}
