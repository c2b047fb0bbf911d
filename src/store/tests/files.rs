//! The store as a file: who may have it, and what is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, TableDefinition, WriteTransaction};
use tempfile::TempDir;

use crate::store::place::{Opening, Place};
use crate::store::schema::{self, MIGRATIONS, Migration};
use crate::store::tables::{AUDIT, EVENT_LOG, SESSIONS, TICKETS, USAGE, USER_SESSIONS};

use super::*;

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zeroone.redb");
    (folder, path)
}

/// A closed store with one agent.
async fn closed_store(path: &Path) {
    let store = Store::open(path, options()).unwrap();
    store.commit(create(1)).await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn a_new_file_is_private_and_keeps_what_was_written() {
    let (folder, path) = folder();
    closed_store(&path).await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let other = StoreOptions { installation: InstallationId::new(), ..options() };
    let store = Store::open(&path, other).unwrap();
    assert_eq!(store.installation(), InstallationId::from_bytes([7; 16]), "the first opening decides");
    assert_eq!(store.load().await.unwrap().agents[0].record, agent(1));
    let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["zeroone.redb", "zeroone.redb.lock"]);
}

#[tokio::test]
async fn a_copy_is_a_store_of_its_own_as_it_was_at_one_moment() {
    let (folder, path) = folder();
    let store = Store::open(&path, options()).unwrap();
    store.commit(create(1)).await.unwrap();
    let copy = folder.path().join("copy.redb");
    store.copy_to(&copy).await.unwrap();
    store.commit(create(2)).await.unwrap();
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(store.copy_to(&copy).await.is_err(), "nothing is overwritten");
    let opened = Store::open(&copy, options()).unwrap();
    assert_eq!(opened.installation(), store.installation());
    let (there, now) = (opened.load().await.unwrap(), store.load().await.unwrap());
    assert_eq!((there.agents.len(), now.agents.len()), (1, 2));
    assert_eq!(there.agents[0].record, agent(1));
    assert_eq!(opened.events(agent_id(1), 0, 100).await.unwrap(), store.events(agent_id(1), 0, 100).await.unwrap());
    let rows = |stats: StoreStats| stats.rows.into_iter().map(|(table, rows)| (table, rows.min(1))).collect::<Vec<_>>();
    assert_eq!(rows(opened.stats().await.unwrap()), rows(store.stats().await.unwrap()), "every table is copied");
}

#[tokio::test]
async fn a_file_that_is_mostly_free_is_compacted_when_it_is_opened() {
    let (_folder, path) = folder();
    let store = Store::open(&path, options()).unwrap();
    store.commit(create(1)).await.unwrap();
    let body = crate::testkit::vault().seal(&crate::vault::Binding::named("idempotency", b"k"), &vec![7; 4 << 20]);
    let state = IdempotencyState::Done { status: 200, headers: Vec::new(), body };
    let record = IdempotencyRecord { fingerprint: [1; 32], state, expires_at: at(100) };
    for n in 0..6 {
        store.commit(Batch::put_idempotency(user_id(1), &n.to_string(), &record)).await.unwrap();
    }
    store.close().await;
    let is_mostly_free = |path: &Path| Place::File(path.to_owned()).is_mostly_free(&Database::open(path).unwrap());
    assert!(!is_mostly_free(&path), "it is in use");
    let store = Store::open(&path, options()).unwrap();
    for n in 0..6 {
        store.commit(Batch::remove_idempotency(user_id(1), &n.to_string())).await.unwrap();
    }
    store.close().await;
    let before = fs::metadata(&path).unwrap().len();
    assert!(before > 20 << 20, "{before}");
    assert!(is_mostly_free(&path));
    let store = Store::open(&path, options()).unwrap();
    assert_eq!(store.load().await.unwrap().agents[0].record, agent(1));
    store.close().await;
    let after = fs::metadata(&path).unwrap().len();
    assert!(after < before / 4, "{before} → {after}");
}

#[tokio::test]
async fn a_second_store_on_the_same_file_is_refused_until_the_first_is_gone() {
    let (_folder, path) = folder();
    let first = Store::open(&path, options()).unwrap();
    let error = Store::open(&path, options()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }));
    let text = error.to_string();
    assert!(text.contains("zeroone.redb is in use by another process"), "{text}");
    assert!(text.contains(&format!("process {}", std::process::id())) && text.contains("stop it"), "{text}");
    first.commit(create(1)).await.unwrap();
    drop(first);
    assert_eq!(Store::open(&path, options()).unwrap().load().await.unwrap().agents.len(), 1);
}

#[tokio::test]
async fn what_is_not_a_whole_store_is_refused_and_left_as_it_is() {
    let (_folder, path) = folder();
    closed_store(&path).await;
    let sound = fs::read(&path).unwrap();
    let zeroed_header = [vec![0; 4096], sound[4096..].to_vec()].concat();
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("cut to one byte", sound[..1].to_vec()),
        ("cut within the header", sound[..100].to_vec()),
        ("cut in half", sound[..sound.len() / 2].to_vec()),
        ("short of one byte", sound[..sound.len() - 1].to_vec()),
        ("all zeroes", vec![0; sound.len()]),
        ("a zeroed header", zeroed_header),
        ("text", b"{}".repeat(5000)),
    ] {
        fs::write(&path, &bytes).unwrap();
        let error = Store::open(&path, options()).expect_err(what);
        assert!(matches!(error, OpenError::Damaged { .. }), "{what}: {error}");
        let text = error.to_string();
        assert!(text.contains("zeroone.redb is damaged") && text.contains("restore a backup"), "{what}: {text}");
        assert!(fs::read(&path).unwrap() == bytes, "{what}: the file was changed");
    }
    fs::write(&path, &sound).unwrap();
    assert_eq!(Store::open(&path, options()).unwrap().load().await.unwrap().agents.len(), 1);
}

