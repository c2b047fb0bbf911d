//! What the agent can do beside talking: remember, tell the time, read and write its own files, fetch from the web,
//! run prompts by the clock, send messages.
//!
//! Every tool takes JSON from the model, which is input like any other: it may be wrong, hostile or both. A tool that
//! fails says why to the model, which can then do better.

mod args;
mod fetch;
mod files;

pub(super) use fetch::PublicOnly;

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use args::{object, one_of, string};

use super::channels;
use super::config::Config;
use super::jobs::{JobError, NewJob};
use super::memory::{CORE, KEY_LENGTH, Kind, Note, Owner};
use super::persona::{self, head};
use super::provider::{ToolCall, ToolSpec};
use super::shared::App;
use super::tool_rules;
use crate::domain::Timestamp;

/// Longest result that is given to the model, in bytes: it is paid for again in every later round.
const OUTPUT: usize = 24_000;
/// No tool may take longer; the one that fetches has a shorter limit of its own.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Memories that one search gives.
const RECALL: usize = 10;

pub(super) struct Outcome {
    pub(super) success: bool,
    pub(super) output: String,
}

/// The tools that this configuration offers to somebody.
pub(super) fn specs(config: &Config, owner: &Owner) -> Vec<ToolSpec> {
    let mut specs = all(config);
    specs.retain(|spec| tool_rules::permits(config, owner, &spec.name));
    specs
}

fn all(config: &Config) -> Vec<ToolSpec> {
    let mut specs = vec![
        spec(
            "memory_store",
            "Remember something for later conversations. An entry of the same key is replaced.",
            object(
                &[
                    ("key", string("A short name for it")),
                    ("content", string("What to remember")),
                    ("category", string("core (default), daily, conversation or one of your own")),
                ],
                &["key", "content"],
            ),
        ),
        spec(
            "memory_recall",
            "Search what you remember.",
            object(&[("query", string("Words to look for"))], &["query"]),
        ),
        spec("memory_forget", "Forget an entry.", object(&[("key", string("Its key"))], &["key"])),
        spec(
            "time",
            "The current date and time.",
            object(&[("timezone", string("IANA time zone; the user's own if left out"))], &[]),
        ),
        spec(
            "file_read",
            "Read a text file of your workspace.",
            object(&[("path", string("Path within the workspace"))], &["path"]),
        ),
        spec(
            "file_write",
            "Write a text file into your workspace, replacing what was there.",
            object(
                &[("path", string("Path within the workspace")), ("content", string("The whole text"))],
                &["path", "content"],
            ),
        ),
        spec(
            "cron_add",
            "Have a prompt put to yourself later: once, at a time (at) or after a while (in), or again and again by a cron \
             expression (schedule). Use at or in for reminders: they run once and do not come back.",
            object(
                &[
                    ("command", string("The prompt")),
                    ("at", string("Runs once at this time, e.g. 2026-12-24T18:00 or 18:00, in tz")),
                    ("in", string("Runs once after this time, e.g. 10 minutes or 2h 30m")),
                    ("schedule", string("Runs again and again: a cron expression, e.g. 30 9 * * 1-5")),
                    ("tz", string("IANA time zone; the user's own if left out")),
                    ("expires_at", string("A repeated job ends at this time")),
                    ("name", string("A name for the job")),
                ],
                &["command"],
            ),
        ),
        spec("cron_list", "List your jobs.", object(&[], &[])),
        spec("cron_remove", "Remove a job.", object(&[("id", string("Its id"))], &["id"])),
    ];
    if config.http_request.enabled {
        specs.push(spec(
            "http_fetch",
            "Fetch a page from the web by GET. Only allowed hosts can be reached.",
            object(&[("url", string("http:// or https:// URL"))], &["url"]),
        ));
    }
    let outgoing = channels::outgoing(config);
    if !outgoing.is_empty() {
        specs.push(spec(
            "send_message",
            "Send a message through one of your channels.",
            object(
                &[
                    ("channel", one_of(&outgoing)),
                    ("to", string("The chat, channel or user, which must be an allowed one")),
                    ("text", string("The message")),
                ],
                &["channel", "to", "text"],
            ),
        ));
    }
    specs
}

/// Whether there is a tool of this name in any configuration.
pub(super) fn exists(name: &str) -> bool {
    const NAMES: [&str; 11] = [
        "memory_store",
        "memory_recall",
        "memory_forget",
        "time",
        "file_read",
        "file_write",
        "cron_add",
        "cron_list",
        "cron_remove",
        "http_fetch",
        "send_message",
    ];
    NAMES.contains(&name)
}

fn spec(name: &str, description: &str, parameters: Value) -> ToolSpec {
    ToolSpec { name: name.into(), description: description.into(), parameters, extra: serde_json::Map::new() }
}

/// Runs a call. Whatever goes wrong is in the outcome.
pub(super) async fn run(app: &App, owner: &Owner, call: &ToolCall) -> Outcome {
    let config = app.config();
    if !tool_rules::permits(&config, owner, &call.name) {
        return Outcome { success: false, output: "Error: there is no such tool".into() };
    }
    if !app.actions.admit(config.autonomy.max_actions_per_hour, Instant::now()) {
        let output = "Error: the tools were used as often as [autonomy] max_actions_per_hour allows; try again later";
        return Outcome { success: false, output: output.into() };
    }
    let result = match tokio::time::timeout(TIMEOUT, dispatch(app, owner, call)).await {
        Ok(result) => result,
        Err(_) => Err(format!("it did not end within {} seconds", TIMEOUT.as_secs())),
    };
    match result {
        Ok(output) if output.len() > OUTPUT => {
            Outcome { success: true, output: format!("{}\n[cut]", head(&output, OUTPUT)) }
        }
        Ok(output) => Outcome { success: true, output },
        Err(error) => Outcome { success: false, output: format!("Error: {error}") },
    }
}

