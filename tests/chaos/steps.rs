//! The service is killed at each step of a deployment, a stop and a deletion: the next one takes it up where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use reqwest::Method;
use serde_json::{Value, json};

use crate::common::{delete_everything, disagreement, process, running, talk};
use crate::program;
use crate::service::{EndAgents, PATIENCE, Service, StandInModel, log_of, new_agent, pause, processes};

/// What the log tells of a deployment, in order; each is committed, and the step after it begins.
const DEPLOYMENT: [&str; 6] =
    ["created", "deploying", "instance-created", "instance-started", "instance-healthy", "paired"];

/// A program that takes its time to start, so that the steps before it is healthy can be met.
fn slow_gateway(folder: &Path) -> PathBuf {
    let path = folder.join("slow-gateway");
    let script = format!("#!/bin/sh\nsleep 0.3\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_zeroone"));
    program::write(&script, &path);
    path
}

/// Waits until the log tells of `step`, from `from` on.
async fn logged(data: &Path, from: usize, step: &str) {
    let deadline = Instant::now() + PATIENCE;
    // A creation is no transition, and is logged with a message of its own.
    let sign = if step == "created" { "\"message\":\"created\"".to_owned() } else { format!("\"cause\":\"{step}\"") };
    loop {
        let log = fs::read(log_of(data)).expect("the log");
        let news = String::from_utf8_lossy(log.get(from..).unwrap_or_default()).into_owned();
        if news.contains(&sign) {
            return;
        }
        assert!(Instant::now() < deadline, "{step} never came:\n{news}");
        tokio::task::yield_now().await;
    }
}

fn log_length(data: &Path) -> usize {
    fs::metadata(log_of(data)).map_or(0, |log| usize::try_from(log.len()).expect("a log fits into memory"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_dies_in_any_step_of_a_deployment_leaves_one_agent_that_runs() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let _end = EndAgents(data.clone());
    let model = StandInModel::start().await;
    let program = slow_gateway(folder.path());
    // What the script runs is not where programs of the system are.
    let env = [
        ("ZEROONE_PROCESS__COMMAND", program.to_str().expect("UTF-8")),
        ("ZEROONE_PROCESS__READABLE", env!("CARGO_BIN_EXE_zeroone")),
    ];
    for (number, step) in DEPLOYMENT.into_iter().enumerate() {
        let service = Service::start_with(&data, &env);
        let from = log_length(&data);
        let body = new_agent(&format!("at {step}"), &model.url);
        let create = tokio::spawn(service.request(Method::POST, "/api/agents").json(&body).send());
        logged(&data, from, step).await;
        service.kill();
        // Acknowledged or not: what was logged as created is there.
        let _ = create.await.expect("no panic");

        let service = Service::start_with(&data, &env);
        let agents = service.settled().await;
        assert_eq!(agents.len(), number + 1, "{step}: {agents:?}");
        assert!(agents.iter().all(|agent| agent["status"] == "RUNNING"), "{step}: {agents:?}");
        assert_eq!(disagreement(&agents, &processes(&data)), None, "{step}");
        let ports: BTreeSet<_> = agents.iter().filter_map(|agent| agent["containerPort"].as_u64()).collect();
        assert_eq!(ports.len(), agents.len(), "{step}");
        for agent in &agents {
            talk(&service, agent["id"].as_str().expect("an id"), step).await;
        }
        let (_, me) = service.get("/api/me").await;
        assert_eq!(me["used"].as_u64(), Some(agents.len() as u64), "{step}: {me}");
        service.kill();
    }
    let service = Service::start_with(&data, &env);
    delete_everything(&service).await;
    assert_eq!(processes(&data), BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_dies_in_a_stop_or_a_deletion_finishes_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let _end = EndAgents(data.clone());
    let model = StandInModel::start().await;
    for (step, path) in [("stop-requested", "/stop"), ("delete-requested", "")] {
        let service = Service::start(&data);
        let id = running(&service, step, &model).await;
        let pid = process(&data, &id);
        let from = log_length(&data);
        let method = if path.is_empty() { Method::DELETE } else { Method::POST };
        let asked = tokio::spawn(service.request(method, &format!("/api/agents/{id}{path}")).send());
        logged(&data, from, step).await;
        service.kill();
        let _ = asked.await.expect("no panic");

        let service = Service::start(&data);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let agents = service.settled().await;
            let found = processes(&data);
            let there = agents.iter().find(|agent| agent["id"] == json!(id));
            let done = there.map_or_else(|| path.is_empty(), |agent| agent["status"] == "STOPPED");
            if done && !found.values().flatten().any(|found| *found == pid) {
                break;
            }
            assert!(Instant::now() < deadline, "{step}: {there:?} {found:?}");
            pause().await;
        }
        delete_everything(&service).await;
        assert_eq!(service.agents().await, Vec::<Value>::new());
    }
}
