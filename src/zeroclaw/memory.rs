//! What an agent remembers, as its gateway tells it: the one form that all versions understand.
//!
//! Their databases differ, and an older version cannot write to a newer one's. Told entry by entry, a memory goes from any
//! version to any other one; only the time at which an entry was made is lost.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Entries that are carried at most; a list of more is refused as a whole rather than cut.
pub const MAX_ENTRIES: usize = 20_000;

/// One thing that an agent remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct MemoryEntry {
    /// Tells entries apart: the same key again replaces the entry.
    pub key: String,
    /// What is remembered, as text.
    pub content: String,
    /// Where the gateway files it, e.g. `core`; `None` where it does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
}

impl MemoryEntry {
    /// An entry without a category.
    pub fn new(key: impl Into<String>, content: impl Into<String>) -> Self {
        Self { key: key.into(), content: content.into(), category: None }
    }

    setters! {
        with_category(category: impl Into<String> => Some(category.into()));
    }

    /// The entries of an answer of `GET /api/memory`; `None` where it is none.
    pub fn read_all(answer: &Value) -> Option<Vec<Self>> {
        answer.get("entries")?.as_array()?.iter().map(Self::read).collect()
    }

    fn read(entry: &Value) -> Option<Self> {
        let text = |name: &str| Some(entry.get(name)?.as_str()?.to_owned());
        // 0.1 writes a category of the user's own as `{"custom": name}`.
        let category = text("category").or_else(|| Some(entry.get("category")?.get("custom")?.as_str()?.to_owned()));
        let (key, content) = named(text("key")?, text("content")?);
        Some(Self { key, content, category })
    }
}

/// A memory in Markdown tells where a line stands for its key, such as `MEMORY:3` or `2026-11-26:0`, and the key that it was
/// stored with in front of the text. Told as it is, every move to another version would put one more name before it.
fn named(key: String, content: String) -> (String, String) {
    let is_place = |(file, line): (&str, &str)| {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let is_day = file.len() == 10 && file.split('-').all(digits);
        digits(line) && (file == "MEMORY" || is_day)
    };
    if !key.rsplit_once(':').is_some_and(is_place) {
        return (key, content);
    }
    match content.strip_prefix("**").and_then(|rest| rest.split_once("**: ")) {
        Some((name, rest)) if !name.is_empty() => (name.to_owned(), rest.to_owned()),
        _ => (key, content),
    }
}

/// Those of `wanted` that are not among `known` as they are.
pub fn missing<'a>(wanted: &'a [MemoryEntry], known: &[MemoryEntry]) -> Vec<&'a MemoryEntry> {
    let known: std::collections::HashMap<&str, &str> =
        known.iter().map(|entry| (entry.key.as_str(), entry.content.as_str())).collect();
    wanted.iter().filter(|entry| known.get(entry.key.as_str()) != Some(&entry.content.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(key: &str, content: &str, category: Option<&str>) -> MemoryEntry {
        MemoryEntry { key: key.into(), content: content.into(), category: category.map(Into::into) }
    }

    #[test]
    fn entries_of_all_versions_are_read() {
        let answer = json!({ "entries": [
            { "key": "a", "content": "1", "category": "core", "id": "x", "session_id": null },
            { "key": "b", "content": "2", "category": { "custom": "mine" } },
            { "key": "c", "content": "3", "agent_alias": "default", "importance": 0.5 },
        ] });
        let expected = [entry("a", "1", Some("core")), entry("b", "2", Some("mine")), entry("c", "3", None)];
        assert_eq!(MemoryEntry::read_all(&answer).unwrap(), expected);
        for none in [json!({}), json!([]), json!({ "entries": [{ "key": "a" }] }), json!({ "entries": 1 })] {
            assert_eq!(MemoryEntry::read_all(&none), None, "{none}");
        }
    }

    #[test]
    fn a_note_in_markdown_has_the_key_that_it_was_stored_with() {
        for (key, content, expected) in [
            ("MEMORY:0", "**tea**: green", ("tea", "green")),
            ("2026-11-26:12", "**m_1**: **bold**: text", ("m_1", "**bold**: text")),
            ("MEMORY:1", "the second line of a note", ("MEMORY:1", "the second line of a note")),
            ("MEMORY:2", "****: no name", ("MEMORY:2", "****: no name")),
            ("mine", "**tea**: green", ("mine", "**tea**: green")),
            ("my:0", "**tea**: green", ("my:0", "**tea**: green")),
        ] {
            let read = MemoryEntry::read(&json!({ "key": key, "content": content })).unwrap();
            assert_eq!((read.key.as_str(), read.content.as_str()), expected, "{key}");
        }
    }

    #[test]
    fn only_what_is_missing_or_different_is_told() {
        let wanted = [entry("a", "1", None), entry("b", "2", None), entry("c", "3", None)];
        let known = [entry("a", "1", Some("core")), entry("b", "old", None), entry("d", "4", None)];
        assert_eq!(missing(&wanted, &known), [&wanted[1], &wanted[2]]);
        assert!(missing(&[], &known).is_empty());
    }
}
