//! `zeroone backup` and `zeroone restore`.
//!
//! A restore works on a folder whose service does not run. Everything is unpacked beside its place and checked: the archive
//! is whole, the store can be read, the master key opens it. The store comes last, in one step, so that a restore that was
//! cut off leaves no installation that could be started.

mod unpack;

use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal as _, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};

use self::unpack::{Unpacked, unpack};
use super::client::Client;
use super::outcome::Failure;
use super::output::{self, Output, cell, line};
use super::service::make_folder;
use super::settings::{InstallationArgs, load};
use super::{Environment, private_file};
use crate::config::Loaded;
use crate::domain::Timestamp;
use crate::store::{OpenError, Reserved, Store, StoreOptions};
use crate::vault::{MasterKey, MasterKeySource, Vault};

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// Where to write it, a new file; `-` for standard output. By default zeroone-<time>.tar.
    file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// What `zeroone backup` wrote; `-` for standard input.
    file: PathBuf,
    #[command(flatten)]
    place: InstallationArgs,
    /// Copy of the master key that the installation had; put into the data folder. By default the key that the
    /// configuration names, or the one that lies in the data folder already.
    #[arg(long, value_name = "FILE")]
    master_key_file: Option<PathBuf>,
}

pub(super) async fn backup(args: BackupArgs, client: &Client) -> Result<(), Failure> {
    let answer = client.download("/api/admin/backup").await?;
    if args.file.as_deref() == Some(Path::new("-")) {
        if io::stdout().is_terminal() {
            return Err(Failure::Usage("a backup is no text; name a file, or pipe it somewhere".into()));
        }
        return answer.write_to(&mut io::stdout().lock()).await;
    }
    let named = || format!("zeroone-{}.tar", Timestamp::now().strftime("%Y%m%dT%H%M%SZ"));
    let path = args.file.unwrap_or_else(|| named().into());
    let draft = path.with_extension("part");
    let shown = path.display();
    if path.exists() {
        return Err(Failure::Refused(format!("{shown} is there already")));
    }
    let file = OpenOptions::new().write(true).read(true).create(true).truncate(true).mode(0o600).open(&draft);
    let mut file = file.with_context(|| format!("cannot write {}", draft.display()))?;
    let written = match answer.write_to(&mut file).await {
        Ok(()) => unpack::describe(&draft),
        Err(failure) => Err(failure),
    };
    let described = match written {
        Ok(described) => described,
        Err(failure) => {
            let _ = fs::remove_file(&draft);
            return Err(failure);
        }
    };
    file.sync_all()?;
    fs::rename(&draft, &path).with_context(|| format!("cannot write {shown}"))?;
    let bytes = fs::metadata(&path)?.len();
    if client.output.json {
        return output::json(&json!({ "file": path, "bytes": bytes, "backup": described }));
    }
    let (agents, key) = (cell(&described["agents"]), cell(&described["sealedWith"]));
    line(&format!("wrote {shown}, {bytes} bytes; agents in it: {agents}"));
    line(&format!("its secrets open with master key {key}, which is not in it: keep a copy of that key elsewhere"));
    if let Some(warning) = without_data(&described) {
        line(&warning);
    }
    Ok(())
}

pub(super) fn restore(args: &RestoreArgs, environment: &Environment, output: Output) -> Result<(), Failure> {
    let loaded = load(&args.place.file, environment, &args.place.flags()?)?;
    let data = &loaded.config.data;
    let store = data.join("zeroone.redb");
    make_folder(data)?;
    let _alone = Reserved::at(&store).map_err(|error| match error {
        OpenError::InUse { .. } => Failure::Refused(error.to_string()),
        error => Failure::of(error),
    })?;
    for name in ["zeroone.redb", "agents"] {
        let path = data.join(name);
        if path.exists() && fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some()) || path.is_file() {
            let path = path.display();
            return Err(Failure::Refused(format!(
                "{path} is there; restore into an empty folder, or move it away first"
            )));
        }
    }
    let draft = data.join("restoring");
    let _ = fs::remove_dir_all(&draft);
    let restored = restore_by(args, &loaded, &draft, &store);
    let _ = fs::remove_dir_all(&draft);
    let described = restored?;
    if output.json {
        return output::json(&json!({ "data": data, "backup": described }));
    }
    let (agents, made) = (cell(&described["agents"]), output::second(&cell(&described["createdAt"])));
    line(&format!("restored into {}, as it was at {made}; agents: {agents}", data.display()));
    if let Some(warning) = without_data(&described) {
        line(&warning);
    }
    line("start the service with this data folder; API keys work as before, and the master key opens it");
    Ok(())
}

