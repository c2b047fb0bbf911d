//! What comes of a question: what is told on the way, the answer, or why there is none.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::gateway::cost::LimitReached;
use crate::gateway::provider::{AssistantMessage, Completion, Message, ModelError, ToolCall, Usage};

/// What happens on the way to an answer.
#[derive(Debug)]
pub(in crate::gateway) enum Progress {
    Text(String),
    ToolCall(ToolCall),
    ToolResult {
        name: String,
        output: String,
        success: bool,
    },
    /// Nothing came for a while, and the model is still at work.
    Thinking {
        seconds: u64,
    },
}

#[derive(Debug, Default)]
pub(in crate::gateway) struct Answer {
    pub(in crate::gateway) text: String,
    pub(in crate::gateway) model: String,
    pub(in crate::gateway) usage: Usage,
    pub(in crate::gateway) cost_usd: f64,
    /// Our own tools that were run, with their success.
    pub(in crate::gateway) used: Vec<(String, bool)>,
    /// Calls to the caller's tools.
    pub(in crate::gateway) tool_calls: Vec<ToolCall>,
    pub(in crate::gateway) cut: bool,
    /// Earlier messages of the conversation that were left out; 0 unless the model called it too long.
    pub(in crate::gateway) left_out: usize,
    /// What the provider wants back with the next message, and whose it is.
    pub(in crate::gateway) extra: Map<String, Value>,
    pub(in crate::gateway) from: String,
}

#[derive(Debug, Clone, thiserror::Error)]
pub(in crate::gateway) enum AgentError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("the model did not answer within {} s ({setting} in config.toml)", limit.as_secs())]
    TookTooLong { limit: Duration, setting: &'static str },
    /// A fault of ours; the log has more.
    #[error("the work was interrupted")]
    Interrupted,
    #[error(transparent)]
    Limit(#[from] LimitReached),
}

impl AgentError {
    /// The member `model` of an answer that failed.
    pub(in crate::gateway) fn model_json(&self) -> Value {
        match self {
            Self::Model(error) => error.to_json(),
            Self::TookTooLong { .. } | Self::Interrupted | Self::Limit(_) => json!({
                "status": null, "code": self.code(), "type": null, "param": null, "message": self.to_string(),
                "host": null, "retryAfter": null, "retryable": !matches!(self, Self::Limit(_)),
            }),
        }
    }

    /// Its name in events and in what callers get.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Model(error) => error.own_code(),
            Self::TookTooLong { .. } => "timeout",
            Self::Interrupted => "interrupted",
            Self::Limit(_) => "spending_limit",
        }
    }
}

impl Answer {
    /// The answer as the next question of the conversation wants it.
    pub(in crate::gateway) fn message(&self) -> Message {
        Message::Assistant(AssistantMessage {
            text: self.text.clone(),
            tool_calls: self.tool_calls.clone(),
            extra: self.extra.clone(),
            from: self.from.clone(),
        })
    }

    /// Counts a call of the model in.
    pub(super) fn add(&mut self, completion: &Completion, cost_usd: f64) {
        self.usage.input_tokens += completion.usage.input_tokens;
        self.usage.output_tokens += completion.usage.output_tokens;
        self.cost_usd += cost_usd;
    }
}
