//! `zeroone upgrade`: agents in waves, until one of them fails.
//!
//! It may be cut short and called again: an agent that runs the version already is left as it is, and an upgrade that is
//! under way is followed.

use std::time::{Duration, Instant};

use clap::Args;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::find::find;
use crate::cli::client::Client;
use crate::cli::outcome::Failure;
use crate::cli::output::{self, cell};

/// How long one agent may take: its turn among others, a rehearsal, a start that fails, and one back.
const UPGRADE: Duration = Duration::from_secs(1200);
const POLL: Duration = Duration::from_millis(500);
/// A pull of a large image is part of the answer.
const BEGIN: Duration = Duration::from_secs(960);

#[derive(Debug, Args)]
pub(in crate::cli) struct UpgradeArgs {
    /// Ids, slugs or names.
    #[arg(required_unless_present = "all")]
    agents: Vec<String>,
    /// All agents that run: of the installation with an administrator's key, else the caller's.
    #[arg(long, conflicts_with = "agents")]
    all: bool,
    #[command(flatten)]
    target: Target,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Agents that are upgraded at the same time; the next ones follow when all of them are done.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    wave: u16,
    /// Stop after the wave in which so many have failed.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    max_failures: u16,
    /// Accepted for symmetry: this verb always waits, or it could not stop at the first failures.
    #[arg(long, hide = true)]
    wait: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct OneArgs {
    agent: String,
    #[command(flatten)]
    target: Target,
    /// Wait for its end.
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, Args)]
struct Target {
    /// The image; by default what new agents run.
    #[arg(long, value_name = "REF")]
    image: Option<String>,
}

pub(in crate::cli) async fn run(args: UpgradeArgs, client: &Client) -> Result<(), Failure> {
    let agents = chosen(&args, client).await?;
    let image = args.target.image.as_deref();
    if args.dry_run {
        let to = image.unwrap_or("what new agents run");
        if client.output.json {
            let planned = |agent: &Value| json!({ "slug": agent["slug"], "from": agent["image"], "to": image });
            return output::json(&agents.iter().map(planned).collect::<Vec<_>>());
        }
        for agent in &agents {
            output::line(&format!("{}: {} → {to}", cell(&agent["slug"]), cell(&agent["image"])));
        }
        output::line(&format!("agents: {}; waves: {}", agents.len(), agents.len().div_ceil(args.wave.into())));
        return Ok(());
    }
    let (mut done, mut failed, mut told) = (0, Vec::new(), Vec::new());
    for wave in agents.chunks(args.wave.into()) {
        let ends = join_all(wave.iter().map(|agent| upgrade(agent, image, client))).await;
        for (agent, end) in wave.iter().zip(ends) {
            done += 1;
            let slug = cell(&agent["slug"]);
            let ok = end.is_ok();
            let said = match end {
                Ok(said) => said,
                Err(failure) => {
                    failed.push(slug.clone());
                    failure.to_string()
                }
            };
            if client.output.json {
                told.push(json!({ "slug": slug, "ok": ok, "detail": said }));
            } else {
                output::line(&format!("{done}/{} {slug}: {said}", agents.len()));
            }
        }
        if failed.len() >= usize::from(args.max_failures) {
            break;
        }
    }
    if client.output.json {
        output::json(&told)?;
    }
    if failed.is_empty() {
        return Ok(());
    }
    let left = agents.len() - done;
    Err(Failure::said(format!("{} failed: {}; {left} were not begun", failed.len(), failed.join(", "))))
}

/// `zeroone agent upgrade`: one agent, waited for only where that is wanted.
pub(super) async fn one(args: &OneArgs, client: &Client) -> Result<(), Failure> {
    let agent = find(client, &args.agent).await?;
    let image = args.target.image.as_deref();
    if args.wait {
        let record = client.get(&agent.path("")).await?;
        let said = upgrade(&record, image, client).await?;
        return client.output.done(&client.get(&agent.path("")).await?, &said);
    }
    let (status, record) = client.post_told(&agent.path("/upgrade"), &body(image), BEGIN).await?;
    if client.output.json {
        return output::json(&record);
    }
    output::line(if status == 200 { RUNS_IT } else { "rehearsing; `zeroone agent explain` tells how it goes on" });
    Ok(())
}

const RUNS_IT: &str = "runs it already";

fn body(image: Option<&str>) -> Value {
    image.map_or_else(|| json!({}), |image| json!({ "image": image }))
}

async fn chosen(args: &UpgradeArgs, client: &Client) -> Result<Vec<Value>, Failure> {
    if args.all {
        return match client.list("/api/admin/agents?status=RUNNING").await {
            Err(failure) if failure.refusal("forbidden").is_some() => client.list("/api/agents?status=RUNNING").await,
            all => all,
        };
    }
    let mut agents = Vec::new();
    for name in &args.agents {
        agents.push(client.get(&find(client, name).await?.path("")).await?);
    }
    Ok(agents)
}

/// Sees one agent through, and says what it runs then.
async fn upgrade(agent: &Value, image: Option<&str>, client: &Client) -> Result<String, Failure> {
    let path = format!("/api/agents/{}", cell(&agent["id"]));
    if agent["upgrade"].is_null() {
        let (status, _) = client.post_told(&format!("{path}/upgrade"), &body(image), BEGIN).await?;
        if status == 200 {
            return Ok(RUNS_IT.into());
        }
    }
    let began = Instant::now();
    let record = loop {
        let record = client.get(&path).await?;
        if record["upgrade"].is_null() {
            break record;
        }
        if began.elapsed() > UPGRADE {
            return Err(Failure::said(format!("no end after {} s; see `zeroone agent explain`", UPGRADE.as_secs())));
        }
        tokio::time::sleep(POLL).await;
    };
    let events = client.list(&format!("{path}/events")).await?;
    let over = |event: &&Value| matches!(event["cause"].as_str(), Some("upgraded" | "rolled-back" | "upgrade-refused"));
    match events.iter().rev().find(over) {
        Some(event) if event["cause"] == "rolled-back" => {
            Err(Failure::said(format!("rolled back {}", cell(&event["detail"]))))
        }
        Some(event) if event["cause"] == "upgrade-refused" => {
            Err(Failure::said(format!("left as it was: {}", cell(&event["detail"]))))
        }
        _ => Ok(format!("runs {} {}", cell(&record["image"]), cell(&record["version"]))),
    }
}
