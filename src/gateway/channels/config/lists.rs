//! Allow-lists as people write them: texts, numbers, or one text with commas.

use serde::{Deserialize, Deserializer};

#[derive(Deserialize)]
#[serde(untagged)]
enum One {
    Text(String),
    Number(i64),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Many {
    One(One),
    List(Vec<One>),
}

impl One {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
        }
    }
}

/// A list of entries. Several in one text, divided by commas, semicolons or line ends, are several entries.
pub(super) fn entries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let list = match Many::deserialize(deserializer)? {
        Many::List(list) => list,
        Many::One(one) => vec![one],
    };
    let split = |one: One| {
        let text = one.text();
        let parts = text.split([',', ';', '\n']).map(str::trim).filter(|part| !part.is_empty());
        parts.map(str::to_owned).collect::<Vec<_>>()
    };
    Ok(list.into_iter().flat_map(split).collect())
}

/// An id, written as a text or as a number; an empty one is none.
pub(super) fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let id = Option::<One>::deserialize(deserializer)?.map(One::text);
    Ok(id.filter(|id| !id.trim().is_empty()))
}

pub(super) fn required_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    id(deserializer)?.ok_or_else(|| serde::de::Error::custom("it is empty"))
}

/// What is wrong with a list. Entries are not shown: they are people.
pub(super) fn findings(channel: &'static str, key: &'static str, list: &[String]) -> Vec<(&'static str, String)> {
    if list.is_empty() {
        return vec![(channel, format!("allows nobody: {key} is empty; \"*\" would allow everybody"))];
    }
    let never = list.iter().enumerate().filter(|(_, entry)| !can_match(channel, key, entry));
    let words = |index| {
        format!("has an entry in {key} that can never match: number {} in the list; {}", index + 1, form(channel, key))
    };
    never.map(|(index, _)| (channel, words(index))).collect()
}

/// Whether a platform has names of this form.
fn can_match(channel: &str, key: &str, entry: &str) -> bool {
    let entry = entry.trim();
    let bare = entry.trim_start_matches(['@', '+']);
    if entry == "*" {
        return true;
    }
    if bare.is_empty() || bare.chars().any(char::is_whitespace) {
        return false;
    }
    match (channel, key) {
        ("whatsapp", _) => bare.bytes().all(|byte| byte.is_ascii_digit()),
        // Groups have negative ids: whoever stays anonymous writes in the name of the group.
        ("telegram", _) if bare.starts_with('-') => bare.len() > 1 && bare.bytes().skip(1).all(|b| b.is_ascii_digit()),
        ("telegram", _) => !entry.starts_with('+') && bare.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'),
        ("slack", _) => bare.bytes().all(|byte| byte.is_ascii_alphanumeric()),
        ("github", "allowed_repos") => bare.split_once('/').is_some_and(|(owner, repository)| {
            let is_name = |it: &str| {
                !it.is_empty() && it.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            };
            is_name(owner) && (repository == "*" || is_name(repository))
        }),
        ("github", _) => bare.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'[' | b']')),
        _ => true,
    }
}

fn form(channel: &str, key: &str) -> &'static str {
    match (channel, key) {
        ("whatsapp", _) => "write numbers with their country code and without blanks, e.g. 41790000001",
        ("telegram", _) => "write user names, or numeric ids of users and groups, e.g. ada, 123456789 or -100123",
        ("slack", _) => "write user ids, e.g. U012ABCDEF",
        ("github", "allowed_repos") => "write owner/repository, or owner/* for all of an owner",
        ("github", _) => "write login names",
        _ => "write one name or id for each entry",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_take_texts_numbers_and_one_text_with_commas() {
        let read = |value| entries(value).unwrap();
        assert_eq!(read(json!(["ada", 42])), ["ada", "42"]);
        assert_eq!(read(json!(["111, 222"])), ["111", "222"]);
        assert_eq!(read(json!("ada, @bob;7\neve")), ["ada", "@bob", "7", "eve"]);
        assert_eq!(read(json!(42)), ["42"]);
        assert_eq!(read(json!("")), Vec::<String>::new());
        assert!(entries(json!([["nested"]])).is_err());
    }

    #[test]
    fn entries_that_no_platform_uses_are_reported_by_their_number() {
        let wrong = |channel, key, entry: &str| !findings(channel, key, &[entry.to_owned()]).is_empty();
        for (channel, key, entry) in [
            ("telegram", "allowed_users", "Ada Lovelace"),
            ("telegram", "allowed_users", "+41790000001"),
            ("whatsapp", "allowed_numbers", "+41 79 000 00 01"),
            ("whatsapp", "allowed_numbers", "ada"),
            ("slack", "allowed_users", "ada@example.org"),
            ("telegram", "allowed_users", "-ada"),
            ("telegram", "allowed_users", "-"),
            ("github", "allowed_repos", "engine"),
            ("github", "allowed_repos", "ada/"),
            ("github", "allowed_repos", "*/engine"),
            ("github", "allowed_repos", "ada/eng*"),
            ("github", "allowed_repos", "https://github.com/ada/engine"),
            ("discord", "allowed_users", "@"),
        ] {
            assert!(wrong(channel, key, entry), "{channel} {entry}");
        }
        for (channel, key, entry) in [
            ("telegram", "allowed_users", "@Ada_1"),
            ("telegram", "allowed_users", "-1009876543"),
            ("github", "allowed_repos", "ada/engine-1.0"),
            ("github", "allowed_repos", "ada/*"),
            ("github", "allowed_repos", "*"),
            ("whatsapp", "allowed_numbers", "+41790000001"),
            ("discord", "allowed_users", "ada.lovelace"),
            ("nextcloud_talk", "allowed_users", "users/ada@example.org"),
        ] {
            assert!(!wrong(channel, key, entry), "{channel} {entry}");
        }
        let empty = findings("telegram", "allowed_users", &[]);
        assert!(empty[0].1.contains("allows nobody"), "{empty:?}");
    }
}
