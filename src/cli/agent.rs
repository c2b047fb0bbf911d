//! `zeroone agent`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Environment;
use super::account::{created, given};
use super::client::{ANSWER, Client};
use super::message::{self, MessageArgs};
use super::model_key::ModelKeyArgs;
use super::outcome::Failure;
use super::output::{self, Column, cell, plain};
use crate::domain::AgentId;

/// AGENT is an id, a slug or a name.
#[derive(Debug, Subcommand)]
pub(super) enum AgentVerb {
    /// Make an agent; prints the id. The deployment goes on by itself.
    Create(Box<CreateArgs>),
    /// List the caller's agents.
    List {
        /// Only these statuses, by comma.
        #[arg(long)]
        status: Option<String>,
    },
    /// Show everything about an agent.
    Get { agent: String },
    /// Start one that is stopped or failed.
    Start { agent: String },
    /// Stop it.
    Stop { agent: String },
    /// Restart it, with a new token.
    Restart { agent: String },
    /// Delete it with everything that it has.
    Delete { agent: String },
    /// Print what it writes.
    Logs {
        agent: String,
        /// How many lines.
        #[arg(long, default_value_t = 200)]
        tail: u32,
        /// Go on with new lines.
        #[arg(long, short)]
        follow: bool,
    },
    /// Send a message and print the answer. One that is on its way up is waited for.
    Message(MessageArgs),
    /// Wait until it has one of the statuses.
    Wait {
        agent: String,
        /// By comma.
        #[arg(long, default_value = "RUNNING")]
        status: String,
        /// Seconds.
        #[arg(long, default_value_t = 60)]
        timeout: u64,
    },
    /// Print its timeline.
    Events {
        agent: String,
        /// Go on with what happens.
        #[arg(long, short)]
        follow: bool,
    },
    /// What went wrong with it, newest first, and how long it took to be well again.
    Incidents { agent: String },
    /// Why it is in its status, and what happens next.
    Explain { agent: String },
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    name: String,
    /// openrouter, openai, anthropic, ollama, groq, gemini, mistral or deepseek.
    #[arg(long)]
    provider: String,
    #[arg(long)]
    model: String,
    #[command(flatten)]
    key: ModelKeyArgs,
    /// Instead of the provider's own URL.
    #[arg(long, value_name = "URL")]
    provider_url: Option<String>,
    #[arg(long)]
    slug: Option<String>,
    /// 0 to 2.
    #[arg(long)]
    temperature: Option<f64>,
    /// Longest answer in tokens.
    #[arg(long, value_name = "TOKENS")]
    max_tokens: Option<u32>,
    /// What it calls itself.
    #[arg(long)]
    agent_name: Option<String>,
    /// What it calls its user.
    #[arg(long)]
    user_name: Option<String>,
    /// Such as Europe/Zurich.
    #[arg(long)]
    timezone: Option<String>,
    #[arg(long)]
    communication_style: Option<String>,
    /// sqlite, markdown or none.
    #[arg(long)]
    memory_backend: Option<String>,
    /// File with the channels as JSON: {"telegram": {"botToken": "…"}}.
    #[arg(long, value_name = "FILE")]
    channels: Option<PathBuf>,
    /// Wait until it runs.
    #[arg(long)]
    wait: bool,
}

/// Longest wait of `create --wait`, in seconds: with a cold image it takes minutes.
const CREATE_WAIT_SECS: u64 = 300;

const AGENTS: [Column; 7] = [
    ("ID", "id"),
    ("SLUG", "slug"),
    ("STATUS", "status"),
    ("PROVIDER", "provider"),
    ("MODEL", "model"),
    ("RESTARTS", "restarts"),
    ("NAME", "name"),
];
const INCIDENTS: [Column; 7] = [
    ("DETECTED", "detectedAt"),
    ("CAUSE", "cause"),
    ("EXIT", "exitCode"),
    ("STATE", "state"),
    ("STARTED", "startedAt"),
    ("HEALTHY", "healthyAt"),
    ("PAIRED", "pairedAt"),
];
const EVENTS: [Column; 5] = [("SEQ", "seq"), ("TIME", "time"), ("FROM", "from"), ("TO", "to"), ("CAUSE", "cause")];

