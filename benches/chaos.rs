//! Fifty agents on real processes, talked to at a steady rate while one a second is killed with `kill -9`: what becomes of
//! every message, and how long each agent is away.
//!
//! `cargo bench --bench chaos`; `-- --rate 100 --secs 20` for another rate, or less time.

#[path = "../tests/support/http_client.rs"]
mod http_client;
#[path = "../tests/support/service.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod service;
#[path = "../tests/support/traffic.rs"]
mod traffic;

use std::time::Duration;

use service::{EndAgents, Service};
use traffic::{CountingModel, Plan, drive, fleet, percentile};

/// The goal of the project, from the kill to RUNNING with a token that is proven, for 95 of 100.
const RECOVERY_GOAL_MS: f64 = 250.0;

fn argument(name: &str, default: u32) -> u32 {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == name);
    at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(default)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let plan = Plan {
        agents: 50,
        messages_per_second: argument("--rate", 200),
        lasts: Duration::from_secs(argument("--secs", 60).into()),
        kill_every: Duration::from_secs(1),
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let _end = EndAgents(data.clone());
    let model = CountingModel::start().await;
    let service = Service::start_with(&data, &[("ZEROONE_RATELIMIT__PER_SECOND", "0")]);
    let fleet = fleet(&service, plan.agents, &model).await;
    let mut report = drive(&service, &data, &fleet, &model, plan).await;

    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    println!("{plan:?}, took {:.1?}", report.took);
    println!("sent                {:>8}   {:.0}/s", report.sent, report.sent as f64 / plan.lasts.as_secs_f64());
    println!("answered            {:>8}", report.answered);
    println!("refused, not sent   {:>8}   {:?}", report.refused.values().sum::<u64>(), report.refused);
    println!("unknown, said so    {:>8}", report.unknown);
    println!("wrong               {:>8}   goal: 0", report.wrong.len());
    for wrong in report.wrong.iter().take(10) {
        println!("  {wrong}");
    }
    let [p50, p95, max] = [50, 95, 100].map(|percent| millis(percentile(&mut report.latencies, percent)));
    println!("answer              p50 {p50:.1} ms, p95 {p95:.1} ms, max {max:.1} ms");
    let [p50, p95, max] = [50, 95, 100].map(|percent| millis(percentile(&mut report.recoveries, percent)));
    println!(
        "kill -9 → RUNNING   p50 {p50:.1} ms, p95 {p95:.1} ms, max {max:.1} ms of {} kills; goal: p95 {RECOVERY_GOAL_MS} ms",
        report.kills
    );
    for id in &fleet {
        let deleted = service::answer(service.request(reqwest::Method::DELETE, &format!("/api/agents/{id}"))).await;
        assert_eq!(deleted.expect("an answer").0, 204);
    }
}
