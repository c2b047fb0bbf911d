//! OpenAI's chat completions, which most providers offer, each with differences of its own.
//!
//! Answers are read as loose JSON: content may be text, parts or null, arguments text, an object or null, and members
//! that we do not know are kept for the next call.

use serde_json::{Map, Value, json};

use super::Turn;
use super::error::{ModelError, Reason};
use super::message::{
    AssistantMessage, Completion, Message, ToolCall, ToolSpec, Usage, arguments, spoken, unknown_members, with_ids,
};
use super::reader::Assembler;
use super::thoughts::{self, Thoughts};

/// Calls of one answer. A stream numbers them itself, and must not make us reserve memory for a made-up number.
const TOOL_CALLS: usize = 64;
const MESSAGE: [&str; 8] =
    ["role", "content", "tool_calls", "function_call", "refusal", "name", "audio", "annotations"];
const CALL: [&str; 4] = ["id", "type", "index", "function"];

pub(super) fn body(model: &str, host: &str, turn: &Turn) -> Value {
    let mut body = json!({
        "model": model,
        "messages": turn.messages.iter().map(|said| message(said, host)).collect::<Vec<_>>(),
        "stream": false,
    });
    if let Some(temperature) = turn.temperature {
        body["temperature"] = temperature.into();
    }
    if let Some(limit) = turn.max_tokens {
        body[turn.max_tokens_name] = limit.into();
    }
    for (name, value) in &turn.options {
        body[name] = value.clone();
    }
    if !turn.tools.is_empty() && !turn.must_answer {
        body["tools"] = turn.tools.iter().map(tool).collect();
    }
    body
}

fn tool(tool: &ToolSpec) -> Value {
    json!({ "type": "function", "function": tool })
}

fn message(message: &Message, host: &str) -> Value {
    match message {
        Message::System(text) => json!({ "role": "system", "content": text }),
        Message::User(text) => json!({ "role": "user", "content": text }),
        Message::Named { name, text } if is_name(name) => json!({ "role": "user", "name": name, "content": text }),
        Message::Named { name, text } => json!({ "role": "user", "content": spoken(name, text) }),
        Message::Assistant(said) => assistant(said, host),
        Message::ToolResult { call_id, content } => {
            json!({ "role": "tool", "tool_call_id": call_id, "content": content })
        }
    }
}

/// Whether OpenAI takes it for a name.
fn is_name(name: &str) -> bool {
    name.len() <= 64 && !name.contains(|c: char| c.is_whitespace() || matches!(c, '<' | '|' | '\\' | '/' | '>'))
}

fn assistant(said: &AssistantMessage, host: &str) -> Value {
    let none = Map::new();
    let extra = said.extra_for(host);
    let mut value = json!({ "role": "assistant", "content": said.text });
    if !said.tool_calls.is_empty() {
        // Some servers refuse an empty text beside calls, none refuses null.
        if said.text.is_empty() {
            value["content"] = Value::Null;
        }
        let calls = said.tool_calls.iter().map(|call| {
            let function = json!({ "name": call.name, "arguments": call.arguments });
            let mut value = json!({ "id": call.id, "type": "function", "function": function });
            for (name, member) in extra.map_or(&none, |_| &call.extra) {
                value[name] = member.clone();
            }
            value
        });
        value["tool_calls"] = calls.collect();
    }
    for (name, member) in extra.unwrap_or(&none) {
        value[name] = member.clone();
    }
    value
}

/// Reads a whole answer.
pub(super) fn parse(answer: &Value) -> Result<Completion, ModelError> {
    // Ollama's own API answers with the message at the top.
    let choice = match &answer["choices"] {
        Value::Array(choices) => choices.first().ok_or_else(|| ModelError::unreadable("it has no choices"))?,
        _ if answer["message"].is_object() => answer,
        _ => return Err(ModelError::unreadable("it is not a chat completion")),
    };
    let message = [&choice["message"], &choice["delta"]].into_iter().find(|message| message.is_object());
    let (message, text) = match (message, choice["text"].as_str()) {
        (Some(message), _) => (message, thoughts::without(&text_of(message))),
        (None, Some(text)) => (&Value::Null, text.to_owned()),
        (None, None) => return Err(ModelError::unreadable("it has no message")),
    };
    let mut calls: Vec<ToolCall> = listed(&message["tool_calls"]).filter_map(call).take(TOOL_CALLS).collect();
    if calls.is_empty() {
        calls.extend(call(&message["function_call"]));
    }
    let reason = finish_reason(choice).unwrap_or_default();
    ended(reason)?;
    let said = AssistantMessage { text, tool_calls: with_ids(calls), extra: extra(message), from: String::new() };
    Ok(Completion { message: said, usage: usage(answer), cut: is_cut(reason), model: String::new() })
}