#[test]
fn another_programs_database_is_refused() {
    let (_folder, path) = folder();
    let db = Database::create(&path).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(TableDefinition::<u8, u8>::new("theirs")).unwrap().insert(1, 1).unwrap();
    txn.commit().unwrap();
    drop(db);
    let error = Store::open(&path, options()).unwrap_err();
    assert!(error.to_string().contains("not of this service"), "{error}");
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let (folder, _) = folder();
    let error = Store::open(folder.path().join("missing/zeroone.redb"), options()).unwrap_err();
    assert!(error.to_string().contains("missing/zeroone.redb"), "{error}");
}

#[tokio::test]
async fn a_first_start_that_was_interrupted_is_taken_up_again() {
    let (_folder, path) = folder();
    fs::write(path.with_extension("redb.new"), b"half a store").unwrap();
    closed_store(&path).await;
    assert_eq!(Store::open(&path, options()).unwrap().load().await.unwrap().agents.len(), 1);
}

const MARK: TableDefinition<u8, u8> = TableDefinition::new("mark/v1");

/// Migrations of a later version: in place of the product's own they do nothing.
fn beyond_ours(later: &[Migration]) -> &'static [Migration] {
    fn nothing(_: &WriteTransaction) -> Result<(), redb::Error> {
        Ok(())
    }
    let mut all: Vec<Migration> = vec![nothing; MIGRATIONS.len()];
    all.extend(later);
    all.leak()
}

fn mark(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.open_table(MARK)?.insert(1, 1)?;
    Ok(())
}

fn fail(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.open_table(MARK)?.insert(2, 2)?;
    Err(redb::Error::Corrupted("a migration that fails".into()))
}

fn open_with(path: &Path, migrations: &'static [Migration]) -> Result<Vec<u8>, OpenError> {
    let opening = Opening {
        installation: InstallationId::new(),
        created_at: at(1),
        separate_as: None,
        check_integrity: true,
        migrations,
    };
    let (db, identity) = Place::File(path.to_owned()).open(&opening)?;
    assert_eq!(identity.schema as usize, migrations.len() + 1);
    let marks = db.begin_read().unwrap().open_table(MARK);
    Ok(marks.map_or(Vec::new(), |table| {
        use redb::ReadableTable;
        table.iter().unwrap().map(|row| row.unwrap().0.value()).collect()
    }))
}

#[tokio::test]
async fn an_older_store_is_brought_up_to_date_whole_or_not_at_all_and_never_back() {
    let (_folder, path) = folder();
    closed_store(&path).await;
    open_with(&path, beyond_ours(&[mark, fail])).unwrap_err();
    let (old, new) = (beyond_ours(&[]), beyond_ours(&[mark]));
    assert_eq!(open_with(&path, old).unwrap(), [0_u8; 0], "a migration that fails leaves the old version");
    assert_eq!(open_with(&path, new).unwrap(), [1]);
    let error = Store::open(&path, options()).unwrap_err();
    let known = u32::try_from(old.len() + 1).unwrap();
    assert_eq!(error, OpenError::Newer { path: path.display().to_string(), found: known + 1, known });
    assert!(error.to_string().contains("newer version"), "{error}");
    assert_eq!(open_with(&path, new).unwrap(), [1], "what was migrated is not migrated again");
}

#[test]
fn a_store_of_the_first_version_gets_all_tables_that_came_since() {
    let (_folder, path) = folder();
    let db = Database::create(&path).unwrap();
    schema::found(&db, InstallationId::new(), at(1), &[]).map_err(drop).unwrap();
    let txn = db.begin_write().unwrap();
    txn.delete_table(EVENT_LOG).unwrap();
    txn.delete_table(SESSIONS).unwrap();
    txn.delete_table(USER_SESSIONS).unwrap();
    txn.delete_table(TICKETS).unwrap();
    txn.delete_table(AUDIT).unwrap();
    txn.delete_table(USAGE).unwrap();
    txn.commit().unwrap();
    let identity = schema::upgrade(&db, MIGRATIONS).map_err(drop).unwrap();
    assert_eq!(identity.schema, 5);
    let txn = db.begin_read().unwrap();
    assert!(txn.open_table(EVENT_LOG).is_ok());
    assert!(txn.open_table(SESSIONS).is_ok());
    assert!(txn.open_table(USER_SESSIONS).is_ok());
    assert!(txn.open_table(TICKETS).is_ok());
    assert!(txn.open_table(AUDIT).is_ok());
    assert!(txn.open_table(USAGE).is_ok());
}

#[test]
fn a_copy_of_a_file_is_not_the_file() {
    let (folder, path) = folder();
    fs::write(&path, "a store").unwrap();
    let identity = |path: &Path| Place::File(path.to_owned()).identity().unwrap();
    let copy = folder.path().join("copy.redb");
    fs::copy(&path, &copy).unwrap();
    assert_eq!(identity(&path), identity(&path));
    assert_ne!(identity(&path), identity(&copy));
    let before = identity(&path);
    fs::rename(&copy, &path).unwrap();
    assert_ne!(identity(&path), before, "another file at the same place");
}

#[tokio::test]
async fn whoever_holds_a_store_is_named_as_far_as_it_is_known() {
    let (_folder, path) = folder();
    let lock = fs::File::create(path.with_extension("redb.lock")).unwrap();
    lock.lock().unwrap();
    let refused = |told: &str| {
        fs::write(path.with_extension("redb.lock"), told).unwrap();
        Store::open(&path, options()).map(drop).unwrap_err().to_string()
    };
    assert!(refused("4711\n").contains("(process 4711)"));
    assert!(!refused("").contains("(process"));
}
