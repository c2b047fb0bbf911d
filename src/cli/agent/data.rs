//! `zeroone agent export|import|clone`: an agent's memory and workspace as its owner's.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::find::{Agent, find, query};
use super::wait::{self, LONGEST_SECS};
use crate::cli::Environment;
use crate::cli::account::{created, given};
use crate::cli::client::Client;
use crate::cli::model_key::ModelKeyArgs;
use crate::cli::outcome::Failure;
use crate::cli::output::cell;

const TAR: &str = "application/x-tar";
/// For a hundred megabytes on a slow line.
const TRANSFER: Duration = Duration::from_secs(900);
/// The header that has the model's key: an export has no secrets, and so no place for one.
const MODEL_KEY: &str = "x-model-api-key";

#[derive(Debug, Args)]
pub(in crate::cli) struct ImportArgs {
    /// What `zeroone agent export` wrote.
    file: PathBuf,
    /// Another name than the exported agent's.
    #[arg(long)]
    name: Option<String>,
    #[arg(long)]
    slug: Option<String>,
    #[command(flatten)]
    key: ModelKeyArgs,
    /// Wait until it runs.
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CloneArgs {
    agent: String,
    #[arg(long)]
    name: Option<String>,
    #[arg(long)]
    slug: Option<String>,
    /// Wait until it runs.
    #[arg(long)]
    wait: bool,
}

pub(super) async fn export(agent: &str, file: Option<PathBuf>, client: &Client) -> Result<(), Failure> {
    let agent = find(client, agent).await?;
    let slug = cell(&client.get(&agent.path("")).await?["slug"]);
    let archive = client.file(&agent.path("/export"), TRANSFER).await?;
    let file = file.unwrap_or_else(|| PathBuf::from(format!("{slug}.tar")));
    if file == Path::new("-") {
        return archive.write_to(&mut std::io::stdout()).await;
    }
    let failed = |error| Failure::said(format!("cannot write {}: {error}", file.display()));
    // Of its owner alone, and never in place of another file.
    let mut made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file).map_err(failed)?;
    if let Err(failure) = archive.write_to(&mut made).await {
        // Half an export is none.
        let _ = fs::remove_file(&file);
        return Err(failure);
    }
    made.sync_all().map_err(failed)?;
    let bytes = made.metadata().map_err(failed)?.len();
    client.output.done(&json!({ "file": file, "bytes": bytes }), &file.display().to_string())
}

pub(super) async fn import(args: ImportArgs, client: &Client, environment: &Environment) -> Result<(), Failure> {
    let archive = fs::read(&args.file);
    let archive = archive.map_err(|error| Failure::Usage(format!("cannot read {}: {error}", args.file.display())))?;
    let key = args.key.read(environment)?.map(|key| (MODEL_KEY, key));
    let fields = [("name", &args.name), ("slug", &args.slug)];
    let pairs = fields.iter().filter_map(|(name, value)| Some(format!("{name}={}", query(value.as_deref()?))));
    let path = format!("/api/agents/import?{}", pairs.collect::<Vec<_>>().join("&"));
    let record = client.upload(&path, (TAR, archive), key, TRANSFER).await?;
    finish(record, args.wait, client).await
}

pub(super) async fn clone(args: CloneArgs, client: &Client) -> Result<(), Failure> {
    let CloneArgs { agent, name, slug, wait } = args;
    let path = find(client, &agent).await?.path("/clone");
    let record = client.post_within(&path, &given(json!({ "name": name, "slug": slug })), TRANSFER).await?;
    finish(record, wait, client).await
}

async fn finish(mut record: Value, waits: bool, client: &Client) -> Result<(), Failure> {
    let agent = Agent::of(&record);
    // Scripts take the id alone; people go on with the slug.
    let _ = writeln!(std::io::stderr(), "created {}", agent.name);
    if waits {
        record = wait::until(client, &agent, "RUNNING", LONGEST_SECS).await?;
    }
    created(client, &record, "id")
}
