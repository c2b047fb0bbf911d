//! The store's file is damaged, or wanted by two.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use crate::common::{delete_everything, process, running, talk};
use crate::service::{EndAgents, PATIENCE, Service, StandInModel, command, pause};

/// Starts a service that must not come up, and gives what it says.
async fn refused(data: &Path) -> String {
    let mut child = command(data, "process")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run");
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("it came up");
        }
        pause().await;
    };
    let mut said = String::new();
    child.stderr.take().expect("ours").read_to_string(&mut said).expect("text");
    assert!(!status.success(), "{said}");
    said
}

/// What can become of a file.
type Damage = (&'static str, fn(&mut Vec<u8>));

const DAMAGES: [Damage; 6] = [
    ("is empty", Vec::clear),
    ("is cut short", |bytes| bytes.truncate(bytes.len() / 2)),
    ("has a header of zeroes", |bytes| bytes[..512].fill(0)),
    ("is something else", |bytes| *bytes = b"#!/bin/sh\nexit 0\n".to_vec()),
    ("has a wrong bit on each page", |bytes| {
        bytes.iter_mut().skip(4096 + 1000).step_by(4096).for_each(|byte| *byte ^= 4)
    }),
    ("is all zeroes", |bytes| bytes.fill(0)),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_is_refused_with_a_clear_error_and_never_emptied() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let _end = EndAgents(data.clone());
    let model = StandInModel::start().await;
    let service = Service::start(&data);
    let id = running(&service, "Archivist", &model).await;
    let pid = process(&data, &id);
    service.kill();
    let path = data.join("zeroone.redb");
    let whole = fs::read(&path).expect("the store");
    for (what, damage) in DAMAGES {
        let mut bytes = whole.clone();
        damage(&mut bytes);
        fs::write(&path, &bytes).expect("it can be damaged");
        let said = refused(&data).await;
        assert!(said.contains("zeroone.redb"), "a store that {what}: {said}");
        assert!(!said.contains("panicked"), "a store that {what}: {said}");
        assert!(fs::read(&path).expect("it is there") == bytes, "a store that {what} was changed");
        assert_eq!(process(&data, &id), pid, "nobody touched the agent of a store that {what}");
    }
    // What was kept elsewhere goes on where it was.
    fs::write(&path, &whole).expect("restored");
    let service = Service::start(&data);
    talk(&service, &id, "do you remember me?").await;
    assert_eq!(process(&data, &id), pid);
    delete_everything(&service).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_master_key_or_none_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let _end = EndAgents(data.clone());
    let model = StandInModel::start().await;
    let service = Service::start(&data);
    let id = running(&service, "Owner", &model).await;
    let pid = process(&data, &id);
    service.kill();
    // Another key than the one that the store is sealed with: nothing is opened, and nobody is started.
    let (key, kept) = (data.join("master.key"), folder.path().join("kept.key"));
    fs::copy(&key, &kept).expect("a copy with its mode");
    fs::write(&key, "5".repeat(64)).expect("it can be replaced");
    let said = refused(&data).await;
    assert!(said.contains("key"), "{said}");
    assert_eq!(process(&data, &id), pid);
    fs::remove_file(&key).expect("it can be removed");
    let said = refused(&data).await;
    assert!(said.contains("key"), "{said}");
    fs::rename(&kept, &key).expect("restored");
    let service = Service::start(&data);
    talk(&service, &id, "all there?").await;
    delete_everything(&service).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_service_on_the_same_store_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let _end = EndAgents(data.clone());
    let model = StandInModel::start().await;
    let service = Service::start(&data);
    let id = running(&service, "Only one", &model).await;
    let pid = process(&data, &id);
    let said = refused(&data).await;
    assert!(said.contains("zeroone.redb") && said.contains("process"), "{said}");
    assert_eq!(process(&data, &id), pid);
    talk(&service, &id, "still one?").await;
    delete_everything(&service).await;
}
