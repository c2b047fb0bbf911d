//! The process runtime from outside: how long a user waits for an agent, and how long an agent is away when it is killed.
//!
//! The floor is measured in the same run: the agent's own program started by hand, until its `/health` answers.
//! `cargo bench --bench process`

#[path = "../tests/support/http_client.rs"]
mod http_client;
#[path = "../tests/support/service.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod service;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use service::{EndAgents, Service, StandInModel, answer, new_agent, processes, signal};

const RUNS: usize = 20;
/// The goals of the project, in milliseconds at the median.
const DEPLOY_GOAL: f64 = 150.0;
const RECOVERY_GOAL: f64 = 60.0;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let _end = EndAgents(data.clone());
    let model = StandInModel::start().await;
    let service = Service::start(&data);

    let mut floor = Vec::new();
    let mut deploy = Vec::new();
    let mut recovery = Vec::new();
    for run in 0..RUNS {
        floor.push(by_hand(&service, folder.path()).await);

        let began = Instant::now();
        let (status, agent) = service.post("/api/agents", &new_agent(&format!("bench {run}"), &model.url)).await;
        assert_eq!(status, 202, "{agent}");
        let id = agent["id"].as_str().expect("an id").to_owned();
        wait_running(&service, &id).await;
        deploy.push(began.elapsed());

        let [pid] = processes(&data)[&id][..] else { panic!("one process") };
        let restarts = record(&service, &id).await["restarts"].as_u64().expect("a count");
        let began = Instant::now();
        signal(pid, 9);
        // RUNNING again, not still: the count of restarts tells them apart.
        loop {
            let record = record(&service, &id).await;
            if record["status"] == "RUNNING" && record["restarts"].as_u64() > Some(restarts) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        recovery.push(began.elapsed());

        let deleted = answer(service.request(reqwest::Method::DELETE, &format!("/api/agents/{id}"))).await;
        assert_eq!(deleted.expect("an answer").0, 204);
    }
    println!("{RUNS} runs, milliseconds         min  median     max    goal");
    line("floor: program → /health 200", &mut floor, None);
    line("POST → RUNNING", &mut deploy, Some(DEPLOY_GOAL));
    line("kill -9 → RUNNING", &mut recovery, Some(RECOVERY_GOAL));
}

fn line(what: &str, times: &mut [Duration], goal: Option<f64>) {
    times.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let goal = goal.map_or_else(|| "      –".to_owned(), |goal| format!("{goal:7.0}"));
    let (min, median, max) = (ms(times[0]), ms(times[times.len() / 2]), ms(times[times.len() - 1]));
    println!("{what:<28} {min:7.1} {median:7.1} {max:7.1} {goal}");
}

async fn record(service: &Service, id: &str) -> Value {
    service.get(&format!("/api/agents/{id}")).await.1
}

async fn wait_running(service: &Service, id: &str) {
    let (status, record) = service.get(&format!("/api/agents/{id}/wait?status=RUNNING&timeout=60")).await;
    assert_eq!(status, 200, "{record}");
}

/// The floor: the same program on a folder of its own, until it is healthy.
async fn by_hand(service: &Service, folder: &std::path::Path) -> Duration {
    let home = tempfile::tempdir_in(folder).expect("a folder");
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("it is bound").port()
    };
    let began = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_zeroone"))
        .args(["gateway", "--port", &port.to_string()])
        .env("HOME", home.path())
        .env("ZEROCLAW_WORKSPACE", home.path().join("workspace"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program can be run");
    let health = format!("http://127.0.0.1:{port}/health");
    while !service.client.get(&health).send().await.is_ok_and(|response| response.status().is_success()) {
        assert!(began.elapsed() < Duration::from_secs(30), "the program does not come up");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = began.elapsed();
    child.kill().expect("it is our child");
    child.wait().expect("and nobody else's");
    took
}
