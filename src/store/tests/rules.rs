//! What a batch may do and may not.

use redb::ReadableTable;

use super::*;
use crate::store::apply::{IDEMPOTENCY_BYTES, IDEMPOTENCY_ROWS, keep_newest};
use crate::store::tables::{DELETED, IDEMPOTENCY_USE, joined};

#[tokio::test]
async fn what_is_committed_is_read_back() {
    let store = fresh();
    for batch in [Batch::put_user(&user(1)), Batch::put_key(&key(1, 1)), create(1), create(2)] {
        store.commit(batch).await.unwrap();
    }
    let snapshot = store.load().await.unwrap();
    assert_eq!(snapshot.users, [user(1)]);
    assert_eq!(snapshot.keys, [key(1, 1)]);
    assert_eq!(
        snapshot.agents,
        [StoredAgent { record: agent(1), port: port(1) }, StoredAgent { record: agent(2), port: port(2) }]
    );
    assert_eq!(store.agent(agent_id(2)).await.unwrap().unwrap().port, port(2));
    assert_eq!(store.agent(agent_id(3)).await.unwrap(), None);
    assert_eq!(store.events(agent_id(1), 0, 10).await.unwrap(), [entry(1)]);
    assert_eq!((store.installation(), store.created_at()), (InstallationId::from_bytes([7; 16]), at(1)));
}

#[tokio::test]
async fn an_agent_needs_an_id_a_slug_a_port_and_a_place_in_the_quota_of_its_own() {
    let store = fresh();
    store.commit(create(1)).await.unwrap();
    let new = agent(2);
    let same_slug = AgentRecord { slug: agent(1).slug, ..agent(2) };
    for (record, port, max, conflict) in [
        (&agent(1), port(2), None, Conflict::Exists),
        (&same_slug, port(2), None, Conflict::Slug),
        (&new, port(1), None, Conflict::Port),
        (&new, port(2), Some(1), Conflict::Quota),
        (&new, port(2), Some(0), Conflict::Quota),
    ] {
        assert_eq!(store.commit(Batch::create_agent(record, port, &entry(1), max)).await, rejected(conflict));
    }
    assert_eq!(store.load().await.unwrap().agents.len(), 1);
    store.commit(Batch::create_agent(&new, port(2), &entry(1), Some(2))).await.unwrap();
    let others = AgentRecord { user: user_id(2), ..agent(3) };
    store.commit(Batch::create_agent(&others, port(3), &entry(1), Some(1))).await.unwrap();
}

#[tokio::test]
async fn a_removed_agent_leaves_nothing_and_never_comes_back() {
    let store = fresh();
    // That it was deleted is known for good.
    let rows = async || {
        let rows = store.stats().await.unwrap().rows.into_iter();
        rows.filter(|(table, _)| !matches!(*table, "deleted" | "event_log")).collect::<Vec<_>>()
    };
    let before = rows().await;
    assert!(!store.was_deleted(agent_id(1)).await.unwrap());
    store.commit(create(1)).await.unwrap();
    store.commit(Batch::update_agent(&revised(&agent(1), 2), Some(&entry(2)))).await.unwrap();
    store.commit(Batch::remove_agent(agent_id(1), at(9))).await.unwrap();
    assert_eq!(rows().await, before);
    assert!(store.was_deleted(agent_id(1)).await.unwrap());
    assert!(store.events(agent_id(1), 0, 10).await.unwrap().is_empty());
    let late = Batch::update_agent(&revised(&agent(1), 3), None);
    assert_eq!(store.commit(late).await, rejected(Conflict::NotFound));
    assert_eq!(store.commit(Batch::remove_agent(agent_id(1), at(9))).await, rejected(Conflict::NotFound));
    store.commit(create(1)).await.unwrap();
}

