//! The data of an instance that is about to be started by another version, and what its gateway is told afterwards.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::try_join_all;

use super::{gateway_failure, runtime_failure};
use crate::actor::Services;
use crate::domain::{MemoryBackend, Secret, StagedFile, Upgrade, UpgradeStage};
use crate::lifecycle::Failure;
use crate::runtime::{InstanceKey, RuntimeResult};
use crate::zeroclaw::memory::missing;
use crate::zeroclaw::migration::{SET_ASIDE, UNTOLD, folders, moved, put_back, read_untold, set_aside, untold};

/// How long a gateway may take to list what it remembers, or to take an entry.
pub(super) const MEMORY: Duration = Duration::from_secs(15);
/// Entries that are told side by side.
const TELLERS: usize = 4;

/// Before the first start of the other version: sets aside what is there and brings it to where that version looks for it;
/// or puts back what was set aside. It may be repeated until the version was started.
pub(super) async fn migrate(
    services: &Services,
    key: &InstanceKey,
    upgrade: &Upgrade,
    backend: MemoryBackend,
) -> Result<(), Failure> {
    let (from, to) = (upgrade.from.profile, upgrade.to.profile);
    let files = match upgrade.stage {
        UpgradeStage::Rehearsing { .. } => return Ok(()),
        UpgradeStage::Forward => {
            let present = read_all(services, key, folders(from)).await.map_err(|error| runtime_failure(&error))?;
            let mut files = set_aside(from, &present);
            files.extend(moved(from, to, backend, &present));
            files
        }
        UpgradeStage::Back => {
            let kept = services.runtime.read_data(key, SET_ASIDE).await.map_err(|error| runtime_failure(&error))?;
            put_back(from, &kept)
        }
    };
    services.runtime.write_data(key, &files).await.map_err(|error| runtime_failure(&error))
}

pub async fn read_all(services: &Services, key: &InstanceKey, folders: &[&str]) -> RuntimeResult<Vec<StagedFile>> {
    // Side by side: the agent is down meanwhile.
    let readings = try_join_all(folders.iter().map(|folder| services.runtime.read_data(key, folder))).await?;
    Ok(readings.into_iter().flatten().collect())
}

/// Tells a gateway the entries that wait for it in its data. Repeated, it tells what is still missing.
pub(super) async fn tell(
    services: &Services,
    key: &InstanceKey,
    at: SocketAddr,
    token: &Secret<String>,
) -> Result<(), Failure> {
    let files = services.runtime.read_data(key, UNTOLD).await.map_err(|error| runtime_failure(&error))?;
    let wanted = read_untold(&files);
    let known = services.gateway.memory(at, token, MEMORY).await.map_err(|error| gateway_failure(&error))?;
    let told = missing(&wanted, &known);
    tracing::info!(entries = told.len(), "telling the gateway what the agent remembered");
    for some in told.chunks(TELLERS) {
        let calls: Vec<_> = some.iter().map(|entry| services.gateway.remember(at, token, entry, MEMORY)).collect();
        try_join_all(calls).await.map_err(|error| gateway_failure(&error))?;
    }
    // Nothing of it is kept in two places.
    services.runtime.write_data(key, &[untold(&[])]).await.map_err(|error| runtime_failure(&error))
}
