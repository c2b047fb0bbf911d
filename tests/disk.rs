//! The disk fills up under the real service: what cannot be kept is not acknowledged, and nothing that was is lost.
//!
//! The service has its data on a small file system in memory, in a mount namespace of its own that ends with it. Without
//! the right to make one the test shows as ignored.

#[path = "support/http_client.rs"]
mod http_client;
#[path = "support/service.rs"]
#[allow(dead_code, reason = "others use the rest of it")]
mod service;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use libtest_mimic::{Arguments, Trial};
use reqwest::Method;
use serde_json::{Value, json};

use service::{EndAgents, PATIENCE, Service, StandInModel, answer, command, new_agent, pause, processes, signal};

/// Enough for a store, a key and some agents.
const SIZE: &str = "size=16m";

fn main() {
    let arguments = Arguments::from_args();
    let test = Trial::test("what_a_full_disk_cannot_keep_is_not_acknowledged_and_nothing_is_lost", || {
        let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        tokio.block_on(what_a_full_disk_cannot_keep_is_not_acknowledged_and_nothing_is_lost());
        Ok(())
    });
    libtest_mimic::run(&arguments, vec![test.with_ignored_flag(!may_mount())]).exit();
}

fn may_mount() -> bool {
    let tried = Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output();
    tried.is_ok_and(|tried| tried.status.success())
}

/// A service whose data folder is a small file system of its own.
fn on_a_small_disk(data: &Path) -> Service {
    let serve = command(data, "process");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg(format!("mount -t tmpfs -o {SIZE},mode=0700 tmpfs \"$0\" && exec \"$@\""));
    command.arg(data).arg(serve.get_program()).args(serve.get_args());
    Service::spawn(command, data)
}

async fn what_a_full_disk_cannot_keep_is_not_acknowledged_and_nothing_is_lost() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    fs::create_dir(&data).expect("a place to mount on");
    let _end = EndAgents(data.clone());
    let model = StandInModel::start().await;
    let service = on_a_small_disk(&data);
    let first = created(&service, "First", &model).await.expect("there is room");
    let (status, agent) = service.get(&format!("/api/agents/{first}/wait?status=RUNNING&timeout=60")).await;
    assert_eq!(status, 200, "{agent}");

    let filler = service.seen(&data).join("filler");
    fill(&filler);
    let mut acknowledged = vec![first.clone()];
    let mut refused = Vec::new();
    // What room the store has left in its file it may use up.
    let deadline = Instant::now() + PATIENCE;
    while refused.len() < 3 {
        match created(&service, &format!("Agent {}", acknowledged.len()), &model).await {
            Ok(id) => acknowledged.push(id),
            Err(problem) => refused.push(problem),
        }
        assert!(Instant::now() < deadline, "a full disk takes everything: {acknowledged:?}");
        fill(&filler);
    }
    for (status, problem) in &refused {
        assert_eq!((*status, problem["retryable"].as_bool()), (503, Some(true)), "{problem}");
        let row = format!("| full disk | `{}` |", problem["code"].as_str().unwrap_or_default());
        assert!(include_str!("../docs/causes.md").contains(&row), "docs/causes.md must have {row}");
    }
    // It is read all the same, and says what it has.
    assert_eq!(ids(&service).await, acknowledged);
    // An agent that dies meanwhile cannot be written down, and must not be lost either.
    processes(&data).remove(&first).into_iter().flatten().for_each(|pid| signal(pid, 9));

    fs::remove_file(&filler).expect("room again");
    let last = loop {
        match created(&service, "Last", &model).await {
            Ok(id) => break id,
            Err(problem) => assert!(Instant::now() < deadline, "{problem:?}"),
        }
        pause().await;
    };
    acknowledged.push(last);
    assert_eq!(ids(&service).await, acknowledged);
    for id in &acknowledged {
        let path = format!("/api/agents/{id}");
        // One that could not write its files may rest in ERROR for a while: a start ends that.
        answer(service.request(Method::POST, &format!("{path}/start"))).await.expect("an answer");
        let (status, agent) = service.get(&format!("{path}/wait?status=RUNNING&timeout=60")).await;
        assert_eq!(status, 200, "{agent}");
        let (status, body) = service.post(&format!("{path}/message"), &json!({"message": "well?"})).await;
        assert_eq!((status, &body["response"]), (200, &json!("echo: well?")), "{body}");
    }
    let (_, me) = service.get("/api/me").await;
    assert_eq!(me["used"].as_u64(), Some(acknowledged.len() as u64), "{me}");
}

async fn created(service: &Service, name: &str, model: &StandInModel) -> Result<String, (u16, Value)> {
    let (status, body) = service.post("/api/agents", &new_agent(name, &model.url)).await;
    match body["id"].as_str() {
        Some(id) if status == 202 => Ok(id.to_owned()),
        _ => Err((status, body)),
    }
}

async fn ids(service: &Service) -> Vec<String> {
    service.agents().await.iter().filter_map(|agent| agent["id"].as_str().map(str::to_owned)).collect()
}

/// Writes until the disk takes no more.
fn fill(path: &Path) {
    let mut file =
        fs::OpenOptions::new().create(true).append(true).open(path).expect("a file of no length takes no room");
    while file.write(&[1; 4096]).is_ok_and(|written| written > 0) {}
}
