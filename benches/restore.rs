//! The disaster drill with a hundred agents: a backup under load is restored into another folder, and all agents are back with
//! their memory, on the keys that their users had. Measured from the first byte that is restored to the last agent RUNNING.
//! `cargo bench --bench restore`

#[path = "../tests/support/http_client.rs"]
mod http_client;
#[path = "../tests/support/service.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod service;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream;
use reqwest::Method;
use serde_json::{Value, json};
use service::{EndAgents, Service, StandInModel, answer, new_agent, processes, signal};

const AGENTS: usize = 100;
/// Seconds, for all of them.
const GOAL: f64 = 10.0;
/// Requests at the same time.
const AT_ONCE: usize = 8;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (data, elsewhere) = (folder.path().join("data"), folder.path().join("elsewhere"));
    let _end = (EndAgents(data.clone()), EndAgents(elsewhere.clone()));
    let model = StandInModel::start().await;
    let service = Service::start(&data);
    let key = service.key.clone();

    let began = Instant::now();
    let created = stream::iter(0..AGENTS).map(|n| create(&service, &model.url, n)).buffered(AT_ONCE);
    let ids: Vec<String> = created.collect().await;
    println!("{AGENTS} agents created, RUNNING, with a note each   {:6.2} s", began.elapsed().as_secs_f64());

    let (over, sent) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
    let load = async {
        while !over.load(Ordering::Relaxed) {
            let id = &ids[sent.fetch_add(1, Ordering::Relaxed) % AGENTS];
            let (status, body) = service.post(&format!("/api/agents/{id}/message"), &json!({"message": "hi"})).await;
            assert_eq!(status, 200, "{body}");
        }
    };
    let file = folder.path().join("backup.tar");
    let backup = async {
        let began = Instant::now();
        let archive = service.request(Method::POST, "/api/admin/backup").send().await.expect("an answer");
        assert_eq!(archive.status(), 200);
        fs::write(&file, archive.bytes().await.expect("all of it")).expect("room on the disk");
        over.store(true, Ordering::Relaxed);
        began.elapsed()
    };
    let (took, ()) = tokio::join!(backup, load);
    let (mib, sent) = (fs::metadata(&file).expect("it was written").len() >> 20, sent.load(Ordering::Relaxed));
    println!("backup of {mib} MiB, {sent} messages meanwhile         {:6.2} s", took.as_secs_f64());

    // The machine is lost.
    service.kill();
    while let left = processes(&data).into_values().flatten().collect::<Vec<i32>>()
        && !left.is_empty()
    {
        left.into_iter().for_each(|pid| signal(pid, 9));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let began = Instant::now();
    restore(&file, &elsewhere, &data.join("master.key"));
    let restored = began.elapsed();
    // The restored folder has no key of the first administrator: whoever has it goes on using it.
    fs::write(elsewhere.join("admin.key"), &key).expect("the restored folder can be written");
    let service = Service::start(&elsewhere);
    stream::iter(&ids).for_each_concurrent(AT_ONCE, |id| running(&service, id)).await;
    let took = began.elapsed().as_secs_f64();
    println!("restored                                          {:6.2} s", restored.as_secs_f64());
    println!("restored, all RUNNING                             {took:6.2} s   goal {GOAL:.0}");
    stream::iter(ids.iter().enumerate()).for_each_concurrent(AT_ONCE, |(n, id)| remembers(&service, id, n)).await;
    println!("every agent answers and has its note");
}

async fn create(service: &Service, model: &str, n: usize) -> String {
    let (status, agent) = service.post("/api/agents", &new_agent(&format!("bench {n}"), model)).await;
    assert_eq!(status, 202, "{agent}");
    let id = agent["id"].as_str().expect("an id").to_owned();
    running(service, &id).await;
    let note = json!({"key": "drink", "content": format!("tea number {n}")});
    let (status, body) = service.post(&format!("/api/agents/{id}/gateway/api/memory"), &note).await;
    assert!((200..300).contains(&status), "{status} {body}");
    id
}

async fn running(service: &Service, id: &str) {
    let (status, record) = service.get(&format!("/api/agents/{id}/wait?status=RUNNING&timeout=60")).await;
    assert_eq!(status, 200, "{record}");
}

async fn remembers(service: &Service, id: &str, n: usize) {
    let path = format!("/api/agents/{id}/gateway/api/memory");
    let (_, notes): (u16, Value) = answer(service.request(Method::GET, &path)).await.expect("an answer");
    assert!(notes.to_string().contains(&format!("tea number {n}")), "{notes}");
    let (status, body) = service.post(&format!("/api/agents/{id}/message"), &json!({"message": "well?"})).await;
    assert_eq!((status, &body["response"]), (200, &json!("echo: well?")), "{body}");
}

fn restore(file: &Path, data: &Path, key: &Path) {
    let mut restore = Command::new(env!("CARGO_BIN_EXE_zeroone"));
    restore.arg("restore").arg(file).arg("--data").arg(data).arg("--master-key-file").arg(key);
    let output = restore.output().expect("the program can be run");
    assert!(output.status.success(), "{output:?}");
}
