//! What several of these tests ask.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use reqwest::Method;
use serde_json::{Value, json};

use crate::service::{PATIENCE, Service, StandInModel, answer, new_agent, pause, processes};

/// Creates an agent and waits until it runs; gives its id.
pub async fn running(service: &Service, name: &str, model: &StandInModel) -> String {
    running_on(service, name, &model.url).await
}

/// The same with a model at this URL.
pub async fn running_on(service: &Service, name: &str, model: &str) -> String {
    let (status, agent) = service.post("/api/agents", &new_agent(name, model)).await;
    assert_eq!(status, 202, "{agent}");
    let id = agent["id"].as_str().expect("a record has an id").to_owned();
    let (status, agent) = service.get(&format!("/api/agents/{id}/wait?status=RUNNING&timeout=60")).await;
    assert_eq!(status, 200, "{agent}");
    id
}

/// A command that is followed.
pub async fn ask(service: &Service, path: &str) {
    let (status, body) = answer(service.request(Method::POST, path)).await.expect("an answer");
    assert!((200..300).contains(&status), "{status}: {body}");
}

/// A message that is answered.
pub async fn talk(service: &Service, id: &str, text: &str) {
    let (status, body) = service.post(&format!("/api/agents/{id}/message"), &json!({"message": text})).await;
    assert_eq!((status, &body["response"]), (200, &json!(format!("echo: {text}"))), "{body}");
}

/// The one process of an agent.
pub fn process(data: &Path, id: &str) -> i32 {
    let found = processes(data);
    let [pid] = found.get(id).map(Vec::as_slice).unwrap_or_default() else { panic!("one process, not {found:?}") };
    *pid
}

pub fn ids(agents: &[Value]) -> BTreeSet<String> {
    agents.iter().filter_map(|agent| agent["id"].as_str().map(str::to_owned)).collect()
}

/// What is wrong between agents and the processes found for them, if anything is.
pub fn disagreement(agents: &[Value], found: &BTreeMap<String, Vec<i32>>) -> Option<String> {
    let mut ports = BTreeSet::new();
    for agent in agents {
        let id = agent["id"].as_str().unwrap_or_default();
        let count = found.get(id).map_or(0, Vec::len);
        let wanted = usize::from(agent["status"] == "RUNNING");
        if count != wanted {
            return Some(format!("{} has {count} processes: {agent}", agent["status"]));
        }
        if !ports.insert(agent["containerPort"].as_u64()) {
            return Some(format!("two agents on one port: {agent}"));
        }
        if agent["status"] == "ERROR" {
            return Some(format!("nothing was wrong with it: {agent}"));
        }
    }
    let known = ids(agents);
    found.keys().find(|id| !known.contains(*id)).map(|id| format!("a process of {id}, which does not exist"))
}

/// Every agent that runs answers.
pub async fn assert_messages_flow(service: &Service) {
    for agent in service.settled().await.iter().filter(|agent| agent["status"] == "RUNNING") {
        let path = format!("/api/agents/{}/message", agent["id"].as_str().unwrap_or_default());
        let (status, body) = service.post(&path, &json!({"message": "still there?"})).await;
        assert_eq!((status, &body["response"]), (200, &json!("echo: still there?")), "{body}");
    }
}

pub async fn delete_everything(service: &Service) {
    for id in ids(&service.agents().await) {
        let (status, body) =
            answer(service.request(Method::DELETE, &format!("/api/agents/{id}"))).await.expect("an answer");
        assert_eq!(status, 204, "{body}");
    }
    assert_eq!(service.agents().await, Vec::<Value>::new());
}

/// Waits until the agent runs in one process, which is not `old`.
pub async fn back_as_another(service: &Service, data: &Path, id: &str, old: i32) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, record) = service.get(&format!("/api/agents/{id}")).await;
        let found = processes(data);
        let pids = found.get(id).map(Vec::as_slice);
        if record["status"] == "RUNNING" && pids.is_some_and(|pids| pids.len() == 1 && pids[0] != old) {
            return;
        }
        assert!(Instant::now() < deadline, "{record} {pids:?}");
        pause().await;
    }
}
