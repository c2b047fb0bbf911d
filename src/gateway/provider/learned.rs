//! What a model's server turned out not to take: learned from its refusals, remembered per address and model.
//!
//! Models differ in the parameters that they accept, and no list of them stays right. So the settings are sent as they
//! are, and where a refusal names a parameter the call is tried again without it, or under its new name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::error::{ModelError, Reason};
use super::message::spoken;
use super::words;

/// Models that are remembered; callers may make names up.
const MODELS: usize = 64;

/// Parameters that say how to answer rather than what: an answer without them is still the answer that was asked for.
const OPTIONAL: [&str; 22] = [
    "temperature",
    "top_p",
    "top_k",
    "topP",
    "topK",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "presencePenalty",
    "frequencyPenalty",
    "stream_options",
    "parallel_tool_calls",
    "reasoning_effort",
    "verbosity",
    "max_tokens",
    "max_completion_tokens",
    "maxOutputTokens",
    "user",
    "metadata",
    "store",
    "service_tier",
    "prompt_cache_key",
];

/// The member of a message that says who of several speaks.
const NAME: &str = "name";

/// The two names of one parameter.
const NAMES: [(&str, &str); 2] = [("max_tokens", "max_completion_tokens"), ("max_completion_tokens", "max_tokens")];

/// What is known of all models.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Learned {
    models: Mutex<BTreeMap<(String, String), Adaptation>>,
}

/// How a call is changed for one model.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Adaptation {
    dropped: BTreeSet<String>,
    renamed: BTreeMap<String, String>,
    /// Members of messages that are left out.
    members: BTreeSet<String>,
    without_tools: bool,
    /// The words of the system go in front of the first of the user's.
    without_system: bool,
    /// The answer comes whole.
    without_stream: bool,
    /// Which of the addresses is right.
    pub(super) endpoint: usize,
}

impl Learned {
    pub(super) fn of(&self, address: &str, model: &str) -> Adaptation {
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        models.get(&(address.to_owned(), model.to_owned())).cloned().unwrap_or_default()
    }

    pub(super) fn remember(&self, address: &str, model: &str, adaptation: Adaptation) {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        if models.len() >= MODELS {
            models.clear();
        }
        models.insert((address.to_owned(), model.to_owned()), adaptation);
    }
}

impl Adaptation {
    /// Changes a body as this model wants it.
    pub(super) fn apply(&self, body: &mut Value) {
        for place in [None, Some("generationConfig")] {
            let object = match place {
                None => Some(&mut *body),
                Some(name) => body.get_mut(name),
            };
            let Some(members) = object.and_then(Value::as_object_mut) else { continue };
            for (from, to) in &self.renamed {
                if let Some(value) = members.remove(from) {
                    members.insert(to.clone(), value);
                }
            }
            members.retain(|name, _| !self.dropped.contains(name));
        }
        if self.without_tools
            && let Some(members) = body.as_object_mut()
        {
            members.retain(|name, _| !matches!(name.as_str(), "tools" | "tool_choice" | "toolConfig"));
        }
        if self.without_stream
            && let Some(members) = body.as_object_mut()
        {
            members.insert("stream".to_owned(), false.into());
            members.remove("stream_options");
        }
        if self.without_system {
            system_to_user(body);
        }
        if self.members.is_empty() {
            return;
        }
        for message in body["messages"].as_array_mut().into_iter().flatten() {
            if let Some(members) = message.as_object_mut() {
                if self.members.contains(NAME) {
                    name_to_content(members);
                }
                members.retain(|name, _| !self.members.contains(name));
            }
        }
    }

