//! A copy of an instance's files that are of one moment, while the instance goes on.

use crate::actor::Services;
use crate::domain::StagedFile;
use crate::runtime::{InstanceKey, RuntimeError, RuntimeResult};

/// Reads before a busy agent is said to be too busy: a message writes for some milliseconds.
const READS: usize = 10;

/// The files that `wanted` chooses in these folders. A database and its log belong together, so they are read until two
/// readings agree: between them nothing was written, and each file is as it was at that moment.
pub async fn snapshot(
    services: &Services,
    key: &InstanceKey,
    folders: &[&str],
    wanted: &(dyn Fn(&str) -> bool + Send + Sync),
) -> RuntimeResult<Vec<StagedFile>> {
    let mut before = None;
    for _ in 0..READS {
        let mut files = Vec::new();
        for folder in folders {
            files.extend(services.runtime.read_data(key, folder).await?);
        }
        files.retain(|file| wanted(&file.path));
        if before.as_ref() == Some(&files) {
            return Ok(files);
        }
        before = Some(files);
    }
    Err(RuntimeError::Conflict("its files kept changing while they were copied; try again, or stop it first".into()))
}
