//! What the agent remembers: named notes in a category, found again by their words.
//!
//! Three backends, chosen by `[memory] backend`: SQLite with full-text search, a Markdown file that people can read and
//! edit, or nothing at all. All block on the disk; [`Memory`] takes them off the threads that serve requests, and opens
//! them only when they are first used.

mod markdown;
mod sqlite;

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::domain::{MemoryBackend, Timestamp};

/// Longest key, in characters.
pub(super) const KEY_LENGTH: usize = 256;
/// Messages that were saved without being asked for; the oldest make room.
const CONVERSATION_LIMIT: usize = 10_000;
/// The category of those.
pub(super) const CONVERSATION: &str = "conversation";
/// The category of what is stored on purpose, unless another is named.
pub(super) const CORE: &str = "core";

/// One thing remembered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) key: String,
    pub(super) content: String,
    pub(super) category: String,
    pub(super) timestamp: Timestamp,
    pub(super) session_id: Option<String>,
    /// How well it matches a search; higher is better.
    pub(super) score: Option<f64>,
}

/// A note that is to be kept.
#[derive(Debug, Clone)]
pub(super) struct Note {
    pub(super) key: String,
    pub(super) content: String,
    pub(super) category: String,
    pub(super) at: Timestamp,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum MemoryError {
    #[error("the memory database cannot be used")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the memory file cannot be used")]
    Io(#[from] std::io::Error),
    #[error("the work was interrupted")]
    Interrupted,
}

/// What a backend can do. Every call may block on the disk.
trait Backend: Send + Sync {
    /// Keeps a note; one of the same key is replaced.
    fn store(&self, note: &Note) -> Result<(), MemoryError>;
    /// Those that share words with `query`, best first.
    fn recall(&self, query: &str, limit: usize) -> Result<Vec<Entry>, MemoryError>;
    /// All of a category, or all; newest first.
    fn list(&self, category: Option<&str>, limit: usize) -> Result<Vec<Entry>, MemoryError>;
    /// Whether there was one.
    fn forget(&self, key: &str) -> Result<bool, MemoryError>;
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

    pub(super) async fn recall(&self, query: &str, limit: usize) -> Result<Vec<Entry>, MemoryError> {
        let query = query.to_owned();
        self.on_disk(move |backend| backend.recall(&query, limit)).await
    }

    pub(super) async fn list(&self, category: Option<&str>, limit: usize) -> Result<Vec<Entry>, MemoryError> {
        let category = category.map(str::to_owned);
        self.on_disk(move |backend| backend.list(category.as_deref(), limit)).await
    }

    pub(super) async fn forget(&self, key: &str) -> Result<bool, MemoryError> {
        let key = key.to_owned();
        self.on_disk(move |backend| backend.forget(&key)).await
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Backend) -> Result<T, MemoryError> + Send + 'static,
    ) -> Result<T, MemoryError> {
        let backend = self.backend.clone();
        tokio::task::spawn_blocking(move || work(&*backend)).await.map_err(|_| MemoryError::Interrupted)?
    }
}

/// The backend `none`: forgets at once.
struct Nothing;

impl Backend for Nothing {
    fn store(&self, _: &Note) -> Result<(), MemoryError> {
        Ok(())
    }

    fn recall(&self, _: &str, _: usize) -> Result<Vec<Entry>, MemoryError> {
        Ok(vec![])
    }

    fn list(&self, _: Option<&str>, _: usize) -> Result<Vec<Entry>, MemoryError> {
        Ok(vec![])
    }

    fn forget(&self, _: &str) -> Result<bool, MemoryError> {
        Ok(false)
    }
}

/// The words of a search, in lower case.
fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(key: &str, content: &str, category: &str, second: i64) -> Note {
        let at = Timestamp::from_second(1_700_000_000 + second).unwrap();
        Note { key: key.into(), content: content.into(), category: category.into(), at }
    }

    fn keys(entries: &[Entry]) -> Vec<&str> {
        entries.iter().map(|entry| entry.key.as_str()).collect()
    }

    /// What every backend that remembers must do.
    async fn conforms(name: MemoryBackend) {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(name, folder.path());
        assert!(memory.list(None, 10).await.unwrap().is_empty());
        memory.store(note("tea", "Ada likes green tea", CORE, 0)).await.unwrap();
        memory.store(note("bike", "The bike is red", CORE, 1)).await.unwrap();
        memory
            .store(note("chat", "hello \"there\" OR 1=1; ## heading\n\n## tea\nsecond", CONVERSATION, 2))
            .await
            .unwrap();
        memory.store(note("tea", "Ada likes black tea", CORE, 3)).await.unwrap();

        assert_eq!(keys(&memory.list(None, 10).await.unwrap()), ["tea", "chat", "bike"]);
        assert_eq!(keys(&memory.list(Some(CORE), 10).await.unwrap()), ["tea", "bike"]);
        assert_eq!(memory.list(None, 1).await.unwrap().len(), 1);
        let found = memory.recall("which TEA does ada like?", 10).await.unwrap();
        assert_eq!((found[0].key.as_str(), found[0].content.as_str()), ("tea", "Ada likes black tea"));
        assert!(found[0].score.unwrap() > 0.0);
        for odd in ["", "\"", "tea AND (", "*", "NEAR(", "'; DROP TABLE memories; --", "🫖"] {
            memory.recall(odd, 10).await.unwrap();
        }

        let reopened = Memory::new(name, folder.path());
        let chat = &reopened.list(Some(CONVERSATION), 10).await.unwrap()[0];
        assert_eq!(chat.content, "hello \"there\" OR 1=1; ## heading\n\n## tea\nsecond");
        assert!(reopened.forget("tea").await.unwrap());
        assert!(!reopened.forget("tea").await.unwrap());
        assert!(!keys(&reopened.recall("tea", 10).await.unwrap()).contains(&"bike"));
        assert_eq!(keys(&reopened.list(None, 10).await.unwrap()), ["chat", "bike"]);
    }

    #[tokio::test]
    async fn sqlite_remembers() {
        conforms(MemoryBackend::Sqlite).await;
    }

    #[tokio::test]
    async fn markdown_remembers() {
        conforms(MemoryBackend::Markdown).await;
    }

    #[tokio::test]
    async fn none_forgets_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(MemoryBackend::None, folder.path());
        memory.store(note("tea", "green", CORE, 0)).await.unwrap();
        assert!(memory.list(None, 10).await.unwrap().is_empty());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
