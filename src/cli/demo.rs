//! `zeroone demo`: the whole main job in one go, with nothing installed. A service in a folder of its own, a stand-in for
//! a model, an agent from its creation to its first answer; then it stays up to be played with.
//!
//! It is the real service: what the demo does, it does over HTTP, as any client would. Only its progress is read from
//! inside, so that no step is too quick to be seen.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::client::{Client, Key, variable};
use super::outcome::Failure;
use super::output::{Output, cell, line, plain};
use super::serve::LEFTOVERS;
use super::service::Service;
use super::stand_in::{self, StandIn};
use super::{Environment, signals};
use crate::actor::FeedEntry;
use crate::config::{Config, Flag, Loaded};
use crate::control::ControlPlane;
use crate::runtime::process::ProcessRuntime;
use crate::telemetry;

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// End after the answer instead of staying up; for scripts and CI.
    #[arg(long, visible_alias = "once")]
    exit: bool,
    /// What the agent is asked.
    #[arg(long, default_value = "Hello! Who are you?")]
    message: String,
    /// Keep the demo's data in this folder; else it is in a temporary one, and gone at the end.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Longest wait for the agent to run, in seconds: it takes a tenth of one.
const RUNNING_WITHIN_SECS: u64 = 60;
/// Longest time that an agent's removal may take at the end.
const GONE_WITHIN: Duration = Duration::from_secs(20);

