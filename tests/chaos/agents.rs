//! Agents that die, hang, crash again and again, lose their files and their ports.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Instant;

use serde_json::json;

use crate::common::{ask, back_as_another, delete_everything, process, running, talk};
use crate::service::{EndAgents, PATIENCE, Service, StandInModel, new_agent, pause, processes, signal};

/// Waits between restarts that a test has time for.
const IMPATIENT: [(&str, &str); 1] = [("ZEROONE_RESTART__BASE_DELAY_MS", "10")];

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_process_is_noticed_and_replaced() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let _end = EndAgents(data.clone());
    let model = StandInModel::start().await;
    let service = Service::start_with(&data, &[("ZEROONE_HEALTH__INTERVAL_SECS", "1")]);
    let id = running(&service, "Sleeper", &model).await;
    let pid = process(&data, &id);
    signal(pid, 19);
    back_as_another(&service, &data, &id, pid).await;
    talk(&service, &id, "awake?").await;
    let events = causes(&service, &id).await;
    assert!(events.contains(&"health-lost".to_owned()), "{events:?}");
    delete_everything(&service).await;
}

/// Stops the agent and takes its port. The services of other tests look for ports too: where one of them was faster, the
/// agent moves on and is robbed of its next one.
async fn rob(service: &Service, path: &str, id: &str) -> (u16, TcpListener) {
    for _ in 0..20 {
        ask(service, &format!("{path}/stop")).await;
        let (status, stopped) = service.get(&format!("{path}/wait?status=STOPPED&timeout=60")).await;
        assert_eq!(status, 200);
        let port = u16::try_from(stopped["containerPort"].as_u64().expect("a port")).expect("a port");
        if let Ok(thief) = TcpListener::bind(("127.0.0.1", port)) {
            return (port, thief);
        }
        ask(service, &format!("{path}/start")).await;
        talk(service, id, "where are you now?").await;
    }
    panic!("it never gave a port back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_port_costs_the_agent_its_port_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let _end = EndAgents(data.clone());
    let model = StandInModel::start().await;
    let service = Service::start(&data);
    let id = running(&service, "Robbed", &model).await;
    let path = format!("/api/agents/{id}");
    let (port, thief) = rob(&service, &path, &id).await;
    ask(&service, &format!("{path}/start")).await;
    talk(&service, &id, "where are you?").await;
    let (_, after) = service.get(&path).await;
    assert_ne!(after["containerPort"], port);
    drop(thief);
    delete_everything(&service).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_workspace_is_made_anew() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let _end = EndAgents(data.clone());
    let model = StandInModel::start().await;
    let service = Service::start(&data);
    let id = running(&service, "Homeless", &model).await;
    let home = data.join("agents").join(&id);
    for gone in [home.join("data"), home] {
        let pid = process(&data, &id);
        // Killed first: a process that still writes into a folder keeps it from being removed.
        signal(pid, 19);
        fs::remove_dir_all(&gone).expect("it was there");
        signal(pid, 9);
        back_as_another(&service, &data, &id, pid).await;
        talk(&service, &id, "at home?").await;
    }
    delete_everything(&service).await;
    assert_eq!(processes(&data), BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_fast_crashes_leave_one_token_that_works_and_no_lockout() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let _end = EndAgents(data.clone());
    let model = StandInModel::start().await;
    let service = Service::start_with(&data, &IMPATIENT);
    let id = running(&service, "Cat", &model).await;
    for _ in 0..10 {
        let pid = process(&data, &id);
        signal(pid, 9);
        back_as_another(&service, &data, &id, pid).await;
    }
    talk(&service, &id, "still you?").await;
    let (_, agent) = service.get(&format!("/api/agents/{id}")).await;
    assert_eq!(agent["restarts"], 10, "{agent}");
    assert_eq!(tokens(&data, &id), 1);
    let events = causes(&service, &id).await;
    let lost: Vec<_> = events.iter().filter(|cause| cause.starts_with("pairing-")).collect();
    assert!(lost.is_empty(), "{lost:?}");
    delete_everything(&service).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_loop_ends_in_error_with_its_reason_its_count_and_the_next_attempt() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let _end = EndAgents(data.clone());
    let model = StandInModel::start().await;
    let service = Service::start_with(&data, &[IMPATIENT[0], ("ZEROONE_RESTART__MAX_RESTARTS", "3")]);
    let other = running(&service, "Healthy", &model).await;
    let id = running(&service, "Looper", &model).await;
    let path = format!("/api/agents/{id}");
    let deadline = Instant::now() + PATIENCE;
    let agent = loop {
        processes(&data).remove(&id).into_iter().flatten().for_each(|pid| signal(pid, 9));
        let (_, agent) = service.get(&path).await;
        if agent["status"] == "ERROR" {
            break agent;
        }
        assert!(Instant::now() < deadline, "{agent}");
        pause().await;
    };
    assert_eq!(agent["statusReason"]["code"], "crash-loop", "{agent}");
    assert!(agent["statusReason"]["message"].as_str().is_some_and(|why| why.contains("signal 9")), "{agent}");
    assert!(agent["nextAttemptAt"].is_string(), "{agent}");
    assert!(agent["restarts"].as_u64() >= Some(1), "{agent}");
    let (_, explained) = service.get(&format!("{path}/explain")).await;
    assert_eq!((&explained["nextAt"], &explained["status"]), (&agent["nextAttemptAt"], &json!("ERROR")), "{explained}");
    let (status, refused) = service.post(&format!("{path}/message"), &json!({"message": "hi"})).await;
    assert_eq!((status, &refused["code"]), (409, &json!("illegal-transition")), "{refused}");
    talk(&service, &other, "and you?").await;
    // A start forgives.
    ask(&service, &format!("{path}/start")).await;
    talk(&service, &id, "better?").await;
    delete_everything(&service).await;
}

async fn causes(service: &Service, id: &str) -> Vec<String> {
    let (status, events) = service.get(&format!("/api/agents/{id}/events?limit=200")).await;
    assert_eq!(status, 200, "{events}");
    let events = events["data"].as_array().cloned().unwrap_or_default();
    events.iter().filter_map(|event| event["cause"].as_str().map(str::to_owned)).collect()
}

/// How many tokens the agent's gateway takes.
fn tokens(data: &Path, id: &str) -> usize {
    let config = data.join("agents").join(id).join("data/.zeroclaw/config.toml");
    let config: toml::Table = fs::read_to_string(config).expect("a config").parse().expect("TOML");
    config["gateway"]["paired_tokens"].as_array().map_or(0, Vec::len)
}

/// The message lies in the buffers of a process that does not run: its body was not asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_a_paused_agent_never_read_is_answered_after_its_death() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let _end = EndAgents(data.clone());
    let (service, model) = (Service::start(&data), StandInModel::start().await);
    let id = running(&service, "Ada", &model).await;
    talk(&service, &id, "before").await;
    let slug = service.get(&format!("/api/agents/{id}")).await.1["slug"].clone();
    let message = format!("/api/agents/{id}/message");
    for (way, path, accept, body) in [
        ("whole", message.clone(), "application/json", json!({"message": "whole"})),
        ("in pieces", message, "text/event-stream", json!({"message": "in pieces"})),
        (
            "as OpenAI's",
            "/v1/chat/completions".to_owned(),
            "application/json",
            json!({"model": slug, "messages": [{"role": "user", "content": "as OpenAI's"}]}),
        ),
        ("passed on", format!("/api/agents/{id}/gateway/webhook"), "application/json", json!({"message": "passed on"})),
    ] {
        // Its last answer is no longer a proof that it is there.
        for _ in 0..3 {
            pause().await;
        }
        let paused = process(&data, &id);
        signal(paused, 19);
        let kill = async {
            for _ in 0..10 {
                pause().await;
            }
            signal(paused, 9);
        };
        let request = service.request(reqwest::Method::POST, &path).header("accept", accept).json(&body);
        let (answered, ()) = tokio::join!(request.send(), kill);
        let answered = answered.expect("the service answers");
        let status = answered.status();
        let text = answered.text().await.expect("it is whole");
        assert!(status == 200 && text.contains(&format!("echo: {way}")), "{way}: {status} {text}");
        assert_ne!(process(&data, &id), paused, "another one answered");
    }
}
