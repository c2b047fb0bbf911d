//! `zeroone admin-link`: a way in for whoever has the data folder and nothing else.
//!
//! It works on the store itself, whose service does not run: with a running one an administrator's key makes the link.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::Environment;
use super::outcome::Failure;
use super::output::{self, Output, line};
use super::settings::{InstallationArgs, load};
use crate::domain::{TicketId, Timestamp, Token, UserStatus, later};
use crate::store::{
    AuditOutcome, AuditRecord, Batch, OpenError, Store, StoreOptions, TicketKind, TicketRecord, UserRecord,
};

/// Whoever asks for it is at the machine.
const GOOD_FOR: Duration = Duration::from_secs(60 * 60);

#[derive(Debug, Args)]
pub(super) struct AdminLinkArgs {
    #[command(flatten)]
    place: InstallationArgs,
    /// Whose, by e-mail address; the first administrator's by default.
    #[arg(long, value_name = "EMAIL")]
    user: Option<String>,
}

pub(super) async fn run(args: AdminLinkArgs, environment: &Environment, output: Output) -> Result<(), Failure> {
    let loaded = load(&args.place.file, environment, &args.place.flags()?)?;
    let path = loaded.config.data.join("zeroone.redb");
    if !path.exists() {
        let data = loaded.config.data.display();
        return Err(Failure::NotFound(format!("{data} has no store; name the service's data folder by --data")));
    }
    let opened = tokio::task::spawn_blocking(move || Store::open(path, StoreOptions::default())).await;
    let store = opened.context("opening the store panicked")?.map_err(|error| match error {
        OpenError::InUse { .. } => {
            Failure::Refused(format!("{error}; stop the service first, or use `zeroone user sign-in-link` with a key"))
        }
        error => Failure::of(error),
    })?;
    let user = choose(store.load().await.map_err(Failure::of)?.users, args.user.as_deref())?;
    let (cell, now) = (loaded.config.cell.number(), Timestamp::now());
    let secret = Token::generate_in(Token::TICKET, cell);
    let ticket = TicketRecord {
        id: TicketId::new().in_cell(cell),
        hash: secret.hash(),
        opens: TicketKind::SignIn { user: user.id },
        created_at: now,
        expires_at: later(now, GOOD_FOR),
    };
    store.commit(Batch::put_ticket(&ticket).audited(record(&user, now))).await.map_err(Failure::of)?;
    store.close().await;
    let path = format!("/sign-in#link={}", secret.expose());
    if output.json {
        return output::json(&json!({ "email": user.email, "path": path, "expiresAt": ticket.expires_at }));
    }
    line(&format!(
        "start the service, and within an hour open its address with this path, which signs {} in once:",
        user.email
    ));
    line(&path);
    Ok(())
}

/// Nobody has said who they are: whoever has the files.
fn record(user: &UserRecord, now: Timestamp) -> AuditRecord {
    AuditRecord {
        offset: 0,
        time: now,
        user: None,
        key: None,
        session: None,
        address: None,
        action: "zeroone admin-link".into(),
        target: format!("/api/admin/users/{}", user.id),
        owner: Some(user.id),
        outcome: AuditOutcome::Done,
        code: None,
        request: String::new(),
    }
}

fn choose(users: Vec<UserRecord>, wanted: Option<&str>) -> Result<UserRecord, Failure> {
    let wanted = wanted.map(str::to_lowercase);
    let fits = |user: &UserRecord| match &wanted {
        Some(email) => user.email == *email,
        None => user.administrator && user.status == UserStatus::Active,
    };
    users.into_iter().find(fits).ok_or_else(|| match wanted {
        Some(_) => Failure::NotFound("no user has this e-mail address".into()),
        None => Failure::NotFound("there is no administrator yet; start the service once, which makes one".into()),
    })
}
