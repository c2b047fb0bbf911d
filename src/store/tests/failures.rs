//! A disk that fails: what was acknowledged stays, what was not may be there or not, and the store comes back.

use std::io;
use std::time::{Duration, Instant};

use super::*;
use crate::store::disk::Disk;
use crate::store::place::Place;

/// A store with the writer's thread, as on a file, but on a disk that fails on demand.
fn with_writer(disk: &MemoryDisk) -> Store {
    Store::with_writer(Place::Memory(Arc::new(disk.clone())), options()).unwrap()
}

/// Waits for a condition, for as long as any machine may need.
async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_secs(30), "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_failed_commit_says_what_is_known_and_the_next_one_works() {
    for (fault, known_not_written, written) in
        [(CommitFault::Before, true, false), (CommitFault::Sync, false, false), (CommitFault::After, false, true)]
    {
        let disk = MemoryDisk::new();
        let store = open(&disk);
        store.commit(create(1)).await.unwrap();
        disk.fail_commit(1, fault);
        let error = store.commit(create(2)).await.unwrap_err();
        assert_eq!(matches!(error, StoreError::Unavailable(_)), known_not_written, "{fault:?}: {error}");
        assert_eq!(matches!(error, StoreError::Unknown(_)), !known_not_written, "{fault:?}: {error}");
        assert_eq!(store.agent(agent_id(2)).await.unwrap().is_some(), written, "{fault:?}");
        store.commit(create(3)).await.unwrap();
        assert!(store.agent(agent_id(1)).await.unwrap().is_some(), "{fault:?}");
    }
}

#[tokio::test]
async fn while_the_disk_is_gone_nothing_is_acknowledged_and_reads_say_so() {
    let disk = MemoryDisk::new();
    let store = open(&disk);
    store.commit(create(1)).await.unwrap();
    disk.set_gone(true);
    assert!(store.commit(create(2)).await.is_err());
    for _ in 0..3 {
        assert!(matches!(store.commit(create(2)).await, Err(StoreError::Unavailable(_))));
        assert!(matches!(store.load().await, Err(StoreError::Unavailable(_))));
    }
    disk.set_gone(false);
    store.commit(create(2)).await.unwrap();
    assert_eq!(store.load().await.unwrap().agents.len(), 2);
}

#[tokio::test]
async fn the_writer_gets_a_failed_store_back_without_being_asked() {
    let disk = MemoryDisk::new();
    let store = with_writer(&disk);
    store.commit(create(1)).await.unwrap();
    disk.set_gone(true);
    assert!(store.commit(create(2)).await.is_err());
    assert!(matches!(store.load().await, Err(StoreError::Unavailable(_))));
    disk.set_gone(false);
    until("the store is read again", || async { store.load().await.is_ok() }).await;
    store.commit(create(2)).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let disk = MemoryDisk::new();
    let store = with_writer(&disk);
    store.commit(create(1)).await.unwrap();
    disk.fill_up_to(Some(64 * 1024));
    let mut acknowledged = 1;
    let error = loop {
        let revision = acknowledged + 1;
        match store.commit(Batch::update_agent(&revised(&agent(1), revision), Some(&entry(revision)))).await {
            Ok(()) => acknowledged = revision,
            Err(error) => break error,
        }
        assert!(acknowledged < 10_000, "the disk never fills");
    };
    assert!(matches!(error, StoreError::Unknown(_) | StoreError::Unavailable(_)), "{error}");
    disk.fill_up_to(None);
    until("a commit works again", || async { store.commit(Batch::touch()).await.is_ok() }).await;
    let stored = store.agent(agent_id(1)).await.unwrap().unwrap().record.state.revision;
    assert!(stored == acknowledged || stored == acknowledged + 1, "{stored}, acknowledged {acknowledged}");
}

#[tokio::test]
async fn one_bad_batch_does_not_harm_those_that_share_its_commit() {
    let disk = MemoryDisk::new();
    let store = open(&disk);
    let before = disk.commits();
    let batches = [create(1), create(1), create(2), Batch::remove_agent(agent_id(9), at(9)), create(3)];
    let answers = store.0.engine.write(&batches);
    assert_eq!(answers, [Ok(()), rejected(Conflict::Exists), Ok(()), rejected(Conflict::NotFound), Ok(())]);
    assert_eq!(disk.commits(), before + 1);
    assert_eq!(store.load().await.unwrap().agents.len(), 3);
}