    /// Learns from a refusal of a body that was sent. `own_tools` says that the tools are ours, and not what the caller
    /// asked for. Says whether another try differs from the last.
    pub(super) fn learn(&mut self, error: &ModelError, sent: &Value, own_tools: bool) -> bool {
        if error.reason != Reason::Refused || !matches!(error.status, Some(400 | 404 | 422 | 500 | 501)) {
            return false;
        }
        let names = |param: &str| error.param.as_deref() == Some(param);
        if own_tools
            && !self.without_tools
            && sent.get("tools").is_some()
            && (words::refuses_tools(error.detail()) || names("tools"))
        {
            self.without_tools = true;
            return true;
        }
        // A server that fails is no refusal, but for one that has no other status for it.
        if matches!(error.status, Some(404 | 500)) {
            return false;
        }
        if !self.without_stream && sent["stream"] == true && (words::refuses_streams(error.detail()) || names("stream"))
        {
            self.without_stream = true;
            return true;
        }
        if !self.without_system && has_system(sent) && words::refuses_system(error.detail()) {
            self.without_system = true;
            return true;
        }
        if let Some(name) = named(error, &parameters(sent)) {
            let new_name = NAMES.iter().find(|(old, _)| *old == name).map(|(_, new)| *new);
            return match new_name {
                // Both names were refused: the limit itself is what the model does not take.
                Some(new) if self.renamed.contains_key(new) => self.dropped.insert(name),
                Some(new) => self.renamed.insert(name, new.to_owned()).is_none(),
                None => self.dropped.insert(name),
            };
        }
        named(error, &message_members(sent)).is_some_and(|name| self.members.insert(name))
    }
}

fn is_system(message: &Value) -> bool {
    matches!(message["role"].as_str(), Some("system" | "developer"))
}

fn has_system(sent: &Value) -> bool {
    sent["messages"].as_array().is_some_and(|messages| messages.iter().any(is_system))
        || sent["systemInstruction"].is_object()
}

/// Puts what the system says in front of the first words of the user, in the terms of either API.
fn system_to_user(body: &mut Value) {
    let Some(members) = body.as_object_mut() else { return };
    let instruction = members.remove("systemInstruction");
    let mut said: Vec<String> = texts(&instruction.unwrap_or_default()["parts"]);
    let of_google = !said.is_empty();
    let (list, content) = if of_google { ("contents", "parts") } else { ("messages", "content") };
    let Some(messages) = members.get_mut(list).and_then(Value::as_array_mut) else { return };
    if !of_google {
        said = messages
            .iter()
            .filter(|message| is_system(message))
            .flat_map(|message| texts(&message["content"]))
            .collect();
        messages.retain(|message| !is_system(message));
    }
    let said = said.join("\n\n");
    if said.is_empty() {
        return;
    }
    match messages.iter_mut().find(|message| message["role"] == "user") {
        Some(first) => match &mut first[content] {
            Value::String(text) => *text = format!("{said}\n\n{text}"),
            Value::Array(parts) if of_google => parts.insert(0, json!({ "text": said })),
            Value::Array(parts) => parts.insert(0, json!({ "type": "text", "text": said })),
            other => *other = said.into(),
        },
        None if of_google => messages.insert(0, json!({ "role": "user", "parts": [{ "text": said }] })),
        None => messages.insert(0, json!({ "role": "user", "content": said })),
    }
}

/// Puts the name of a user, which says who speaks, in front of what is said.
fn name_to_content(message: &mut Map<String, Value>) {
    let is_user = message.get("role").is_some_and(|role| role == "user");
    if let (true, Some(name), Some(text)) = (is_user, text_in(message, NAME), text_in(message, "content")) {
        message.insert("content".to_owned(), spoken(&name, &text).into());
    }
}

fn text_in(message: &Map<String, Value>, member: &str) -> Option<String> {
    message.get(member)?.as_str().map(str::to_owned)
}

/// A text, or those of a list of parts.
fn texts(content: &Value) -> Vec<String> {
    match content {
        Value::String(text) => vec![text.clone()],
        Value::Array(parts) => parts.iter().filter_map(|part| Some(part["text"].as_str()?.to_owned())).collect(),
        _ => Vec::new(),
    }
}

/// The optional parameters that a body has.
fn parameters(sent: &Value) -> Vec<&'static str> {
    let has = |name: &str| sent.get(name).is_some() || sent["generationConfig"].get(name).is_some();
    OPTIONAL.into_iter().filter(|name| has(name)).collect()
}

/// Members of messages that a provider gave us, or a client of ours.
fn message_members(sent: &Value) -> Vec<&str> {
    const OURS: [&str; 4] = ["role", "content", "tool_calls", "tool_call_id"];
    let messages = sent["messages"].as_array().into_iter().flatten().filter_map(Value::as_object);
    messages.flat_map(|message| message.keys().map(String::as_str)).filter(|name| !OURS.contains(name)).collect()
}