pub(super) fn run(args: DemoArgs, environment: &Environment) -> Result<(), Failure> {
    let folder = Folder::make(args.data.clone(), environment)?;
    let loaded = configuration(&folder.path)?;
    telemetry::init(&loaded.config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(demo(&args, &loaded, environment));
    runtime.shutdown_timeout(LEFTOVERS);
    outcome
}

/// The defaults, but for what keeps the demo to itself: whatever this machine is configured for is not touched.
fn configuration(folder: &Path) -> Result<Loaded, Failure> {
    let folder = folder.to_str().ok_or_else(|| Failure::Usage("--data must be a path in UTF-8".into()))?;
    let flag = |name, key, value: &str| Flag { name, key, value: value.to_owned() };
    let flags = [
        flag("--data", "data", folder),
        flag("--bind", "bind", "127.0.0.1:0"),
        flag("--runtime", "runtime", "process"),
        flag("--log", "log.level", "error"),
    ];
    Config::load(None, &[], &flags).map_err(Failure::of)
}

async fn demo(args: &DemoArgs, loaded: &Loaded, environment: &Environment) -> Result<(), Failure> {
    let service = Service::start(loaded, environment, false).await?;
    let (url, plane, closing) = (service.url(), service.plane.clone(), service.closing.clone());
    // A signal ends the demo, and only then the service: it has to remove the agents first.
    let asked_to_end = CancellationToken::new();
    signals::close_on_signal(asked_to_end.clone())?;
    let key = std::fs::read_to_string(loaded.config.data.join("admin.key")).context("cannot read the demo's key")?;
    let key = key.trim().to_owned();
    let running = tokio::spawn(service.run());
    let outcome = tokio::select! {
        outcome = play(args, &url, &key, &plane, &asked_to_end) => outcome,
        () = asked_to_end.cancelled() => Ok(()),
    };
    remove_agents(&plane).await;
    closing.cancel();
    running.await.context("the service panicked")??;
    outcome
}

async fn play(
    args: &DemoArgs,
    url: &str,
    key: &str,
    plane: &ControlPlane,
    asked_to_end: &CancellationToken,
) -> Result<(), Failure> {
    let client =
        Client::at(url, Some(Key { text: key.to_owned(), origin: "this demonstration".into() }), Output::default())?;
    line(&format!("service     {url}  (its key: {key})"));
    let model = StandIn::start(std::net::Ipv4Addr::LOCALHOST).await?;
    line(&format!("model       {}  (a stand-in: answers by rule, no AI)", model.url()));
    let progress = show_progress(plane.feed());
    let body = json!({
        "name": "Demo", "provider": "openai", "model": stand_in::NAME, "apiKey": "sk-stand-in", "providerUrl": model.url()
    });
    let record = client.post("/api/agents", &body).await?;
    let agent = format!("/api/agents/{}", cell(&record["id"]));
    let path = format!("{agent}/wait?status=RUNNING&timeout={RUNNING_WITHIN_SECS}");
    let record = client.get_within(&path, Duration::from_secs(RUNNING_WITHIN_SECS + 10)).await?;
    let asked = Instant::now();
    line(&format!("you         {}", args.message));
    let answer = client.post(&format!("{agent}/message"), &json!({ "message": args.message })).await?;
    let text = answer["response"].as_str().ok_or_else(|| Failure::said("the agent's answer has no text"))?;
    line(&format!("agent       {text}  ({} ms)", asked.elapsed().as_millis()));
    if !args.exit {
        line(&suggestions(url, key, &record, pid(plane).as_deref().unwrap_or("its pid")));
        asked_to_end.cancelled().await;
    }
    progress.abort();
    Ok(())
}

/// Prints every change of an agent's status, with the time since the one before.
fn show_progress(mut feed: broadcast::Receiver<std::sync::Arc<FeedEntry>>) -> JoinHandle<()> {
    let mut last = Instant::now();
    tokio::spawn(async move {
        loop {
            let entry = match feed.recv().await {
                Ok(entry) => entry,
                Err(broadcast::error::RecvError::Lagged(_)) => continue,
                Err(broadcast::error::RecvError::Closed) => return,
            };
            let entry = &entry.entry;
            let millis = std::mem::replace(&mut last, Instant::now()).elapsed().as_millis();
            let detail = entry.detail.as_ref().map_or_else(String::new, |detail| format!(": {}", plain(detail)));
            line(&format!("{:<11} +{millis} ms  {}{detail}", entry.to.as_str(), entry.cause));
        }
    })
}

/// The process of the one agent that there is.
fn pid(plane: &ControlPlane) -> Option<String> {
    let agent = plane.agents(None, None, 1, &[]).agents.pop()?;
    agent.record.state.run_id().and_then(ProcessRuntime::pid_of).map(|pid| pid.to_string())
}

fn suggestions(url: &str, key: &str, record: &Value, pid: &str) -> String {
    let id = cell(&record["id"]);
    format!(
        "\nIt stays up. In another terminal:\n\
         \n  chat     curl -s -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\\n\
         \x20            -d '{{\"message\":\"What now?\"}}' {url}/api/agents/{id}/message\
         \n  kill it  kill -9 {pid}        and watch it come back here\
         \n  look     ZEROONE_URL={url} ZEROONE_API_KEY={key} zeroone agent list\
         \n\nCtrl-C ends the demo and removes all of it.\n"
    )
}

async fn remove_agents(plane: &ControlPlane) {
    let agents = plane.agents(None, None, usize::MAX, &[]).agents;
    for agent in agents.iter().filter_map(|view| plane.agent(view.record.id)) {
        match agent.delete().await {
            Ok(_) => {
                if !agent.gone(GONE_WITHIN).await {
                    tracing::error!(agent = %agent.id(), "the agent could not be removed in time");
                }
            }
            Err(error) => tracing::error!(agent = %agent.id(), %error, "the agent could not be removed"),
        }
    }
}

/// Where the demo's data is. A temporary folder is removed with this.
struct Folder {
    path: PathBuf,
    temporary: bool,
}

impl Folder {
    fn make(wanted: Option<PathBuf>, environment: &Environment) -> Result<Self, Failure> {
        if let Some(path) = wanted {
            return Ok(Self { path, temporary: false });
        }
        let parent = variable(environment, "TMPDIR").filter(|parent| !parent.is_empty()).unwrap_or("/tmp");
        let path = Path::new(parent).join(format!("zeroone-demo-{:016x}", rand::random::<u64>()));
        let why = || {
            let path = path.display();
            format!("cannot make the folder {path}; set TMPDIR to one that may be written to, or give --data")
        };
        // Fails where it exists: nobody shall have prepared it.
        let made = std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(&path);
        made.with_context(why)?;
        Ok(Self { path, temporary: true })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::error!(folder = %self.path.display(), %error, "the demo's folder could not be removed");
        }
    }
}
