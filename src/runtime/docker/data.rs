//! Reading a container's data, running or not.

use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use futures_util::StreamExt;

use super::DockerRuntime;
use super::engine::CHANGE;
use super::failure::Failure;
use crate::runtime::{InstanceKey, MAX_DATA, RuntimeError, RuntimeResult, StagedFile, archive, too_much_data};
use crate::zeroclaw::profile::DATA_DIR;

impl DockerRuntime {
    pub(super) async fn download(&self, key: &InstanceKey, folder: &str) -> RuntimeResult<Vec<StagedFile>> {
        let found = self.get(key).await?;
        let path = format!("{DATA_DIR}/{folder}");
        let options = DownloadFromContainerOptionsBuilder::default().path(&path).build();
        let mut chunks = self.engine.docker().await?.download_from_container(&found.id, Some(options));
        let mut archived = Vec::new();
        loop {
            // Each chunk has the deadline: a large folder may take long as long as it comes.
            let next = tokio::time::timeout(CHANGE, chunks.next()).await;
            let late = |_| RuntimeError::Unavailable("the engine stopped sending a folder".into());
            match next.map_err(late)?.transpose().map_err(Failure::from) {
                Ok(Some(chunk)) if archived.len() + chunk.len() > MAX_DATA => return Err(too_much_data(folder)),
                Ok(Some(chunk)) => archived.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(Failure::Refused(404, _)) => return Ok(Vec::new()),
                Err(failure) => return Err(failure.into()),
            }
        }
        // Its paths begin with the folder's own name.
        let parent = folder.rsplit_once('/').map_or(String::new(), |(parent, _)| format!("{parent}/"));
        archive::untar(&archived, &parent)
            .map_err(|error| RuntimeError::Failed(format!("an unreadable archive: {error}")))
    }
}