#[tokio::test]
async fn an_update_needs_a_newer_revision_and_keeps_slug_and_user() {
    let store = fresh();
    store.commit(create(1)).await.unwrap();
    store.commit(Batch::update_agent(&revised(&agent(1), 5), None)).await.unwrap();
    for (record, conflict) in [
        (revised(&agent(1), 5), Conflict::Stale),
        (revised(&agent(1), 4), Conflict::Stale),
        (AgentRecord { slug: agent(2).slug, ..revised(&agent(1), 6) }, Conflict::Slug),
        (AgentRecord { user: user_id(2), ..revised(&agent(1), 6) }, Conflict::Exists),
    ] {
        assert_eq!(store.commit(Batch::update_agent(&record, None)).await, rejected(conflict));
    }
    let same_seq = Batch::update_agent(&revised(&agent(1), 6), Some(&entry(1)));
    assert_eq!(store.commit(same_seq).await, rejected(Conflict::Stale));
    assert_eq!(store.agent(agent_id(1)).await.unwrap().unwrap().record, revised(&agent(1), 5));
}

#[tokio::test]
async fn a_port_moves_only_from_its_holder_to_a_free_one() {
    let store = fresh();
    store.commit(create(1)).await.unwrap();
    store.commit(create(2)).await.unwrap();
    for (from, to) in [(2, 3), (3, 4), (1, 2)] {
        let swap = Batch::swap_port(agent_id(1), port(from), port(to).unwrap());
        assert_eq!(store.commit(swap).await, rejected(Conflict::Port), "{from} to {to}");
    }
    store.commit(Batch::swap_port(agent_id(1), port(1), port(3).unwrap())).await.unwrap();
    store.commit(Batch::swap_port(agent_id(1), port(3), port(3).unwrap())).await.unwrap();
    assert_eq!(store.agent(agent_id(1)).await.unwrap().unwrap().port, port(3));
    store.commit(Batch::create_agent(&agent(3), port(1), &entry(1), None)).await.unwrap();
}

#[tokio::test]
async fn a_timeline_keeps_its_newest_entries() {
    let store = Store::in_memory(MemoryDisk::new(), StoreOptions { events_per_agent: 3, ..options() }).unwrap();
    store.commit(create(1)).await.unwrap();
    store.commit(create(2)).await.unwrap();
    for seq in 2..=9 {
        store.commit(Batch::update_agent(&revised(&agent(1), seq), Some(&entry(seq)))).await.unwrap();
    }
    let seqs = |entries: Vec<LogEntry>| entries.into_iter().map(|entry| entry.seq).collect::<Vec<_>>();
    assert_eq!(seqs(store.events(agent_id(1), 0, 10).await.unwrap()), [7, 8, 9]);
    assert_eq!(seqs(store.events(agent_id(1), 7, 1).await.unwrap()), [8]);
    assert!(store.events(agent_id(1), u64::MAX, 10).await.unwrap().is_empty());
    assert_eq!(seqs(store.events(agent_id(2), 0, 10).await.unwrap()), [1]);
}

#[tokio::test]
async fn a_user_goes_with_all_keys_but_not_before_the_agents() {
    let store = fresh();
    assert_eq!(store.commit(Batch::put_key(&key(1, 1))).await, rejected(Conflict::NotFound));
    for batch in [Batch::put_user(&user(1)), Batch::put_user(&user(2)), create(1)] {
        store.commit(batch).await.unwrap();
    }
    for batch in [Batch::put_key(&key(1, 1)), Batch::put_key(&key(2, 1)), Batch::put_key(&key(3, 2))] {
        store.commit(batch).await.unwrap();
    }
    let stolen = KeyRecord { hash: [1; 32], ..key(4, 2) };
    assert_eq!(store.commit(Batch::put_key(&stolen)).await, rejected(Conflict::Exists));
    assert_eq!(store.commit(Batch::remove_user(user_id(1))).await, rejected(Conflict::HasAgents));
    store.commit(Batch::remove_agent(agent_id(1), at(9))).await.unwrap();
    store.commit(Batch::remove_user(user_id(1))).await.unwrap();
    let snapshot = store.load().await.unwrap();
    assert_eq!((snapshot.users, snapshot.keys), (vec![user(2)], vec![key(3, 2)]));
    assert_eq!(store.commit(Batch::remove_user(user_id(1))).await, rejected(Conflict::NotFound));
}