fn finish_reason(choice: &Value) -> Option<&str> {
    choice["finish_reason"].as_str().or_else(|| choice["done_reason"].as_str())
}

/// An answer that was not cut off by a failure or a filter.
fn ended(reason: &str) -> Result<(), ModelError> {
    match reason {
        "error" => Err(ModelError::refused(502, "the model stopped with an error")),
        "content_filter" | "safety" => Err(ModelError::new(Reason::Filtered, "the provider's filter stopped it")),
        _ => Ok(()),
    }
}

fn is_cut(reason: &str) -> bool {
    matches!(reason, "length" | "max_tokens" | "model_length")
}

/// As it came, with thoughts that stand in it.
fn text_of(message: &Value) -> String {
    let text = content_text(&message["content"]);
    // A refusal is what the model says, in a place of its own.
    if text.is_empty() { message["refusal"].as_str().unwrap_or_default().to_owned() } else { text }
}

fn content_text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(part_text).collect(),
        Value::Object(_) => part_text(content),
        _ => String::new(),
    }
}

fn part_text(part: &Value) -> String {
    match part {
        Value::String(text) => text.clone(),
        Value::Object(_) if matches!(part["type"].as_str(), None | Some("text" | "output_text")) => {
            part["text"].as_str().unwrap_or_default().to_owned()
        }
        Value::Object(_) if part["type"] == "refusal" => part["refusal"].as_str().unwrap_or_default().to_owned(),
        _ => String::new(),
    }
}

/// What the provider wants back beside text and calls; content with more than text is one of it.
fn extra(message: &Value) -> Map<String, Value> {
    let mut extra = unknown_members(message, &MESSAGE);
    if let Value::Array(parts) = &message["content"]
        && parts.iter().any(|part| !matches!(part["type"].as_str(), None | Some("text" | "output_text")))
    {
        extra.insert("content".to_owned(), message["content"].clone());
    }
    extra
}

fn listed(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice).iter().filter(|value| value.is_object())
}

fn call(value: &Value) -> Option<ToolCall> {
    let function = if value["function"].is_object() { &value["function"] } else { value };
    let name = function["name"].as_str()?.trim().to_owned();
    let known: &[&str] =
        if value["function"].is_object() { &CALL } else { &["id", "type", "index", "name", "arguments"] };
    Some(ToolCall {
        id: id_of(&value["id"]),
        name,
        arguments: arguments(&function["arguments"]),
        extra: unknown_members(value, known),
    })
}

fn id_of(id: &Value) -> String {
    match id {
        Value::String(id) => id.clone(),
        Value::Number(id) => id.to_string(),
        _ => String::new(),
    }
}

fn usage(answer: &Value) -> Usage {
    let groq = &answer["x_groq"]["usage"];
    let usage = if answer["usage"].is_object() { &answer["usage"] } else { groq };
    let count = |names: [&str; 2], top: &str| {
        names.iter().find_map(|name| usage[*name].as_u64()).or_else(|| answer[top].as_u64()).unwrap_or(0)
    };
    Usage {
        input_tokens: count(["prompt_tokens", "input_tokens"], "prompt_eval_count"),
        output_tokens: count(["completion_tokens", "output_tokens"], "eval_count"),
    }
}

/// A streamed answer on its way.
#[derive(Default)]
pub(super) struct Streamed {
    completion: Completion,
    calls: Vec<Piecemeal>,
    thoughts: Thoughts,
    finished: bool,
}

/// A call that comes in pieces.
#[derive(Default)]
struct Piecemeal {
    index: Option<u64>,
    call: ToolCall,
}

