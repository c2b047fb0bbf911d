//! What the agent remembers: notes with a name, an owner and a category, found again by their words.
//!
//! Every note has an owner ([`Owner`]): the agent itself, its paired clients, one session, or one person of a channel. A
//! search for an answer sees the notes of whoever asks and those of the agent, so that nobody is told what another person
//! said. A note is either said (kept without being asked for) or stored on purpose; the second kind is preferred.
//!
//! Three backends, chosen by `[memory] backend`: SQLite, a Markdown file that people can read and edit, or nothing at all.
//! All block on the disk; [`Memory`] takes them off the threads that serve requests, and opens them when first used.

mod markdown;
mod rank;
mod sqlite;
mod terms;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::persona::head;
use crate::domain::{MemoryBackend, Timestamp};

/// Longest key, in characters.
pub(super) const KEY_LENGTH: usize = 256;
/// As much of a message as is kept, in bytes.
const SAID: usize = 8_000;
/// The category of messages that were kept without being asked for.
pub(super) const CONVERSATION: &str = "conversation";
/// The category of what is stored on purpose, unless another is named.
pub(super) const CORE: &str = "core";
/// Notes that one answer gets, and how many of them must have been stored on purpose for the rest to be left out.
const FOR_AN_ANSWER: usize = 5;
const ON_PURPOSE_FIRST: usize = 4;
/// As much of one note as an answer gets, in bytes.
const EXCERPT: usize = 1_000;
/// A note that matches less than this share of the best one has only common words in common with the question.
const RELEVANT: f64 = 0.2;

/// Whose a note is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Owner(String);

impl Owner {
    /// The agent: what everybody who talks to it may get to know.
    pub(super) fn agent() -> Self {
        Self("core".into())
    }

    /// The paired clients, when they name no session.
    pub(super) fn client() -> Self {
        Self("client".into())
    }

    pub(super) fn session(id: &str) -> Self {
        Self::of("session", id)
    }

    /// A person of a channel, by the name that the platform has for it.
    pub(super) fn person(channel: &str, name: &str) -> Self {
        Self::of(channel, name)
    }

    /// An owner as it was stored.
    pub(super) fn named(text: &str) -> Self {
        if text.bytes().all(|byte| byte == b'%' || is_plain(byte)) { Self(text.to_owned()) } else { Self(plain(text)) }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is a person of a channel, which may be anybody.
    pub(super) fn is_stranger(&self) -> bool {
        !(self.0 == "core" || self.0 == "client" || self.0.starts_with("session:"))
    }

    fn of(kind: &str, name: &str) -> Self {
        Self(format!("{kind}:{}", plain(name)))
    }
}

/// Printable ASCII without blanks and brackets; the rest is percent-encoded, so that two names never become one.
fn plain(name: &str) -> String {
    name.bytes().fold(String::with_capacity(name.len()), |mut text, byte| {
        if is_plain(byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.:@+/#".contains(&byte)
}

/// Whose a message is that was kept by a version without owners. It kept only where the message came from: what came by a
/// channel belongs to a person that is not known any more, and so is recalled for nobody.
fn owner_by_key(key: &str) -> Owner {
    let source = key.split_once("_msg_").map_or("", |(source, _)| source);
    match source {
        "telegram" | "whatsapp" | "github" | "nextcloud_talk" => Owner::person(source, "unknown"),
        _ => Owner::client(),
    }
}

/// How a note came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// A message, kept without being asked for.
    Said,
    /// Stored on purpose, by a person.
    Told,
    /// Stored by the agent with its tool.
    Made,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Said => "said",
            Self::Told => "told",
            Self::Made => "made",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "said" => Self::Said,
            "made" => Self::Made,
            _ => Self::Told,
        }
    }

    const fn on_purpose(self) -> bool {
        !matches!(self, Self::Said)
    }
}

/// One thing remembered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) key: String,
    pub(super) content: String,
    pub(super) category: String,
    pub(super) timestamp: Timestamp,
    /// Named where the owner is a session, as in ZeroClaw.
    pub(super) session_id: Option<String>,
    /// How well it matches a search; higher is better.
    pub(super) score: Option<f64>,
    pub(super) owner: String,
    pub(super) kind: Kind,
}

/// A note that is to be kept. One of the same owner and key is replaced.
#[derive(Debug, Clone)]
pub(super) struct Note {
    pub(super) key: String,
    pub(super) content: String,
    pub(super) category: String,
    pub(super) at: Timestamp,
    pub(super) owner: Owner,
    pub(super) kind: Kind,
}

