//! A chat completion request as OpenAI's clients send it.
//!
//! SDKs write every optional field, null where there is nothing: null is absent. What says how to answer is passed on to
//! the model's server; what cannot be honoured is refused by its name, never dropped in silence.

use axum::http::HeaderMap;
use serde_json::{Map, Value};

use crate::gateway::agent::{Ask, Source, Tools};
use crate::gateway::memory::Owner;
use crate::gateway::provider::{AssistantMessage, Message, ToolCall, ToolSpec, Tuning, spoken};
use crate::gateway::routes::webhook::session;

/// Why a request cannot be taken, with the parameter where it is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Invalid {
    pub(super) message: String,
    pub(super) param: Option<String>,
}

impl Invalid {
    pub(super) fn new(param: &str, message: impl Into<String>) -> Self {
        Self { message: message.into(), param: Some(param.to_owned()) }
    }
}

/// What a request asks for.
pub(super) struct Request {
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    pub(super) ask: Ask,
}

impl Request {
    /// The conversation comes along whole; what is remembered of it is the session's own.
    pub(super) fn of_session(mut self, headers: &HeaderMap) -> Self {
        if let Some(id) = session(headers) {
            self.ask.owner = Owner::session(id);
        }
        self
    }
}

/// Fields that change nothing for the answer.
const HARMLESS: [&str; 7] =
    ["user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "store"];

/// Fields that are whole numbers. Some languages write each number with a point: `100.0`.
const WHOLE: [&str; 5] = ["max_tokens", "max_completion_tokens", "n", "seed", "top_logprobs"];

/// Reads a request whose model may be left out.
///
/// # Errors
/// [`Invalid`] with the field.
pub(super) fn read(body: Value, default_model: &str) -> Result<Request, Invalid> {
    let Value::Object(fields) = body else {
        return Err(Invalid { message: "the body must be a JSON object".into(), param: None });
    };
    let mut draft = Draft::default();
    for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_null()) {
        draft.take(&name, value)?;
    }
    draft.finish(default_model)
}

/// A request on its way.
#[derive(Default)]
struct Draft {
    messages: Option<Vec<Message>>,
    tools: Vec<ToolSpec>,
    tool_choice: Option<Value>,
    tuning: Tuning,
    stream: bool,
    include_usage: bool,
}

impl Draft {
    fn take(&mut self, name: &str, value: Value) -> Result<(), Invalid> {
        let value = if WHOLE.contains(&name) { whole(value) } else { value };
        let is_off = matches!(&value, Value::Bool(false)) || value.as_u64() == Some(0);
        match name {
            "model" => self.tuning.model = Some(text(name, &value)?.to_owned()),
            "messages" => self.messages = Some(messages(&value)?),
            "stream" => self.stream = flag(name, &value)?,
            "stream_options" => self.include_usage = value["include_usage"] == true,
            "tools" => self.tools = tools(&value)?,
            "tool_choice" => self.tool_choice = Some(value),
            "temperature" => self.tuning.temperature = Some(number(name, &value, 2.0)?),
            "max_tokens" if self.tuning.newer_limit_name => {}
            "max_tokens" => self.tuning.max_tokens = Some(limit(name, &value)?),
            "max_completion_tokens" => {
                self.tuning.max_tokens = Some(limit(name, &value)?);
                self.tuning.newer_limit_name = true;
            }
            "n" if value.as_u64() != Some(1) => return Err(Invalid::new(name, "n must be 1: there is one answer")),
            "n" => {}
            "logprobs" | "top_logprobs" if !is_off => {
                return Err(Invalid::new(name, format!("{name} is not supported")));
            }
            "logprobs" | "top_logprobs" => {}
            "functions" | "function_call" => {
                return Err(Invalid::new(name, format!("{name} is not supported; use tools and tool_choice")));
            }
            "modalities" if value != serde_json::json!(["text"]) => {
                return Err(Invalid::new(name, "only text is supported"));
            }
            "modalities" => {}
            "audio" => return Err(Invalid::new(name, "audio is not supported")),
            _ if HARMLESS.contains(&name) => {}
            _ => {
                check_option(name, &value)?;
                self.tuning.options.insert(name.to_owned(), value);
            }
        }
        Ok(())
    }