#[tokio::test]
async fn a_key_may_change_its_name_and_its_hash() {
    let store = fresh();
    store.commit(Batch::put_user(&user(1))).await.unwrap();
    store.commit(Batch::put_key(&key(1, 1))).await.unwrap();
    let changed = KeyRecord { hash: [9; 32], name: None, ..key(1, 1) };
    store.commit(Batch::put_key(&changed)).await.unwrap();
    assert_eq!(store.load().await.unwrap().keys, [changed]);
    store.commit(Batch::remove_keys(user_id(1), vec![key_id(1)])).await.unwrap();
    assert!(store.load().await.unwrap().keys.is_empty());
    let again = Batch::remove_keys(user_id(1), vec![key_id(1)]);
    assert_eq!(store.commit(again).await, rejected(Conflict::NotFound));
}

fn in_flight(started: i64, expires: i64) -> IdempotencyRecord {
    let state = IdempotencyState::InFlight { agent: Some(agent_id(1)), started_at: at(started) };
    IdempotencyRecord { fingerprint: [1; 32], state, expires_at: at(expires) }
}

#[tokio::test]
async fn an_idempotency_key_is_claimed_once_until_it_expires() {
    let store = fresh();
    let claim = |started| Batch::put_idempotency(user_id(1), "k", &in_flight(started, started + 100));
    store.commit(claim(0)).await.unwrap();
    assert_eq!(store.commit(claim(99)).await, rejected(Conflict::IdempotencyKey));
    store.commit(Batch::put_idempotency(user_id(2), "k", &in_flight(50, 150))).await.unwrap();
    store.commit(claim(100)).await.unwrap();
    assert_eq!(store.idempotency(user_id(1), "k").await.unwrap(), Some(in_flight(100, 200)));
    store.commit(Batch::remove_idempotency(user_id(1), "k")).await.unwrap();
    assert_eq!(store.idempotency(user_id(1), "k").await.unwrap(), None);
    assert!(store.idempotency(user_id(2), "k").await.unwrap().is_some());
    store.commit(claim(101)).await.unwrap();
}

fn answer(bytes: usize) -> IdempotencyRecord {
    let body = crate::testkit::vault().seal(&crate::vault::Binding::named("idempotency", b"k"), &vec![7; bytes]);
    let state = IdempotencyState::Done { status: 200, headers: Vec::new(), body };
    IdempotencyRecord { fingerprint: [1; 32], state, expires_at: at(100) }
}

#[tokio::test]
async fn kept_answers_are_bounded_by_user_and_go_with_the_user() {
    let store = fresh();
    for n in 1..=2 {
        store.commit(Batch::put_user(&user(n))).await.unwrap();
    }
    // Four MiB are more than five in base64: seven of them do not fit.
    let large = answer(4 << 20);
    for n in 0..8 {
        store.commit(Batch::put_idempotency(user_id(1), &n.to_string(), &large)).await.unwrap();
    }
    let kept = async |user: u8, key: &str| store.idempotency(user_id(user), key).await.unwrap().map(|it| it.state);
    assert_eq!(kept(1, "0").await, Some(large.state.clone()), "the first ones are whole");
    assert_eq!(kept(1, "7").await, Some(IdempotencyState::Withheld { status: 200 }));
    store.commit(Batch::put_idempotency(user_id(2), "0", &large)).await.unwrap();
    assert_eq!(kept(2, "0").await, Some(large.state.clone()), "another user has room of their own");
    // What is freed can be used again.
    for n in 0..8 {
        store.commit(Batch::remove_idempotency(user_id(1), &n.to_string())).await.unwrap();
    }
    store.commit(Batch::put_idempotency(user_id(1), "again", &large)).await.unwrap();
    assert_eq!(kept(1, "again").await, Some(large.state.clone()));
    store.commit(Batch::remove_user(user_id(1))).await.unwrap();
    assert_eq!(kept(1, "again").await, None);
    assert_eq!(kept(2, "0").await, Some(large.state));
}