impl Note {
    /// A message. The same message again only renews the note: its key is made of its text.
    pub(super) fn said(source: &str, owner: Owner, text: &str) -> Self {
        let content = head(text, SAID).to_owned();
        let digest: [u8; 32] = Sha256::digest(&content).into();
        let key = format!("{source}_msg_{:x}", u64::from_be_bytes(digest[..8].try_into().unwrap_or_default()));
        Self { key, content, category: CONVERSATION.into(), at: Timestamp::now(), owner, kind: Kind::Said }
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum MemoryError {
    #[error("the memory database cannot be used")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the memory file cannot be used")]
    Io(#[from] std::io::Error),
    #[error("the memory database was written by a newer version of this program")]
    TooNew,
    #[error("the work was interrupted")]
    Interrupted,
}

/// What a backend can do. Every call may block on the disk.
trait Backend: Send + Sync {
    fn store(&self, note: &Note) -> Result<(), MemoryError>;
    /// Those that share words with `query`, best first: of these owners, or of all where none is named.
    fn recall(&self, query: &str, owners: &[Owner], limit: usize) -> Result<Vec<Entry>, MemoryError>;
    /// All of a category, or all; newest first.
    fn list(&self, category: Option<&str>, limit: usize) -> Result<Vec<Entry>, MemoryError>;
    /// Whether there was one of this key: of one owner, or of any.
    fn forget(&self, key: &str, owner: Option<&Owner>) -> Result<bool, MemoryError>;
}

#[derive(Clone)]
pub(super) struct Memory {
    name: MemoryBackend,
    backend: Arc<dyn Backend>,
}

impl Memory {
    /// Nothing is opened or made before the first call.
    pub(super) fn new(name: MemoryBackend, workspace: &Path) -> Self {
        let backend: Arc<dyn Backend> = match name {
            MemoryBackend::Sqlite => Arc::new(sqlite::Sqlite::new(workspace.join("memory/memory.db"))),
            MemoryBackend::Markdown => Arc::new(markdown::Markdown::new(workspace.join("MEMORY.md"))),
            MemoryBackend::None => Arc::new(Nothing),
        };
        Self { name, backend }
    }

    pub(super) const fn name(&self) -> &'static str {
        self.name.as_str()
    }

    pub(super) async fn store(&self, note: Note) -> Result<(), MemoryError> {
        self.on_disk(move |backend| backend.store(&note)).await
    }

    /// Searches the notes of one owner and of the agent, or with `None` all notes.
    pub(super) async fn recall(
        &self,
        query: &str,
        owner: Option<&Owner>,
        limit: usize,
    ) -> Result<Vec<Entry>, MemoryError> {
        let (query, owners) = (query.to_owned(), owner.map(visible_to).unwrap_or_default());
        self.on_disk(move |backend| backend.recall(&query, &owners, limit)).await
    }

    /// What an answer to `question` should know, each note cut to a length that a prompt can bear.
    pub(super) async fn for_answer(&self, question: &str, owner: &Owner) -> Result<Vec<Entry>, MemoryError> {
        /// More than are needed: copies of the question and irrelevant notes are dropped.
        const CANDIDATES: usize = 32;
        let (query, owners) = (question.to_owned(), visible_to(owner));
        self.on_disk(move |backend| Ok(choose(&query, backend.recall(&query, &owners, CANDIDATES)?))).await
    }

    pub(super) async fn list(&self, category: Option<&str>, limit: usize) -> Result<Vec<Entry>, MemoryError> {
        let category = category.map(str::to_owned);
        self.on_disk(move |backend| backend.list(category.as_deref(), limit)).await
    }

    /// Forgets the note of this key: of one owner, or of any.
    pub(super) async fn forget(&self, key: &str, owner: Option<&Owner>) -> Result<bool, MemoryError> {
        let (key, owner) = (key.to_owned(), owner.cloned());
        self.on_disk(move |backend| backend.forget(&key, owner.as_ref())).await
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Backend) -> Result<T, MemoryError> + Send + 'static,
    ) -> Result<T, MemoryError> {
        let backend = self.backend.clone();
        tokio::task::spawn_blocking(move || work(&*backend)).await.map_err(|_| MemoryError::Interrupted)?
    }
}

/// The owners whose notes may be told to one of them.
fn visible_to(owner: &Owner) -> Vec<Owner> {
    let mut owners = vec![owner.clone()];
    if *owner != Owner::agent() {
        owners.push(Owner::agent());
    }
    owners
}

/// Of the notes that match a question, those that help to answer it: no copy of the question itself, nothing that shares
/// only common words with it, what was stored on purpose before what was said.
fn choose(question: &str, found: Vec<Entry>) -> Vec<Entry> {
    const COMPARED: usize = 512;
    const COMPARED_BYTES: usize = 4_096;
    let terms_of = |text: &str| terms::terms(head(text, COMPARED_BYTES), COMPARED);
    let asked: HashSet<String> = terms_of(question).into_iter().collect();
    let is_copy = |entry: &Entry| {
        let said = terms_of(&entry.content);
        entry.kind == Kind::Said && said.len() == asked.len() && said.iter().all(|term| asked.contains(term))
    };
    let found: Vec<Entry> = found.into_iter().filter(|entry| !is_copy(entry)).collect();
    let score = |entry: &Entry| entry.score.unwrap_or_default();
    let best = found.iter().map(score).fold(0.0, f64::max);
    let (on_purpose, said): (Vec<Entry>, Vec<Entry>) =
        found.into_iter().filter(|entry| score(entry) >= best * RELEVANT).partition(|entry| entry.kind.on_purpose());
    let mut on_purpose = on_purpose.into_iter();
    let mut chosen: Vec<Entry> = on_purpose.by_ref().take(ON_PURPOSE_FIRST).collect();
    chosen.extend(said.into_iter().chain(on_purpose).take(FOR_AN_ANSWER - chosen.len()));
    for entry in &mut chosen {
        entry.content.truncate(entry.content.floor_char_boundary(EXCERPT));
    }
    chosen
}

/// The backend `none`: keeps nothing.
struct Nothing;

impl Backend for Nothing {
    fn store(&self, _: &Note) -> Result<(), MemoryError> {
        Ok(())
    }

    fn recall(&self, _: &str, _: &[Owner], _: usize) -> Result<Vec<Entry>, MemoryError> {
        Ok(vec![])
    }

    fn list(&self, _: Option<&str>, _: usize) -> Result<Vec<Entry>, MemoryError> {
        Ok(vec![])
    }

    fn forget(&self, _: &str, _: Option<&Owner>) -> Result<bool, MemoryError> {
        Ok(false)
    }
}

/// The session that an owner stands for.
fn session_of(owner: &str) -> Option<String> {
    owner.strip_prefix("session:").map(str::to_owned)
}

#[cfg(test)]
mod tests;
