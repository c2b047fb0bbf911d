//! `zeroone serve`: the service until a signal ends it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::first_start::AdminKey;
use super::outcome::Failure;
use super::output::line;
use super::service::Service;
use super::settings::{FileArgs, load};
use super::{Environment, signals};
use crate::config::{Flag, Loaded};
use crate::telemetry;

/// How long what is left at the end may take: threads that wait for a disk or an engine that hangs.
pub(super) const LEFTOVERS: std::time::Duration = std::time::Duration::from_secs(2);

#[derive(Debug, Default, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Folder of everything that is kept; ./zeroone-data.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Address and port to listen on; 127.0.0.1:3001. Port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT")]
    bind: Option<String>,
    /// What runs the agents.
    #[arg(long, value_enum)]
    runtime: Option<Runtime>,
    /// Listen on an address that other machines can reach.
    #[arg(long)]
    public_bind: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Runtime {
    /// Docker where an engine answers at the first start, else processes.
    Auto,
    Docker,
    Process,
}

impl Runtime {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Docker => "docker",
            Self::Process => "process",
        }
    }
}

pub(super) fn run(args: ServeArgs, environment: &Environment) -> Result<(), Failure> {
    let loaded = load(&args.file, environment, &args.flags()?)?;
    telemetry::init(&loaded.config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(serve(&loaded, environment));
    runtime.shutdown_timeout(LEFTOVERS);
    outcome.map_err(Failure::from)
}

async fn serve(loaded: &Loaded, environment: &Environment) -> anyhow::Result<()> {
    let service = Service::start(loaded, environment).await?;
    signals::close_on_signal(service.closing.clone())?;
    line(&format!("agents run as: {}", service.runtime));
    if let Some(path) = &service.new_master_key {
        line(&format!(
            "made the master key {}: what it seals is lost without it, so keep a copy elsewhere",
            path.display()
        ));
    }
    if let Some(admin) = &service.admin {
        welcome(admin, &service.url());
    }
    line(&format!("listening on {}", service.url()));
    service.run().await?;
    tracing::info!("stopped; agents run on");
    Ok(())
}

/// The only time that the key is shown.
fn welcome(admin: &AdminKey, url: &str) {
    let AdminKey { key, path } = admin;
    line(&format!("API key of the user admin, shown this once and kept in {}:\n  {}", path.display(), key.expose()));
    line(&format!("try it:\n  curl -H 'Authorization: Bearer {}' {url}/api/agents", key.expose()));
}

impl ServeArgs {
    fn flags(&self) -> Result<Vec<Flag>, Failure> {
        let text = |path: &PathBuf| {
            let text = path.to_str().map(str::to_owned);
            text.ok_or_else(|| Failure::Usage("--data must be a path in UTF-8".into()))
        };
        let flag = |name, key, value: Option<String>| value.map(|value| Flag { name, key, value });
        Ok([
            flag("--data", "data", self.data.as_ref().map(text).transpose()?),
            flag("--bind", "bind", self.bind.clone()),
            flag("--runtime", "runtime", self.runtime.map(|runtime| runtime.as_str().to_owned())),
            flag("--public-bind", "server.public_bind", self.public_bind.then(|| "true".to_owned())),
        ]
        .into_iter()
        .flatten()
        .collect())
    }
}
