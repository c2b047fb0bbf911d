//! Google's own Gemini API: contents made of parts, the model in the path, the key in a header.
//!
//! Newer models sign their thoughts, and refuse the next call of a round whose parts come back without the signatures:
//! the parts of an answer are kept whole and in order.

use serde_json::{Map, Value, json};

use super::Turn;
use super::error::{ModelError, Reason};
use super::message::{
    AssistantMessage, Completion, Message, ToolCall, Usage, arguments, arguments_object, spoken, with_ids,
};
use super::reader::Assembler;

/// Where the parts of an answer are kept.
const KEPT: &str = "gemini_parts";
/// Parts of one answer; a stream brings one with each piece.
const PARTS: usize = 100_000;

/// # Errors
/// [`Reason::Unsupported`] for what a caller wants and this API does not have.
pub(super) fn body(host: &str, turn: &Turn) -> Result<Value, ModelError> {
    let mut body = json!({ "contents": contents(&turn.messages, host) });
    let system: Vec<Value> = turn
        .messages
        .iter()
        .filter_map(|message| match message {
            Message::System(text) => Some(json!({ "text": text })),
            _ => None,
        })
        .collect();
    if !system.is_empty() {
        body["systemInstruction"] = json!({ "parts": system });
    }
    if !turn.tools.is_empty() {
        let functions: Vec<Value> = turn.tools.iter().map(function).collect();
        body["tools"] = json!([{ "functionDeclarations": functions }]);
        if turn.must_answer {
            body["toolConfig"] = json!({ "functionCallingConfig": { "mode": "NONE" } });
        }
    }
    let mut generation = json!({});
    if let Some(temperature) = turn.temperature {
        generation["temperature"] = temperature.into();
    }
    if let Some(limit) = turn.max_tokens {
        generation["maxOutputTokens"] = limit.into();
    }
    for (name, value) in &turn.options {
        option(&mut body, &mut generation, name, value)?;
    }
    if generation.as_object().is_some_and(|members| !members.is_empty()) {
        body["generationConfig"] = generation;
    }
    Ok(body)
}

fn function(tool: &super::ToolSpec) -> Value {
    let mut function = json!({ "name": tool.name, "description": tool.description });
    let has_parameters = tool.parameters["properties"].as_object().is_some_and(|properties| !properties.is_empty());
    if has_parameters {
        function["parametersJsonSchema"] = tool.parameters.clone();
    }
    function
}

/// Puts one of OpenAI's options in this API's terms.
fn option(body: &mut Value, generation: &mut Value, name: &str, value: &Value) -> Result<(), ModelError> {
    let plain = match name {
        "top_p" => Some("topP"),
        "top_k" => Some("topK"),
        "seed" => Some("seed"),
        "presence_penalty" => Some("presencePenalty"),
        "frequency_penalty" => Some("frequencyPenalty"),
        _ => None,
    };
    if let Some(plain) = plain {
        generation[plain] = value.clone();
        return Ok(());
    }
    match name {
        "logit_bias" if value.as_object().is_some_and(serde_json::Map::is_empty) => {}
        "stop" => generation["stopSequences"] = if value.is_string() { json!([value]) } else { value.clone() },
        "tool_choice" => {
            let config = match (value.as_str(), value["function"]["name"].as_str()) {
                (Some("none"), _) => json!({ "mode": "NONE" }),
                (Some("auto"), _) => json!({ "mode": "AUTO" }),
                (Some("required"), _) => json!({ "mode": "ANY" }),
                (_, Some(function)) => json!({ "mode": "ANY", "allowedFunctionNames": [function] }),
                _ => return Err(ModelError::unsupported(name)),
            };
            body["toolConfig"] = json!({ "functionCallingConfig": config });
        }
        "response_format" => match value["type"].as_str() {
            Some("text") => {}
            Some("json_object") => generation["responseMimeType"] = "application/json".into(),
            Some("json_schema") => {
                generation["responseMimeType"] = "application/json".into();
                generation["responseJsonSchema"] = value["json_schema"]["schema"].clone();
            }
            _ => return Err(ModelError::unsupported(name)),
        },
        "parallel_tool_calls" if value == &Value::Bool(true) => {}
        _ => return Err(ModelError::unsupported(name)),
    }
    Ok(())
}

/// The conversation with roles that take turns, as the API wants it.
fn contents(messages: &[Message], host: &str) -> Vec<Value> {
    let mut merged: Vec<(&'static str, Vec<Value>)> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        let (role, parts) = match message {
            Message::System(_) => continue,
            Message::User(text) => ("user", vec![json!({ "text": text })]),
            Message::Named { name, text } => ("user", vec![json!({ "text": spoken(name, text) })]),
            Message::Assistant(said) => ("model", model_parts(said, host)),
            Message::ToolResult { call_id, content } => {
                let name = called(&messages[..at], call_id);
                let response = json!({ "name": name, "response": { "result": content } });
                ("user", vec![json!({ "functionResponse": response })])
            }
        };
        match merged.last_mut() {
            _ if parts.is_empty() => {}
            Some((last, earlier)) if *last == role => earlier.extend(parts),
            _ => merged.push((role, parts)),
        }
    }
    merged.into_iter().map(|(role, parts)| json!({ "role": role, "parts": parts })).collect()
}