#[derive(Deserialize)]
struct Store {
    key: String,
    content: String,
    category: Option<String>,
}

#[derive(Deserialize)]
struct Recall {
    query: String,
}

#[derive(Deserialize)]
struct Key {
    key: String,
}

#[derive(Deserialize)]
struct Time {
    timezone: Option<String>,
}

#[derive(Deserialize)]
struct Id {
    id: String,
}

#[derive(Deserialize)]
struct Send {
    channel: String,
    to: String,
    text: String,
}

async fn dispatch(app: &App, owner: &Owner, call: &ToolCall) -> Result<String, String> {
    let arguments = &call.arguments;
    match call.name.as_str() {
        "memory_store" => memory_store(app, owner, args::read(arguments)?).await,
        "memory_recall" => {
            let Recall { query } = args::read(arguments)?;
            let found = app.memory.recall(&query, Some(owner), RECALL).await.map_err(say)?;
            Ok(json!(found).to_string())
        }
        "memory_forget" => {
            let Key { key } = args::read(arguments)?;
            let own = owner.is_stranger().then_some(owner);
            let found = app.memory.forget(&key, own).await.map_err(say)?;
            if found { Ok("forgotten".into()) } else { Err("there is no entry of that key".into()) }
        }
        "time" => {
            let Time { timezone } = args::read(arguments)?;
            let zone = match timezone {
                Some(zone) => zone,
                None => zone(app).await?,
            };
            let now = Timestamp::now().in_tz(&zone).map_err(|_| "that is no IANA time zone".to_owned())?;
            Ok(now.strftime("%A %Y-%m-%d %H:%M:%S %:z").to_string())
        }
        "file_read" => files::read(files::Place::of(app), args::read(arguments)?).await,
        "file_write" => files::write(files::Place::of(app), args::read(arguments)?).await,
        "cron_add" => {
            let new: NewJob = args::read(arguments)?;
            let owner = owner.clone();
            let job = on_disk(app, move |app| add_job(app, new, &owner)).await?;
            Ok(json!({ "id": job.id, "next_run": job.next_run, "tz": job.when.tz, "once": job.once }).to_string())
        }
        "cron_list" => Ok(json!(on_disk(app, |app| app.jobs.list()).await?).to_string()),
        "cron_remove" => {
            let Id { id } = args::read(arguments)?;
            let found = on_disk(app, move |app| app.jobs.remove(&id)).await?;
            if found { Ok("removed".into()) } else { Err("there is no job of that id".into()) }
        }
        "http_fetch" if app.config().http_request.enabled => fetch::run(app, args::read(arguments)?).await,
        "send_message" => {
            let Send { channel, to, text } = args::read(arguments)?;
            let config = app.config();
            channels::send(&app.http, &config.channels_config, &channel, &to, &text).await.map_err(say)?;
            Ok("sent".into())
        }
        _ => Err("there is no such tool".into()),
    }
}

/// A model may not make a job that runs all the time: it would be put to itself, and paid for, for ever.
fn add_job(app: &App, new: NewJob, owner: &Owner) -> Result<super::jobs::Job, JobError> {
    let (config, now) = (app.config(), Timestamp::now());
    let zone = persona::zone(&config, app.workspace());
    let job = app.jobs.add(new, &zone, owner, now)?;
    let floor = config.cron.min_interval_secs;
    match job.when.shortest_interval(now) {
        Some(shortest) if !job.once && shortest.as_secs() < i64::from(floor) => {
            app.jobs.remove(&job.id)?;
            Err(JobError::TooOften(floor))
        }
        _ => Ok(job),
    }
}

/// The agent's time zone.
async fn zone(app: &App) -> Result<String, String> {
    let app = app.clone();
    tokio::task::spawn_blocking(move || persona::zone(&app.config(), app.workspace())).await.map_err(say)
}

/// What paired clients have the agent remember is the agent's; what a person of a channel has it remember is that
/// person's, so that nobody plants or overwrites what others are told.
async fn memory_store(app: &App, owner: &Owner, store: Store) -> Result<String, String> {
    let key = store.key.trim().to_owned();
    if key.is_empty() || key.chars().count() > KEY_LENGTH {
        return Err(format!("the key must have 1 to {KEY_LENGTH} characters"));
    }
    let category = store.category.unwrap_or_else(|| CORE.to_owned());
    let owner = if owner.is_stranger() { owner.clone() } else { Owner::agent() };
    let note = Note { key, content: store.content, category, at: Timestamp::now(), owner, kind: Kind::Made };
    app.memory.store(note).await.map_err(say)?;
    Ok("remembered".into())
}

async fn on_disk<T: std::marker::Send + 'static>(
    app: &App,
    work: impl FnOnce(&App) -> Result<T, JobError> + std::marker::Send + 'static,
) -> Result<T, String> {
    let app = app.clone();
    tokio::task::spawn_blocking(move || work(&app)).await.map_err(say)?.map_err(say)
}

/// An error in words for the model.
fn say(error: impl std::fmt::Display) -> String {
    error.to_string()
}
