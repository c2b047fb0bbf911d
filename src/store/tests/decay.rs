//! Bits that flip behind the store's back: noticed, never taken for data, never "repaired" into less.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

/// A store with something in every table, as a clean stop or a crash leaves it.
fn filled(crash: bool) -> (MemoryDisk, Snapshot) {
    let disk = MemoryDisk::new();
    let store = open(&disk);
    let mut snapshot = Snapshot { users: vec![user(1)], keys: vec![key(1, 1)], ..Snapshot::default() };
    let mut batches = vec![Batch::put_user(&user(1)), Batch::put_key(&key(1, 1))];
    for n in 1..=12 {
        batches.push(create(n));
        snapshot.agents.push(StoredAgent { record: agent(n), port: port(n.into()) });
    }
    for batch in batches {
        store.commit_inline(batch).unwrap();
    }
    let image = disk.after(Crash::Process);
    drop(store);
    (if crash { image } else { disk }, snapshot)
}

fn read_all(disk: &MemoryDisk, check_integrity: bool) -> Result<Snapshot, String> {
    let options = StoreOptions { check_integrity, ..options() };
    let store = Store::in_memory(disk.clone(), options).map_err(|error| error.to_string())?;
    store.0.engine.read(read::snapshot).map_err(|error| error.to_string())
}

static FILLED: LazyLock<[(MemoryDisk, Snapshot); 2]> = LazyLock::new(|| [filled(false), filled(true)]);

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn a_flipped_bit_is_an_error_or_harmless(
        crash: bool,
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u8), 1..4),
    ) {
        let (image, expected) = &FILLED[usize::from(crash)];
        let disk = image.after(Crash::Process);
        let length = disk.bytes().len();
        for (at, bit) in flips {
            disk.flip(at.index(length) as u64, 1 << bit);
        }
        if let Ok(read) = read_all(&disk, true) {
            prop_assert_eq!(&read, expected);
        }
    }
}

/// Every place of a record's JSON, as it lies in the file.
fn occurrences(disk: &MemoryDisk, text: &str) -> Vec<u64> {
    let bytes = disk.bytes();
    let at = |window: &[u8]| window == text.as_bytes();
    bytes.windows(text.len()).enumerate().filter(|(_, window)| at(window)).map(|(at, _)| at as u64).collect()
}

#[test]
fn a_damaged_record_stops_the_opening_and_the_file_is_left_as_it_is() {
    for crash in [false, true] {
        let (disk, _) = filled(crash);
        for at in occurrences(&disk, "\"slug\":\"agent-7\"") {
            disk.flip(at + 8, 3);
        }
        let before = disk.bytes();
        let error = Store::in_memory(disk.clone(), options()).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("restore a backup"), "{error}");
        // redb marks a file as in use when it opens it: that byte is all that may differ.
        let differ = before.iter().zip(&disk.bytes()).filter(|(a, b)| a != b).count();
        assert!(differ <= 1 && before.len() == disk.bytes().len(), "crash {crash}: {differ} bytes changed");
    }
}

#[test]
fn a_record_that_decays_unseen_by_the_opening_is_named_when_it_is_read() {
    let (disk, expected) = filled(false);
    for at in occurrences(&disk, "\"slug\":\"agent-7\"") {
        disk.flip(at + 8, 3);
    }
    let error = read_all(&disk, false).unwrap_err();
    assert!(error.contains(&format!("agents/{}", "07".repeat(16))), "{error}");
    let store = Store::in_memory(disk.clone(), StoreOptions { check_integrity: false, ..options() }).unwrap();
    let sound = store.0.engine.read(|txn| read::agent(txn, agent_id(8))).unwrap().unwrap();
    assert_eq!(sound, expected.agents[7]);
    let update = Batch::update_agent(&revised(&agent(7), 2), None);
    assert!(matches!(store.commit_inline(update), Err(StoreError::Corrupt { table: "agents", .. })));
    store.commit_inline(Batch::update_agent(&revised(&agent(8), 2), None)).unwrap();
}
