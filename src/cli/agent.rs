//! `zeroone agent`.

mod data;
mod explain;
mod find;
mod spec;
mod tables;
mod upgrade;
mod wait;

use std::io::Write as _;
use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use self::find::{Agent, find, query};
use self::spec::{CreateArgs, UpdateArgs};
pub(super) use self::upgrade::{UpgradeArgs, run as upgrade};
use self::wait::LONGEST_SECS;
use super::Environment;
use super::account::created;
use super::client::Client;
use super::confirm::confirmed;
use super::message::{self, MessageArgs};
use super::outcome::Failure;
use super::output::{self, cell};
use crate::domain::Timestamp;

/// AGENT is an id, a slug or a name.
#[derive(Debug, Subcommand)]
pub(super) enum AgentVerb {
    /// Make an agent; prints the id, and on standard error the slug. The deployment goes on by itself.
    Create(Box<CreateArgs>),
    /// Change what an agent is.
    Update(Box<UpdateArgs>),
    /// List your agents, or everybody's.
    List {
        /// Everybody's, for those with the admin scope.
        #[arg(long)]
        all: bool,
        /// Only these statuses, by comma.
        #[arg(long)]
        status: Option<String>,
    },
    /// Show everything about an agent.
    Get { agent: String },
    /// Start one that is stopped or failed.
    Start {
        agent: String,
        /// Wait until it runs.
        #[arg(long)]
        wait: bool,
    },
    /// Stop it.
    Stop {
        agent: String,
        /// Wait until it is stopped.
        #[arg(long)]
        wait: bool,
    },
    /// Restart it, with a new token.
    Restart {
        agent: String,
        /// Wait until it runs again.
        #[arg(long)]
        wait: bool,
    },
    /// Delete the agent and all its data. Asks on a terminal.
    Delete {
        agent: String,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
        /// Wait until nothing is left of it.
        #[arg(long)]
        wait: bool,
    },
    /// Print what it writes.
    Logs {
        agent: String,
        /// How many lines.
        #[arg(long, default_value_t = 200)]
        tail: u32,
        /// Only what was written at this time or later, e.g. 2030-01-31T12:00:00Z.
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Follow: print new lines as they come.
        #[arg(long, short)]
        follow: bool,
    },
    /// What it uses now: CPU, memory, network.
    Stats {
        agent: String,
        /// Follow: a line every two seconds.
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
        /// Seconds, at most 300.
        #[arg(long, default_value_t = 60)]
        timeout: u64,
    },
    /// Print its timeline.
    Events {
        agent: String,
        /// Follow: print what happens as it happens.
        #[arg(long, short)]
        follow: bool,
    },
    /// What went wrong with it, newest first, and how long it took to recover.
    Incidents { agent: String },
    /// Why it is in its status, what happens next, and what to do.
    Explain { agent: String },
    /// Open its own page: prints where it is and a code that lets you in once, within five minutes.
    Dashboard { agent: String },
    /// Write its workspace and memory to a file; no secret is in it.
    Export {
        agent: String,
        /// By default SLUG.tar; `-` for standard output.
        file: Option<PathBuf>,
    },
    /// Make an agent from an exported file; prints the id.
    Import(Box<data::ImportArgs>),
    /// Make an agent with the configuration, key, workspace and memory of another one, without its channels; prints the id.
    Clone(data::CloneArgs),
    /// Put another version in place of what it runs; one that fails is taken back.
    Upgrade(upgrade::OneArgs),
}

pub(super) async fn run(verb: AgentVerb, client: &Client, environment: &Environment) -> Result<(), Failure> {
    match verb {
        AgentVerb::Create(args) => create(&args, client, environment).await,
        AgentVerb::Update(args) => update(&args, client, environment).await,
        AgentVerb::List { all, status } => {
            let path = if all { "/api/admin/agents" } else { "/api/agents" };
            let filter = status.map_or_else(String::new, |status| format!("?status={}", query(&status.to_uppercase())));
            tables::agents(client.output, &client.list(&format!("{path}{filter}")).await?)
        }
        AgentVerb::Get { agent } => client.output.one(&client.get(&find(client, &agent).await?.path("")).await?),
        AgentVerb::Start { agent, wait } => command(client, &agent, "/start", wait.then_some("RUNNING")).await,
        AgentVerb::Stop { agent, wait } => command(client, &agent, "/stop", wait.then_some("STOPPED")).await,
        AgentVerb::Restart { agent, wait } => command(client, &agent, "/restart", wait.then_some("RUNNING")).await,
        AgentVerb::Delete { agent, yes, wait } => delete(client, &agent, yes, wait).await,
        AgentVerb::Logs { agent, tail, since, follow } => logs(client, &agent, tail, since.as_deref(), follow).await,
        AgentVerb::Stats { agent, follow } => stats(client, &agent, follow).await,
        AgentVerb::Message(args) => {
            let agent = find(client, &args.agent).await?;
            message::send(&args, client, &agent.path("/message")).await
        }
        AgentVerb::Wait { agent, status, timeout } => {
            client.output.one(&wait::until(client, &find(client, &agent).await?, &status, timeout).await?)
        }
        AgentVerb::Events { agent, follow } => events(client, &agent, follow).await,
        AgentVerb::Incidents { agent } => {
            let path = find(client, &agent).await?.path("/incidents");
            tables::incidents(client.output, &client.list(&path).await?)
        }
        AgentVerb::Dashboard { agent } => dashboard(client, &agent).await,
        AgentVerb::Export { agent, file } => data::export(&agent, file, client).await,
        AgentVerb::Import(args) => data::import(*args, client, environment).await,
        AgentVerb::Clone(args) => data::clone(args, client).await,
        AgentVerb::Upgrade(args) => upgrade::one(&args, client).await,
        AgentVerb::Explain { agent } => explain(client, &agent).await,
    }
}