    fn finish(mut self, default_model: &str) -> Result<Request, Invalid> {
        let conversation = self.messages.ok_or_else(|| Invalid::new("messages", "messages is required"))?;
        // Clients that must name a model and know none say one of these.
        let is_default = |model: &String| model.is_empty() || model == "default" || model == default_model;
        self.tuning.model = self.tuning.model.filter(|model| !is_default(model));
        if self.tuning.options.get("response_format").is_some_and(|format| format["type"] == "text") {
            self.tuning.options.remove("response_format");
        }
        let tools = if self.tools.is_empty() {
            self.tuning.options.remove("parallel_tool_calls");
            match self.tool_choice.as_ref().map(|choice| choice.as_str()) {
                None | Some(Some("auto")) => Tools::Own,
                Some(Some("none")) => Tools::None,
                Some(_) => return Err(Invalid::new("tool_choice", "tool_choice needs tools")),
            }
        } else {
            if let Some(choice) = self.tool_choice {
                check_choice(&choice, &self.tools)?;
                self.tuning.options.insert("tool_choice".to_owned(), choice);
            }
            Tools::Callers(self.tools)
        };
        let ask = Ask { conversation, tools, tuning: self.tuning, ..Ask::new(Source::OpenAi, "") };
        Ok(Request { stream: self.stream, include_usage: self.include_usage, ask })
    }
}

fn check_option(name: &str, value: &Value) -> Result<(), Invalid> {
    let is_right = match name {
        "top_p" => value.as_f64().is_some_and(|number| (0.0..=1.0).contains(&number)),
        "presence_penalty" | "frequency_penalty" => value.as_f64().is_some_and(|number| (-2.0..=2.0).contains(&number)),
        "seed" => value.is_i64() || value.is_u64(),
        "stop" => value.is_string() || value.as_array().is_some_and(|list| list.iter().all(Value::is_string)),
        "response_format" => matches!(value["type"].as_str(), Some("text" | "json_object" | "json_schema")),
        "parallel_tool_calls" => value.is_boolean(),
        _ => true,
    };
    if is_right { Ok(()) } else { Err(Invalid::new(name, format!("{name} has no value that it can have"))) }
}

fn check_choice(choice: &Value, tools: &[ToolSpec]) -> Result<(), Invalid> {
    let function = choice["function"]["name"].as_str();
    match (choice.as_str(), function) {
        (Some("none" | "auto" | "required"), _) => Ok(()),
        (_, Some(name)) if tools.iter().any(|tool| tool.name == name) => Ok(()),
        (_, Some(_)) => Err(Invalid::new("tool_choice", "tool_choice names a function that is not among tools")),
        _ if choice["type"] == "allowed_tools" => Ok(()),
        _ => Err(Invalid::new("tool_choice", "tool_choice must be none, auto, required or a function")),
    }
}

fn text<'a>(name: &str, value: &'a Value) -> Result<&'a str, Invalid> {
    value.as_str().ok_or_else(|| Invalid::new(name, format!("{name} must be a string")))
}

fn flag(name: &str, value: &Value) -> Result<bool, Invalid> {
    value.as_bool().ok_or_else(|| Invalid::new(name, format!("{name} must be true or false")))
}

fn number(name: &str, value: &Value, most: f64) -> Result<f64, Invalid> {
    let number = value.as_f64().filter(|number| (0.0..=most).contains(number));
    number.ok_or_else(|| Invalid::new(name, format!("{name} must be 0 to {most}")))
}

fn limit(name: &str, value: &Value) -> Result<u32, Invalid> {
    let limit = value.as_u64().and_then(|limit| u32::try_from(limit).ok()).filter(|limit| *limit > 0);
    limit.ok_or_else(|| Invalid::new(name, format!("{name} must be a number of at least 1")))
}

/// A number without a fraction as the integer that it is; anything else as it came.
fn whole(value: Value) -> Value {
    /// Beyond it not every integer has a number with a point.
    const MOST: f64 = 9_007_199_254_740_992.0;
    match value.as_f64().filter(|number| value.is_f64() && number.fract() == 0.0 && number.abs() <= MOST) {
        Some(number) => Value::from(number as i64),
        None => value,
    }
}

fn tools(value: &Value) -> Result<Vec<ToolSpec>, Invalid> {
    let list = value.as_array().ok_or_else(|| Invalid::new("tools", "tools must be a list"))?;
    let tool = |tool: &Value| {
        if !matches!(tool["type"].as_str(), None | Some("function")) {
            return Err(Invalid::new("tools", "only tools of type function are supported"));
        }
        let function = without_nulls(&tool["function"]);
        serde_json::from_value(function).map_err(|_| Invalid::new("tools", "a tool needs a function with a name"))
    };
    list.iter().map(tool).collect()
}

fn without_nulls(value: &Value) -> Value {
    let members = value.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    Value::Object(members.map(|(name, value)| (name.clone(), value.clone())).collect())
}

fn messages(value: &Value) -> Result<Vec<Message>, Invalid> {
    let invalid = |message: &str| Invalid::new("messages", message);
    let list = value.as_array().filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| invalid("messages must be a list that is not empty"))?;
    list.iter().map(|said| message(&without_nulls(said))).collect()
}

