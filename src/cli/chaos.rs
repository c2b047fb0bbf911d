//! `zeroone chaos`: faults done to agents of a running service, and how each of them recovered.
//!
//! ```text
//! plan ──► follow ──► hands: signals, or calls of the engine, behind the service's back
//! (seed)      └─────► client: when was it well again?           report ◄── team: is all as it should be?
//!          messages ► client: who answers meanwhile?
//! ```
//! A client of the service's API like any other, but one on the same machine: the faults are done to processes or
//! containers themselves. There is no door in the API for them.

mod follow;
mod messages;
mod plan;
mod report;
mod team;

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use futures_util::FutureExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::follow::follow;
use self::plan::{Script, schedule};
use self::report::{Outcome, Report, figures, judge};
use self::team::Team;
use super::client::Client;
use super::outcome::Failure;
use super::output::{self, line, plain};
use super::serve::LEFTOVERS;
use super::settings::{InstallationArgs, load};
use super::{Environment, engine, signals};
use crate::config::{Config, Loaded};
use crate::domain::Timestamp;
use crate::runtime::fault::{Fault, FaultInjector};
use crate::telemetry;

#[derive(Debug, Args)]
pub(super) struct ChaosArgs {
    #[command(flatten)]
    place: InstallationArgs,
    /// Repeats a plan; a random one by default.
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds in which faults are done.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    duration: u64,
    /// Which, by comma: kill, pause, stop, cut. All that the runtime has by default; only containers have a network to cut.
    #[arg(long, value_delimiter = ',', value_parser = Fault::parse)]
    faults: Option<Vec<Fault>>,
    /// Faults a second.
    #[arg(long, default_value_t = 0.5, value_parser = per_second)]
    rate: f64,
    /// How many agents.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    agents: u16,
    /// Messages a second, over all agents; 5 by default, none to agents that were there before.
    #[arg(long, value_parser = per_second)]
    messages_per_second: Option<f64>,
    /// Do it to agents of the caller's that run already, instead of to agents made for it. Needs --yes.
    #[arg(long)]
    existing: bool,
    /// Yes, agents in use are to be killed.
    #[arg(long)]
    yes: bool,
    /// How long an agent may take to be well again, in seconds: longer than one rests that was killed too often.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    settle: u64,
    /// Write the report as JSON to this file, too.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Most and, besides none, fewest faults or messages a second: what one program can be relied on to do, and one in a run.
const MOST_PER_SECOND: f64 = 1000.0;
const FEWEST_PER_SECOND: f64 = 0.001;
const MESSAGES_PER_SECOND: f64 = 5.0;

fn per_second(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| *rate == 0.0 || (FEWEST_PER_SECOND..=MOST_PER_SECOND).contains(rate));
    rate.ok_or_else(|| format!("must be 0, or a number from {FEWEST_PER_SECOND} to {MOST_PER_SECOND}"))
}

pub(super) fn run(args: ChaosArgs, environment: &Environment, client: Client) -> Result<(), Failure> {
    if args.existing && !args.yes {
        return Err(Failure::Usage("--existing kills agents in use: say --yes if that is meant".into()));
    }
    let loaded = load(&args.place.file, environment, &args.place.flags()?)?;
    telemetry::init(&loaded.config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let client = client.or_key_in(&loaded.config.data);
    let outcome = runtime.block_on(chaos(&args, &loaded, client));
    runtime.shutdown_timeout(LEFTOVERS);
    outcome
}

async fn chaos(args: &ChaosArgs, loaded: &Loaded, admin: Client) -> Result<(), Failure> {
    let closing = CancellationToken::new();
    signals::close_on_signal(closing.clone())?;
    let there = admin.get("/api/admin/runtime").await?;
    let name = there["name"].as_str().unwrap_or_default().to_owned();
    let installation = there["installation"].as_str().and_then(|id| id.parse().ok());
    let installation = installation.ok_or_else(|| Failure::said("the service does not tell its installation"))?;
    let injector = engine::injector(&loaded.config, &name, installation)?;
    let faults = possible(args.faults.clone(), &*injector, &name)?;
    let seed = args.seed.unwrap_or_else(rand::random);
    let team = if args.existing {
        Team::existing(&admin, usize::from(args.agents)).await?
    } else {
        // Another number than the seed: a run may be repeated while an earlier one is still being cleared away.
        Team::hire(&admin, usize::from(args.agents), rand::random(), name == "docker").await?
    };
    let script = Script {
        seed,
        duration: Duration::from_secs(args.duration),
        rate: args.rate,
        faults,
        agents: team.members.len(),
    };
    if !admin.output.json {
        if let Some(port) = team.open_to_all() {
            line(&format!("a stand-in for a model listens on all addresses, port {port}, until this ends"));
        }
        announce(&script, &loaded.config);
    }
    let run = Run { args, admin: &admin, injector, team: &team, script, runtime: name, closing };
    let report = run.go().await;
    team.disband().await;
    tell(&report?, args, &admin)
}

/// The faults that were asked for, if all of them exist here.
fn possible(asked: Option<Vec<Fault>>, injector: &dyn FaultInjector, runtime: &str) -> Result<Vec<Fault>, Failure> {
    let Some(mut asked) = asked else { return Ok(injector.faults().to_vec()) };
    asked.sort_unstable();
    asked.dedup();
    match asked.iter().find(|fault| !injector.faults().contains(fault)) {
        Some(fault) => Err(Failure::Usage(format!(
            "there is no {fault} on the runtime {}: its instances share the machine's network",
            plain(runtime)
        ))),
        None => Ok(asked),
    }
}

fn announce(script: &Script, config: &Config) {
    let each = script.rate * script.duration.as_secs_f64() / script.agents.max(1) as f64;
    if each > f64::from(config.restart.max_restarts) {
        line(&format!(
            "about {each:.0} faults for each agent, more than its restart budget (restart.max_restarts = {}): some will rest \
             in ERROR for a while, as they should",
            config.restart.max_restarts
        ));
    }
    line(&format!("seed {}; AT, FAULT, AGENT and what came of it:", script.seed));
}

/// Everything that a run needs.
struct Run<'a> {
    args: &'a ChaosArgs,
    admin: &'a Client,
    injector: Arc<dyn FaultInjector>,
    team: &'a Team,
    script: Script,
    runtime: String,
    /// Ends it early, in order.
    closing: CancellationToken,
}