async fn create(args: &CreateArgs, client: &Client, environment: &Environment) -> Result<(), Failure> {
    let mut record = client.post("/api/agents", &args.body(environment)?).await?;
    let agent = Agent::of(&record);
    // Scripts take the id alone; people go on with the slug.
    let _ = writeln!(std::io::stderr(), "created {}", agent.name);
    if args.wait {
        record = wait::until(client, &agent, "RUNNING", LONGEST_SECS).await?;
    }
    created(client, &record, "id")
}

async fn update(args: &UpdateArgs, client: &Client, environment: &Environment) -> Result<(), Failure> {
    let body = args.body(environment)?;
    let agent = find(client, &args.agent).await?;
    let record = client.patch(&agent.path(""), &body).await?;
    let on_its_way = matches!(record["status"].as_str(), Some("PENDING" | "STARTING" | "STOPPING"));
    let wanted = (args.wait && on_its_way).then_some("RUNNING,STOPPED");
    reached(client, &agent, record, wanted).await
}

async fn command(client: &Client, called: &str, command: &str, wanted: Option<&str>) -> Result<(), Failure> {
    let agent = find(client, called).await?;
    let record = client.command(&agent.path(command)).await?;
    reached(client, &agent, record, wanted).await
}

/// Prints the status: as it is now, or once it is one of those that are wanted.
async fn reached(client: &Client, agent: &Agent, mut record: Value, wanted: Option<&str>) -> Result<(), Failure> {
    if let Some(wanted) = wanted {
        record = wait::until(client, agent, wanted, LONGEST_SECS).await?;
    }
    if client.output.json {
        return output::json(&record);
    }
    output::line(&client.output.status(&cell(&record["status"])));
    Ok(())
}

async fn delete(client: &Client, called: &str, yes: bool, wait: bool) -> Result<(), Failure> {
    let agent = find(client, called).await?;
    let name = &agent.name;
    if !yes && !confirmed(&format!("Delete {name} with its memory and all its data? This cannot be undone."))? {
        return Err(Failure::Refused(format!("{name} was not deleted")));
    }
    let mut gone = client.delete(&agent.path("")).await?;
    if wait && !gone {
        wait::gone(client, &agent).await?;
        gone = true;
    }
    if client.output.json {
        return output::json(&json!({ "id": agent.id, "deleted": gone }));
    }
    output::line(&if gone { format!("deleted {name}") } else { format!("{name} is being deleted") });
    Ok(())
}

async fn dashboard(client: &Client, called: &str) -> Result<(), Failure> {
    let agent = find(client, called).await?;
    let mut invitation = client.post(&agent.path("/dashboard"), &json!({})).await?;
    // Whatever ends TLS for the service does so for its agents' names.
    let (scheme, rest) = client.url().split_once("://").unwrap_or(("http", client.url()));
    let port =
        rest.split('/').next().and_then(|host| host.rsplit_once(':')).filter(|(_, port)| port.parse::<u16>().is_ok());
    let port = port.map_or_else(String::new, |(_, port)| format!(":{port}"));
    invitation["url"] = format!("{scheme}://{}{port}/", cell(&invitation["host"])).into();
    if client.output.json {
        return output::json(&invitation);
    }
    output::line(&cell(&invitation["url"]));
    output::line(&format!(
        "enter {} where the page asks for a pairing code, within five minutes",
        cell(&invitation["code"])
    ));
    Ok(())
}

async fn explain(client: &Client, called: &str) -> Result<(), Failure> {
    let agent = find(client, called).await?;
    let explanation = client.get(&agent.path("/explain")).await?;
    if client.output.json {
        return output::json(&explanation);
    }
    for line in explain::page(&agent.name, &explanation, Timestamp::now()) {
        output::line(&line);
    }
    Ok(())
}

async fn logs(client: &Client, called: &str, tail: u32, since: Option<&str>, follow: bool) -> Result<(), Failure> {
    let since = since.map_or_else(String::new, |since| format!("&since={}", query(since)));
    let path = find(client, called).await?.path(&format!("/logs?tail={tail}{since}"));
    let print =
        |line: &Value| output::line_read(&if client.output.json { line.to_string() } else { explain::log_line(line) });
    if follow {
        return client.follow(&format!("{path}&follow=true"), |line| print(&line)).await;
    }
    let answer = client.get(&path).await?;
    let _ = answer["lines"].as_array().into_iter().flatten().all(print);
    Ok(())
}

async fn stats(client: &Client, called: &str, follow: bool) -> Result<(), Failure> {
    let path = find(client, called).await?.path("/stats");
    if !follow {
        return client.output.one(&client.get(&path).await?);
    }
    client
        .follow(&format!("{path}?stream=true"), |usage| {
            output::line_read(&if client.output.json { usage.to_string() } else { tables::usage(&usage) })
        })
        .await
}

async fn events(client: &Client, called: &str, follow: bool) -> Result<(), Failure> {
    let path = find(client, called).await?.path("/events");
    if !follow {
        return tables::events(client.output, &client.list(&path).await?);
    }
    client
        .follow(&path, |event| {
            output::line_read(&if client.output.json {
                event.to_string()
            } else {
                tables::event(client.output, &event)
            })
        })
        .await
}
