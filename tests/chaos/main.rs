//! Real processes killed for real: nothing that was acknowledged is lost, nothing is left over, everything settles.
#![cfg(all(feature = "cli", feature = "process", feature = "gateway"))]

#[path = "../support/service.rs"]
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};
use service::{EndAgents, PATIENCE, Service, StandInModel, answer, new_agent, pause, processes, signal};

/// Kills of the service; another number, and a seed to replay, by ZEROONE_CHAOS_KILLS and ZEROONE_CHAOS_SEED.
const KILLS: u64 = 200;
/// Agents that the load keeps at most: enough for every command to meet every other.
const AGENTS: usize = 8;

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// What the service has acknowledged.
#[derive(Default)]
struct Ledger {
    created: BTreeSet<String>,
    /// A deletion was asked for: from then on both is right, there and gone.
    doomed: BTreeSet<String>,
    answered: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_kills_of_the_service_lose_nothing_and_leave_nothing_over() {
    let seed = from_env("ZEROONE_CHAOS_SEED", rand::random::<u64>() >> 16);
    let kills = from_env("ZEROONE_CHAOS_KILLS", KILLS);
    println!("replay with ZEROONE_CHAOS_SEED={seed} ZEROONE_CHAOS_KILLS={kills}");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let _end = EndAgents(data.clone());
    let model = StandInModel::start().await;
    let ledger = Mutex::new(Ledger::default());
    let mut random = StdRng::seed_from_u64(seed);

    for kill in 0..kills {
        let service = Service::start(&data);
        assert_created_are_there(&service, &ledger).await;
        let instant = Duration::from_millis(random.random_range(0..400));
        let mut clients: Vec<StdRng> = (0..4).map(|_| StdRng::seed_from_u64(random.random())).collect();
        let load = async {
            let load = clients.iter_mut().map(|random| client(&service, &model.url, &ledger, random));
            futures_util::future::join_all(load).await;
        };
        // A load that has no end, cut off at a random instant: that is the point.
        let _ = tokio::time::timeout(instant, load).await;
        service.kill();
        if kill % 50 == 49 {
            let service = Service::start(&data);
            assert_all_is_well(&service, &data, &ledger).await;
        }
    }
    let service = Service::start(&data);
    assert_all_is_well(&service, &data, &ledger).await;
    assert_messages_flow(&service).await;
    delete_everything(&service).await;
    assert_eq!(processes(&data), BTreeMap::new(), "processes of deleted agents");
    let (_, me) = service.get("/api/me").await;
    assert_eq!(me["used"], 0, "slots of deleted agents: {me}");
    let ledger = ledger.lock().expect("no client panicked");
    println!("{} creates, {} messages answered", ledger.created.len(), ledger.answered);
    assert!(ledger.created.len() > 10, "the load did nothing");
}

/// Commands at random, for ever.
async fn client(service: &Service, model: &str, ledger: &Mutex<Ledger>, random: &mut StdRng) {
    loop {
        let known: Vec<String> = {
            let ledger = ledger.lock().expect("no client panicked");
            ledger.created.difference(&ledger.doomed).cloned().collect()
        };
        let dice = random.random_range(0..10);
        if known.is_empty() || (dice < 2 && known.len() < AGENTS) {
            let body = new_agent(&format!("agent {}", random.random::<u32>()), model);
            let request = service.request(Method::POST, "/api/agents").json(&body);
            if let Ok((202, agent)) = answer(request).await {
                let id = agent["id"].as_str().expect("a record has an id").to_owned();
                ledger.lock().expect("no client panicked").created.insert(id);
            }
            continue;
        }
        let id = &known[random.random_range(0..known.len())];
        let request = match dice {
            2 | 3 => service.request(Method::POST, &format!("/api/agents/{id}/stop")),
            4 | 5 => service.request(Method::POST, &format!("/api/agents/{id}/start")),
            6 => {
                ledger.lock().expect("no client panicked").doomed.insert(id.clone());
                service.request(Method::DELETE, &format!("/api/agents/{id}"))
            }
            _ => service
                .request(Method::POST, &format!("/api/agents/{id}/message"))
                .header("prefer", "wait=1")
                .json(&json!({"message": "hello"})),
        };
        if let Ok((status, body)) = answer(request).await {
            assert_ne!(status, 500, "{body}");
            if dice > 6 && status == 200 {
                assert_eq!(body["response"], "echo: hello", "{body}");
                ledger.lock().expect("no client panicked").answered += 1;
            }
        }
    }
}

async fn assert_created_are_there(service: &Service, ledger: &Mutex<Ledger>) {
    let there: BTreeSet<String> = ids(&service.agents().await);
    let ledger = ledger.lock().expect("no client panicked");
    let lost: Vec<_> = ledger.created.difference(&ledger.doomed).filter(|id| !there.contains(*id)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}

fn ids(agents: &[Value]) -> BTreeSet<String> {
    agents.iter().filter_map(|agent| agent["id"].as_str().map(str::to_owned)).collect()
}

/// Every agent settles; one process for each that runs, none for others; no port twice; the quota counts what exists.
async fn assert_all_is_well(service: &Service, data: &std::path::Path, ledger: &Mutex<Ledger>) {
    assert_created_are_there(service, ledger).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let agents = service.settled().await;
        let found = processes(data);
        let trouble = disagreement(&agents, &found);
        if trouble.is_none() {
            let (_, me) = service.get("/api/me").await;
            assert_eq!(me["used"].as_u64(), Some(agents.len() as u64), "{me}");
            return;
        }
        // Orphans have a grace period; what stays is a leak.
        assert!(Instant::now() < deadline, "{}", trouble.unwrap_or_default());
        pause().await;
    }
}

fn disagreement(agents: &[Value], found: &BTreeMap<String, Vec<i32>>) -> Option<String> {
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

async fn assert_messages_flow(service: &Service) {
    for agent in service.settled().await.iter().filter(|agent| agent["status"] == "RUNNING") {
        let path = format!("/api/agents/{}/message", agent["id"].as_str().unwrap_or_default());
        let (status, body) = service.post(&path, &json!({"message": "still there?"})).await;
        assert_eq!((status, &body["response"]), (200, &json!("echo: still there?")), "{body}");
    }
}

async fn delete_everything(service: &Service) {
    for id in ids(&service.agents().await) {
        let (status, body) =
            answer(service.request(Method::DELETE, &format!("/api/agents/{id}"))).await.expect("an answer");
        assert_eq!(status, 204, "{body}");
    }
    assert_eq!(service.agents().await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agent_comes_back_and_answers_what_was_sent_in_the_gap() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let _end = EndAgents(data.clone());
    let model = StandInModel::start().await;
    let service = Service::start(&data);
    let (status, agent) = service.post("/api/agents", &new_agent("Phoenix", &model.url)).await;
    assert_eq!(status, 202, "{agent}");
    let id = agent["id"].as_str().expect("an id").to_owned();
    let (status, running) = service.get(&format!("/api/agents/{id}/wait?status=RUNNING&timeout=60")).await;
    assert_eq!(status, 200, "{running}");

    for round in 1..=5 {
        let [pid] = processes(&data)[&id][..] else { panic!("one process, not {:?}", processes(&data)) };
        signal(pid, 9);
        let path = format!("/api/agents/{id}/message");
        let (status, body) = service.post(&path, &json!({"message": format!("round {round}")})).await;
        // Either it was held until the agent was back, or it had reached the dying process: then it is said so.
        match status {
            200 => assert_eq!(body["response"], format!("echo: round {round}")),
            502 => assert_eq!(body["code"], "delivery-unknown", "{body}"),
            _ => panic!("{status}: {body}"),
        }
        back_as_another(&service, &data, &id, pid).await;
    }
    delete_everything(&service).await;
}

/// Waits until the agent runs in one process, which is not `old`.
async fn back_as_another(service: &Service, data: &std::path::Path, id: &str, old: i32) {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_on_the_disk_in_the_log_or_in_an_answer_but_its_owners() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let _end = EndAgents(data.clone());
    let model = StandInModel::start().await;
    let service = Service::start(&data);
    let secrets = ["sk-planted-in-the-key", "123:planted-in-telegram", "xoxb-planted-in-slack"];
    let mut wanted = new_agent("Keeper", &model.url);
    wanted["apiKey"] = json!(secrets[0]);
    wanted["channels"] = json!({"telegram": {"botToken": secrets[1]}, "slack": {"botToken": secrets[2]}});
    let (status, agent) = service.post("/api/agents", &wanted).await;
    assert_eq!(status, 202, "{agent}");
    let id = agent["id"].as_str().expect("an id").to_owned();
    let (status, _) = service.get(&format!("/api/agents/{id}/wait?status=RUNNING&timeout=60")).await;
    assert_eq!(status, 200);
    let (status, _) = service.post(&format!("/api/agents/{id}/message"), &json!({"message": "hi"})).await;
    assert_eq!(status, 200);
    let mut seen = String::new();
    for path in ["", "/events", "/explain", "/logs", "/health"] {
        let (_, body) = service.get(&format!("/api/agents/{id}{path}")).await;
        let mut body = body;
        // Their owner, and nobody else, sees the channels; not even they see the key.
        if let Some(record) = body.as_object_mut() {
            record.remove("channels");
        }
        seen.push_str(&body.to_string());
    }
    let (_, refused) = service.post("/api/agents", &json!({"apiKey": secrets[0], "temperature": secrets[1]})).await;
    seen.push_str(&refused.to_string());
    let key = service.key.clone();
    delete_everything(&service).await;
    service.kill();

    let log = std::fs::read(data.with_extension("log")).expect("the log");
    let store = std::fs::read(data.join("zeroone.redb")).expect("the store");
    for (place, bytes) in [("answers", seen.as_bytes()), ("log", &log[..]), ("store", &store[..])] {
        for secret in secrets.iter().copied().chain([key.as_str()]) {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is in the {place}");
        }
        assert!(!has_token(bytes, b"zc_") && !has_token(bytes, b"zcl_live_"), "a bearer token is in the {place}");
    }
}

/// Whether a gateway's token is in there: its prefix, and digits behind it as no chance puts them.
fn has_token(bytes: &[u8], prefix: &[u8]) -> bool {
    const DIGITS: usize = 16;
    bytes
        .windows(prefix.len() + DIGITS)
        .any(|window| window.starts_with(prefix) && window[prefix.len()..].iter().all(u8::is_ascii_hexdigit))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_service_finds_its_agents_again_with_the_same_process_and_token() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let _end = EndAgents(data.clone());
    let model = StandInModel::start().await;
    let service = Service::start(&data);
    let (_, agent) = service.post("/api/agents", &new_agent("Survivor", &model.url)).await;
    let id = agent["id"].as_str().expect("an id").to_owned();
    let (status, _) = service.get(&format!("/api/agents/{id}/wait?status=RUNNING&timeout=60")).await;
    assert_eq!(status, 200);
    let before = processes(&data);
    service.kill();
    assert_eq!(processes(&data), before, "the agent outlives the service");

    let service = Service::start(&data);
    let (status, body) = service.post(&format!("/api/agents/{id}/message"), &json!({"message": "hi"})).await;
    assert_eq!((status, &body["response"]), (200, &json!("echo: hi")), "{body}");
    assert_eq!(processes(&data), before, "adopted, not restarted");
    let (_, record) = service.get(&format!("/api/agents/{id}")).await;
    assert_eq!(record["restarts"], 0, "{record}");
    delete_everything(&service).await;
    assert_eq!(processes(&data), BTreeMap::new());
}
