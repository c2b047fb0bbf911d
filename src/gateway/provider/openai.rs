//! OpenAI's chat completions, which most providers speak.

use serde::Deserialize;
use serde_json::{Value, json};

use super::sse::Assembler;
use super::{Completion, Message, ModelError, ToolCall, Turn, Usage};

/// Calls to tools that one answer may hold. A stream numbers them itself, and must not make us reserve the world.
const TOOL_CALLS: usize = 64;

pub(super) fn body(model: &str, temperature: f64, turn: &Turn) -> Value {
    let mut body = json!({
        "model": model,
        "messages": turn.messages.iter().map(message).collect::<Vec<_>>(),
        "temperature": temperature,
        "stream": false,
    });
    if let Some(limit) = turn.max_tokens {
        body["max_tokens"] = limit.into();
    }
    if !turn.tools.is_empty() {
        body["tools"] = turn.tools.iter().map(|tool| json!({ "type": "function", "function": tool })).collect();
    }
    body
}

fn message(message: &Message) -> Value {
    match message {
        Message::System(text) => json!({ "role": "system", "content": text }),
        Message::User(text) => json!({ "role": "user", "content": text }),
        Message::Assistant { text, tool_calls } if tool_calls.is_empty() => {
            json!({ "role": "assistant", "content": text })
        }
        Message::Assistant { text, tool_calls } => {
            let calls: Vec<Value> = tool_calls
                .iter()
                .map(|call| {
                    let function = json!({ "name": call.name, "arguments": call.arguments });
                    json!({ "id": call.id, "type": "function", "function": function })
                })
                .collect();
            // Some servers refuse an empty text beside calls, none refuses null.
            let text = if text.is_empty() { Value::Null } else { text.as_str().into() };
            json!({ "role": "assistant", "content": text, "tool_calls": calls })
        }
        Message::ToolResult { call_id, content } => {
            json!({ "role": "tool", "tool_call_id": call_id, "content": content })
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    choices: Vec<Choice>,
    usage: Option<Tokens>,
}

#[derive(Deserialize)]
struct Choice {
    message: AnswerMessage,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct AnswerMessage {
    content: Option<String>,
    tool_calls: Option<Vec<AnswerCall>>,
}

#[derive(Deserialize)]
struct AnswerCall {
    #[serde(default)]
    id: String,
    function: AnswerFunction,
}

#[derive(Deserialize)]
struct AnswerFunction {
    name: String,
    #[serde(default)]
    arguments: String,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

impl From<Tokens> for Usage {
    fn from(tokens: Tokens) -> Self {
        Self { input_tokens: tokens.prompt_tokens, output_tokens: tokens.completion_tokens }
    }
}

pub(super) fn parse(answer: &[u8]) -> Result<Completion, ModelError> {
    let answer: Answer =
        serde_json::from_slice(answer).map_err(|_| ModelError::Garbage("it is not a chat completion"))?;
    let choice = answer.choices.into_iter().next().ok_or(ModelError::Garbage("it has no choices"))?;
    let calls = choice.message.tool_calls.unwrap_or_default().into_iter();
    let call =
        |call: AnswerCall| ToolCall { id: call.id, name: call.function.name, arguments: call.function.arguments };
    Ok(Completion {
        text: choice.message.content.unwrap_or_default(),
        tool_calls: with_ids(calls.map(call).collect()),
        usage: answer.usage.map(Usage::from).unwrap_or_default(),
        cut: choice.finish_reason.as_deref() == Some("length"),
    })
}

/// Some servers give calls no name of their own, and results must say whose they are.
fn with_ids(mut calls: Vec<ToolCall>) -> Vec<ToolCall> {
    for (index, call) in calls.iter_mut().enumerate().filter(|(_, call)| call.id.is_empty()) {
        call.id = format!("call_{index}");
    }
    calls
}

/// A streamed answer on its way.
#[derive(Default)]
pub(super) struct Streamed {
    completion: Completion,
    finished: bool,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<ChunkChoice>,
    usage: Option<Tokens>,
}

#[derive(Deserialize)]
struct ChunkChoice {
    #[serde(default)]
    delta: Delta,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<String>,
    tool_calls: Option<Vec<CallDelta>>,
}

#[derive(Deserialize)]
struct CallDelta {
    #[serde(default)]
    index: usize,
    id: Option<String>,
    function: Option<FunctionDelta>,
}

#[derive(Deserialize)]
struct FunctionDelta {
    name: Option<String>,
    arguments: Option<String>,
}

impl Assembler for Streamed {
    fn event(&mut self, data: &str) -> Result<Option<String>, ModelError> {
        if data == "[DONE]" {
            self.finished = true;
            return Ok(None);
        }
        let chunk: Chunk = serde_json::from_str(data).map_err(|_| ModelError::Garbage("its stream has a bad event"))?;
        if let Some(tokens) = chunk.usage {
            self.completion.usage = tokens.into();
        }
        let Some(choice) = chunk.choices.into_iter().next() else { return Ok(None) };
        if let Some(reason) = choice.finish_reason {
            self.finished = true;
            self.completion.cut = reason == "length";
        }
        for call in choice.delta.tool_calls.unwrap_or_default() {
            self.add_call(call)?;
        }
        let text = choice.delta.content.filter(|text| !text.is_empty());
        if let Some(text) = &text {
            self.completion.text.push_str(text);
        }
        Ok(text)
    }

    fn finish(mut self) -> Result<Completion, ModelError> {
        if !self.finished {
            return Err(ModelError::Garbage("its stream ended early"));
        }
        self.completion.tool_calls = with_ids(self.completion.tool_calls);
        Ok(self.completion)
    }
}

impl Streamed {
    fn add_call(&mut self, delta: CallDelta) -> Result<(), ModelError> {
        if delta.index >= TOOL_CALLS {
            return Err(ModelError::Garbage("it calls too many tools"));
        }
        let calls = &mut self.completion.tool_calls;
        while calls.len() <= delta.index {
            calls.push(ToolCall { id: String::new(), name: String::new(), arguments: String::new() });
        }
        let call = &mut calls[delta.index];
        if let Some(id) = delta.id {
            call.id = id;
        }
        if let Some(function) = delta.function {
            call.name.push_str(&function.name.unwrap_or_default());
            call.arguments.push_str(&function.arguments.unwrap_or_default());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_text_calls_and_usage_is_read() {
        let answer = json!({
            "choices": [{ "finish_reason": "length", "message": { "content": null, "tool_calls": [
                { "type": "function", "function": { "name": "clock", "arguments": "{}" } }
            ] } }],
            "usage": { "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7 }
        });
        let completion = parse(answer.to_string().as_bytes()).unwrap();
        assert_eq!((completion.tool_calls[0].name.as_str(), completion.tool_calls[0].id.as_str()), ("clock", "call_0"));
        assert_eq!(completion.usage, Usage { input_tokens: 3, output_tokens: 4 });
        assert!(completion.cut && completion.text.is_empty());
    }

    #[test]
    fn garbage_is_an_error() {
        for bad in ["", "<html>", "{}", r#"{"choices":[]}"#, r#"{"choices":[{}]}"#] {
            assert!(matches!(parse(bad.as_bytes()), Err(ModelError::Garbage(_))), "{bad}");
        }
    }

    #[test]
    fn a_stream_is_put_together_and_one_that_breaks_off_is_an_error() {
        let mut streamed = Streamed::default();
        let call = |call: &str| format!(r#"{{"choices":[{{"delta":{{"tool_calls":[{call}]}}}}]}}"#);
        assert_eq!(streamed.event(r#"{"choices":[{"delta":{"content":"hi"}}]}"#).unwrap(), Some("hi".into()));
        streamed.event(&call(r#"{"index":0,"id":"c","function":{"name":"clock"}}"#)).unwrap();
        streamed.event(&call(r#"{"index":0,"function":{"arguments":"{}"}}"#)).unwrap();
        assert!(streamed.event(&call(r#"{"index":999999999}"#)).is_err());
        streamed.event(r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#).unwrap();
        streamed.event("[DONE]").unwrap();
        let completion = streamed.finish().unwrap();
        assert_eq!((completion.text.as_str(), completion.usage.output_tokens), ("hi", 2));
        assert_eq!(completion.tool_calls[0], ToolCall { id: "c".into(), name: "clock".into(), arguments: "{}".into() });
        assert!(Streamed::default().finish().is_err());
    }
}
