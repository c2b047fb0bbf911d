//! The arguments of a tool: as a schema for the model, and as read from what the model wrote.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// # Errors
/// Words that tell the model what to change.
pub(super) fn read<T: DeserializeOwned>(arguments: &str) -> Result<T, String> {
    // A tool without arguments is called with nothing by some models.
    let arguments = if arguments.trim().is_empty() { "{}" } else { arguments };
    serde_json::from_str(arguments).map_err(|error| format!("the arguments cannot be used: {error}"))
}

pub(super) fn object(properties: &[(&str, Value)], required: &[&str]) -> Value {
    let properties: serde_json::Map<String, Value> =
        properties.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

pub(super) fn string(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

/// One of a few words.
pub(super) fn one_of(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}
