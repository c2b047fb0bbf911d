//! What an OpenAI client asks for, as far as an agent can do it. What it cannot do is refused by name.

use serde_json::{Map, Value};

use super::bad;
use super::prompt::{Line, Role};
use crate::http::problem::{Code, Problem};

/// Which of the two endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Chat,
    Responses,
}

impl Kind {
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
        }
    }

    /// What belongs to the other endpoint alone.
    const fn foreign(self) -> &'static [&'static str] {
        match self {
            Self::Chat => &["input", "instructions", "truncation"],
            Self::Responses => &["messages"],
        }
    }

    const fn conversation(self) -> &'static str {
        match self {
            Self::Chat => "messages",
            Self::Responses => "input",
        }
    }
}

/// A question to an agent whose gateway takes one text at a time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) lines: Vec<Line>,
    pub(super) stream: bool,
}

/// Fields that change nothing of the answer, or that are read elsewhere.
const HARMLESS: [&str; 14] = [
    "model",
    "messages",
    "input",
    "instructions",
    "stream",
    "stream_options",
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "parallel_tool_calls",
    "truncation",
];
/// Values that ask for what happens anyway.
const DEFAULTS: [(&str, &[&str]); 17] = [
    ("n", &["1", "1.0"]),
    ("temperature", &["1", "1.0"]),
    ("top_p", &["1", "1.0"]),
    ("presence_penalty", &["0", "0.0"]),
    ("frequency_penalty", &["0", "0.0"]),
    ("logprobs", &["false"]),
    ("top_logprobs", &["0"]),
    ("logit_bias", &["{}"]),
    ("stop", &["[]"]),
    ("include", &["[]"]),
    ("text", &["{}", "{\"format\":{\"type\":\"text\"}}"]),
    ("tools", &["[]"]),
    ("functions", &["[]"]),
    ("tool_choice", &["\"auto\"", "\"none\""]),
    ("modalities", &["[\"text\"]"]),
    ("response_format", &["{\"type\":\"text\"}"]),
    ("background", &["false"]),
];

/// The body's fields. `null` means absent.
pub(super) fn fields(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(mut fields)) => {
            fields.retain(|_, value| !value.is_null());
            Ok(fields)
        }
        Ok(_) => Err(Problem::new(Code::Malformed, "The body must be a JSON object.")),
        Err(error) => {
            let at = format!("line {}, column {}", error.line(), error.column());
            Err(Problem::new(Code::Malformed, format!("The body is not JSON: {at}.")))
        }
    }
}

impl Ask {
    pub(super) fn read(kind: Kind, fields: &Map<String, Value>) -> Result<Self, Problem> {
        for (name, value) in fields {
            let asked_anyway = || {
                let value = value.to_string();
                DEFAULTS.iter().any(|(field, values)| field == name && values.contains(&value.as_str()))
            };
            let known = HARMLESS.contains(&name.as_str()) && !kind.foreign().contains(&name.as_str());
            if !known && !asked_anyway() {
                return Err(bad(
                    name,
                    "is not supported for this agent; its own settings decide, see PATCH /api/agents/{id}",
                ));
            }
        }
        let stream = match fields.get("stream") {
            None => false,
            Some(Value::Bool(stream)) => *stream,
            Some(_) => return Err(bad("stream", "must be true or false")),
        };
        let mut lines = Vec::new();
        if let Some(instructions) = fields.get("instructions") {
            let text = instructions.as_str().ok_or_else(|| bad("instructions", "must be text"))?;
            lines.push(Line::new(Role::System, text.to_owned()));
        }
        let name = kind.conversation();
        match fields.get(name) {
            Some(Value::String(text)) if kind == Kind::Responses => {
                lines.push(Line::new(Role::User, text.clone()));
            }
            Some(Value::Array(messages)) => {
                for (index, message) in messages.iter().enumerate() {
                    lines.push(line(message, &format!("{name}[{index}]"))?);
                }
            }
            Some(_) => return Err(bad(name, "must be a list of messages")),
            None => return Err(bad(name, "is required")),
        }
        if !lines.iter().any(|line| line.role == Role::User) {
            return Err(bad(name, "must have a message of the role user"));
        }
        Ok(Self { lines, stream })
    }
}

