//! A process that writes to the store is killed: everything it had acknowledged is there, and the next one goes on.
//!
//! The writer is this test program again, in another process, running the ignored test below.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use zeroone::domain::{Plan, Timestamp, UserId};
use zeroone::internal::store::{Batch, commit};
use zeroone::store::{OpenError, Store, StoreOptions, UserRecord};

#[path = "support/lines.rs"]
mod lines;
use lines::Lines;

const STORE: &str = "STORE_KILL_TEST_PATH";
const WRITERS: u8 = 16;

/// A user that carries a counter, so that each commit of a writer replaces the one before it.
fn user(writer: u8, count: u32) -> UserRecord {
    let id = UserId::from_bytes([writer; 16]);
    let mut user = UserRecord::new(id, format!("{writer}@example.org"), Plan::Enterprise, Timestamp::UNIX_EPOCH);
    user.limits = Some(Plan::Enterprise.limits().with_memory_mb(count));
    user
}

fn counts(users: &[UserRecord]) -> BTreeMap<u8, u32> {
    let count = |user: &UserRecord| user.limits.map_or(0, |limits| limits.memory_mb);
    users.iter().map(|user| (user.id.as_bytes()[0], count(user))).collect()
}

/// Commits with many writers until it is killed, and prints `<writer> <count>` after each acknowledgement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is the process that the other test kills"]
async fn writes_until_it_is_killed() {
    let Ok(path) = std::env::var(STORE) else { return };
    let store = Store::open(path, StoreOptions::default()).unwrap();
    let found = counts(&store.load().await.unwrap().users);
    let mut writers = tokio::task::JoinSet::new();
    for writer in 1..=WRITERS {
        let store = store.clone();
        let first = found.get(&writer).map_or(0, |count| count + 1);
        writers.spawn(async move {
            for count in first.. {
                commit(&store, Batch::put_user(&user(writer, count))).await.unwrap();
                // One write call for the line: the kill leaves all of it or nothing.
                std::io::stdout().write_all(format!("ack {writer} {count}\n").as_bytes()).unwrap();
            }
        });
    }
    writers.join_all().await;
}

struct Writer(Child);

impl Writer {
    fn start(path: &Path) -> (Self, Lines) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writes_until_it_is_killed", "--ignored", "--nocapture"])
            .env(STORE, path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Lines::of(child.stdout.take().unwrap());
        (Self(child), lines)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Gone already, if the test went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn acknowledgement(line: &str) -> Option<(u8, u32)> {
    // The harness may have begun the line with the name of the test.
    let (writer, count) = line.split_once("ack ")?.1.split_once(' ')?;
    Some((writer.parse().ok()?, count.parse().ok()?))
}

#[tokio::test]
async fn what_was_acknowledged_survives_the_kill_of_its_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zeroone.redb");
    let mut acknowledged = BTreeMap::new();
    for round in 0..8_usize {
        let (mut writer, lines) = Writer::start(&path);
        let mut acks = lines.filter_map(|line| acknowledgement(&line));
        // Another instant of the writer's life in every round: from the first commits to well within the work.
        acknowledged.extend(acks.by_ref().take(1 + round * 61));
        let error = Store::open(&path, StoreOptions::default()).unwrap_err();
        assert!(matches!(&error, OpenError::InUse { .. }), "{error}");
        assert!(error.to_string().contains(&format!("process {}", writer.0.id())), "{error}");
        writer.0.kill().unwrap();
        writer.0.wait().unwrap();
        // What it had said before it died, and the pipe still holds.
        acknowledged.extend(acks);

        let store = Store::open(&path, StoreOptions::default()).unwrap();
        let stored = counts(&store.load().await.unwrap().users);
        assert!(!acknowledged.is_empty());
        for (writer, count) in &acknowledged {
            let found = stored.get(writer).copied();
            let possible = [Some(*count), Some(count + 1)];
            assert!(possible.contains(&found), "round {round}, writer {writer}: acknowledged {count}, found {found:?}");
        }
        // A commit whose acknowledgement died with the process counts from now on.
        acknowledged = stored;
    }
}
