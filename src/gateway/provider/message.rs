//! The conversation in our own terms. What a provider puts beside the text of its answers (reasoning, signatures of
//! thoughts) is kept as it came: the same provider refuses the next call without it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::gateway::persona::head;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::gateway) enum Message {
    System(String),
    User(String),
    /// What one of several users says, under the name that a client gave it.
    Named {
        name: String,
        text: String,
    },
    Assistant(AssistantMessage),
    ToolResult {
        call_id: String,
        content: String,
    },
}

/// What the model said: text, calls, or both.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::gateway) struct AssistantMessage {
    #[serde(default)]
    pub(in crate::gateway) text: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::gateway) tool_calls: Vec<ToolCall>,
    /// Members that only the provider understands, by its own names.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(in crate::gateway) extra: Map<String, Value>,
    /// Whose members they are: others would refuse them. Empty for those that a client sent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(in crate::gateway) from: String,
}

/// The model's wish to call a tool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::gateway) struct ToolCall {
    pub(in crate::gateway) id: String,
    pub(in crate::gateway) name: String,
    /// JSON text as the model wrote it; it need not be valid.
    pub(in crate::gateway) arguments: String,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(in crate::gateway) extra: Map<String, Value>,
}

/// A tool that the model may call; `parameters` is a JSON Schema.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::gateway) struct ToolSpec {
    pub(in crate::gateway) name: String,
    #[serde(default)]
    pub(in crate::gateway) description: String,
    #[serde(default)]
    pub(in crate::gateway) parameters: Value,
    /// What else a client wrote, such as `strict`.
    #[serde(flatten)]
    pub(in crate::gateway) extra: Map<String, Value>,
}

/// What the model answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::gateway) struct Completion {
    pub(in crate::gateway) message: AssistantMessage,
    pub(in crate::gateway) usage: Usage,
    /// The answer was cut at the model's length limit.
    pub(in crate::gateway) cut: bool,
    /// The model that answered; a fallback may have a name of its own.
    pub(in crate::gateway) model: String,
}

/// Tokens, as the provider counted them; zero where it did not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::gateway) struct Usage {
    pub(in crate::gateway) input_tokens: u64,
    pub(in crate::gateway) output_tokens: u64,
}

impl Message {
    pub(in crate::gateway) fn system(text: impl Into<String>) -> Self {
        Self::System(text.into())
    }

    pub(in crate::gateway) fn user(text: impl Into<String>) -> Self {
        Self::User(text.into())
    }

    /// What a user says, whichever of several.
    pub(in crate::gateway) fn question(&self) -> Option<&str> {
        match self {
            Self::User(text) | Self::Named { text, .. } => Some(text),
            Self::System(_) | Self::Assistant(_) | Self::ToolResult { .. } => None,
        }
    }

    /// Plain text of the assistant.
    pub(in crate::gateway) fn assistant(text: impl Into<String>) -> Self {
        Self::Assistant(AssistantMessage { text: text.into(), ..AssistantMessage::default() })
    }
}

/// A text under its speaker's name, for an API that has no place for names.
pub(in crate::gateway) fn spoken(name: &str, text: &str) -> String {
    format!("{name}: {text}")
}

impl AssistantMessage {
    /// Neither text nor a call.
    pub(super) fn is_empty(&self) -> bool {
        self.text.trim().is_empty() && self.tool_calls.is_empty()
    }

    /// As a history keeps it: without calls, whose results are in no history, at most so many bytes of text, and with what
    /// the provider wants back, unless that is longer than any answer is worth or belongs to a text that was cut.
    pub(in crate::gateway) fn kept(&self, longest: usize) -> Self {
        const EXTRA: usize = 64 * 1024;
        let text = head(&self.text, longest).to_owned();
        let whole = text.len() == self.text.len() && self.tool_calls.is_empty();
        let extra = if whole && self.extra_bytes() <= EXTRA { self.extra.clone() } else { Map::new() };
        let from = if extra.is_empty() { String::new() } else { self.from.clone() };
        Self { text, tool_calls: vec![], extra, from }
    }