/// Which of the names the refusal means: its `param`, or the first one in its words.
fn named(error: &ModelError, names: &[&str]) -> Option<String> {
    let param = error.param.as_deref().and_then(|param| param.rsplit('.').next()).unwrap_or_default();
    if let Some(name) = names.iter().find(|name| **name == param) {
        return Some((*name).to_owned());
    }
    let positions = names.iter().filter_map(|name| Some((position(error.detail(), name)?, name)));
    positions.min().map(|(_, name)| (*name).to_owned())
}

/// Where a text names a parameter. Names that are words of the language count only in quotes.
fn position(text: &str, name: &str) -> Option<usize> {
    const WORDS: [&str; 6] = ["user", "store", "seed", "metadata", "verbosity", NAME];
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(name).map(|(at, _)| at).find(|at| {
        let before = text[..*at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        let whole = !before.is_some_and(is_part) && !after.is_some_and(is_part);
        let quoted = before.is_some_and(|c| matches!(c, '\'' | '"' | '`'));
        whole && (quoted || !WORDS.contains(&name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, body: Value) -> ModelError {
        ModelError::from_body(status, &body).unwrap()
    }

    fn message(text: &str) -> Value {
        json!({ "error": { "message": text } })
    }

    #[test]
    fn a_parameter_is_known_by_its_field_or_by_the_words() {
        let sent = json!({ "temperature": 1, "stream_options": {}, "user": "u", "model": "m" });
        for (status, body, name) in [
            (400, json!({ "error": { "message": "Unsupported value", "param": "temperature" } }), "temperature"),
            (400, message("`temperature` is deprecated for this model."), "temperature"),
            (
                422,
                json!({ "detail": [{ "type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs" }] }),
                "stream_options",
            ),
            (400, message("Unrecognized request argument: 'user'"), "user"),
            (400, json!({ "error": "stream_options is not allowed" }), "stream_options"),
        ] {
            let mut adaptation = Adaptation::default();
            assert!(adaptation.learn(&refusal(status, body), &sent, false), "{name}");
            let mut body = sent.clone();
            adaptation.apply(&mut body);
            assert!(body.get(name).is_none(), "{name}");
            assert_eq!(body.as_object().unwrap().len(), 3, "{name}");
        }
    }

    #[test]
    fn a_limit_gets_its_other_name_and_then_goes() {
        let sent = json!({ "max_tokens": 5 });
        let mut adaptation = Adaptation::default();
        let text = "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
        assert!(adaptation.learn(&refusal(400, message(text)), &sent, false));
        let mut body = sent.clone();
        adaptation.apply(&mut body);
        assert_eq!(body, json!({ "max_completion_tokens": 5 }));
        assert!(adaptation.learn(&refusal(400, message("max_completion_tokens is too large")), &body, false));
        let mut body = sent;
        adaptation.apply(&mut body);
        assert_eq!(body, json!({}));
    }

    #[test]
    fn what_the_caller_asked_for_is_never_dropped() {
        let sent = json!({ "response_format": {}, "tools": [], "messages": [{ "role": "user", "content": "hi" }] });
        let mut adaptation = Adaptation::default();
        for text in
            ["'response_format' is not supported", "m does not support tools", "messages: bad", "user is unknown"]
        {
            assert!(!adaptation.learn(&refusal(400, message(text)), &sent, false), "{text}");
        }
        assert!(adaptation.learn(&refusal(400, message("m does not support tools")), &sent, true));
    }

    #[test]
    fn members_of_messages_that_are_refused_are_left_out() {
        let sent = json!({ "messages": [{ "role": "assistant", "content": "a", "reasoning": "r" }] });
        let mut adaptation = Adaptation::default();
        let text = "'messages.0' : property 'reasoning' is unsupported";
        assert!(adaptation.learn(&refusal(400, message(text)), &sent, false));
        let mut body = sent;
        adaptation.apply(&mut body);
        assert_eq!(body["messages"][0], json!({ "role": "assistant", "content": "a" }));
    }

    #[test]
    fn a_name_that_is_refused_is_put_in_front_of_what_its_user_says() {
        let sent = json!({ "messages": [
            { "role": "user", "name": "bob", "content": "hi" }, { "role": "assistant", "name": "ada", "content": "a" },
        ] });
        for body in [
            json!({ "error": { "message": "Invalid value", "param": "messages[0].name" } }),
            json!({ "detail": [{ "loc": ["body", "messages", 0, "user", "name"], "msg": "Extra inputs are not permitted" }] }),
            message("property 'name' is unsupported"),
        ] {
            let mut adaptation = Adaptation::default();
            assert!(adaptation.learn(&refusal(400, body), &sent, false));
            let mut body = sent.clone();
            adaptation.apply(&mut body);
            let expected =
                [json!({ "role": "user", "content": "bob: hi" }), json!({ "role": "assistant", "content": "a" })];
            assert_eq!(body["messages"], json!(expected));
        }
        assert!(!Adaptation::default().learn(&refusal(400, message("no model of that name")), &sent, false));
    }

    #[test]
    fn a_server_that_was_started_without_tools_is_asked_without() {
        let sent = json!({ "tools": [{}], "tool_choice": "auto", "messages": [] });
        for (status, text) in [
            (400, "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set"),
            (500, "tools param requires --jinja flag"),
        ] {
            let mut adaptation = Adaptation::default();
            assert!(adaptation.learn(&refusal(status, message(text)), &sent, true), "{text}");
            let mut body = sent.clone();
            adaptation.apply(&mut body);
            assert_eq!(body, json!({ "messages": [] }), "{text}");
            assert!(!Adaptation::default().learn(&refusal(status, message(text)), &sent, false), "a caller's own stay");
        }
    }

    #[test]
    fn a_model_without_a_system_hears_its_words_from_the_user() {
        let openai = json!({ "messages": [
            { "role": "system", "content": "be kind" }, { "role": "system", "content": "and short" },
            { "role": "user", "content": "hi" }, { "role": "user", "content": "again" },
        ] });
        let parts = json!({ "messages": [
            { "role": "developer", "content": [{ "type": "text", "text": "be kind" }] },
            { "role": "user", "content": [{ "type": "text", "text": "hi" }] },
        ] });
        let google = json!({ "systemInstruction": { "parts": [{ "text": "be kind" }] },
            "contents": [{ "role": "user", "parts": [{ "text": "hi" }] }] });
        for (text, sent, expected) in [
            (
                "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
                openai,
                json!({ "messages": [{ "role": "user", "content": "be kind\n\nand short\n\nhi" }, { "role": "user", "content": "again" }] }),
            ),
            (
                "System role not supported",
                parts,
                json!({ "messages": [{ "role": "user", "content": [{ "type": "text", "text": "be kind" }, { "type": "text", "text": "hi" }] }] }),
            ),
            (
                "Developer instruction is not enabled for models/gemma",
                google,
                json!({ "contents": [{ "role": "user", "parts": [{ "text": "be kind" }, { "text": "hi" }] }] }),
            ),
        ] {
            let mut adaptation = Adaptation::default();
            assert!(adaptation.learn(&refusal(400, message(text)), &sent, true), "{text}");
            let mut body = sent;
            adaptation.apply(&mut body);
            assert_eq!(body, expected, "{text}");
            assert!(!adaptation.learn(&refusal(400, message(text)), &body, true), "nothing more can be learned");
        }
    }

    #[test]
    fn an_answer_that_may_not_be_streamed_comes_whole() {
        let sent = json!({ "stream": true, "stream_options": { "include_usage": true } });
        for body in [
            json!({ "error": { "message": "Your organization must be verified to stream this model.", "param": "stream" } }),
            message("streaming is not supported"),
        ] {
            let mut adaptation = Adaptation::default();
            assert!(adaptation.learn(&refusal(400, body), &sent, true));
            let mut body = sent.clone();
            adaptation.apply(&mut body);
            assert_eq!(body, json!({ "stream": false }));
        }
        let mut adaptation = Adaptation::default();
        assert!(adaptation.learn(&refusal(400, message("stream_options is not supported")), &sent, true));
        let mut body = sent;
        adaptation.apply(&mut body);
        assert_eq!(body, json!({ "stream": true }));
    }

    #[test]
    fn only_refusals_of_the_request_teach_anything() {
        let sent = json!({ "temperature": 1 });
        for status in [401, 404, 429, 500] {
            let error = refusal(status, message("temperature"));
            assert!(!Adaptation::default().learn(&error, &sent, true), "{status}");
        }
    }

    #[test]
    fn the_number_of_models_is_bounded() {
        let learned = Learned::default();
        for n in 0..200 {
            learned.remember("a", &n.to_string(), Adaptation { endpoint: 1, ..Adaptation::default() });
        }
        assert!(learned.models.lock().unwrap().len() <= MODELS);
        assert_eq!(learned.of("a", "199").endpoint, 1);
    }
}