impl Assembler for Streamed {
    fn event(&mut self, event: &Value) -> Result<Option<String>, ModelError> {
        let counted = usage(event);
        if counted != Usage::default() {
            self.completion.usage = counted;
        }
        self.finished |= event["done"] == true;
        let choice = match &event["choices"] {
            Value::Array(choices) => choices.first(),
            _ => event["message"].is_object().then_some(event),
        };
        let Some(choice) = choice else { return Ok(None) };
        let delta = if choice["delta"].is_object() { &choice["delta"] } else { &choice["message"] };
        for piece in listed(&delta["tool_calls"]) {
            self.add_call(piece)?;
        }
        if delta["function_call"].is_object() {
            self.add_call(&json!({ "index": 0, "function": delta["function_call"] }))?;
        }
        let more = unknown_members(delta, &MESSAGE);
        for (name, value) in more {
            merge(self.completion.message.extra.entry(name).or_insert(Value::Null), value);
        }
        if let Value::Array(parts) = &delta["content"] {
            self.keep_parts(parts);
        }
        let text = if delta.is_object() { text_of(delta) } else { content_text(&choice["text"]) };
        let text = self.thoughts.push(text);
        self.completion.message.text.push_str(&text);
        if let Some(reason) = finish_reason(choice).filter(|reason| !reason.is_empty()) {
            ended(reason)?;
            self.finished = true;
            self.completion.cut = is_cut(reason);
        }
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    fn done(&mut self) {
        self.finished = true;
    }

    fn finish(mut self: Box<Self>) -> Result<Completion, ModelError> {
        if !self.finished {
            return Err(ModelError::new(Reason::Broken, "its stream ended before the answer did"));
        }
        let mut calls: Vec<ToolCall> = self.calls.into_iter().map(|piecemeal| piecemeal.call).collect();
        for call in &mut calls {
            call.name = call.name.trim().to_owned();
            call.arguments = arguments(&Value::String(std::mem::take(&mut call.arguments)));
        }
        calls.retain(|call| !call.name.is_empty());
        self.completion.message.text.push_str(&self.thoughts.end());
        self.completion.message.tool_calls = with_ids(calls);
        Ok(self.completion)
    }
}

impl Streamed {
    fn add_call(&mut self, delta: &Value) -> Result<(), ModelError> {
        let (index, id) = (delta["index"].as_u64(), id_of(&delta["id"]));
        let function = if delta["function"].is_object() { &delta["function"] } else { delta };
        let name = function["name"].as_str().unwrap_or_default();
        let at = match self.calls.iter().rposition(|known| known.continues(index, &id, name)) {
            Some(at) => at,
            None if self.calls.len() >= TOOL_CALLS => return Err(ModelError::unreadable("it calls too many tools")),
            None => {
                self.calls.push(Piecemeal { index, call: ToolCall::default() });
                self.calls.len() - 1
            }
        };
        let call = &mut self.calls[at].call;
        if call.id.is_empty() {
            call.id = id;
        }
        if call.name != name {
            call.name.push_str(name);
        }
        match &function["arguments"] {
            Value::Null => {}
            Value::String(piece) => call.arguments.push_str(piece),
            whole => call.arguments = whole.to_string(),
        }
        for (name, value) in unknown_members(
            delta,
            if delta["function"].is_object() { &CALL } else { &["id", "type", "index", "name", "arguments"] },
        ) {
            merge(call.extra.entry(name).or_insert(Value::Null), value);
        }
        Ok(())
    }

    /// Content in parts comes in pieces of parts; neighbours of one kind are one part.
    fn keep_parts(&mut self, parts: &[Value]) {
        let kept = self.completion.message.extra.entry("content").or_insert_with(|| json!([]));
        let Value::Array(kept) = kept else { return };
        for part in parts {
            match kept.last_mut() {
                Some(last) if last["type"] == part["type"] => merge(last, part.clone()),
                _ => kept.push(part.clone()),
            }
        }
    }
}

impl Piecemeal {
    /// Whether a piece belongs to this call. Some servers number all calls alike and tell them apart by id.
    fn continues(&self, index: Option<u64>, id: &str, name: &str) -> bool {
        let same_index = index.is_none() || index == self.index;
        let another_id = !id.is_empty() && !self.call.id.is_empty() && id != self.call.id;
        // Without index and id, a name begins a new call.
        let begins = index.is_none() && id.is_empty() && !name.is_empty();
        same_index && !another_id && !begins
    }
}

/// Adds a piece of a member to what there is of it: texts grow, lists grow, marks stay.
fn merge(into: &mut Value, piece: Value) {
    const MARKS: [&str; 5] = ["type", "id", "format", "index", "role"];
    match (into, piece) {
        (Value::String(text), Value::String(more)) => text.push_str(&more),
        (Value::Array(list), Value::Array(more)) => {
            for item in more {
                let same = |other: &Value| {
                    item["index"].is_u64() && other["index"] == item["index"] && other["type"] == item["type"]
                };
                match list.iter().position(same) {
                    Some(at) => merge(&mut list[at], item),
                    None => list.push(item),
                }
            }
        }
        (Value::Object(members), Value::Object(more)) => {
            for (name, value) in more {
                match members.get_mut(&name) {
                    Some(known) if !MARKS.contains(&name.as_str()) => merge(known, value),
                    Some(_) => {}
                    None => {
                        members.insert(name, value);
                    }
                }
            }
        }
        (slot, value) => *slot = value,
    }
}

#[cfg(test)]
mod tests;