    /// The length of what goes along beside the text.
    pub(in crate::gateway) fn extra_bytes(&self) -> usize {
        if self.extra.is_empty() { 0 } else { serde_json::to_string(&self.extra).map_or(0, |text| text.len()) }
    }

    /// The members for a provider, unless they are another one's.
    pub(super) fn extra_for(&self, host: &str) -> Option<&Map<String, Value>> {
        (self.from.is_empty() || self.from == host).then_some(&self.extra)
    }
}

/// Arguments in the form of text, whatever form the provider chose: an object, text, or text in text.
pub(super) fn arguments(value: &Value) -> String {
    match value {
        Value::String(text) if matches!(text.trim(), "" | "null") => "{}".to_owned(),
        Value::String(text) => match serde_json::from_str(text) {
            Ok(Value::String(inner)) => inner,
            _ => text.clone(),
        },
        Value::Null => "{}".to_owned(),
        other => other.to_string(),
    }
}

/// Arguments as the object that some APIs want; an empty one where they are none.
pub(super) fn arguments_object(text: &str) -> Value {
    serde_json::from_str(text).ok().filter(Value::is_object).unwrap_or_else(|| Value::Object(Map::new()))
}

/// The members of an object but the known and the empty ones.
pub(super) fn unknown_members(object: &Value, known: &[&str]) -> Map<String, Value> {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    };
    let members = object.as_object().into_iter().flatten();
    let kept = members.filter(|(name, value)| !known.contains(&name.as_str()) && !is_empty(value));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Calls without an id get one: results must say whose they are.
pub(super) fn with_ids(mut calls: Vec<ToolCall>) -> Vec<ToolCall> {
    for (index, call) in calls.iter_mut().enumerate().filter(|(_, call)| call.id.is_empty()) {
        call.id = format!("call_{index}");
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(text: &str, extra: &Value) -> AssistantMessage {
        let extra = extra.as_object().unwrap().clone();
        AssistantMessage { text: text.into(), extra, from: "api.example".into(), ..AssistantMessage::default() }
    }

    #[test]
    fn arguments_are_text_whatever_they_came_as() {
        for (value, text) in [
            (json!({ "a": 1 }), r#"{"a":1}"#),
            (json!(r#"{"a":1}"#), r#"{"a":1}"#),
            (json!(r#""{\"a\":1}""#), r#"{"a":1}"#),
            (json!("null"), "{}"),
            (json!(" "), "{}"),
            (Value::Null, "{}"),
            (json!("{\"a\":"), "{\"a\":"),
        ] {
            assert_eq!(arguments(&value), text, "{value}");
        }
    }

    #[test]
    fn histories_keep_what_the_provider_wants_back() {
        for extra in [
            json!({ "reasoning_content": "so" }),
            json!({ "reasoning_details": [{ "type": "reasoning.encrypted", "data": "x" }] }),
            json!({ "content": [{ "type": "thinking", "thinking": "so", "signature": "s" }, { "type": "text", "text": "hi" }] }),
        ] {
            let message = said("hi", &extra);
            assert_eq!(message.kept(100), message, "{extra}");
            let stored: AssistantMessage = serde_json::from_value(serde_json::to_value(&message).unwrap()).unwrap();
            assert_eq!(stored, message);
        }
    }

    #[test]
    fn members_of_what_was_cut_or_called_or_is_too_long_are_dropped() {
        let small = json!({ "reasoning_content": "so" });
        let plain = |text: &str| AssistantMessage { text: text.into(), ..AssistantMessage::default() };
        assert_eq!(said("hello", &small).kept(4), plain("hell"));
        assert_eq!(said("hi", &json!({ "reasoning_content": "x".repeat(70_000) })).kept(100), plain("hi"));
        let calls = vec![ToolCall::default()];
        assert_eq!(AssistantMessage { tool_calls: calls, ..said("hi", &small) }.kept(100), plain("hi"));
    }
}