#[tokio::test]
async fn of_a_group_whose_commit_fails_no_batch_is_acknowledged() {
    for fault in [CommitFault::Before, CommitFault::Sync, CommitFault::After] {
        let disk = MemoryDisk::new();
        let store = open(&disk);
        store.commit(create(1)).await.unwrap();
        disk.fail_commit(1, fault);
        let answers = store.0.engine.write(&[create(2), create(1), create(3), create(4)]);
        assert!(answers.iter().all(Result::is_err), "{fault:?}: {answers:?}");
        let written = store.load().await.unwrap().agents.len();
        assert_eq!(written, if fault == CommitFault::After { 4 } else { 1 }, "{fault:?}");
    }
}

#[tokio::test]
async fn a_group_of_refused_batches_costs_no_commit() {
    let disk = MemoryDisk::new();
    let store = open(&disk);
    let before = disk.commits();
    assert_eq!(store.commit(Batch::remove_agent(agent_id(1), at(9))).await, rejected(Conflict::NotFound));
    assert_eq!(disk.commits(), before);
}

#[tokio::test]
async fn the_store_of_a_dead_process_is_not_changed_by_its_ghost() {
    let disk = MemoryDisk::new();
    let ghost = open(&disk);
    ghost.commit(create(1)).await.unwrap();
    let rebooted = open(&disk.after(Crash::Process));
    ghost.commit(create(2)).await.unwrap();
    assert_eq!(rebooted.load().await.unwrap().agents.len(), 1);
}

#[tokio::test]
async fn power_that_fails_within_a_commit_leaves_the_state_before_it_or_after_it() {
    let mut outcomes = [0, 0];
    for seed in 0..100 {
        let disk = MemoryDisk::new();
        let store = open(&disk);
        store.commit(create(1)).await.unwrap();
        for revision in 2..=2 + seed % 4 {
            store.commit(Batch::update_agent(&revised(&agent(1), revision), Some(&entry(revision)))).await.unwrap();
        }
        let before = store.load().await.unwrap();
        disk.cut_power(1 + seed % 2);
        store.commit(create(2)).await.unwrap_err();
        let after = open(&disk.after(Crash::Torn { seed })).load().await.unwrap();
        let written = after.agents.len() == 2;
        assert_eq!(after.agents[..1], before.agents[..], "seed {seed}");
        outcomes[usize::from(written)] += 1;
    }
    assert!(outcomes.iter().all(|count| *count > 0), "both ends of a commit are met: {outcomes:?}");
}

/// A disk on which commits wait until they are let go.
#[derive(Debug)]
struct Held {
    disk: MemoryDisk,
    go: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Disk for Held {
    fn len(&self) -> io::Result<u64> {
        Disk::len(&self.disk)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        Disk::read(&self.disk, offset, out)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        Disk::write(&self.disk, offset, data)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Disk::set_len(&self.disk, len)
    }

    fn sync(&self) -> io::Result<()> {
        Disk::sync(&self.disk)
    }

    fn before_commit(&self) -> io::Result<()> {
        self.go.lock().unwrap().recv().map_err(io::Error::other)
    }
}

#[tokio::test]
async fn batches_that_wait_are_counted_and_written_before_the_store_closes() {
    let (go, held) = std::sync::mpsc::sync_channel(1);
    let disk = MemoryDisk::new();
    let place = Place::Memory(Arc::new(Held { disk: disk.clone(), go: held.into() }));
    let store = Store::with_writer(place, options()).unwrap();
    let queued = async || store.stats().await.unwrap().queued;
    assert_eq!(queued().await, 0);
    let waiting: Vec<_> = (1..=2)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.commit(create(n)).await })
        })
        .collect();
    until("both wait", || async { queued().await == 2 }).await;
    let closing = {
        let store = store.clone();
        tokio::spawn(async move { store.close().await })
    };
    let one_more = async || tokio::time::timeout(Duration::from_millis(5), store.commit(Batch::touch())).await;
    until("no more are taken", || async { one_more().await == Ok(Err(StoreError::Closed)) }).await;
    drop(std::thread::spawn(move || while go.send(()).is_ok() {}));
    closing.await.unwrap();
    for batch in waiting {
        assert_eq!(batch.await.unwrap(), Ok(()));
    }
    assert_eq!(open(&disk).load().await.unwrap().agents.len(), 2);
}