pub(super) async fn run(verb: AgentVerb, client: &Client, environment: &Environment) -> Result<(), Failure> {
    match verb {
        AgentVerb::Create(args) => create(*args, client, environment).await,
        AgentVerb::List { status } => {
            let filter = status.map_or_else(String::new, |status| format!("?status={}", query(&status)));
            client.output.many(&AGENTS, &client.list(&format!("/api/agents{filter}")).await?)
        }
        AgentVerb::Get { agent } => client.output.one(&client.get(&path(client, &agent, "").await?).await?),
        AgentVerb::Start { agent } => command(client, &agent, "/start").await,
        AgentVerb::Stop { agent } => command(client, &agent, "/stop").await,
        AgentVerb::Restart { agent } => command(client, &agent, "/restart").await,
        AgentVerb::Delete { agent } => {
            let gone = client.delete(&path(client, &agent, "").await?).await?;
            output::line(if gone { "deleted" } else { "being deleted" });
            Ok(())
        }
        AgentVerb::Logs { agent, tail, follow } => logs(client, &agent, tail, follow).await,
        AgentVerb::Message(args) => {
            let path = path(client, &args.agent, "/message").await?;
            message::send(&args, client, &path).await
        }
        AgentVerb::Wait { agent, status, timeout } => {
            let record = wait(client, &path(client, &agent, "").await?, &status, timeout).await?;
            client.output.one(&record)
        }
        AgentVerb::Events { agent, follow } => events(client, &agent, follow).await,
        AgentVerb::Incidents { agent } => {
            client.output.many(&INCIDENTS, &client.list(&path(client, &agent, "/incidents").await?).await?)
        }
        AgentVerb::Explain { agent } => client.output.one(&client.get(&path(client, &agent, "/explain").await?).await?),
    }
}

async fn create(args: CreateArgs, client: &Client, environment: &Environment) -> Result<(), Failure> {
    let channels = args.channels.as_ref().map(|path| {
        let text = std::fs::read_to_string(path);
        let json = text.map_err(|error| error.to_string());
        let json = json.and_then(|text| serde_json::from_str::<Value>(&text).map_err(|_| "it is no JSON".into()));
        json.map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))
    });
    let body = json!({
        "name": args.name, "provider": args.provider, "model": args.model, "apiKey": args.key.read(environment)?,
        "providerUrl": args.provider_url, "slug": args.slug, "temperature": args.temperature, "maxTokens": args.max_tokens,
        "agentName": args.agent_name, "userName": args.user_name, "timezone": args.timezone,
        "communicationStyle": args.communication_style, "memoryBackend": args.memory_backend,
        "channels": channels.transpose()?
    });
    let mut record = client.post("/api/agents", &given(body)).await?;
    if args.wait {
        let path = format!("/api/agents/{}", cell(&record["id"]));
        record = wait(client, &path, "RUNNING", CREATE_WAIT_SECS).await?;
    }
    created(client, &record, "id")
}

async fn command(client: &Client, agent: &str, command: &str) -> Result<(), Failure> {
    let record = client.command(&path(client, agent, command).await?).await?;
    if client.output.json {
        return output::json(&record);
    }
    output::line(&client.output.status(&cell(&record["status"])));
    Ok(())
}

async fn wait(client: &Client, path: &str, status: &str, secs: u64) -> Result<Value, Failure> {
    let path = format!("{path}/wait?status={}&timeout={secs}", query(status));
    client.get_within(&path, Duration::from_secs(secs) + ANSWER).await
}

async fn logs(client: &Client, agent: &str, tail: u32, follow: bool) -> Result<(), Failure> {
    let path = path(client, agent, "/logs").await?;
    let print = |line: &Value| {
        if client.output.json {
            output::line_read(&line.to_string())
        } else {
            output::line_read(&format!("{}  {}", cell(&line["time"]), cell(&line["text"])))
        }
    };
    if follow {
        return client.follow(&format!("{path}?tail={tail}&follow=true"), |line| print(&line)).await;
    }
    let answer = client.get(&format!("{path}?tail={tail}")).await?;
    let _ = answer["lines"].as_array().into_iter().flatten().all(print);
    Ok(())
}

async fn events(client: &Client, agent: &str, follow: bool) -> Result<(), Failure> {
    let path = path(client, agent, "/events").await?;
    if !follow {
        return client.output.many(&EVENTS, &client.list(&path).await?);
    }
    let print = |event: Value| {
        let cells = ["seq", "time", "from", "to", "cause"].map(|at| client.output.status(&cell(&event[at])));
        output::line_read(&if client.output.json { event.to_string() } else { cells.join("  ") })
    };
    client.follow(&path, print).await
}

/// `/api/agents/{id}` of an agent by id, slug or name, and what follows it.
async fn path(client: &Client, agent: &str, rest: &str) -> Result<String, Failure> {
    if agent.parse::<AgentId>().is_ok() {
        return Ok(format!("/api/agents/{agent}{rest}"));
    }
    let agents = client.list("/api/agents").await?;
    let by = |member: &str| agents.iter().filter(|found| found[member] == agent).collect::<Vec<_>>();
    let found = match by("slug") {
        found if found.is_empty() => by("name"),
        found => found,
    };
    match found.as_slice() {
        [found] => Ok(format!("/api/agents/{}{rest}", cell(&found["id"]))),
        [] => Err(Failure::NotFound(format!("no agent of yours is called {}", plain(agent)))),
        _ => Err(Failure::Usage(format!("several agents are called {}; use an id or a slug", plain(agent)))),
    }
}

/// A value that may stand in a query.
fn query(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b',' | b'-' | b'_' | b'.' => char::from(b).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}
