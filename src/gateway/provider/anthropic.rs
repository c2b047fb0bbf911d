//! Anthropic's messages API: the system prompt stands apart, and a tool's result is something the user says.
//!
//! Blocks that we do not know, thinking among them, are kept whole and in order: the next call of a round is refused
//! without them.

use serde_json::{Map, Value, json};

use super::Turn;
use super::error::{ModelError, Reason};
use super::message::{
    AssistantMessage, Completion, Message, ToolCall, Usage, arguments, arguments_object, spoken, with_ids,
};
use super::reader::Assembler;

/// The API wants a limit for each answer, in tokens.
const MAX_TOKENS: u32 = 4096;
/// Blocks of one answer.
const BLOCKS: usize = 256;
/// Where the blocks of an answer are kept.
const KEPT: &str = "anthropic_content";

/// # Errors
/// [`Reason::Unsupported`] for what a caller wants and this API does not have.
pub(super) fn body(model: &str, host: &str, turn: &Turn) -> Result<Value, ModelError> {
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
        "messages": messages(&turn.messages, host),
    });
    if let Some(temperature) = turn.temperature {
        // Its scale ends at 1, that of the others at 2.
        body["temperature"] = temperature.min(1.0).into();
    }
    if !system.is_empty() {
        body["system"] = system.join("\n\n").into();
    }
    if !turn.tools.is_empty() {
        let tool = |tool: &super::ToolSpec| {
            let schema =
                if tool.parameters.is_object() { tool.parameters.clone() } else { json!({ "type": "object" }) };
            json!({ "name": tool.name, "description": tool.description, "input_schema": schema })
        };
        body["tools"] = turn.tools.iter().map(tool).collect();
        // Calls in the conversation are refused where their tools are not offered.
        if turn.must_answer {
            body["tool_choice"] = json!({ "type": "none" });
        }
    }
    for (name, value) in &turn.options {
        option(&mut body, name, value)?;
    }
    if turn.options.get("parallel_tool_calls") == Some(&Value::Bool(false)) && body["tools"].is_array() {
        if body["tool_choice"].is_null() {
            body["tool_choice"] = json!({ "type": "auto" });
        }
        if body["tool_choice"]["type"] != "none" {
            body["tool_choice"]["disable_parallel_tool_use"] = true.into();
        }
    }
    Ok(body)
}

/// Puts one of OpenAI's options in this API's terms.
fn option(body: &mut Value, name: &str, value: &Value) -> Result<(), ModelError> {
    match name {
        "stop" => body["stop_sequences"] = if value.is_string() { json!([value]) } else { value.clone() },
        "top_p" | "top_k" | "thinking" => body[name] = value.clone(),
        "tool_choice" => {
            body["tool_choice"] = match (value.as_str(), value["function"]["name"].as_str()) {
                (Some("none" | "auto"), _) => json!({ "type": value }),
                (Some("required"), _) => json!({ "type": "any" }),
                (_, Some(function)) => json!({ "type": "tool", "name": function }),
                _ => return Err(ModelError::unsupported(name)),
            };
        }
        // What clients send without being told to, and what asks for nothing.
        "presence_penalty" | "frequency_penalty" if value.as_f64() == Some(0.0) => {}
        "logit_bias" if value.as_object().is_some_and(Map::is_empty) => {}
        // With the choice of the tool, see above.
        "parallel_tool_calls" if value.is_boolean() => {}
        "response_format" if value["type"] == "text" => {}
        _ => return Err(ModelError::unsupported(name)),
    }
    Ok(())
}

