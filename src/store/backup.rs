//! A copy of the store while it is in use: one moment of it, as all its tables were at one commit.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use redb::backends::FileBackend;
use redb::{Database, ReadTransaction};

use super::engine::ReadError;
use super::{Store, StoreError, schema, tables};

/// A store of 10,000 agents takes a second; a disk that needs longer than this does not answer.
const COPY_WITHIN: Duration = Duration::from_secs(300);

impl Store {
    /// Writes a copy into a new file of mode 0600. Commits go on meanwhile and are not in it. The copy is a store of its own:
    /// compact, durable, and of the same installation.
    ///
    /// # Errors
    /// The file is there already, or cannot be written, or the store cannot be read. What was written of it is removed.
    pub async fn copy_to(&self, path: impl Into<PathBuf>) -> Result<(), StoreError> {
        let path = path.into();
        let engine = self.0.engine.clone();
        let copying = tokio::task::spawn_blocking(move || {
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
            let file = file.map_err(|error| StoreError::Unavailable(format!("{}: {error}", path.display()).into()))?;
            let copied = engine.read(|txn| copy(txn, file));
            if copied.is_err() {
                let _ = std::fs::remove_file(&path);
            }
            copied
        });
        match tokio::time::timeout(COPY_WITHIN, copying).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(StoreError::Closed),
            Err(_) => Err(StoreError::Unavailable("the disk does not answer".into())),
        }
    }
}

fn copy(from: &ReadTransaction, file: File) -> Result<(), ReadError> {
    let database = Database::builder().create_with_backend(FileBackend::new(file)?)?;
    let txn = schema::begin(&database)?;
    tables::copy_rows(from, &txn)?;
    Ok(txn.commit()?)
}
