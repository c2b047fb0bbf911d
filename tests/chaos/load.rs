//! Fifty agents are talked to without a pause while one a second is killed: no answer is lost, none comes twice, and every
//! refusal is an honest one. How fast it goes is measured by `cargo bench --bench chaos`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::common::delete_everything;
use crate::service::{EndAgents, Service, processes};
use crate::traffic::{CountingModel, Plan, drive, fleet, percentile};

/// What an unoptimised build does on a busy machine; the bench has the goal's figures.
const PLAN: Plan =
    Plan { agents: 50, messages_per_second: 50, lasts: Duration::from_secs(15), kill_every: Duration::from_secs(1) };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_agents_lose_and_double_no_answer_while_one_a_second_is_killed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let _end = EndAgents(data.clone());
    let model = CountingModel::start().await;
    let service = Service::start_with(&data, &[("ZEROONE_RATELIMIT__PER_SECOND", "0")]);
    let fleet = fleet(&service, PLAN.agents, &model).await;
    let mut report = drive(&service, &data, &fleet, &model, PLAN).await;
    let p95 = percentile(&mut report.recoveries, 95);
    println!(
        "{} sent, {} answered, {} unknown, {:?} refused, {} kills, p95 to RUNNING {p95:?}",
        report.sent, report.answered, report.unknown, report.refused, report.kills
    );
    assert_eq!(report.wrong, Vec::<String>::new());
    let refused: u64 = report.refused.values().sum();
    assert_eq!(report.answered + report.unknown + refused, report.sent, "every message has its outcome");
    assert!(report.kills >= 5, "only {} kills", report.kills);
    // A killed agent can lose only what it had in its hands.
    assert!(report.unknown + refused <= report.kills * 10, "{report:?}");
    delete_everything(&service).await;
    assert_eq!(processes(&data), BTreeMap::new());
}