impl Run<'_> {
    async fn go(&self) -> Result<Report, Failure> {
        let (started_at, begun) = (Timestamp::now(), Instant::now());
        let ordinary = if self.args.existing { 0.0 } else { MESSAGES_PER_SECOND };
        let done = CancellationToken::new();
        let messages = tokio::spawn(messages::send(
            self.team.client.clone(),
            self.team.members.clone(),
            self.args.messages_per_second.unwrap_or(ordinary),
            self.script.seed,
            self.team.echoes(),
            done.clone(),
        ));
        let outcomes = self.do_faults(begun).await;
        done.cancel();
        let messages = messages.await.context("sending messages panicked")?;
        let seen = self.team.settle(self.admin, &*self.injector, self.patience()).await?;
        let faults = figures(&self.script.faults, &outcomes);
        Ok(Report {
            seed: self.script.seed,
            runtime: self.runtime.clone(),
            started_at,
            seconds: begun.elapsed().as_secs(),
            agents: self.team.members.len(),
            invariants: judge(&seen, &faults, &messages),
            faults,
            messages,
        })
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(self.args.settle)
    }

    /// Does all that is planned, and waits for what comes of it.
    async fn do_faults(&self, begun: Instant) -> Vec<(Fault, Outcome)> {
        let mut plan = schedule(&self.script).peekable();
        let (mut busy, mut under_way, mut outcomes) = (HashSet::new(), JoinSet::new(), Vec::new());
        loop {
            let next = plan.peek().map(|planned| begun + planned.at);
            if next.is_none() && under_way.is_empty() {
                return outcomes;
            }
            tokio::select! {
                biased;
                () = self.closing.cancelled() => {
                    // What was begun is taken back by those who began it; they only have to be waited for.
                    plan = schedule(&Script { duration: Duration::ZERO, ..self.script.clone() }).peekable();
                    if under_way.is_empty() {
                        return outcomes;
                    }
                    if let Some(Ok((planned, outcome))) = under_way.join_next().await {
                        self.note(&mut outcomes, planned, outcome);
                    }
                }
                Some(ended) = under_way.join_next() => {
                    if let Ok((planned, outcome)) = ended {
                        busy.remove(&planned.agent);
                        self.note(&mut outcomes, planned, outcome);
                    }
                }
                () = sleep_until(next.unwrap_or(begun)), if next.is_some() => {
                    let Some(planned) = plan.next() else { continue };
                    if !busy.insert(planned.agent) {
                        self.note(&mut outcomes, planned, Outcome::Skipped);
                        continue;
                    }
                    let (injector, client) = (Arc::clone(&self.injector), self.team.client.clone());
                    let (agent, patience) = (self.team.members[planned.agent].id, self.patience());
                    under_way.spawn(async move {
                        // A bug in here must show in the report, not shorten it.
                        let outcome = AssertUnwindSafe(follow(injector, client, agent, planned.fault, patience));
                        let panicked = |_| Outcome::Impossible("following it panicked".into());
                        (planned, outcome.catch_unwind().await.unwrap_or_else(panicked))
                    });
                }
            }
        }
    }

    /// Counts an outcome and shows it.
    fn note(&self, outcomes: &mut Vec<(Fault, Outcome)>, planned: plan::Planned, outcome: Outcome) {
        if !self.admin.output.json {
            let slug = plain(&self.team.members[planned.agent].slug);
            let at = planned.at.as_secs_f64();
            line(&format!("{at:>7.1} s  {:6} {slug:20} {}", planned.fault.as_str(), outcome.told()));
        }
        outcomes.push((planned.fault, outcome));
    }
}

/// Prints the report; a violated invariant is a failure.
fn tell(report: &Report, args: &ChaosArgs, client: &Client) -> Result<(), Failure> {
    if let Some(path) = &args.report {
        let text = serde_json::to_string_pretty(report).map_err(Failure::of)?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    if client.output.json {
        output::json(report)?;
    } else {
        line(&report.text());
    }
    if report.holds() { Ok(()) } else { Err(Failure::said("an invariant was violated")) }
}