#[tokio::test]
async fn a_users_room_for_kept_answers_is_used_to_its_last_byte() {
    let bytes_of = |record: &IdempotencyRecord| {
        Batch::put_idempotency(user_id(1), "k", record).idempotency.unwrap().value.len() as u64
    };
    let padded = |bytes: u64| {
        let headers = vec![("x".to_owned(), "x".repeat(usize::try_from(bytes).unwrap()))];
        let IdempotencyState::Done { status, body, .. } = answer(0).state else { panic!("it has an answer") };
        IdempotencyRecord { state: IdempotencyState::Done { status, headers, body }, ..answer(0) }
    };
    let large = answer(4 << 20);
    let rest = IDEMPOTENCY_BYTES - 5 * bytes_of(&large) - bytes_of(&padded(0));
    for (more, is_kept) in [(0, true), (1, false)] {
        let store = fresh();
        for n in 0..5 {
            store.commit(Batch::put_idempotency(user_id(1), &n.to_string(), &large)).await.unwrap();
        }
        let last = padded(rest + more);
        store.commit(Batch::put_idempotency(user_id(1), "k", &last)).await.unwrap();
        let stored = store.idempotency(user_id(1), "k").await.unwrap().unwrap();
        assert_eq!(stored == last, is_kept, "{more} bytes more than there is room for");
    }
}

#[tokio::test]
async fn beyond_a_users_number_of_kept_requests_the_one_that_expires_first_goes() {
    let store = fresh();
    // As if the user had so many: writing them would take minutes.
    let fill = || {
        let written = store.0.engine.with_database(|database| {
            let txn = database.begin_write().unwrap();
            txn.open_table(IDEMPOTENCY_USE).unwrap().insert(user_id(1).as_bytes(), (IDEMPOTENCY_ROWS, 0)).unwrap();
            txn.commit().unwrap();
            Ok(())
        });
        written.unwrap();
    };
    let kept = async || {
        let mut kept = Vec::new();
        for key in ["a", "b", "c", "d"] {
            kept.extend(store.idempotency(user_id(1), key).await.unwrap().map(|_| key));
        }
        kept.concat()
    };
    for (key, expires, left) in [("a", 100, "a"), ("b", 200, "b"), ("c", 50, "bc"), ("d", 300, "bd")] {
        store.commit(Batch::put_idempotency(user_id(1), key, &in_flight(0, expires))).await.unwrap();
        assert_eq!(kept().await, left, "after {key}");
        fill();
    }
}

#[tokio::test]
async fn a_create_and_its_idempotency_record_are_written_together_or_not_at_all() {
    let store = fresh();
    let record = in_flight(0, 100);
    store.commit(create(1).with_idempotency(user_id(1), "k", &record)).await.unwrap();
    let second = create(2).with_idempotency(user_id(1), "k", &record);
    assert_eq!(store.commit(second).await, rejected(Conflict::IdempotencyKey));
    assert_eq!(store.agent(agent_id(2)).await.unwrap(), None);
    let third = create(1).with_idempotency(user_id(1), "other", &record);
    assert_eq!(store.commit(third).await, rejected(Conflict::Exists));
    assert_eq!(store.idempotency(user_id(1), "other").await.unwrap(), None);
}

#[tokio::test]
async fn expired_idempotency_records_are_cleared_away() {
    let store = fresh();
    for n in 0..50 {
        store.commit(Batch::put_idempotency(user_id(1), &format!("k{n}"), &in_flight(n, n + 10))).await.unwrap();
    }
    let rows = store.stats().await.unwrap().rows;
    for table in ["idempotency", "expiries"] {
        let count = rows.iter().find(|(name, _)| *name == table).unwrap().1;
        assert_eq!(count, 10, "{table}");
    }
}

#[tokio::test]
async fn a_store_that_is_closed_says_so() {
    let store = fresh();
    let other = store.clone();
    store.close().await;
    assert_eq!(other.commit(Batch::touch()).await, Err(StoreError::Closed));
    assert_eq!(other.load().await, Err(StoreError::Closed));
}

