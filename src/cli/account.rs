//! `zeroone user` and `zeroone key`.

use std::time::{Duration, Instant};

use clap::{Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::client::Client;
use super::confirm::confirmed;
use super::outcome::Failure;
use super::output::{self, Column};
use crate::domain::{KeyId, UserId};

#[derive(Debug, Subcommand)]
pub(super) enum UserVerb {
    /// Make a user; prints the id.
    Create {
        #[arg(long)]
        email: String,
        #[arg(long, value_enum, default_value_t = PlanName::Free)]
        plan: PlanName,
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// List all users.
    List,
    /// Put a user on another plan. Agents beyond it stay; no more can be added.
    SetPlan {
        /// Id or e-mail address, as for every verb.
        user: String,
        #[arg(value_enum)]
        plan: PlanName,
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// Show a user: plan, limits, use and status.
    Get { user: String },
    /// Set a user's password, from standard input. All their sessions end.
    SetPassword { user: String },
    /// Print a link that signs a user in once, in a browser, within a day.
    SignInLink { user: String },
    /// Let a user do everything once they have signed in.
    Promote { user: String },
    /// Make an administrator a user like others. Their keys stay as they are.
    Demote { user: String },
    /// Refuse a user's keys and stop their agents. All data is kept.
    Suspend { user: String },
    /// Let a suspended user in again. Their agents stay stopped until they are started.
    Resume { user: String },
    /// Delete a user and their keys. Asks on a terminal.
    Delete {
        user: String,
        /// Delete their agents too, with all data; it goes on in the background.
        #[arg(long)]
        with_agents: bool,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
        /// Wait until nothing is left of them.
        #[arg(long)]
        wait: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyVerb {
    /// Make a key; prints it, this once.
    Create {
        /// Owner, by id or e-mail address; you by default.
        #[arg(long)]
        user: Option<String>,
        #[arg(long)]
        name: Option<String>,
        /// What it may do, by comma: agents:read, agents:write, messages:send, admin. All but admin by default.
        #[arg(long, value_delimiter = ',')]
        scopes: Option<Vec<String>>,
        /// Expiry, e.g. 2030-01-31T12:00:00Z.
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
    },
    /// List keys: your own, or a user's.
    List {
        /// Owner, by id or e-mail address; you by default.
        #[arg(long)]
        user: Option<String>,
    },
    /// Revoke a key and those that were made with it.
    Revoke {
        key: KeyId,
        /// Owner, by id or e-mail address; you by default.
        #[arg(long)]
        user: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum PlanName {
    Free,
    Pro,
    Enterprise,
}

/// Limits that were agreed on; for the plan enterprise only.
#[derive(Debug, clap::Args)]
pub(super) struct LimitArgs {
    #[arg(long)]
    max_agents: Option<u32>,
    /// Cores of each agent, e.g. 0.5.
    #[arg(long)]
    cpu: Option<f64>,
    /// MiB of each agent.
    #[arg(long)]
    memory_mb: Option<u32>,
}

/// Every agent and every kept answer is written once.
const ROTATION: Duration = Duration::from_secs(15 * 60);
/// How long the deletion of all of a user's agents is waited for.
const DELETION: Duration = Duration::from_secs(300);
/// Between two looks at a user who is being deleted.
const PAUSE: Duration = Duration::from_millis(200);

/// Users go by their addresses; ids are wide.
const USERS: [Column; 4] = [("EMAIL", "email"), ("PLAN", "plan"), ("STATUS", "status"), ("CREATED", "createdAt")];
const USERS_WIDE: [Column; 5] =
    [("ID", "id"), ("EMAIL", "email"), ("PLAN", "plan"), ("STATUS", "status"), ("CREATED", "createdAt")];
/// With both times a line would be longer than a terminal.
const KEYS: [Column; 3] = [("ID", "id"), ("NAME", "name"), ("SCOPES", "scopes")];
const KEYS_WIDE: [Column; 5] =
    [("ID", "id"), ("NAME", "name"), ("SCOPES", "scopes"), ("EXPIRES", "expiresAt"), ("LAST USED", "lastUsedAt")];

pub(super) async fn run_user(verb: UserVerb, client: &Client) -> Result<(), Failure> {
    match verb {
        UserVerb::Create { email, plan, limits } => {
            let mut body = limits.body(plan);
            body.insert("email".into(), email.into());
            created(client, &client.post("/api/admin/users", &body.into()).await?, "id")
        }
        UserVerb::List => {
            let columns: &[Column] = if client.output.wide { &USERS_WIDE } else { &USERS };
            client.output.many(columns, &client.list("/api/admin/users").await?)
        }
        UserVerb::SetPlan { user, plan, limits } => {
            let body = limits.body(plan).into();
            client.output.one(&client.patch(&path_of(client, &user).await?, &body).await?)
        }
        UserVerb::Get { user } => client.output.one(&client.get(&path_of(client, &user).await?).await?),
        UserVerb::SetPassword { user } => {
            let path = format!("{}/password", path_of(client, &user).await?);
            client.post(&path, &json!({ "password": super::password::read()? })).await?;
            client.output.done(&json!({ "passwordSet": true }), "set; all sessions of the user have ended")
        }
        UserVerb::SignInLink { user } => {
            let path = format!("{}/sign-in-link", path_of(client, &user).await?);
            let mut link = client.post(&path, &json!({})).await?;
            link["url"] = format!("{}{}", client.url(), link["path"].as_str().unwrap_or_default()).into();
            created(client, &link, "url")
        }
        UserVerb::Promote { user } => set_administrator(client, &user, true).await,
        UserVerb::Demote { user } => set_administrator(client, &user, false).await,
        UserVerb::Suspend { user } => set_status(client, &user, "suspended").await,
        UserVerb::Resume { user } => set_status(client, &user, "active").await,
        UserVerb::Delete { user, with_agents, yes, wait } => delete(client, &user, with_agents, yes, wait).await,
    }
}

async fn delete(client: &Client, user: &str, with_agents: bool, yes: bool, wait: bool) -> Result<(), Failure> {
    let id = id_of(client, user).await?;
    let (path, name) = (format!("/api/admin/users/{id}"), output::plain(user));
    let what = if with_agents { ", their agents and all data" } else { " and their keys" };
    if !yes && !confirmed(&format!("Delete {name}{what}? This cannot be undone."))? {
        return Err(Failure::Refused(format!("{name} was not deleted")));
    }
    let query = if with_agents { "?agents=delete" } else { "" };
    let mut gone = client.delete(&format!("{path}{query}")).await?;
    if wait && !gone {
        until_gone(client, &path).await?;
        gone = true;
    }
    let going = "the user's agents are being deleted; the user goes with the last one";
    client.output.done(&json!({ "id": id, "deleted": gone }), if gone { "deleted" } else { going })
}

async fn until_gone(client: &Client, path: &str) -> Result<(), Failure> {
    let began = Instant::now();
    while began.elapsed() < DELETION {
        match client.get(path).await {
            Err(failure) if failure.refusal("not-found").is_some() => return Ok(()),
            looked => drop(looked?),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(Failure::said("the user's agents are not gone yet; see `zeroone agent list --all`"))
}

async fn set_administrator(client: &Client, user: &str, administrator: bool) -> Result<(), Failure> {
    let body = json!({ "administrator": administrator });
    client.output.one(&client.patch(&path_of(client, user).await?, &body).await?)
}

async fn set_status(client: &Client, user: &str, status: &str) -> Result<(), Failure> {
    let body = json!({ "status": status });
    client.output.one(&client.patch(&path_of(client, user).await?, &body).await?)
}

/// The path of a user who is named by id or e-mail address.
async fn path_of(client: &Client, user: &str) -> Result<String, Failure> {
    Ok(format!("/api/admin/users/{}", id_of(client, user).await?))
}

/// The id of a user who is named by id or e-mail address.
pub(super) async fn id_of(client: &Client, user: &str) -> Result<String, Failure> {
    if let Ok(id) = user.parse::<UserId>() {
        return Ok(id.to_string());
    }
    if !user.contains('@') {
        return Err(Failure::Usage(format!("{} is neither a user's id nor an e-mail address", output::plain(user))));
    }
    let query: String = user.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let found = client.list(&format!("/api/admin/users?email={query}")).await?;
    match found.first().and_then(|user| user["id"].as_str()) {
        Some(id) => Ok(id.to_owned()),
        None => Err(Failure::NotFound(format!("no user has the e-mail address {}", output::plain(user)))),
    }
}

/// The path of a user's keys, or of the caller's own.
async fn keys_of(client: &Client, user: Option<&str>) -> Result<String, Failure> {
    match user {
        Some(user) => Ok(format!("{}/keys", path_of(client, user).await?)),
        None => Ok("/api/keys".into()),
    }
}

pub(super) async fn run_key(verb: KeyVerb, client: &Client) -> Result<(), Failure> {
    match verb {
        KeyVerb::Create { user, name, scopes, expires_at } => {
            let path = keys_of(client, user.as_deref()).await?;
            let wanted = json!({ "name": name, "scopes": scopes, "expiresAt": expires_at });
            created(client, &client.post(&path, &given(wanted)).await?, "key")
        }
        KeyVerb::List { user } => {
            let columns: &[Column] = if client.output.wide { &KEYS_WIDE } else { &KEYS };
            client.output.many(columns, &client.list(&keys_of(client, user.as_deref()).await?).await?)
        }
        KeyVerb::Revoke { key, user } => {
            let path = keys_of(client, user.as_deref()).await?;
            client.delete(&format!("{path}/{key}")).await?;
            client.output.done(&json!({ "id": key, "revoked": true }), "revoked")
        }
    }
}

pub(super) async fn rotate_key(client: &Client) -> Result<(), Failure> {
    client.output.one(&client.post_within("/api/admin/keys/rotate", &json!({}), ROTATION).await?)
}

/// Prints what a script wants of something new, alone on its line; the whole of it as JSON.
pub(super) fn created(client: &Client, thing: &Value, member: &str) -> Result<(), Failure> {
    if client.output.json {
        return output::json(thing);
    }
    output::line(&output::cell(&thing[member]));
    Ok(())
}

/// The body without what was not given.
pub(super) fn given(body: Value) -> Value {
    match body {
        Value::Object(members) => {
            members.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>().into()
        }
        other => other,
    }
}

impl LimitArgs {
    fn body(&self, plan: PlanName) -> Map<String, Value> {
        let plan = plan.to_possible_value().map(|name| name.get_name().to_owned());
        let limits = json!({ "maxAgents": self.max_agents, "cpu": self.cpu, "memoryMb": self.memory_mb });
        let limits = given(limits);
        let mut body = Map::from_iter([("plan".to_owned(), json!(plan))]);
        if limits.as_object().is_some_and(|limits| !limits.is_empty()) {
            body.insert("limits".into(), limits);
        }
        body
    }
}
