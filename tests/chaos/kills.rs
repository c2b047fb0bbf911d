//! The service is killed at random instants under a load of commands.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use serde_json::json;

use crate::common::{assert_messages_flow, delete_everything, disagreement, ids, process, running, talk};
use crate::service::{EndAgents, PATIENCE, Service, StandInModel, answer, new_agent, pause, processes};

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

/// Every agent settles; one process for each that runs, none for others; no port twice; the quota counts what exists.
async fn assert_all_is_well(service: &Service, data: &Path, ledger: &Mutex<Ledger>) {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_asked_to_end_under_load_answers_what_it_took() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let _end = EndAgents(data.clone());
    let model = StandInModel::start().await;
    let service = Service::start(&data);
    let id = running(&service, "Steady", &model).await;
    let pid = process(&data, &id);
    let path = format!("/api/agents/{id}/message");
    let mut load = tokio::task::JoinSet::new();
    for n in 0..200 {
        let request = service.request(Method::POST, &path).json(&json!({"message": format!("{n}")}));
        load.spawn(async move { (n, answer(request).await) });
    }
    // The first answer says that they are under way.
    let mut outcomes = vec![load.join_next().await.expect("one of them").expect("no panic")];
    assert!(service.end().await.success());
    outcomes.extend(load.join_all().await);
    let mut answered = 0;
    for (n, outcome) in outcomes {
        match outcome {
            Ok((200, body)) => {
                assert_eq!(body["response"], format!("echo: {n}"), "{body}");
                answered += 1;
            }
            Ok((status, body)) => assert!([502, 503].contains(&status), "{status}: {body}"),
            // It came to a door that was shut.
            Err(error) => assert!(error.is_connect() || error.is_request(), "{error:?}"),
        }
    }
    println!("{answered} of 200 answered");
    assert_eq!(process(&data, &id), pid, "agents run on");
    let service = Service::start(&data);
    talk(&service, &id, "and now?").await;
    assert_eq!(process(&data, &id), pid);
    delete_everything(&service).await;
}