#[tokio::test]
async fn event_log_outlives_its_agents_and_goes_on_after_a_reopen() {
    let disk = MemoryDisk::new();
    let store = open(&disk);
    store.commit(create(1)).await.unwrap();
    store.commit(Batch::update_agent(&revised(&agent(1), 2), Some(&entry(2)))).await.unwrap();
    store.commit(Batch::remove_agent(agent_id(1), at(9))).await.unwrap();
    assert_eq!(store.commit(Batch::remove_agent(agent_id(1), at(9))).await, rejected(Conflict::NotFound));
    assert_eq!(*store.appended().borrow(), 3, "a rejected change is no event");
    store.close().await;
    let store = open(&disk.after(Crash::Power));
    assert_eq!(*store.appended().borrow(), 3);
    store.commit(create(2)).await.unwrap();
    store.commit(Batch::touch()).await.unwrap();
    assert_eq!(*store.appended().borrow(), 4, "a commit without an event takes back none");
    let kinds = [
        (1, EventKind::Created { entry: entry(1) }),
        (2, EventKind::Changed { entry: entry(2) }),
        (3, EventKind::Removed),
        (4, EventKind::Created { entry: entry(1) }),
    ];
    let EventPage::Lines(lines) = store.event_log(0, 100).await.unwrap() else { panic!("all of it is kept") };
    assert!(lines.iter().all(|event| event.user == user_id(1)));
    assert_eq!(lines.iter().map(|event| (event.offset, event.kind.clone())).collect::<Vec<_>>(), kinds);
    let EventPage::Lines(rest) = store.event_log(2, 1).await.unwrap() else { panic!("all of it is kept") };
    assert_eq!(rest, lines[2..3]);
    assert_eq!(store.event_log(4, 9).await.unwrap(), EventPage::Lines(vec![]));
    assert_eq!(store.event_log(5, 9).await.unwrap(), EventPage::Ahead { newest: 4 });
}

#[tokio::test]
async fn event_log_is_bounded_by_number_and_by_age_and_says_what_is_left() {
    let bounds = |lines, secs| EventLogBounds { lines, age: std::time::Duration::from_secs(secs) };
    for (event_log, oldest) in [(bounds(100, 1_000_000), 157), (bounds(1_000_000, 99), 157), (bounds(1, 0), 256)] {
        let store = Store::in_memory(MemoryDisk::new(), StoreOptions { event_log, ..options() }).unwrap();
        store.commit(create(1)).await.unwrap();
        for revision in 2..=256 {
            let line = LogEntry { time: at(i64::try_from(revision).unwrap()), ..entry(revision) };
            store.commit(Batch::update_agent(&revised(&agent(1), revision), Some(&line))).await.unwrap();
        }
        let Ok(EventPage::Expired { oldest: found }) = store.event_log(0, 9).await else { panic!("{event_log:?}") };
        // Pruning runs every 64 lines, the last time at 256.
        assert_eq!(found, oldest, "{event_log:?}");
        let EventPage::Lines(lines) = store.event_log(found - 1, 1000).await.unwrap() else { panic!("{event_log:?}") };
        assert_eq!((lines[0].offset, lines.last().unwrap().offset), (found, 256));
    }
}

#[tokio::test]
async fn a_log_that_is_far_too_long_shrinks_faster_than_it_grows() {
    let disk = MemoryDisk::new();
    let mut revision = 1;
    for (lines, until, oldest) in [(1_000_000, 191, 1), (1, 192, 129), (1, 255, 129), (1, 256, 256)] {
        let event_log = EventLogBounds { lines, age: std::time::Duration::MAX };
        let store = Store::in_memory(disk.clone(), StoreOptions { event_log, ..options() }).unwrap();
        if revision == 1 {
            store.commit(create(1)).await.unwrap();
        }
        while revision < until {
            revision += 1;
            store.commit(Batch::update_agent(&revised(&agent(1), revision), Some(&entry(revision)))).await.unwrap();
        }
        let EventPage::Lines(left) = store.event_log(oldest - 1, 1).await.unwrap() else { panic!("{oldest} is there") };
        assert_eq!(left[0].offset, oldest);
        if oldest > 1 {
            assert_eq!(store.event_log(0, 1).await.unwrap(), EventPage::Expired { oldest });
        }
        store.close().await;
    }
}

#[test]
fn of_the_deleted_agents_the_newest_are_known() {
    let database = redb::Database::builder().create_with_backend(redb::backends::InMemoryBackend::new()).unwrap();
    let txn = database.begin_write().unwrap();
    let mut deleted = txn.open_table(DELETED).unwrap();
    for (n, known) in [(1, vec![1]), (2, vec![1, 2]), (3, vec![1, 2, 3]), (4, vec![2, 3, 4]), (5, vec![3, 4, 5])] {
        deleted.insert(agent_id(n).as_bytes(), 0).unwrap();
        assert!(keep_newest(&mut deleted, 3).is_ok());
        let rows: Vec<_> = deleted.iter().unwrap().map(|row| row.unwrap().0.value()[0]).collect();
        assert_eq!(rows, known);
    }
}

