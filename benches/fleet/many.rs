//! Many agents of one user, and what they cost.

use std::time::Duration;

use tokio::task::JoinSet;
use zeroone::control::ControlPlane;
use zeroone::domain::{Status, UserId};
use zeroone::testkit::new_agent;

/// `at_once` creates wait for their answers at a time.
pub async fn create(plane: &ControlPlane, user: UserId, agents: usize, at_once: usize) {
    let mut creates = JoinSet::new();
    for n in 0..agents {
        let plane = plane.clone();
        creates.spawn(async move { plane.create_agent(user, new_agent(&format!("Agent {n}"))).await.map(drop) });
        while creates.len() >= at_once {
            creates.join_next().await.expect("one of them").expect("no panic").expect("a create");
        }
    }
    while let Some(create) = creates.join_next().await {
        create.expect("no panic").expect("a create");
    }
}

pub fn running(plane: &ControlPlane) -> usize {
    plane.count_by_status().into_iter().find(|(status, _)| *status == Status::Running).map_or(0, |(_, count)| count)
}

pub async fn all_running(plane: &ControlPlane, agents: usize) {
    while running(plane) < agents {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures of one machine")]
pub fn per_agent(all: usize, agents: usize) -> f64 {
    all as f64 / agents as f64
}

/// What this process holds of the machine's memory now.
pub fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("every process has one");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}
