//! `zeroone serve`: the service until a signal ends it.

use clap::Args;

use super::first_start::AdminKey;
use super::outcome::Failure;
use super::output::line;
use super::service::{Service, separate};
use super::settings::{InstallationArgs, flag, load};
use super::{Environment, signals, supervised};
use crate::config::{Flag, Loaded};
use crate::control::StartError;
use crate::telemetry;

/// How long what is left at the end may take: threads that wait for a disk or an engine that hangs.
pub(super) const LEFTOVERS: std::time::Duration = std::time::Duration::from_secs(2);

#[derive(Debug, Default, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    installation: InstallationArgs,
    /// Address and port to listen on; 127.0.0.1:3001. Port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT")]
    bind: Option<String>,
    /// Listen on an address that other machines can reach.
    #[arg(long)]
    public_bind: bool,
    /// Take the installation from another service that seems to live, e.g. on a machine that is lost.
    #[arg(long)]
    take_over: bool,
    /// Where the data folder is a copy and the original runs: run beside it as an installation of its own. Users and keys
    /// stay; the agents stay the original's and are forgotten here.
    #[arg(long, conflicts_with = "take_over")]
    new_installation: bool,
}

pub(super) fn run(args: ServeArgs, environment: &Environment) -> Result<(), Failure> {
    let loaded = load(&args.installation.file, environment, &args.flags()?)?;
    telemetry::init(&loaded.config.log);
    for warning in loaded.warnings() {
        tracing::warn!("{warning}");
    }
    hide();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(serve(&loaded, environment, &args));
    runtime.shutdown_timeout(LEFTOVERS);
    outcome.map_err(Failure::from)
}

async fn serve(loaded: &Loaded, environment: &Environment, args: &ServeArgs) -> anyhow::Result<()> {
    let service = start(loaded, environment, args).await?;
    signals::close_on_signal(service.closing.clone())?;
    line(&format!("agents run as: {}", service.runtime));
    if let Some(path) = &service.new_master_key {
        line(&format!(
            "made the master key {}: what it seals is lost without it, so keep a copy elsewhere",
            path.display()
        ));
    }
    if let Some(admin) = &service.admin {
        if supervised::output_is_kept(environment) {
            line(&format!(
                "the API key of the user admin is in {}; for a browser: zeroone admin-link",
                admin.path.display()
            ));
        } else {
            welcome(admin, &service.url());
        }
    }
    line(&format!("listening on {}", service.url()));
    supervised::ready(&service.url());
    supervised::keep_alive(service.plane.clone(), service.closing.clone());
    tokio::spawn({
        let closing = service.closing.clone();
        async move {
            closing.cancelled().await;
            supervised::stopping();
        }
    });
    service.run().await?;
    tracing::info!("stopped; agents run on");
    Ok(())
}

/// Starts it. A copy becomes an installation of its own only where the original is seen to live: the flag may stay in a
/// script or a unit, and must not make the service forget its agents at every start.
async fn start(loaded: &Loaded, environment: &Environment, args: &ServeArgs) -> anyhow::Result<Service> {
    let started = Service::start(loaded, environment, args.take_over).await;
    match started {
        Err(error) if args.new_installation && is_in_use(&error) => {
            let installation = separate(&loaded.config.data).await?;
            tracing::warn!(%installation, "this data folder is an installation of its own now; its agents stayed the original's");
            Service::start(loaded, environment, false).await
        }
        started => started,
    }
}

fn is_in_use(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(StartError::InUse(_)))
}

/// Other processes of this user may not read its memory or environment, nor may a core dump: the master key is there.
fn hide() {
    // Agents that are users of their own get through the data folder: no file there may be made for others to read.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "the service's memory can be read by its user's other processes");
    }
}

/// The only time that the key is shown.
fn welcome(admin: &AdminKey, url: &str) {
    let AdminKey { key, path, link } = admin;
    line(&format!("API key of the user admin, shown this once and kept in {}:\n  {}", path.display(), key.expose()));
    line(&format!(
        "sign in with a browser, once and within a day, and set a password there:\n  {url}/sign-in#link={}",
        link.expose()
    ));
    line(&format!("try it:\n  curl -H 'Authorization: Bearer {}' {url}/api/agents", key.expose()));
}

impl ServeArgs {
    fn flags(&self) -> Result<Vec<Flag>, Failure> {
        let mut flags = self.installation.flags()?;
        flags.extend(flag("--bind", "bind", self.bind.clone()));
        flags.extend(flag("--public-bind", "server.public_bind", self.public_bind.then(|| "true".to_owned())));
        Ok(flags)
    }
}