/// The function that a call named; results say its name, not their call's id.
fn called<'a>(earlier: &'a [Message], call_id: &'a str) -> &'a str {
    let calls = earlier.iter().rev().filter_map(|message| match message {
        Message::Assistant(said) => Some(&said.tool_calls),
        _ => None,
    });
    calls.flatten().find(|call| call.id == call_id).map_or(call_id, |call| &call.name)
}

fn model_parts(said: &AssistantMessage, host: &str) -> Vec<Value> {
    if let Some(Value::Array(parts)) = said.extra_for(host).and_then(|extra| extra.get(KEPT)) {
        return parts.clone();
    }
    let text = (!said.text.is_empty()).then(|| json!({ "text": said.text }));
    let calls = said
        .tool_calls
        .iter()
        .map(|call| json!({ "functionCall": { "name": call.name, "args": arguments_object(&call.arguments) } }));
    text.into_iter().chain(calls).collect()
}

/// Reads a whole answer.
pub(super) fn parse(answer: &Value) -> Result<Completion, ModelError> {
    // Some relays send the pieces of a stream as one list.
    let mut streamed = Box::new(Streamed::default());
    let events = answer.as_array().map_or(std::slice::from_ref(answer), Vec::as_slice);
    if !events.iter().any(|event| event["candidates"].is_array() || event["promptFeedback"].is_object()) {
        return Err(ModelError::unreadable("it is not a list of candidates"));
    }
    for event in events {
        streamed.event(event)?;
    }
    // A whole answer is finished even where it does not say why.
    streamed.done();
    streamed.finish()
}

/// An answer on its way.
#[derive(Default)]
pub(super) struct Streamed {
    parts: Vec<Value>,
    usage: Usage,
    cut: bool,
    finished: bool,
}

impl Assembler for Streamed {
    fn event(&mut self, event: &Value) -> Result<Option<String>, ModelError> {
        if let Some(reason) = event["promptFeedback"]["blockReason"].as_str() {
            let detail = format!("the provider's filter stopped it ({reason})");
            return Err(ModelError::new(Reason::Filtered, detail));
        }
        let usage = &event["usageMetadata"];
        let count = |name: &str| usage[name].as_u64().unwrap_or(0);
        if usage.is_object() {
            self.usage = Usage {
                input_tokens: count("promptTokenCount"),
                output_tokens: count("candidatesTokenCount") + count("thoughtsTokenCount"),
            };
        }
        let candidate = &event["candidates"][0];
        let mut text = String::new();
        for part in candidate["content"]["parts"].as_array().into_iter().flatten() {
            if !is_thought(part) {
                text.push_str(part["text"].as_str().unwrap_or_default());
            }
            self.add(part.clone())?;
        }
        if let Some(reason) = candidate["finishReason"].as_str() {
            self.ended(reason)?;
        }
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    fn done(&mut self) {
        self.finished = true;
    }

    fn finish(self: Box<Self>) -> Result<Completion, ModelError> {
        if !self.finished {
            return Err(ModelError::new(Reason::Broken, "its stream ended before the answer did"));
        }
        let texts = self.parts.iter().filter(|part| !is_thought(part)).filter_map(|part| part["text"].as_str());
        let text = texts.collect();
        let calls = self.parts.iter().map(|part| &part["functionCall"]).filter(|call| call.is_object());
        let calls = calls.map(|call| ToolCall {
            id: call["id"].as_str().unwrap_or_default().to_owned(),
            name: call["name"].as_str().unwrap_or_default().to_owned(),
            arguments: arguments(&call["args"]),
            extra: Map::new(),
        });
        let tool_calls = with_ids(calls.collect());
        let mut extra = Map::new();
        if !self.parts.iter().all(is_plain) {
            extra.insert(KEPT.to_owned(), Value::Array(self.parts));
        }
        let message = AssistantMessage { text, tool_calls, extra, from: String::new() };
        Ok(Completion { message, usage: self.usage, cut: self.cut, model: String::new() })
    }
}

impl Streamed {
    /// Texts that follow one another are one part, as long as neither is signed.
    fn add(&mut self, part: Value) -> Result<(), ModelError> {
        let is_text = |part: &Value| part["text"].is_string() && part["thoughtSignature"].is_null();
        let full = self.parts.len() >= PARTS;
        match (self.parts.last_mut(), part["text"].as_str()) {
            (Some(last), Some(more)) if is_text(last) && is_text(&part) && is_thought(last) == is_thought(&part) => {
                last["text"] = format!("{}{more}", last["text"].as_str().unwrap_or_default()).into();
            }
            _ if full => return Err(ModelError::unreadable("it has too many parts")),
            _ => self.parts.push(part),
        }
        Ok(())
    }

