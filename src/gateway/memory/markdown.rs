//! Memory in one Markdown file that its owner can read and edit.
//!
//! ```text
//! ## tea
//! *core, 2026-11-22T10:00:00Z*
//!
//! > Ada likes green tea
//! ```
//! What was stored stands in a quote, so that nothing in it can be taken for the next entry. A note that is not the
//! agent's own, or that its category does not tell the kind of, has one more line: `<!-- owner: telegram:7, kind: made -->`.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::rank::{self, QUERY_TERMS, Tally};
use super::{Backend, CONVERSATION, CORE, Entry, Kind, MemoryError, Note, Owner, owner_by_key, session_of, terms};
use crate::domain::Timestamp;
use crate::gateway::config_file::replace;

const TITLE: &str = "# Memory\n";
/// Messages that are kept. Fewer than in SQLite: the whole file is written again each time.
const SAID_LIMIT: usize = 500;
/// Distinct terms of one note that are searched.
const NOTE_TERMS: usize = 1_000;

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
            entries.retain(|entry| entry.key != key || entry.owner != note.owner.as_str());
            entries.push(Entry {
                id: key.clone(),
                key,
                content: note.content.clone(),
                category: one_line(&note.category),
                timestamp: note.at,
                session_id: session_of(note.owner.as_str()),
                score: None,
                owner: note.owner.as_str().to_owned(),
                kind: note.kind,
            });
            let mut surplus = entries.iter().filter(|entry| entry.kind == Kind::Said).count();
            entries.retain(|entry| {
                let drop = entry.kind == Kind::Said && surplus > SAID_LIMIT;
                surplus -= usize::from(drop);
                !drop
            });
        })
    }

    fn recall(&self, query: &str, owners: &[Owner], limit: usize) -> Result<Vec<Entry>, MemoryError> {
        let wanted = terms::query(query, QUERY_TERMS);
        let mut visible = self.sorted()?;
        visible.retain(|entry| owners.is_empty() || owners.iter().any(|owner| owner.as_str() == entry.owner));
        Ok(search(&wanted, visible, limit))
    }

    fn list(&self, category: Option<&str>, limit: usize) -> Result<Vec<Entry>, MemoryError> {
        let mut entries = self.sorted()?;
        entries.retain(|entry| category.is_none_or(|category| entry.category == category));
        entries.truncate(limit);
        Ok(entries)
    }

    fn forget(&self, key: &str, owner: Option<&Owner>) -> Result<bool, MemoryError> {
        let key = one_line(key);
        self.edit(|entries| {
            let before = entries.len();
            entries.retain(|entry| entry.key != key || owner.is_some_and(|owner| owner.as_str() != entry.owner));
            entries.len() < before
        })
    }
}

/// The entries that have some of the wanted terms, best first; of equals the first stays first.
fn search(wanted: &[String], entries: Vec<Entry>, limit: usize) -> Vec<Entry> {
    let terms: Vec<HashSet<String>> = entries
        .iter()
        .map(|entry| match entry.kind {
            Kind::Said => terms::terms(&entry.content, NOTE_TERMS),
            Kind::Told | Kind::Made => terms::terms(&format!("{}\n{}", entry.key, entry.content), NOTE_TERMS),
        })
        .map(|terms| terms.into_iter().collect())
        .collect();
    let mut tally = Tally::default();
    for term in wanted {
        let with_term: Vec<usize> =
            terms.iter().enumerate().filter(|(_, terms)| terms.contains(term)).map(|(index, _)| index).collect();
        let weight = rank::weight(with_term.len() as f64, entries.len() as f64);
        // The newest are first, and of equals the tally prefers the larger number.
        with_term.into_iter().for_each(|index| tally.add(-(index as i64), weight));
    }
    let mut found: Vec<Entry> = tally
        .best(usize::MAX)
        .into_iter()
        .map(|(index, matched)| {
            let index = index.unsigned_abs() as usize;
            let entry = entries[index].clone();
            Entry { score: Some(rank::score(matched, terms[index].len(), entry.kind.on_purpose())), ..entry }
        })
        .collect();
    found.sort_by(|a, b| b.score.unwrap_or_default().total_cmp(&a.score.unwrap_or_default()));
    found.truncate(limit);
    found
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn render(entries: &[Entry]) -> String {
    let mut text = TITLE.to_owned();
    for entry in entries {
        let quoted: String = entry.content.split('\n').map(|line| format!("> {line}\n")).collect();
        let (owner, kind) = without_line(&entry.key, &entry.category);
        let extra = if entry.owner == owner.as_str() && entry.kind == kind {
            String::new()
        } else {
            format!("<!-- owner: {}, kind: {} -->\n", entry.owner, entry.kind.as_str())
        };
        text += &format!("\n## {}\n*{}, {}*\n{extra}\n{quoted}", entry.key, entry.category, entry.timestamp);
    }
    text
}

/// Owner and kind of a note that has no line for them: old files know messages by their category.
fn without_line(key: &str, category: &str) -> (Owner, Kind) {
    if category == CONVERSATION { (owner_by_key(key), Kind::Said) } else { (Owner::agent(), Kind::Told) }
}

/// Owner and kind in the line that [`render`] writes for them.
fn provenance(line: &str) -> Option<(Owner, Kind)> {
    let (owner, kind) = line.strip_prefix("<!-- owner: ")?.strip_suffix(" -->")?.split_once(", kind: ")?;
    Some((Owner::named(owner), Kind::parse(kind)))
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
                owner: Owner::agent().as_str().to_owned(),
                kind: Kind::Told,
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
                let (owner, kind) = without_line(&entry.key, category);
                (entry.owner, entry.kind) = (owner.as_str().to_owned(), kind);
            }
            _ if content.is_empty() && provenance(line).is_some() => {
                let (owner, kind) = provenance(line).unwrap_or_else(|| (Owner::agent(), Kind::Told));
                entry.session_id = session_of(owner.as_str());
                owner.as_str().clone_into(&mut entry.owner);
                entry.kind = kind;
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
            ("\\PC{1,20}", any::<String>(), "[a-z, *]{1,9}|conversation", 0i64..2_000_000_000,
             "core|client|telegram:[a-z0-9%]{1,5}|session:[a-z]{1,5}", prop::sample::select(vec![Kind::Said, Kind::Told, Kind::Made])), 0..5)
        ) {
            let entries: Vec<Entry> = entries
                .into_iter()
                .map(|(key, content, category, second, owner, kind)| Entry {
                    id: one_line(&key),
                    key: one_line(&key),
                    content,
                    category: one_line(&category),
                    timestamp: Timestamp::from_second(second).unwrap(),
                    session_id: session_of(&owner),
                    score: None,
                    owner,
                    kind,
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

    #[test]
    fn messages_of_old_files_are_not_told_to_everybody() {
        let at = "2026-11-22T10:00:00Z";
        let old = format!(
            "# Memory\n\n## telegram_msg_1\n*conversation, {at}*\n\n> secret\n\n## webhook_msg_2\n*conversation, {at}*\n\n> hi\n"
        );
        let owners: Vec<(String, Kind)> = parse(&old).into_iter().map(|entry| (entry.owner, entry.kind)).collect();
        assert_eq!(owners, [("telegram:unknown".into(), Kind::Said), ("client".into(), Kind::Said)]);
    }
}
