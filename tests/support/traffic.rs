//! Messages to many agents at a steady rate while one after the other is killed, and what became of every one.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::service::{PATIENCE, Service, new_agent, pause, processes, signal};

/// A model of the OpenAI kind that counts how often it is asked each question.
pub struct CountingModel {
    pub url: String,
    asked: Arc<Mutex<HashMap<String, u32>>>,
    server: tokio::task::JoinHandle<()>,
}

impl CountingModel {
    pub async fn start() -> Self {
        use axum::{Json, Router, routing::post};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let url = format!("http://{}/v1", listener.local_addr().expect("it is bound"));
        let asked: Arc<Mutex<HashMap<String, u32>>> = Arc::default();
        let counted = Arc::clone(&asked);
        let answer = move |Json(request): Json<Value>| {
            let said = request["messages"].as_array().and_then(|said| said.last()).map(|said| said["content"].clone());
            let said = said.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
            *counted.lock().expect("no panic").entry(said.clone()).or_default() += 1;
            let message = json!({"role": "assistant", "content": format!("echo: {said}")});
            let choice = json!({"index": 0, "finish_reason": "stop", "message": message});
            async move { Json(json!({"id": "1", "object": "chat.completion", "model": "m", "choices": [choice]})) }
        };
        let router = Router::new().route("/v1/chat/completions", post(answer));
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("the model serves");
        });
        Self { url, asked, server }
    }

    fn times(&self, text: &str) -> u32 {
        self.asked.lock().expect("no panic").get(text).copied().unwrap_or_default()
    }
}

impl Drop for CountingModel {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What is to be done to how many.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub agents: usize,
    pub messages_per_second: u32,
    pub lasts: Duration,
    /// One agent is killed so often.
    pub kill_every: Duration,
}

/// How it went.
#[derive(Debug, Default)]
pub struct Report {
    pub sent: u64,
    pub answered: u64,
    /// Refused as certainly not sent, by their code.
    pub refused: BTreeMap<String, u64>,
    /// Answers that were lost with the agent: the sender is told that nobody knows.
    pub unknown: u64,
    /// Whatever else came, and messages that were read twice, lost or answered wrongly: there must be none.
    pub wrong: Vec<String>,
    pub kills: u64,
    /// From each kill to RUNNING again.
    pub recoveries: Vec<Duration>,
    /// Of answered messages.
    pub latencies: Vec<Duration>,
    pub took: Duration,
}

/// Creates the agents, side by side, and waits until they run.
pub async fn fleet(service: &Service, agents: usize, model: &CountingModel) -> Vec<String> {
    let creates = (0..agents).map(|n| async move {
        let (status, agent) = service.post("/api/agents", &new_agent(&format!("Agent {n}"), &model.url)).await;
        assert_eq!(status, 202, "{agent}");
        let id = agent["id"].as_str().expect("a record has an id").to_owned();
        let (status, agent) = service.get(&format!("/api/agents/{id}/wait?status=RUNNING&timeout=90")).await;
        assert_eq!(status, 200, "{agent}");
        id
    });
    futures_util::future::join_all(creates).await
}

/// Carries out the plan on a fleet that runs.
pub async fn drive(service: &Service, data: &Path, fleet: &[String], model: &CountingModel, plan: Plan) -> Report {
    let began = Instant::now();
    let (mut report, recoveries) = tokio::join!(talk(service, fleet, model, plan), kill(service, data, fleet, plan));
    report.kills = recoveries.len() as u64;
    report.recoveries = recoveries;
    report.took = began.elapsed();
    report
}

/// Sends at the plan's rate, whatever becomes of what was sent before.
async fn talk(service: &Service, fleet: &[String], model: &CountingModel, plan: Plan) -> Report {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / plan.messages_per_second);
    // A machine that falls behind catches up: the rate is what was asked for.
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let end = tokio::time::Instant::now() + plan.lasts;
    let mut under_way = JoinSet::new();
    let mut sent = 0_u64;
    while ticks.tick().await < end {
        let id = &fleet[usize::try_from(sent).expect("few enough") % fleet.len()];
        let text = format!("message {sent}");
        let path = format!("/api/agents/{id}/message");
        let request = service.request(Method::POST, &path).json(&json!({"message": text}));
        under_way.spawn(async move {
            let began = Instant::now();
            (text, crate::service::answer(request).await, began.elapsed())
        });
        sent += 1;
    }
    let mut report = Report { sent, ..Report::default() };
    while let Some(ended) = under_way.join_next().await {
        let (text, outcome, took) = ended.expect("no sender panics");
        judge(&mut report, &text, outcome, took, model.times(&text));
    }
    report
}

fn judge(report: &mut Report, text: &str, outcome: reqwest::Result<(u16, Value)>, took: Duration, read: u32) {
    let (status, body) = match outcome {
        Ok(answer) => answer,
        Err(error) => return report.wrong.push(format!("{text}: {error}")),
    };
    let code = body["code"].as_str().unwrap_or_default();
    // `read`: how often the agent took it to its model.
    match (status, code, read) {
        (200, _, 1) if body["response"] == json!(format!("echo: {text}")) => {
            report.answered += 1;
            report.latencies.push(took);
        }
        (502, "delivery-unknown", 0 | 1) => report.unknown += 1,
        (503, code, 0) => *report.refused.entry(code.to_owned()).or_default() += 1,
        _ => report.wrong.push(format!("{text}, read {read} times: {status} {body}")),
    }
}

/// Kills one agent after the other, and times each until it runs again.
async fn kill(service: &Service, data: &Path, fleet: &[String], plan: Plan) -> Vec<Duration> {
    let mut pids = processes(data);
    let mut ticks = tokio::time::interval(plan.kill_every);
    let end = tokio::time::Instant::now() + plan.lasts;
    let mut recoveries = Vec::new();
    for id in fleet.iter().cycle() {
        if ticks.tick().await >= end {
            break;
        }
        if !pids.contains_key(id) {
            pids = processes(data);
        }
        let Some(pid) = pids.remove(id).and_then(|pids| pids.first().copied()) else { continue };
        let path = format!("/api/agents/{id}");
        let before = service.get(&path).await.1["restarts"].as_u64();
        let began = Instant::now();
        signal(pid, 9);
        loop {
            let (_, agent) = service.get(&path).await;
            if agent["status"] == "RUNNING" && agent["restarts"].as_u64() > before {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "it does not come back: {agent}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        recoveries.push(began.elapsed());
    }
    pause().await;
    recoveries
}

/// The value that so many percent are not above.
pub fn percentile(values: &mut [Duration], percent: usize) -> Duration {
    values.sort_unstable();
    let index = (values.len() * percent).div_ceil(100).saturating_sub(1);
    values.get(index).copied().unwrap_or_default()
}
