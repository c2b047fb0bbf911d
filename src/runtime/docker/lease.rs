//! The lease of an installation on an engine: a chain of empty volumes, of which the newest counts.
//!
//! Labels of a volume cannot be changed, and an engine answers the creation of what exists with what exists. So each record
//! is a volume of its own with a number, and of several who write the same number exactly one finds its own labels in the
//! answer. The names are a small ring, so that everything can be read by name: a filter before the engine need not allow
//! to list the volumes of others. Slot `n % SLOTS` has record `n`; what is older than the newest is removed.
//!
//! A volume takes no space, needs no image, and outlives engine and control plane. One that is removed by hand or by a
//! prune is written again by the next renewal.

use std::collections::HashMap;

use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::RemoveVolumeOptions;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::container::LABELS;
use super::engine::{CHANGE, Engine, change};
use crate::domain::{InstallationId, Timestamp};
use crate::runtime::lease::{LeaseAnswer, LeaseRecord, LeaseRequest, decide};
use crate::runtime::{RuntimeError, RuntimeResult};

/// A writer that stalls may remove a record only once the ring has gone round: at a renewal each ten seconds, that is
/// longer than any lease lasts without one.
const SLOTS: u64 = 8;
/// Somebody else wrote in between: looked at again, but not for ever.
const TRIES: usize = 4;

/// One record of the chain, as its volume's label has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Link {
    number: u64,
    /// Tells writers of the same number apart.
    writer: Uuid,
    record: LeaseRecord,
}

/// Asks for the lease, see [`crate::runtime::lease`].
pub(super) async fn ask(
    engine: &Engine,
    installation: InstallationId,
    request: &LeaseRequest,
    now: Timestamp,
) -> RuntimeResult<LeaseAnswer> {
    for _ in 0..TRIES {
        let links = read(engine, installation).await?;
        let newest = links.iter().max_by_key(|link| link.number);
        let (written, answer) = decide(newest.map(|link| &link.record), request, now);
        let Some(record) = written else { return Ok(answer) };
        let number = newest.map_or(1, |link| link.number + 1);
        // What an earlier writer could not remove is in the way when the ring has gone round.
        let in_the_way: Vec<Link> =
            links.iter().filter(|link| link.number % SLOTS == number % SLOTS).cloned().collect();
        remove(engine, installation, &in_the_way).await;
        if write(engine, installation, &Link { number, writer: Uuid::now_v7(), record }).await? {
            remove(engine, installation, &links).await;
            return Ok(answer);
        }
    }
    let volume = name(installation, 0);
    Err(RuntimeError::Failed(format!(
        "the lease of this installation cannot be written: others write it at the same time, or a volume named like {volume} \
         is not ours"
    )))
}

fn name(installation: InstallationId, number: u64) -> String {
    format!("zeroclaw-{installation}-{}", number % SLOTS)
}

fn label() -> String {
    format!("{LABELS}lease")
}

fn link(labels: &HashMap<String, String>) -> Option<Link> {
    serde_json::from_str(labels.get(&label())?).ok()
}

async fn read(engine: &Engine, installation: InstallationId) -> RuntimeResult<Vec<Link>> {
    let slots = (0..SLOTS).map(|slot| async move { engine.volume(&name(installation, slot)).await });
    let found = try_join_all(slots).await?;
    Ok(found.into_iter().flatten().filter_map(|volume| link(&volume.labels)).collect())
}

/// Whether the record is written: not where another writer was first.
async fn write(engine: &Engine, installation: InstallationId, new: &Link) -> RuntimeResult<bool> {
    let text = serde_json::to_string(new).map_err(|error| RuntimeError::Invalid(error.to_string()))?;
    let request = VolumeCreateRequest {
        name: Some(name(installation, new.number)),
        labels: Some(HashMap::from([(label(), text)])),
        ..Default::default()
    };
    let docker = engine.docker().await?;
    let volume =
        change(CHANGE, "creating a volume that keeps the lease of the installation", docker.create_volume(request))
            .await?;
    Ok(link(&volume.labels).as_ref() == Some(new))
}

/// Removes what is no longer the newest. What stays is removed by the next writer.
async fn remove(engine: &Engine, installation: InstallationId, links: &[Link]) {
    let Ok(docker) = engine.docker().await else { return };
    for link in links {
        let name = name(installation, link.number);
        let removal = docker.remove_volume(&name, None::<RemoveVolumeOptions>);
        if let Err(failure) = change(CHANGE, "removing the volume of an old lease", removal).await
            && !failure.already()
        {
            tracing::debug!(?failure, "an old record of the lease stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_back_and_other_labels_are_none() {
        let record = LeaseRecord {
            epoch: 3,
            holder: "store /data".into(),
            description: "process 7".into(),
            renewed_at: Timestamp::UNIX_EPOCH,
            released: false,
        };
        let written = Link { number: 9, writer: Uuid::nil(), record };
        let labels = |text: &str| HashMap::from([(label(), text.to_owned())]);
        assert_eq!(link(&labels(&serde_json::to_string(&written).unwrap())), Some(written));
        for odd in ["", "{}", "[]", "{\"number\":-1}"] {
            assert_eq!(link(&labels(odd)), None, "{odd}");
        }
        assert_eq!(link(&HashMap::new()), None);
    }

    #[test]
    fn names_are_a_ring_that_a_filter_by_hexadecimal_names_lets_through() {
        let installation = InstallationId::from_bytes([0xab; 16]);
        assert_eq!(name(installation, 1), name(installation, 1 + SLOTS));
        let rest = name(installation, 7).strip_prefix("zeroclaw-").unwrap().to_owned();
        assert!(rest.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'), "{rest}");
    }
}
