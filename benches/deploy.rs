//! Deploys and recoveries on a real engine with the real ZeroClaw, against the same steps by bare calls of the engine.
//!
//! Ours goes over HTTP to a whole service on a loopback port: POST → RUNNING, and `kill -9` of the container's first
//! process → RUNNING with a token that was tried. Bare is the least that anyone could do: create, archive, start, read the
//! code, health, pair; and kill, `die` event, start, health. The bare container is a copy of one of ours.
//! An upgrade is measured for as long as the agent is down, from the stop of one image to RUNNING with the other; bare it is
//! stop, remove, create, archive, the data read and written back as it is when it is set aside, start, health. A rollback is
//! the same with a new version that is killed as soon as it runs: two exchanges, so that bare it is two upgrades.
//! Both take turns, in one run on one machine, so that what else goes on there hits both. Needs an engine and the image of
//! `scripts/zeroclaw-image 0.1.7`.
//!
//! `cargo bench --bench deploy`

#[path = "deploy/bare.rs"]
mod bare;
#[path = "../tests/support/http_client.rs"]
mod http_client;
#[path = "deploy/ours.rs"]
mod ours;
#[path = "../tests/support/sse.rs"]
mod sse;

use std::time::Duration;

use bare::Bare;
use bollard::Docker;
use bollard::query_parameters::{RemoveImageOptions, TagImageOptionsBuilder};
use ours::Ours;
use zeroone::domain::{AgentId, AgentSpec, Credentials, Profile, Provider};
use zeroone::zeroclaw::software::ImageClues;

/// What is deployed; another version by ZEROONE_BENCH_IMAGE.
const IMAGE: &str = "zeroclaw:0.1.7";

fn image() -> String {
    std::env::var("ZEROONE_BENCH_IMAGE").unwrap_or_else(|_| IMAGE.into())
}

/// How its version behaves, by its tag.
fn profile() -> Profile {
    ImageClues::new(&image()).probable().expect("a tag that is a version").profile
}
const RUNS: usize = 10;
/// The goals of the project: ours over bare, at the median.
const DEPLOY_GOAL: f64 = 1.15;
const RECOVERY_GOAL: f64 = 1.25;
const UPGRADE_GOAL: f64 = 1.5;
/// In milliseconds, whatever the engine takes.
const DOWN_GOAL: f64 = 3000.0;
const ROLLBACK_GOAL: f64 = 5000.0;

/// The image under another name, which is what an agent is upgraded to: what another version takes to start is no matter of
/// ours.
const OTHER: &str = "zeroone-bench-other";

/// With the tag, which tells the version.
fn other_image() -> String {
    format!("{OTHER}:{}", tag(&image()))
}

fn tag(image: &str) -> &str {
    image.rsplit_once(':').map_or("latest", |(_, tag)| tag)
}

fn main() {
    // `cargo test --benches` runs this too; a benchmark is not a test.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    tokio.block_on(async {
        let docker = Docker::connect_with_defaults().expect("an engine's address");
        let other = TagImageOptionsBuilder::default().repo(OTHER).tag(tag(&image())).build();
        docker.tag_image(&image(), Some(other)).await.expect("the image is there (scripts/zeroclaw-image)");
        let ours = Ours::start().await;
        // A panic must not keep what was made from being removed.
        let measured = tokio::spawn(measure(docker.clone(), ours.clone())).await;
        ours.end().await;
        bare::clean_up(&docker).await;
        ours.clean_up(&docker).await;
        let _ = docker.remove_image(&other_image(), None::<RemoveImageOptions>, None).await;
        measured.expect("measured");
    });
}

/// Times of one kind of step, ours and bare.
#[derive(Default)]
struct Times {
    ours: Vec<Duration>,
    bare: Vec<Duration>,
}

async fn measure(docker: Docker, ours: Ours) {
    // The first of all makes the network and warms up what can be warm; its container is what the bare ones copy.
    let (pattern, _) = ours.deploy().await;
    let bare = Bare::new(docker, &ours.container_name(&pattern)).await;
    let (warm, _) = bare.deploy().await;
    bare.remove(warm).await;

    let (mut deploys, mut recoveries, mut upgrades) = (Times::default(), Times::default(), Times::default());
    let mut rollbacks = Vec::new();
    for run in 0..RUNS {
        // Whoever comes second finds warmer caches: take turns in that, too.
        for who in [run % 2, (run + 1) % 2] {
            if who == 0 {
                let (agent, deploy) = ours.deploy().await;
                deploys.ours.push(deploy);
                recoveries.ours.push(ours.recover(&agent, bare.pid(&ours.container_name(&agent)).await).await);
                upgrades.ours.push(ours.upgrade(&agent).await);
                ours.delete(&agent).await;
                // Of its own, so that its timeline tells of one upgrade.
                let (agent, _) = ours.deploy().await;
                rollbacks.push(ours.roll_back(&agent, &bare).await);
                ours.delete(&agent).await;
            } else {
                let (container, deploy) = bare.deploy().await;
                deploys.bare.push(deploy);
                recoveries.bare.push(bare.recover(&container).await);
                upgrades.bare.push(bare.upgrade(&container).await);
                bare.remove(container).await;
            }
        }
    }
    ours.delete(&pattern).await;
    println!("{RUNS} runs each, milliseconds              min  median     max   ratio    goal");
    deploys.show("POST → RUNNING", "create … pair by bare calls", DEPLOY_GOAL);
    recoveries.show("kill -9 → RUNNING, token tried", "kill -9 → die → start → health", RECOVERY_GOAL);
    upgrades.show("another image: down, to RUNNING", "stop … create, data, start, health", UPGRADE_GOAL);
    println!("{:67} {DOWN_GOAL:7.0}", "");
    line("taken back: down, to RUNNING", rollbacks);
    println!("         {ROLLBACK_GOAL:7.0}");
}

impl Times {
    fn show(self, ours: &str, bare: &str, goal: f64) {
        let floor = line(bare, self.bare);
        println!();
        let median = line(ours, self.ours);
        println!(" {:7.2} {goal:7.2}", median / floor);
    }
}

/// Prints a line without its end, and gives the median.
fn line(what: &str, mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let median = (ms(times[(times.len() - 1) / 2]) + ms(times[times.len() / 2])) / 2.0;
    print!("{what:<34} {:7.1} {median:7.1} {:7.1}", ms(times[0]), ms(times[times.len() - 1]));
    median
}

/// The agent that both deploy, and what belongs to it.
fn agent() -> (AgentId, AgentSpec, Credentials) {
    let spec = AgentSpec::new("Bench", Provider::Openai, "none");
    (AgentId::new(), spec, Credentials::default().with_api_key("sk-bench"))
}