fn audited(n: i64) -> AuditRecord {
    AuditRecord {
        offset: 0,
        time: at(n),
        user: None,
        key: None,
        session: None,
        address: None,
        action: "POST /api/agents".into(),
        target: format!("agent {n}"),
        owner: None,
        outcome: AuditOutcome::Done,
        code: None,
        request: "r".into(),
    }
}

#[tokio::test]
async fn the_audit_is_read_in_pages_that_end_by_what_they_have_or_what_they_looked_at() {
    let store = fresh();
    for n in 1..=5 {
        store.commit(Batch::audit(audited(n))).await.unwrap();
    }
    let (all, none, second) = (
        AuditFilter::default(),
        AuditFilter::default().with_target("nothing"),
        AuditFilter::default().with_target("agent 2"),
    );
    let between = AuditFilter::default().with_since(at(2)).with_until(at(4));
    for (scanned, limit, before, filter, offsets, next) in [
        (100, 2, None, &all, vec![5, 4], Some(4)),
        (100, 2, Some(4), &all, vec![3, 2], Some(2)),
        (100, 2, Some(2), &all, vec![1], None),
        (100, 5, None, &all, vec![5, 4, 3, 2, 1], None),
        (100, 9, None, &all, vec![5, 4, 3, 2, 1], None),
        (2, 9, None, &all, vec![5, 4], Some(4)),
        (2, 9, None, &none, vec![], Some(4)),
        (2, 9, Some(4), &second, vec![2], Some(2)),
        (1, 9, Some(4), &second, vec![], Some(3)),
        (5, 9, None, &none, vec![], None),
        (100, 9, None, &second, vec![2], None),
        (100, 9, None, &between, vec![4, 3, 2], None),
    ] {
        let page = store.0.engine.read(|txn| read::audit_among(scanned, txn, before, limit, filter)).unwrap();
        let found: Vec<_> = page.records.iter().map(|record| record.offset).collect();
        assert_eq!((found, page.next), (offsets, next), "{limit} of {scanned} before {before:?}");
    }
    assert_eq!(store.audit(None, 2, all).await.unwrap().next, Some(4));
}

#[tokio::test]
async fn a_copy_that_is_separated_keeps_users_and_keys_and_forgets_agents() {
    let disk = MemoryDisk::new();
    let store = open(&disk);
    for batch in [Batch::put_user(&user(1)), Batch::put_key(&key(1, 1)), create(1), create(2)] {
        store.commit(batch).await.unwrap();
    }
    store.commit(Batch::remove_agent(agent_id(2), at(9))).await.unwrap();
    store.commit(Batch::put_idempotency(user_id(1), "k", &in_flight(0, 100))).await.unwrap();
    store.close().await;
    let installation = InstallationId::from_bytes([8; 16]);
    let separated = || StoreOptions { separate_as: Some(installation), ..options() };
    let store = Store::in_memory(disk.clone(), separated()).unwrap();
    assert_eq!(store.installation(), installation);
    let snapshot = store.load().await.unwrap();
    assert_eq!((snapshot.users, snapshot.keys, snapshot.agents), (vec![user(1)], vec![key(1, 1)], vec![]));
    let rows = store.stats().await.unwrap().rows.into_iter().filter(|(_, rows)| *rows > 0);
    assert_eq!(
        rows.map(|(table, _)| table).collect::<Vec<_>>(),
        ["meta", "event_log", "users", "keys", "user_keys"],
        "what is left"
    );
    store.commit(create(1)).await.unwrap();
    store.close().await;
    assert_eq!(open(&disk).installation(), installation, "it stays what it became");
}

/// The checksum of a row is over its place as well: one that is copied to another place is not believed there.
#[test]
fn each_part_of_a_place_counts() {
    let place = joined(&[1; 16], b"a");
    assert_ne!(place, joined(&[1; 16], b"b"));
    assert_ne!(place, joined(&[2; 16], b"a"));
}
