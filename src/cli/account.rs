//! `zeroone user` and `zeroone key`.

use clap::{Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::client::Client;
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
        user: UserId,
        #[arg(value_enum)]
        plan: PlanName,
        #[command(flatten)]
        limits: LimitArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyVerb {
    /// Make a key; prints it, this once.
    Create {
        /// Whose; the caller's own by default.
        #[arg(long)]
        user: Option<UserId>,
        #[arg(long)]
        name: Option<String>,
        /// What it may do, by comma: agents:read, agents:write, messages:send, admin. All but admin by default.
        #[arg(long, value_delimiter = ',')]
        scopes: Option<Vec<String>>,
        /// When it ends, e.g. 2030-01-31T12:00:00Z.
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
    },
    /// List the caller's keys.
    List,
    /// Make one of the caller's keys useless at once.
    Revoke { key: KeyId },
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

const USERS: [Column; 4] = [("ID", "id"), ("EMAIL", "email"), ("PLAN", "plan"), ("CREATED", "createdAt")];
const KEYS: [Column; 5] =
    [("ID", "id"), ("NAME", "name"), ("SCOPES", "scopes"), ("EXPIRES", "expiresAt"), ("LAST USED", "lastUsedAt")];

pub(super) async fn run_user(verb: UserVerb, client: &Client) -> Result<(), Failure> {
    match verb {
        UserVerb::Create { email, plan, limits } => {
            let mut body = limits.body(plan);
            body.insert("email".into(), email.into());
            created(client, &client.post("/api/admin/users", &body.into()).await?, "id")
        }
        UserVerb::List => client.output.many(&USERS, &client.list("/api/admin/users").await?),
        UserVerb::SetPlan { user, plan, limits } => {
            let body = limits.body(plan).into();
            client.output.one(&client.patch(&format!("/api/admin/users/{user}"), &body).await?)
        }
    }
}

pub(super) async fn run_key(verb: KeyVerb, client: &Client) -> Result<(), Failure> {
    match verb {
        KeyVerb::Create { user, name, scopes, expires_at } => {
            let path = user.map_or_else(|| "/api/keys".into(), |user| format!("/api/admin/users/{user}/keys"));
            let wanted = json!({ "name": name, "scopes": scopes, "expiresAt": expires_at });
            created(client, &client.post(&path, &given(wanted)).await?, "key")
        }
        KeyVerb::List => client.output.many(&KEYS, &client.list("/api/keys").await?),
        KeyVerb::Revoke { key } => client.delete(&format!("/api/keys/{key}")).await.map(drop),
    }
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
