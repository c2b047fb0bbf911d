//! Memory in one Markdown file that its owner can read and edit.
//!
//! ```text
//! ## tea
//! *core, 2026-11-22T10:00:00Z*
//!
//! > Ada likes green tea
//! ```
//! What was stored stands in a quote, so that nothing in it can be taken for the next entry.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::{Backend, CONVERSATION, CORE, Entry, MemoryError, Note, words};
use crate::domain::Timestamp;
use crate::gateway::config_file::replace;

const TITLE: &str = "# Memory\n";
/// Fewer than in SQLite: the whole file is written anew each time.
const CONVERSATION_LIMIT: usize = 500;

pub(super) struct Markdown {
    path: PathBuf,
    editing: Mutex<()>,
}

impl Markdown {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, editing: Mutex::new(()) }
    }

    fn read(&self) -> Result<Vec<Entry>, MemoryError> {
        match fs::read(&self.path) {
            Ok(bytes) => Ok(parse(&String::from_utf8_lossy(&bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
            Err(error) => Err(error.into()),
        }
    }

    /// Newest first.
    fn sorted(&self) -> Result<Vec<Entry>, MemoryError> {
        let mut entries = self.read()?;
        entries.reverse();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.timestamp));
        Ok(entries)
    }

    fn edit<T>(&self, change: impl FnOnce(&mut Vec<Entry>) -> T) -> Result<T, MemoryError> {
        let _one_at_a_time = self.editing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries = self.read()?;
        let result = change(&mut entries);
        replace(&self.path, render(&entries).as_bytes())?;
        Ok(result)
    }
}

impl Backend for Markdown {
    fn store(&self, note: &Note) -> Result<(), MemoryError> {
        let key = one_line(&note.key);
        self.edit(|entries| {
            entries.retain(|entry| entry.key != key);
            entries.push(Entry {
                id: key.clone(),
                key,
                content: note.content.clone(),
                category: one_line(&note.category),
                timestamp: note.at,
                session_id: None,
                score: None,
            });
            let mut surplus = entries.iter().filter(|entry| entry.category == CONVERSATION).count();
            entries.retain(|entry| {
                let drop = entry.category == CONVERSATION && surplus > CONVERSATION_LIMIT;
                surplus -= usize::from(drop);
                !drop
            });
        })
    }

    fn recall(&self, query: &str, limit: usize) -> Result<Vec<Entry>, MemoryError> {
        let wanted = words(query);
        let mut found: Vec<Entry> = self
            .sorted()?
            .into_iter()
            .filter_map(|mut entry| {
                let score = score(&wanted, &entry);
                entry.score = Some(score);
                (score > 0.0).then_some(entry)
            })
            .collect();
        // Stable: of equals the newest stays first.
        found.sort_by(|a, b| b.score.unwrap_or_default().total_cmp(&a.score.unwrap_or_default()));
        found.truncate(limit);
        Ok(found)
    }

    fn list(&self, category: Option<&str>, limit: usize) -> Result<Vec<Entry>, MemoryError> {
        let mut entries = self.sorted()?;
        entries.retain(|entry| category.is_none_or(|category| entry.category == category));
        entries.truncate(limit);
        Ok(entries)
    }

    fn forget(&self, key: &str) -> Result<bool, MemoryError> {
        let key = one_line(key);
        self.edit(|entries| {
            let before = entries.len();
            entries.retain(|entry| entry.key != key);
            entries.len() < before
        })
    }
}

/// The share of the wanted words that an entry has.
fn score(wanted: &[String], entry: &Entry) -> f64 {
    if wanted.is_empty() {
        return 0.0;
    }
    let has = words(&format!("{} {}", entry.key, entry.content));
    wanted.iter().filter(|word| has.contains(word)).count() as f64 / wanted.len() as f64
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn render(entries: &[Entry]) -> String {
    let mut text = TITLE.to_owned();
    for entry in entries {
        let quoted: String = entry.content.split('\n').map(|line| format!("> {line}\n")).collect();
        text += &format!("\n## {}\n*{}, {}*\n\n{quoted}", entry.key, entry.category, entry.timestamp);
    }
    text
}

/// Reads what [`render`] wrote, and what people made of it: an entry without its second line is a core note of 1970.
fn parse(text: &str) -> Vec<Entry> {
    let mut entries: Vec<(Entry, Vec<&str>)> = Vec::new();
    for line in text.split('\n') {
        // A quote is kept to the letter; around it, files of other systems end their lines with one more character.
        let line = if line.starts_with('>') { line } else { line.trim_end_matches('\r') };
        if let Some(key) = line.strip_prefix("## ") {
            let key = one_line(key);
            let entry = Entry {
                id: key.clone(),
                key,
                content: String::new(),
                category: CORE.to_owned(),
                timestamp: Timestamp::UNIX_EPOCH,
                session_id: None,
                score: None,
            };
            entries.push((entry, vec![]));
            continue;
        }
        let Some((entry, content)) = entries.last_mut() else { continue };
        let stamp =
            line.strip_prefix('*').and_then(|line| line.strip_suffix('*')).and_then(|line| line.rsplit_once(", "));
        match stamp.and_then(|(category, time)| Some((category, time.parse().ok()?))) {
            Some((category, time)) if content.is_empty() => {
                category.clone_into(&mut entry.category);
                entry.timestamp = time;
            }
            _ => match line.strip_prefix("> ").or_else(|| line.strip_prefix('>')) {
                Some(quoted) => content.push(quoted),
                None if line.trim().is_empty() => {}
                None => content.push(line),
            },
        }
    }
    entries.into_iter().map(|(entry, content)| Entry { content: content.join("\n"), ..entry }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_is_stored_comes_back(entries in proptest::collection::vec(
            ("\\PC{1,20}", any::<String>(), "[a-z, *]{1,9}", 0i64..2_000_000_000), 0..5)
        ) {
            let entries: Vec<Entry> = entries
                .into_iter()
                .map(|(key, content, category, second)| Entry {
                    id: one_line(&key),
                    key: one_line(&key),
                    content,
                    category: one_line(&category),
                    timestamp: Timestamp::from_second(second).unwrap(),
                    session_id: None,
                    score: None,
                })
                .filter(|entry| !entry.key.is_empty() && !entry.category.is_empty())
                .collect();
            prop_assert_eq!(parse(&render(&entries)), entries);
        }
    }

    #[test]
    fn what_people_write_by_hand_is_read() {
        let entries = parse("# Memory\n\nintro\n\n## tea\nAda likes green tea\n\n## odd\n*core, never*\n");
        assert_eq!((entries[0].key.as_str(), entries[0].content.as_str()), ("tea", "Ada likes green tea"));
        assert_eq!((entries[1].content.as_str(), entries[1].timestamp), ("*core, never*", Timestamp::UNIX_EPOCH));
    }
}