fn line(message: &Value, at: &str) -> Result<Line, Problem> {
    if message.get("type").and_then(Value::as_str).is_some_and(|kind| kind != "message") {
        return Err(bad(&format!("{at}.type"), "only messages are supported for this agent"));
    }
    let role = match message.get("role").and_then(Value::as_str) {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some(_) => return Err(bad(&format!("{at}.role"), "must be system, developer, user or assistant")),
        None => return Err(bad(&format!("{at}.role"), "is required")),
    };
    let calls = message.get("tool_calls").and_then(Value::as_array).is_some_and(|calls| !calls.is_empty());
    if calls {
        return Err(bad(&format!("{at}.tool_calls"), "the agent has tools of its own and takes none of the caller's"));
    }
    if message.get("function_call").is_some_and(|call| !call.is_null()) {
        return Err(bad(
            &format!("{at}.function_call"),
            "the agent has tools of its own and takes none of the caller's",
        ));
    }
    let text = match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => text_of(parts, at)?,
        None | Some(Value::Null) if role == Role::Assistant => String::new(),
        Some(_) | None => return Err(bad(&format!("{at}.content"), "must be text or a list of parts")),
    };
    let name = match message.get("name") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) if !name.trim().is_empty() => Some(name.clone()),
        Some(_) => return Err(bad(&format!("{at}.name"), "must be text that is not empty")),
    };
    Ok(Line { role, name, text })
}

fn text_of(parts: &[Value], at: &str) -> Result<String, Problem> {
    let texts: Result<Vec<&str>, Problem> = parts
        .iter()
        .enumerate()
        .map(|(index, part)| {
            let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
            let text = part.get(if kind == "refusal" { "refusal" } else { "text" }).and_then(Value::as_str);
            text.filter(|_| matches!(kind, "text" | "input_text" | "output_text" | "refusal"))
                .ok_or_else(|| bad(&format!("{at}.content[{index}].type"), "only text is supported for this agent"))
        })
        .collect();
    Ok(texts?.join("\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(kind: Kind, body: &Value) -> Result<Ask, Value> {
        let fields = fields(body.to_string().as_bytes()).unwrap();
        Ask::read(kind, &fields).map_err(|problem| problem.openai_body()["error"]["param"].clone())
    }

    #[test]
    fn null_is_absent_and_what_is_asked_anyway_is_taken() {
        let body = json!({
            "model": "ada", "messages": [{"role": "user", "content": "hi"}], "n": 1, "temperature": 1, "top_p": null,
            "tools": [], "stop": null, "response_format": {"type": "text"}, "user": "u", "stream": null
        });
        let ask = read(Kind::Chat, &body).unwrap();
        assert_eq!(ask, Ask { lines: vec![Line::new(Role::User, "hi".into())], stream: false });
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        let question = json!([{"role": "user", "content": "hi"}]);
        for (name, value) in [
            ("n", json!(2)),
            ("logprobs", json!(true)),
            ("top_logprobs", json!(3)),
            ("tools", json!([{"type": "function"}])),
            ("functions", json!([{}])),
            ("tool_choice", json!("required")),
            ("response_format", json!({"type": "json_object"})),
            ("stop", json!("x")),
            ("seed", json!(1)),
            ("temperature", json!(0.2)),
            ("max_tokens", json!(10)),
            ("modalities", json!(["audio"])),
            ("stream", json!("yes")),
            ("nonsense", json!(1)),
        ] {
            let body = json!({"messages": question, name: value});
            assert_eq!(read(Kind::Chat, &body), Err(json!(name)), "{name}");
        }
        for (messages, param) in [
            (json!("hi"), "messages"),
            (json!([]), "messages"),
            (json!([{"role": "assistant", "content": "hi"}]), "messages"),
            (json!([{"content": "hi"}]), "messages[0].role"),
            (json!([{"role": "tool", "content": "hi"}]), "messages[0].role"),
            (json!([{"role": "user"}]), "messages[0].content"),
            (json!([{"role": "user", "content": 3}]), "messages[0].content"),
            (json!([{"role": "user", "content": [{"type": "image_url"}]}]), "messages[0].content[0].type"),
            (json!([{"role": "assistant", "tool_calls": [{}]}]), "messages[0].tool_calls"),
            (json!([{"role": "assistant", "function_call": {"name": "f"}}]), "messages[0].function_call"),
            (json!([{"role": "user", "content": "hi", "name": 7}]), "messages[0].name"),
        ] {
            assert_eq!(read(Kind::Chat, &json!({"messages": messages})), Err(json!(param)), "{messages}");
        }
        assert_eq!(
            read(Kind::Responses, &json!({"input": "hi", "previous_response_id": "r"})),
            Err(json!("previous_response_id"))
        );
        let of_both = json!({"input": "hi", "messages": question});
        assert_eq!(read(Kind::Responses, &of_both), Err(json!("messages")));
        assert_eq!(read(Kind::Chat, &of_both), Err(json!("input")));
    }

    #[test]
    fn both_forms_of_input_are_read() {
        let text = read(Kind::Responses, &json!({"input": "hi", "instructions": "be short"})).unwrap();
        let parts = json!({"instructions": "be short", "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
        ]});
        assert_eq!(text, read(Kind::Responses, &parts).unwrap());
    }
}