/// The conversation with roles that take turns: neighbours of one role become one message with several parts.
fn messages(messages: &[Message], host: &str) -> Vec<Value> {
    let mut merged: Vec<(&'static str, Vec<Value>)> = Vec::new();
    for message in messages {
        let (role, parts) = match message {
            Message::System(_) => continue,
            Message::User(text) => ("user", vec![json!({ "type": "text", "text": text })]),
            Message::Named { name, text } => ("user", vec![json!({ "type": "text", "text": spoken(name, text) })]),
            Message::Assistant(said) => ("assistant", assistant_blocks(said, host)),
            Message::ToolResult { call_id, content } => {
                ("user", vec![json!({ "type": "tool_result", "tool_use_id": call_id, "content": content })])
            }
        };
        match merged.last_mut() {
            _ if parts.is_empty() => {}
            Some((last, earlier)) if *last == role => earlier.extend(parts),
            _ => merged.push((role, parts)),
        }
    }
    merged.into_iter().map(|(role, parts)| json!({ "role": role, "content": parts })).collect()
}

fn assistant_blocks(said: &AssistantMessage, host: &str) -> Vec<Value> {
    if let Some(Value::Array(blocks)) = said.extra_for(host).and_then(|extra| extra.get(KEPT)) {
        return blocks.clone();
    }
    // An empty text part is refused.
    let text = (!said.text.is_empty()).then(|| json!({ "type": "text", "text": said.text }));
    let calls = said.tool_calls.iter().map(|call| {
        json!({ "type": "tool_use", "id": call.id, "name": call.name, "input": arguments_object(&call.arguments) })
    });
    text.into_iter().chain(calls).collect()
}

/// Reads a whole answer.
pub(super) fn parse(answer: &Value) -> Result<Completion, ModelError> {
    let blocks = match &answer["content"] {
        Value::Array(blocks) => blocks.clone(),
        Value::String(text) => vec![json!({ "type": "text", "text": text })],
        Value::Null if answer["type"] == "message" => vec![],
        _ => return Err(ModelError::unreadable("it is not a message")),
    };
    completion(blocks, answer["stop_reason"].as_str().unwrap_or_default(), usage(&answer["usage"]))
}

fn completion(mut blocks: Vec<Value>, stop_reason: &str, usage: Usage) -> Result<Completion, ModelError> {
    // Written by the API beside thoughts and calls, and refused by it in the next call.
    blocks
        .retain(|block| block["type"] != "text" || block["text"].as_str().is_some_and(|text| !text.trim().is_empty()));
    if stop_reason == "refusal" {
        return Err(ModelError::new(Reason::Filtered, "the provider's filter stopped it"));
    }
    let text =
        blocks.iter().filter(|block| block["type"] == "text").filter_map(|block| block["text"].as_str()).collect();
    let calls = blocks.iter().filter(|block| block["type"] == "tool_use").map(|block| ToolCall {
        id: block["id"].as_str().unwrap_or_default().to_owned(),
        name: block["name"].as_str().unwrap_or_default().to_owned(),
        arguments: arguments(&block["input"]),
        extra: Map::new(),
    });
    let tool_calls = with_ids(calls.collect());
    let plain = |block: &Value| matches!(block["type"].as_str(), Some("text" | "tool_use"));
    let mut extra = Map::new();
    if !blocks.iter().all(plain) {
        extra.insert(KEPT.to_owned(), Value::Array(blocks));
    }
    let cut = matches!(stop_reason, "max_tokens" | "model_context_window_exceeded");
    let message = AssistantMessage { text, tool_calls, extra, from: String::new() };
    Ok(Completion { message, usage, cut, model: String::new() })
}

fn usage(usage: &Value) -> Usage {
    let count = |name: &str| usage[name].as_u64().unwrap_or(0);
    Usage {
        input_tokens: count("input_tokens") + count("cache_creation_input_tokens") + count("cache_read_input_tokens"),
        output_tokens: count("output_tokens"),
    }
}

/// A streamed answer on its way.
#[derive(Default)]
pub(super) struct Streamed {
    /// Blocks by the number that the server gives them, with the pieces of a call's input.
    blocks: Vec<(u64, Value, String)>,
    stop_reason: String,
    usage: Usage,
    finished: bool,
}

impl Assembler for Streamed {
    fn event(&mut self, event: &Value) -> Result<Option<String>, ModelError> {
        match event["type"].as_str().unwrap_or_default() {
            "message_start" => self.count(&event["message"]["usage"]),
            "content_block_start" => {
                if self.blocks.len() >= BLOCKS {
                    return Err(ModelError::unreadable("it has too many blocks"));
                }
                let block = event["content_block"].clone();
                let text = block["text"].as_str().unwrap_or_default().to_owned();
                self.blocks.push((event["index"].as_u64().unwrap_or(0), block, String::new()));
                return Ok(Some(text).filter(|text| !text.is_empty()));
            }
            "content_block_delta" => return Ok(self.add(event["index"].as_u64(), &event["delta"])),
            "message_delta" => {
                if let Some(reason) = event["delta"]["stop_reason"].as_str() {
                    self.stop_reason = reason.to_owned();
                }
                self.count(&event["usage"]);
            }
            "message_stop" => self.finished = true,
            _ => {}
        }
        Ok(None)
    }

    fn done(&mut self) {
        self.finished = true;
    }

    fn finish(self: Box<Self>) -> Result<Completion, ModelError> {
        if !self.finished {
            return Err(ModelError::new(Reason::Broken, "its stream ended before the answer did"));
        }
        let blocks = self.blocks.into_iter().map(|(_, mut block, input)| {
            // A tool without arguments streams none.
            if !input.is_empty() {
                block["input"] = arguments_object(&input);
            }
            block
        });
        completion(blocks.collect(), &self.stop_reason, self.usage)
    }
}

impl Streamed {
    fn count(&mut self, counted: &Value) {
        let counted = usage(counted);
        self.usage.input_tokens = self.usage.input_tokens.max(counted.input_tokens);
        self.usage.output_tokens = self.usage.output_tokens.max(counted.output_tokens);
    }

    fn add(&mut self, index: Option<u64>, delta: &Value) -> Option<String> {
        let at = self.blocks.iter().rposition(|(known, ..)| index.is_none_or(|index| index == *known))?;
        let (_, block, input) = &mut self.blocks[at];
        let (member, piece) = match delta["type"].as_str()? {
            "text_delta" => ("text", &delta["text"]),
            "thinking_delta" => ("thinking", &delta["thinking"]),
            "signature_delta" => ("signature", &delta["signature"]),
            "input_json_delta" => {
                input.push_str(delta["partial_json"].as_str().unwrap_or_default());
                return None;
            }
            _ => return None,
        };
        let piece = piece.as_str()?;
        block[member] = format!("{}{piece}", block[member].as_str().unwrap_or_default()).into();
        (member == "text" && !piece.is_empty()).then(|| piece.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> ToolCall {
        ToolCall { id: "c1".into(), name: "clock".into(), arguments: "{\"a\":1}".into(), extra: Map::new() }
    }

    #[test]
    fn roles_take_turns_and_the_system_prompt_stands_apart() {
        let said = AssistantMessage { tool_calls: vec![call()], ..AssistantMessage::default() };
        let turn = Turn {
            messages: vec![
                Message::system("be brief"),
                Message::user("time?"),
                Message::Assistant(said),
                Message::ToolResult { call_id: "c1".into(), content: "noon".into() },
                Message::user("thanks"),
            ],
            temperature: Some(1.7),
            ..Turn::default()
        };
        let body = body("m", "h", &turn).unwrap();
        assert_eq!((&body["system"], &body["temperature"]), (&json!("be brief"), &json!(1.0)));
        assert_eq!(body["messages"].as_array().unwrap().len(), 3);
        assert_eq!(body["messages"][1]["content"][0]["input"]["a"], 1);
        assert_eq!(body["messages"][2]["content"][0]["type"], "tool_result");
        assert_eq!(body["messages"][2]["content"][1]["text"], "thanks");
    }

    #[test]
    fn options_are_translated_or_refused_by_name() {
        let with = |name: &str, value: Value| {
            let options = [(name.to_owned(), value)].into_iter().collect();
            body("m", "h", &Turn { options, ..Turn::default() })
        };
        assert_eq!(with("stop", json!("x")).unwrap()["stop_sequences"], json!(["x"]));
        assert_eq!(with("tool_choice", json!("required")).unwrap()["tool_choice"]["type"], "any");
        assert_eq!(with("seed", json!(1)).unwrap_err().param.as_deref(), Some("seed"));
        assert_eq!(with("response_format", json!({ "type": "json_object" })).unwrap_err().reason, Reason::Unsupported);
    }

    #[test]
    fn thinking_goes_back_as_it_came_whole_and_streamed() {
        let whole = parse(&json!({
            "content": [{ "type": "thinking", "thinking": "hm", "signature": "c2ln" }, { "type": "text", "text": "hi" },
                        { "type": "tool_use", "id": "t", "name": "clock", "input": {} }],
            "stop_reason": "tool_use", "usage": { "input_tokens": 1, "output_tokens": 2 }
        }))
        .unwrap();
        let mut streamed = Box::new(Streamed::default());
        let block =
            |index: u64, block: Value| json!({ "type": "content_block_start", "index": index, "content_block": block });
        let delta = |index: u64, delta: Value| json!({ "type": "content_block_delta", "index": index, "delta": delta });
        for event in [
            json!({ "type": "message_start", "message": { "usage": { "input_tokens": 1, "output_tokens": 1 } } }),
            block(0, json!({ "type": "thinking", "thinking": "", "signature": "" })),
            delta(0, json!({ "type": "thinking_delta", "thinking": "hm" })),
            delta(0, json!({ "type": "signature_delta", "signature": "c2ln" })),
            block(1, json!({ "type": "text", "text": "" })),
            delta(1, json!({ "type": "text_delta", "text": "hi" })),
            block(2, json!({ "type": "tool_use", "id": "t", "name": "clock", "input": {} })),
            json!({ "type": "ping" }),
            json!({ "type": "message_delta", "delta": { "stop_reason": "tool_use" }, "usage": { "output_tokens": 2 } }),
            json!({ "type": "message_stop" }),
        ] {
            streamed.event(&event).unwrap();
        }
        let streamed = streamed.finish().unwrap();
        assert_eq!(whole, streamed);
        let turn = Turn { messages: vec![Message::Assistant(whole.message)], ..Turn::default() };
        let back = &body("m", "h", &turn).unwrap()["messages"][0]["content"];
        assert_eq!((&back[0]["signature"], &back[2]["name"]), (&json!("c2ln"), &json!("clock")));
    }

    #[test]
    fn what_is_no_message_is_an_error_and_so_is_a_refusal() {
        assert_eq!(parse(&json!({})).unwrap_err().reason, Reason::Unreadable);
        let refused = parse(&json!({ "content": [], "stop_reason": "refusal" }));
        assert_eq!(refused.unwrap_err().reason, Reason::Filtered);
    }
}
