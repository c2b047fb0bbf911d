//! A change of the master key that the end of a service cut short.

use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use zeroone::control::{Agents, ControlPlane, KeeperError, KeyFile, KeyKeeper};
use zeroone::domain::Secret;
use zeroone::store::{Store, StoreOptions};
use zeroone::vault::{MasterKey, MasterKeySource, Vault};

use super::*;

/// Keeps the ring in memory, and has no opinion about tidying.
#[derive(Debug, Clone)]
struct Memory(Arc<Mutex<MasterKey>>);

impl KeyKeeper for Memory {
    fn load(&self) -> BoxFuture<'_, Result<MasterKey, KeeperError>> {
        std::future::ready(Ok(self.0.lock().unwrap().clone())).boxed()
    }

    fn keep<'a>(&'a self, ring: &'a MasterKey) -> BoxFuture<'a, Result<(), KeeperError>> {
        *self.0.lock().unwrap() = ring.clone();
        std::future::ready(Ok(())).boxed()
    }
}

/// The key of [`testkit::vault`], with a newer one in front of it.
fn two_keys() -> String {
    format!("{},{}", "6".repeat(64), "5".repeat(64))
}

fn ring() -> MasterKey {
    MasterKey::load(MasterKeySource::Value(Secret::new(two_keys()))).unwrap()
}

/// The next service on what a service left that was ended in the middle of a rotation, when that has been finished.
async fn finished(seed: u64, keeper: impl KeyKeeper) -> ControlPlane {
    let world = testkit::plane(seed, Plan::Free).await;
    world.running("Ada").await;
    world.plane.shutdown(Agents::Leave).await;
    let options =
        StoreOptions::default().with_installation(world.fakes.installation()).with_now(world.fakes.engine().now());
    let store = Store::in_memory(world.disk.clone(), options).unwrap();
    let plane = ControlPlane::builder(store, Vault::new(&ring()), world.fakes.runtime())
        .gateway(world.fakes.gateway())
        .clock(world.fakes.clock())
        .key_keeper(keeper)
        .start()
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    for agent in plane.store().load().await.unwrap().agents {
        let sealed = [agent.record.api_key, agent.record.token];
        assert!(sealed.into_iter().flatten().all(|sealed| sealed.key() == plane.vault().active_key()));
    }
    plane
}

#[tokio::test(start_paused = true)]
async fn key_that_nothing_needs_leaves_the_ring_of_a_keeper_that_does_not_object() {
    let keeper = Memory(Arc::new(Mutex::new(ring())));
    let plane = finished(90, keeper.clone()).await;
    assert_eq!((plane.vault().keys(), keeper.0.lock().unwrap().keys()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn key_file_of_the_operators_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.key");
    std::fs::write(&path, two_keys().replace(',', "\n")).unwrap();
    let plane = finished(91, KeyFile::new(path.clone())).await;
    assert_eq!(plane.vault().keys(), 2);
    assert_eq!(std::fs::read_to_string(path).unwrap(), two_keys().replace(',', "\n"));
}
