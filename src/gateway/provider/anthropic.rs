//! Anthropic's messages API: the system prompt stands apart, and a tool's result is something the user says.

use serde::Deserialize;
use serde_json::{Value, json};

use super::sse::Assembler;
use super::{Completion, Message, ModelError, ToolCall, Turn, Usage};

/// The API wants a limit for each answer, in tokens.
const MAX_TOKENS: u32 = 4096;

pub(super) fn body(model: &str, temperature: f64, turn: &Turn) -> Value {
    let system: Vec<&str> = turn
        .messages
        .iter()
        .filter_map(|message| match message {
            Message::System(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    let mut body = json!({
        "model": model,
        "max_tokens": turn.max_tokens.unwrap_or(MAX_TOKENS),
        "messages": messages(&turn.messages),
        // Its scale ends at 1, that of the others at 2.
        "temperature": temperature.min(1.0),
    });
    if !system.is_empty() {
        body["system"] = system.join("\n\n").into();
    }
    if !turn.tools.is_empty() {
        let tool = |tool: &super::ToolSpec| json!({ "name": tool.name, "description": tool.description, "input_schema": tool.parameters });
        body["tools"] = turn.tools.iter().map(tool).collect();
    }
    body
}

/// The conversation with roles that take turns: neighbours of one role become one message with several parts.
fn messages(messages: &[Message]) -> Vec<Value> {
    let mut merged: Vec<(&'static str, Vec<Value>)> = Vec::new();
    for message in messages {
        let (role, parts) = match message {
            Message::System(_) => continue,
            Message::User(text) => ("user", vec![json!({ "type": "text", "text": text })]),
            Message::Assistant { text, tool_calls } => ("assistant", assistant_parts(text, tool_calls)),
            Message::ToolResult { call_id, content } => {
                ("user", vec![json!({ "type": "tool_result", "tool_use_id": call_id, "content": content })])
            }
        };
        match merged.last_mut() {
            Some((last, earlier)) if *last == role => earlier.extend(parts),
            _ => merged.push((role, parts)),
        }
    }
    merged.into_iter().map(|(role, parts)| json!({ "role": role, "content": parts })).collect()
}

fn assistant_parts(text: &str, tool_calls: &[ToolCall]) -> Vec<Value> {
    // An empty text part is refused.
    let text = (!text.is_empty()).then(|| json!({ "type": "text", "text": text }));
    let calls = tool_calls.iter().map(|call| {
        let input: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
        json!({ "type": "tool_use", "id": call.id, "name": call.name, "input": input })
    });
    text.into_iter().chain(calls).collect()
}

#[derive(Deserialize)]
struct Answer {
    content: Vec<Part>,
    stop_reason: Option<String>,
    usage: Option<Tokens>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part {
    Text {
        text: String,
    },
    ToolUse {
        id: String,
        name: String,
        #[serde(default)]
        input: Value,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize, Default)]
struct Tokens {
    #[serde(default)]
    input_tokens: u64,
    #[serde(default)]
    output_tokens: u64,
}

pub(super) fn parse(answer: &[u8]) -> Result<Completion, ModelError> {
    let answer: Answer = serde_json::from_slice(answer).map_err(|_| ModelError::Garbage("it is not a message"))?;
    let tokens = answer.usage.unwrap_or_default();
    let mut completion = Completion {
        usage: Usage { input_tokens: tokens.input_tokens, output_tokens: tokens.output_tokens },
        cut: answer.stop_reason.as_deref() == Some("max_tokens"),
        ..Completion::default()
    };
    for part in answer.content {
        match part {
            Part::Text { text } => completion.text.push_str(&text),
            Part::ToolUse { id, name, input } => {
                completion.tool_calls.push(ToolCall { id, name, arguments: input.to_string() });
            }
            Part::Other => {}
        }
    }
    Ok(completion)
}

/// A streamed answer on its way.
#[derive(Default)]
pub(super) struct Streamed {
    completion: Completion,
    finished: bool,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event {
    MessageStart {
        message: Start,
    },
    ContentBlockStart {
        content_block: Part,
    },
    ContentBlockDelta {
        delta: PartDelta,
    },
    MessageDelta {
        delta: End,
        usage: Option<Tokens>,
    },
    MessageStop,
    /// Sent in the middle of a stream, e.g. when the servers are overloaded.
    Error,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Start {
    usage: Option<Tokens>,
}

#[derive(Deserialize)]
struct End {
    stop_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum PartDelta {
    TextDelta {
        text: String,
    },
    InputJsonDelta {
        partial_json: String,
    },
    #[serde(other)]
    Other,
}

impl Assembler for Streamed {
    fn event(&mut self, data: &str) -> Result<Option<String>, ModelError> {
        let event: Event = serde_json::from_str(data).map_err(|_| ModelError::Garbage("its stream has a bad event"))?;
        let completion = &mut self.completion;
        match event {
            Event::MessageStart { message } => {
                completion.usage.input_tokens = message.usage.unwrap_or_default().input_tokens;
            }
            Event::ContentBlockStart { content_block: Part::ToolUse { id, name, .. } } => {
                completion.tool_calls.push(ToolCall { id, name, arguments: String::new() });
            }
            Event::ContentBlockDelta { delta: PartDelta::TextDelta { text } } => {
                completion.text.push_str(&text);
                return Ok(Some(text).filter(|text| !text.is_empty()));
            }
            Event::ContentBlockDelta { delta: PartDelta::InputJsonDelta { partial_json } } => {
                // Blocks come one after the other, so what arrives belongs to the last.
                if let Some(call) = completion.tool_calls.last_mut() {
                    call.arguments.push_str(&partial_json);
                }
            }
            Event::MessageDelta { delta, usage } => {
                completion.cut = delta.stop_reason.as_deref() == Some("max_tokens");
                completion.usage.output_tokens = usage.unwrap_or_default().output_tokens;
            }
            Event::MessageStop => self.finished = true,
            Event::Error => return Err(ModelError::Garbage("its stream reports an error")),
            Event::ContentBlockStart { .. } | Event::ContentBlockDelta { .. } | Event::Other => {}
        }
        Ok(None)
    }

    fn finish(mut self) -> Result<Completion, ModelError> {
        if !self.finished {
            return Err(ModelError::Garbage("its stream ended early"));
        }
        // A tool without arguments streams none.
        for call in &mut self.completion.tool_calls {
            if call.arguments.is_empty() {
                call.arguments.push_str("{}");
            }
        }
        Ok(self.completion)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conversation_is_put_in_anthropics_words() {
        let call = ToolCall { id: "c1".into(), name: "clock".into(), arguments: "{\"a\":1}".into() };
        let turn = Turn {
            messages: vec![
                Message::System("be brief".into()),
                Message::User("time?".into()),
                Message::Assistant { text: String::new(), tool_calls: vec![call] },
                Message::ToolResult { call_id: "c1".into(), content: "noon".into() },
                Message::User("thanks".into()),
            ],
            ..Turn::default()
        };
        let body = body("m", 1.7, &turn);
        assert_eq!(body["system"], "be brief");
        assert_eq!(body["temperature"], 1.0);
        assert_eq!(body["messages"].as_array().unwrap().len(), 3);
        assert_eq!(body["messages"][1]["content"][0]["input"]["a"], 1);
        assert_eq!(body["messages"][2]["content"][0]["type"], "tool_result");
        assert_eq!(body["messages"][2]["content"][1]["text"], "thanks");
    }

    #[test]
    fn an_answer_is_read_and_unknown_parts_are_skipped() {
        let answer = json!({
            "content": [{ "type": "thinking", "thinking": "hm" }, { "type": "text", "text": "hi" },
                        { "type": "tool_use", "id": "t", "name": "clock", "input": {} }],
            "stop_reason": "tool_use", "usage": { "input_tokens": 1, "output_tokens": 2 }
        });
        let completion = parse(answer.to_string().as_bytes()).unwrap();
        assert_eq!(completion.text, "hi");
        assert_eq!(completion.tool_calls[0].arguments, "{}");
        assert!(matches!(parse(b"{}"), Err(ModelError::Garbage(_))));
    }
}