/// What is not in it, where the agents are no processes; a backup of an older version does not tell.
fn without_data(described: &Value) -> Option<String> {
    let volumes = match described["runtime"].as_str()? {
        "process" => return None,
        "kubernetes" => "in the cluster's volumes",
        _ => "in the engine's volumes (zeroclaw-…)",
    };
    Some(format!(
        "NOT in it: the agents' own data, which is {volumes}; save each agent by `zeroone agent export AGENT`, or copy the \
         volumes while the agents are stopped"
    ))
}

/// Unpacks and checks in `draft`; puts things in place.
fn restore_by(args: &RestoreArgs, loaded: &Loaded, draft: &Path, store: &Path) -> Result<Value, Failure> {
    let data = &loaded.config.data;
    let from: Box<dyn Read> = match args.file.to_str() {
        Some("-") => Box::new(io::stdin().lock()),
        _ => {
            let file = fs::File::open(&args.file);
            let failed = |error| Failure::Usage(format!("cannot read {}: {error}", args.file.display()));
            Box::new(io::BufReader::new(file.map_err(failed)?))
        }
    };
    let Unpacked { described } = unpack(from, draft)?;
    let key = master_key(args, loaded, &cell(&described["sealedWith"]))?;
    check(&draft.join("zeroone.redb"), &key)?;
    let shown = data.display();
    if let Some(file) = &args.master_key_file {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        private_file::write(&data.join("master.key"), &text).with_context(|| format!("cannot write into {shown}"))?;
    }
    for name in ["runtime", "agents"] {
        if draft.join(name).exists() {
            // A folder that is there is empty: it was looked at.
            let _ = fs::remove_dir(data.join(name));
            fs::rename(draft.join(name), data.join(name)).with_context(|| format!("cannot put {name} into {shown}"))?;
        }
    }
    fs::rename(draft.join("zeroone.redb"), store).with_context(|| format!("cannot put the store into {shown}"))?;
    fs::File::open(data)?.sync_all()?;
    Ok(described)
}

/// The key that is given, or that a service on this folder would take.
fn master_key(args: &RestoreArgs, loaded: &Loaded, wanted: &str) -> Result<MasterKey, Failure> {
    let source = match &args.master_key_file {
        Some(file) => MasterKeySource::File(file.clone()),
        None => loaded.master_key(true),
    };
    MasterKey::load(source).map_err(|error| {
        let error = anyhow::Error::new(error);
        Failure::Refused(format!(
            "the backup needs the master key {wanted}, and it was not found: {error:#}; name a copy of it by --master-key-file"
        ))
    })
}

/// Reads all of the store, and opens what is sealed to tell the right key.
fn check(store: &Path, key: &MasterKey) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let store = store.to_owned();
    runtime.block_on(async {
        let store = tokio::task::spawn_blocking(move || Store::open(store, StoreOptions::default())).await;
        let store = store.context("opening the store panicked")?.map_err(Failure::of)?;
        let checked = match store.check_key(&Vault::new(key)).await {
            Ok(()) => store.load().await.map(|_| ()).map_err(Failure::of),
            Err(error) => Err(Failure::Refused(error.to_string())),
        };
        store.close().await;
        checked
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_says_where_data_is_that_it_does_not_have() {
        let said = |runtime: &str| without_data(&json!({ "runtime": runtime }));
        assert_eq!((said("process"), without_data(&json!({}))), (None, None));
        for runtime in ["docker", "kubernetes"] {
            let said = said(runtime).unwrap();
            assert!(said.starts_with("NOT in it") && said.contains("zeroone agent export"), "{said}");
        }
    }
}