fn message(said: &Value) -> Result<Message, Invalid> {
    let invalid = |message: &str| Invalid::new("messages", message);
    match said["role"].as_str().unwrap_or_default() {
        // Examples in a prompt name their speakers so.
        "system" | "developer" => {
            let text = content(&said["content"])?;
            Ok(Message::System(match name(said)? {
                Some(name) => spoken(name, &text),
                None => text,
            }))
        }
        "user" => {
            if said["content"].is_null() {
                return Err(invalid("a user's message needs its content"));
            }
            let text = content(&said["content"])?;
            Ok(match name(said)? {
                Some(name) => Message::Named { name: name.to_owned(), text },
                None => Message::User(text),
            })
        }
        "assistant" => Ok(Message::Assistant(assistant(said)?)),
        "tool" | "function" => {
            let call_id = said["tool_call_id"].as_str().or_else(|| said["name"].as_str());
            let call_id = call_id.ok_or_else(|| invalid("a tool message needs a tool_call_id"))?.to_owned();
            Ok(Message::ToolResult { call_id, content: content(&said["content"])? })
        }
        _ => Err(invalid("a message's role must be system, developer, user, assistant or tool")),
    }
}

/// Who of several speaks.
fn name(said: &Value) -> Result<Option<&str>, Invalid> {
    let invalid = || Invalid::new("messages", "a message's name must be a text that is not empty");
    match &said["name"] {
        Value::Null => Ok(None),
        name => name.as_str().filter(|name| !name.trim().is_empty()).map(Some).ok_or_else(invalid),
    }
}

fn assistant(said: &Value) -> Result<AssistantMessage, Invalid> {
    const KNOWN: [&str; 6] = ["role", "content", "tool_calls", "function_call", "refusal", "audio"];
    name(said)?;
    let mut extra: Map<String, Value> = said.as_object().cloned().unwrap_or_default();
    extra.retain(|name, value| !KNOWN.contains(&name.as_str()) && value != &Value::Array(vec![]));
    let text = match &said["content"] {
        // What a provider writes beside its text (thinking) comes back as it was.
        Value::Array(parts) if parts.iter().any(|part| part_text(part).is_none()) => {
            extra.insert("content".to_owned(), said["content"].clone());
            parts.iter().filter_map(part_text).collect()
        }
        other => content(other)?,
    };
    let text = if text.is_empty() { said["refusal"].as_str().unwrap_or_default().to_owned() } else { text };
    let listed = said["tool_calls"].as_array().into_iter().flatten();
    let mut tool_calls: Vec<ToolCall> = listed.map(call).collect::<Result<_, _>>()?;
    if said["function_call"].is_object() {
        tool_calls.push(call(&serde_json::json!({
            "id": said["function_call"]["name"], "function": said["function_call"]
        }))?);
    }
    Ok(AssistantMessage { text, tool_calls, extra, from: String::new() })
}

fn call(call: &Value) -> Result<ToolCall, Invalid> {
    let function = &call["function"];
    let name =
        function["name"].as_str().ok_or_else(|| Invalid::new("messages", "a tool call needs a function name"))?;
    let mut extra = without_nulls(call).as_object().cloned().unwrap_or_default();
    extra.retain(|name, _| !matches!(name.as_str(), "id" | "type" | "index" | "function"));
    let arguments = match &function["arguments"] {
        Value::String(text) => text.clone(),
        Value::Null => "{}".to_owned(),
        other => other.to_string(),
    };
    Ok(ToolCall { id: call["id"].as_str().unwrap_or_default().to_owned(), name: name.to_owned(), arguments, extra })
}

fn part_text(part: &Value) -> Option<&str> {
    match part["type"].as_str() {
        None | Some("text" | "input_text" | "output_text") => part["text"].as_str(),
        Some("refusal") => part["refusal"].as_str(),
        _ => None,
    }
}

