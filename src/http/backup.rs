//! `POST /api/admin/backup`: the installation as a tar, while it runs.
//!
//! ```text
//! backup.json      what it is, and which master key opens it
//! zeroone.redb     the store, all of one commit
//! runtime          which runtime was chosen
//! agents/<id>/     where agents are processes: their data; databases are copied as SQLite does it
//! complete         comes last: without it the archive is a part of one
//! ```
//! Never in it: the master key, API keys, logs, and what belongs to a run.

mod archive;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tracing::Instrument as _;

use super::body::EmptyBody;
use super::problem::{Code, Problem};
use super::state::Api;
use crate::audit;
use crate::domain::Timestamp;
use crate::store::Batch;

/// Pieces of the archive that may wait for a slow reader.
const WAITING: usize = 16;
/// The copy of the store in the making. One backup at a time has it; one that a crash left is replaced.
const DRAFT: &str = "zeroone.backup.redb";

/// What lies beside the store.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BackupOptions {
    /// The data folder: drafts are made in it, and what is in it is copied.
    pub folder: PathBuf,
    /// Copies a SQLite database that is in use into a new file.
    pub copy_database: fn(&Path, &Path) -> io::Result<()>,
    /// Held by the backup that is under way.
    pub busy: Arc<tokio::sync::Mutex<()>>,
}

impl BackupOptions {
    /// Of this data folder, with no backup under way.
    pub fn new(folder: impl Into<PathBuf>, copy_database: fn(&Path, &Path) -> io::Result<()>) -> Self {
        Self { folder: folder.into(), copy_database, busy: Arc::default() }
    }
}

/// A consistent copy of everything that is kept, as a tar: the store and, where agents are processes, their data. The master
/// key is not in it. One at a time.
#[utoipa::path(
    post, path = "/api/admin/backup", tag = "admin",
    responses((status = 200, body = String, content_type = "application/x-tar"))
)]
pub async fn backup(state: State<Api>, _: EmptyBody) -> Result<Response, Problem> {
    let Some(options) = state.options.backup.clone() else {
        return Err(Problem::new(
            Code::NotFound,
            "This service has no folder to back up: its program keeps the store.",
        ));
    };
    let busy = Arc::clone(&options.busy).try_lock_owned();
    let busy = busy.map_err(|_| Problem::new(Code::InProgress, "A backup is under way already.").retry_after(1))?;
    // Before the copy is made, so that the record is in it too.
    audit::commit(state.plane.store(), Batch::touch()).await?;
    let draft = options.folder.join(DRAFT);
    let _ = tokio::fs::remove_file(&draft).await;
    state.plane.store().copy_to(&draft).await?;
    let described = json!({
        "format": archive::FORMAT,
        "version": env!("CARGO_PKG_VERSION"),
        "installation": state.plane.store().installation(),
        "createdAt": Timestamp::now(),
        "sealedWith": state.plane.vault().active_key().to_string(),
        // Engines with volumes of their own keep agents' data there.
        "runtime": state.plane.caps().name,
        "agents": state.plane.count_by_status().into_iter().map(|(_, count)| count).sum::<usize>(),
    });
    let (pieces, receiver) = mpsc::channel::<io::Result<Bytes>>(WAITING);
    let write = move || {
        let _busy = busy;
        let written = archive::write(archive::Pieces::new(pieces.clone()), &described, &draft, &options);
        let _ = std::fs::remove_file(&draft);
        match written {
            Ok(()) => tracing::info!("a backup was made"),
            Err(error) => {
                tracing::warn!(%error, "a backup was not finished");
                // Breaks the answer off, so that nobody takes a part for the whole.
                let _ = pieces.blocking_send(Err(error));
            }
        }
    };
    let span = tracing::Span::current();
    drop(tokio::spawn(async { tokio::task::spawn_blocking(move || span.in_scope(write)).await }.in_current_span()));
    let body = Body::from_stream(ReceiverStream::new(receiver).map(|piece| piece));
    let kind = HeaderValue::from_static("application/x-tar");
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}