    fn ended(&mut self, reason: &str) -> Result<(), ModelError> {
        self.finished = true;
        match reason {
            "MAX_TOKENS" => self.cut = true,
            "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "IMAGE_SAFETY" | "LANGUAGE" => {
                let detail = format!("the provider's filter stopped it ({reason})");
                return Err(ModelError::new(Reason::Filtered, detail));
            }
            "MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL" | "OTHER" => {
                return Err(ModelError::refused(502, &format!("the model stopped with {reason}")));
            }
            _ => {}
        }
        Ok(())
    }
}

fn is_thought(part: &Value) -> bool {
    part["thought"] == true
}

/// A part that can be written again from what we keep of it anyway.
fn is_plain(part: &Value) -> bool {
    let known = |name: &String| matches!(name.as_str(), "text" | "functionCall");
    part.as_object().is_some_and(|members| members.keys().all(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed_call() -> Value {
        json!({ "functionCall": { "name": "clock", "args": { "a": 1 } }, "thoughtSignature": "c2ln" })
    }

    fn answer(parts: Value, reason: &str) -> Value {
        json!({
            "candidates": [{ "content": { "role": "model", "parts": parts }, "finishReason": reason }],
            "usageMetadata": { "promptTokenCount": 3, "candidatesTokenCount": 4, "thoughtsTokenCount": 5 }
        })
    }

    #[test]
    fn text_calls_and_usage_are_read_and_thoughts_are_not_shown() {
        let parts = json!([{ "text": "hm", "thought": true }, { "text": "hi" }, signed_call()]);
        let completion = parse(&answer(parts, "STOP")).unwrap();
        assert_eq!(completion.message.text, "hi");
        assert_eq!(completion.usage, Usage { input_tokens: 3, output_tokens: 9 });
        let call = &completion.message.tool_calls[0];
        assert_eq!((call.name.as_str(), call.arguments.as_str()), ("clock", "{\"a\":1}"));
    }

    #[test]
    fn signed_parts_go_back_as_they_came_with_the_result_named() {
        let said = parse(&answer(json!([signed_call()]), "STOP")).unwrap().message;
        let id = said.tool_calls[0].id.clone();
        let turn = Turn {
            messages: vec![
                Message::system("be brief"),
                Message::user("time?"),
                Message::Assistant(said),
                Message::ToolResult { call_id: id, content: "noon".into() },
            ],
            ..Turn::default()
        };
        let body = body("h", &turn).unwrap();
        assert_eq!(body["systemInstruction"]["parts"][0]["text"], "be brief");
        assert_eq!(body["contents"][1]["parts"][0], signed_call());
        assert_eq!(body["contents"][2]["parts"][0]["functionResponse"]["name"], "clock");
        assert!(body["generationConfig"].is_null());
    }

    #[test]
    fn pieces_of_text_are_put_together() {
        let mut streamed = Box::new(Streamed::default());
        let piece = |text: &str| json!({ "candidates": [{ "content": { "parts": [{ "text": text }] } }] });
        assert_eq!(streamed.event(&piece("he")).unwrap().as_deref(), Some("he"));
        streamed.event(&piece("llo")).unwrap();
        streamed.event(&answer(json!([{ "text": "!" }]), "STOP")).unwrap();
        let message = streamed.finish().unwrap().message;
        assert_eq!((message.text.as_str(), message.extra.is_empty()), ("hello!", true));
        let mut broken = Box::new(Streamed::default());
        broken.event(&piece("half")).unwrap();
        assert_eq!(broken.finish().unwrap_err().reason, Reason::Broken);
    }

    #[test]
    fn filters_and_failures_are_errors() {
        for reason in ["SAFETY", "RECITATION", "PROHIBITED_CONTENT"] {
            assert_eq!(parse(&answer(json!([]), reason)).unwrap_err().reason, Reason::Filtered);
        }
        let blocked = json!({ "promptFeedback": { "blockReason": "SAFETY" } });
        assert_eq!(parse(&blocked).unwrap_err().reason, Reason::Filtered);
        assert_eq!(parse(&answer(json!([]), "MALFORMED_FUNCTION_CALL")).unwrap_err().status, Some(502));
        assert!(parse(&answer(json!([{ "text": "a" }]), "MAX_TOKENS")).unwrap().cut);
        assert_eq!(parse(&json!({})).unwrap_err().reason, Reason::Unreadable);
    }

    #[test]
    fn options_are_translated_or_refused_by_name() {
        let with = |name: &str, value: Value| {
            let options = [(name.to_owned(), value)].into_iter().collect();
            body("h", &Turn { options, ..Turn::default() })
        };
        assert_eq!(with("stop", json!("x")).unwrap()["generationConfig"]["stopSequences"], json!(["x"]));
        let json_object = with("response_format", json!({ "type": "json_object" })).unwrap();
        assert_eq!(json_object["generationConfig"]["responseMimeType"], "application/json");
        assert_eq!(with("tool_choice", json!("none")).unwrap()["toolConfig"]["functionCallingConfig"]["mode"], "NONE");
        assert_eq!(with("logit_bias", json!({ "5": 1 })).unwrap_err().param.as_deref(), Some("logit_bias"));
    }
}