fn content(content: &Value) -> Result<String, Invalid> {
    let only_text = || Invalid::new("messages", "only text content is supported");
    match content {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let texts: Option<Vec<&str>> = parts.iter().map(part_text).collect();
            Ok(texts.ok_or_else(only_text)?.concat())
        }
        _ => Err(only_text()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(name: &str, value: Value) -> Result<Request, Invalid> {
        let mut body = json!({ "messages": [{ "role": "user", "content": "hi" }] });
        body[name] = value;
        read(body, "m")
    }

    #[test]
    fn null_is_absent_everywhere() {
        for name in
            ["tools", "stream", "temperature", "stream_options", "max_tokens", "n", "stop", "tool_choice", "seed"]
        {
            let request = with(name, Value::Null).unwrap();
            assert!(request.ask.tuning.options.is_empty(), "{name}");
        }
        for name in ["tool_calls", "function_call", "refusal", "name", "audio", "reasoning_content"] {
            let mut said = json!({ "role": "assistant", "content": "b" });
            said[name] = Value::Null;
            let request = with("messages", json!([said])).unwrap();
            assert_eq!(request.ask.conversation, [Message::assistant("b")], "{name}");
        }
    }

    #[test]
    fn what_says_how_to_answer_is_passed_on() {
        for (name, value) in [
            ("stop", json!(["x"])),
            ("seed", json!(7)),
            ("top_p", json!(0.5)),
            ("response_format", json!({ "type": "json_object" })),
            ("reasoning_effort", json!("low")),
            ("something_new", json!(1)),
        ] {
            assert_eq!(with(name, value.clone()).unwrap().ask.tuning.options[name], value);
        }
        let request = with("max_completion_tokens", json!(5)).unwrap();
        assert_eq!((request.ask.tuning.max_tokens, request.ask.tuning.newer_limit_name), (Some(5), true));
    }

    #[test]
    fn whole_numbers_may_have_a_point() {
        assert_eq!(with("max_tokens", json!(100.0)).unwrap().ask.tuning.max_tokens, Some(100));
        assert_eq!(with("max_completion_tokens", json!(5.0)).unwrap().ask.tuning.max_tokens, Some(5));
        for (value, sent) in [(json!(7.0), json!(7)), (json!(-7.0), json!(-7)), (json!(0.0), json!(0))] {
            assert_eq!(with("seed", value).unwrap().ask.tuning.options["seed"], sent);
        }
        for (name, value) in [("n", json!(1.0)), ("top_logprobs", json!(0.0))] {
            assert!(with(name, value).is_ok(), "{name}");
        }
        for (name, value) in [
            ("max_tokens", json!(1.5)),
            ("max_tokens", json!(0.0)),
            ("max_tokens", json!(-3.0)),
            ("max_tokens", json!(1e300)),
            ("n", json!(2.0)),
            ("seed", json!(0.5)),
            ("seed", json!("7")),
        ] {
            assert_eq!(with(name, value).err().unwrap().param.as_deref(), Some(name));
        }
        // A number that may have a fraction stays as it came.
        assert_eq!(with("top_p", json!(1.0)).unwrap().ask.tuning.options["top_p"], json!(1.0));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        for (name, value) in [
            ("n", json!(2)),
            ("logprobs", json!(true)),
            ("functions", json!([])),
            ("modalities", json!(["text", "audio"])),
            ("audio", json!({})),
            ("tool_choice", json!("required")),
            ("temperature", json!(3)),
            ("top_p", json!("x")),
            ("max_tokens", json!(0)),
            ("stream", json!("yes")),
            ("tools", json!([{ "type": "web_search" }])),
            ("messages", json!([])),
            ("messages", json!([{ "role": "user" }])),
            ("messages", json!([{ "role": "user", "content": null }])),
            ("messages", json!([{ "role": "user", "content": [{ "type": "image_url" }] }])),
        ] {
            let invalid = with(name, value).err().unwrap();
            assert_eq!(invalid.param.as_deref(), Some(name));
        }
    }

    #[test]
    fn a_message_keeps_its_speaker() {
        let conversation = with(
            "messages",
            json!([
                { "role": "system", "name": "example_user", "content": "a" }, { "role": "user", "name": "bob", "content": "b" },
                { "role": "assistant", "name": "ada", "content": "c" }, { "role": "user", "name": null, "content": "d" },
            ]),
        );
        let conversation = conversation.unwrap().ask.conversation;
        let [Message::System(example), question, Message::Assistant(answer), last] = &conversation[..] else {
            panic!()
        };
        assert_eq!((example.as_str(), &answer.extra["name"]), ("example_user: a", &json!("ada")));
        assert_eq!(question, &Message::Named { name: "bob".into(), text: "b".into() });
        assert_eq!(last, &Message::user("d"));
        for (role, name) in [("user", json!(7)), ("assistant", json!("")), ("system", json!({}))] {
            let refused = with("messages", json!([{ "role": role, "name": name, "content": "hi" }]));
            assert!(refused.err().unwrap().message.contains("name"), "{role}");
        }
    }

    #[test]
    fn members_of_a_provider_come_back_with_the_message() {
        let said = json!({ "role": "assistant", "content": [{ "type": "thinking", "thinking": "hm" }, { "type": "text", "text": "a" }],
            "reasoning_content": "r", "tool_calls": [{ "id": "c", "type": "function", "extra_content": { "x": 1 },
            "function": { "name": "f", "arguments": { "a": 1 } } }] });
        let request = with("messages", json!([said])).unwrap();
        let Message::Assistant(said) = &request.ask.conversation[0] else { panic!() };
        assert_eq!((said.text.as_str(), &said.extra["reasoning_content"]), ("a", &json!("r")));
        assert!(said.extra.contains_key("content"));
        assert_eq!(
            (said.tool_calls[0].arguments.as_str(), &said.tool_calls[0].extra["extra_content"]["x"]),
            ("{\"a\":1}", &json!(1))
        );
    }
}
