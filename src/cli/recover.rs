//! `zeroone recover`: a lost store, made anew from what the runtime still has.
//!
//! It works on a folder whose service does not run. The new store is written beside its place and put there in one step:
//! nothing is there before all of it is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};

use super::Environment;
use super::engine::{self, Engine};
use super::outcome::Failure;
use super::output::{Column, Output, line};
use super::serve::LEFTOVERS;
use super::service::make_folder;
use super::settings::{InstallationArgs, load};
use crate::config::{Config, Loaded};
use crate::control::recover::{self, Recovery};
use crate::domain::{InstallationId, Timestamp};
use crate::store::{OpenError, Reserved, Store, StoreOptions};
use crate::telemetry;
use crate::vault::MasterKey;

#[derive(Debug, Args)]
pub(super) struct RecoverArgs {
    #[command(flatten)]
    place: InstallationArgs,
    /// Which installation's agents; needed where the runtime has those of several.
    #[arg(long, value_name = "ID")]
    installation: Option<InstallationId>,
    /// Who gets agents that do not tell whose they are, and the name of the one user that all of them tell.
    #[arg(long, value_name = "EMAIL", default_value = "admin@localhost")]
    user: String,
    /// Show what would be recovered, and write nothing.
    #[arg(long)]
    dry_run: bool,
}

const AGENTS: [Column; 6] = [
    ("ID", "id"),
    ("SLUG", "slug"),
    ("STATUS", "status"),
    ("MISSING", "missing"),
    ("OWNER", "owner"),
    ("NAME", "name"),
];

pub(super) fn run(args: RecoverArgs, environment: &Environment, output: Output) -> Result<(), Failure> {
    let loaded = load(&args.place.file, environment, &args.place.flags()?)?;
    telemetry::init(&loaded.config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(recover(&args, &loaded, environment, output));
    runtime.shutdown_timeout(LEFTOVERS);
    outcome
}

async fn recover(
    args: &RecoverArgs,
    loaded: &Loaded,
    environment: &Environment,
    output: Output,
) -> Result<(), Failure> {
    let config = &loaded.config;
    let path = config.data.join("zeroone.redb");
    if path.exists() {
        let path = path.display();
        return Err(Failure::Refused(format!("{path} is there; move it away first if it is to be replaced")));
    }
    if !args.dry_run {
        make_folder(&config.data)?;
    }
    // A service that lost its store runs on for a while, and must not be worked beside.
    let _alone = config.data.is_dir().then(|| reserve(&path)).transpose()?;
    let installation = choose(args.installation, &engine::installations(config, environment).await?)?;
    let Engine { runtime, .. } = engine::peek(config, installation, environment).await?;
    let found = recover::find(&*runtime).await.map_err(Failure::of)?;
    let plan = recover::plan(found, &args.user, Timestamp::now()).map_err(Failure::of)?;
    output.many(&AGENTS, &rows(&plan))?;
    if args.dry_run {
        return Ok(());
    }
    // With the store as it will be found: its service takes a key that is there, and makes none.
    let master = MasterKey::load(loaded.master_key(false)).map_err(Failure::of)?;
    write(config, &path, installation, &plan).await?;
    if !output.json {
        if master.was_created() {
            line("made a new master key, for the old one is lost too: keep a copy of it elsewhere");
        }
        line(&advice(&plan));
    }
    Ok(())
}

fn reserve(path: &Path) -> Result<Reserved, Failure> {
    Reserved::at(path).map_err(|error| match error {
        OpenError::InUse { .. } => Failure::Refused(error.to_string()),
        error => Failure::of(error),
    })
}

/// The installation that is meant.
fn choose(wanted: Option<InstallationId>, there: &BTreeMap<InstallationId, usize>) -> Result<InstallationId, Failure> {
    let list = || there.iter().map(|(id, count)| format!("\n  {id}  {count} instances")).collect::<String>();
    match (wanted, there.len()) {
        (Some(wanted), _) if there.contains_key(&wanted) => Ok(wanted),
        (Some(wanted), _) => Err(Failure::NotFound(format!("nothing of installation {wanted} is there:{}", list()))),
        (None, 1) => Ok(*there.keys().next().expect("there is one")),
        (None, 0) => Err(Failure::NotFound("the runtime has no instance of any installation".into())),
        (None, _) => Err(Failure::Usage(format!("say which of these it is by --installation:{}", list()))),
    }
}

fn rows(plan: &Recovery) -> Vec<Value> {
    let owner = |id| plan.users.iter().find(|user| user.id == id).map(|user| user.email.as_str());
    let row = |agent: &recover::RecoveredAgent| {
        json!({
            "id": agent.record.id,
            "slug": agent.record.slug,
            "status": agent.record.state.status(),
            "missing": agent.missing,
            "owner": owner(agent.record.user),
            "userId": agent.record.user,
            "name": agent.record.spec.name,
        })
    };
    plan.agents.iter().map(row).collect()
}

/// Writes the store beside its place and puts it there, unless somebody else did in the meantime.
async fn write(config: &Config, path: &Path, installation: InstallationId, plan: &Recovery) -> anyhow::Result<()> {
    let draft = config.data.join("zeroone.recovering.redb");
    let lock = config.data.join("zeroone.recovering.redb.lock");
    discard(&draft)?;
    let options = StoreOptions { installation, ..StoreOptions::default() };
    let opened = draft.clone();
    let store =
        tokio::task::spawn_blocking(move || Store::open(opened, options)).await.context("opening panicked")??;
    let written = recover::write(&store, plan).await;
    store.close().await;
    let placed = match written {
        Ok(()) => place(&draft, path),
        Err(error) => Err(error.into()),
    };
    discard(&draft)?;
    discard(&lock)?;
    placed
}

/// A link instead of a renaming: it fails where something is in the place already.
fn place(draft: &Path, path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    fs::hard_link(draft, path).with_context(|| format!("cannot put the store at {shown}"))?;
    let folder = path.parent().map_or_else(|| PathBuf::from("."), Path::to_owned);
    File::open(folder)?.sync_all().with_context(|| format!("cannot make sure of {shown}"))
}

fn discard(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn advice(plan: &Recovery) -> String {
    let (agents, users) = (plan.agents.len(), plan.users.len());
    let short = plan.agents.iter().filter(|agent| !agent.missing.is_empty()).count();
    format!(
        "\nagents recorded: {agents}; their users: {users}; agents in ERROR for secrets that were lost: {short}\n\
         Start the service: those that miss nothing start by themselves. For each of the others, supply what is MISSING by\n\
         PATCH /api/agents/{{id}}, then start it; its memory is as it was. Users need new API keys, and plans if they had one."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_installations_one_must_be_named() {
        let (one, other) = (InstallationId::from_bytes([1; 16]), InstallationId::from_bytes([2; 16]));
        let both = BTreeMap::from([(one, 3), (other, 1)]);
        assert_eq!(choose(None, &BTreeMap::from([(one, 3)])).unwrap(), one);
        assert_eq!(choose(Some(other), &both).unwrap(), other);
        let Failure::Usage(message) = choose(None, &both).unwrap_err() else { panic!("not a matter of usage") };
        assert!(message.contains(&format!("{one}  3 instances")), "{message}");
        assert!(matches!(choose(None, &BTreeMap::new()), Err(Failure::NotFound(_))));
        let stranger = InstallationId::from_bytes([3; 16]);
        assert!(matches!(choose(Some(stranger), &both), Err(Failure::NotFound(_))));
    }
}
