//! `zeroone orphan`: what the runtime has of this installation and no agent claims.

use clap::Subcommand;
use serde_json::json;

use super::account::{given, id_of};
use super::client::Client;
use super::confirm::confirmed;
use super::outcome::Failure;
use super::output::Column;
use crate::domain::AgentId;

const PATH: &str = "/api/admin/orphans";

#[derive(Debug, Subcommand)]
pub(super) enum OrphanVerb {
    /// List instances that belong to no agent.
    List,
    /// Make one an agent again. Its data is used as it is; its secrets are missing.
    Adopt {
        id: AgentId,
        /// Who gets it, by id or e-mail address; by default the user whom it names.
        #[arg(long)]
        user: Option<String>,
    },
    /// Remove one with its data.
    Remove {
        id: AgentId,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
}

const COLUMNS: [Column; 6] = [
    ("ID", "id"),
    ("SLUG", "slug"),
    ("STATE", "state"),
    ("NAME", "name"),
    ("OWNER", "email"),
    ("DELETED HERE", "deletedHere"),
];

pub(super) async fn run(verb: OrphanVerb, client: &Client) -> Result<(), Failure> {
    match verb {
        OrphanVerb::List => list(client).await,
        OrphanVerb::Adopt { id, user } => {
            let user = match user {
                Some(user) => Some(id_of(client, &user).await?),
                None => None,
            };
            let agent = client.post(PATH, &given(json!({ "id": id, "action": "adopt", "user": user }))).await?;
            client.output.one(&agent)
        }
        OrphanVerb::Remove { id, yes } => {
            if !yes && !confirmed(&format!("Remove {id} with all its data? This cannot be undone."))? {
                return Err(Failure::Refused(format!("{id} was not removed")));
            }
            client.post(PATH, &json!({ "id": id, "action": "remove" })).await?;
            client.output.done(&json!({ "id": id, "removed": true }), "removed")
        }
    }
}

async fn list(client: &Client) -> Result<(), Failure> {
    let mut rows = client.list(PATH).await?;
    if !client.output.json {
        for row in &mut rows {
            for told in ["name", "email"] {
                row[told] = row["origin"][told].take();
            }
        }
    }
    client.output.many(&COLUMNS, &rows)
}
