//! What runs the agents: a cluster, a Docker engine, or this machine's processes.
//!
//! `auto` decides once. The choice is kept in the data folder, because one that changed by itself would give agents a second
//! life: containers run on while their engine does not answer, and processes would be started in their place.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::{Environment, private_file};
use crate::config::{Config, RuntimeChoice};
use crate::domain::InstallationId;
use crate::runtime::ContainerRuntime;
#[cfg(feature = "docker")]
use crate::runtime::RuntimeError;
use crate::runtime::fault::FaultInjector;
use crate::runtime::process::{ProcessFaultInjector, ProcessOptions, ProcessRuntime};
use crate::zeroclaw::profile::Profile;
use crate::zeroclaw::software::Clue;

/// How long `auto` waits for an engine: one that is up answers in milliseconds.
#[cfg(feature = "docker")]
const ENGINE_PATIENCE: Duration = Duration::from_secs(2);
/// How long a program may take to tell its version.
const VERSION_PATIENCE: Duration = Duration::from_secs(5);

/// A runtime, and why it is this one.
pub(super) struct Engine {
    pub(super) runtime: Arc<dyn ContainerRuntime>,
    pub(super) profile: Profile,
    pub(super) why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Docker,
    Kubernetes,
    Process,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Kubernetes => "kubernetes",
            Self::Process => "process",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Docker, Self::Kubernetes, Self::Process].into_iter().find(|kind| kind.as_str() == text.trim())
    }
}

/// The runtime that the configuration asks for.
pub(super) async fn choose(
    config: &Config,
    installation: InstallationId,
    environment: &Environment,
) -> anyhow::Result<Engine> {
    let kept = kept(config);
    let before = earlier(&kept);
    let (kind, why) = kind(config, installation, environment).await?;
    if let Some(before) = before.filter(|before| *before != kind) {
        let (before, kind) = (before.as_str(), kind.as_str());
        tracing::warn!(before, kind, "another runtime than before: what the earlier one runs is left as it is");
    }
    if before != Some(kind) {
        keep(&kept, kind)?;
    }
    if kind == Kind::Process && config.process.has_uids() && rustix::process::geteuid().is_root() {
        let_through(&config.data)?;
    }
    open(kind, why, config, installation, environment).await
}

/// Agents that are other users must get through the data folder to theirs. They cannot list it, and its files are closed to
/// them.
fn let_through(data: &Path) -> anyhow::Result<()> {
    let unchanged = || format!("cannot let agents through {}", data.display());
    let place = std::fs::canonicalize(data).with_context(unchanged)?;
    let open = |folder: &Path| std::fs::metadata(folder).is_ok_and(|folder| folder.permissions().mode() & 0o001 != 0);
    if !place.ancestors().skip(1).all(open) {
        // It would be of no use; the runtime says so.
        return Ok(());
    }
    let mut permissions = std::fs::metadata(data).with_context(unchanged)?.permissions();
    permissions.set_mode(permissions.mode() | 0o001);
    std::fs::set_permissions(data, permissions).with_context(unchanged)
}

/// The same for somebody who only looks: a choice that is made now is not kept.
pub(super) async fn peek(
    config: &Config,
    installation: InstallationId,
    environment: &Environment,
) -> anyhow::Result<Engine> {
    let (kind, why) = kind(config, installation, environment).await?;
    open(kind, why, config, installation, environment).await
}

async fn open(
    kind: Kind,
    why: String,
    config: &Config,
    installation: InstallationId,
    environment: &Environment,
) -> anyhow::Result<Engine> {
    let (runtime, profile) = match kind {
        Kind::Docker => docker(config, installation, environment).await?,
        Kind::Kubernetes => kubernetes(config, installation).await?,
        Kind::Process => process(config, installation, environment).await?,
    };
    Ok(Engine { runtime, profile, why })
}

/// The installations that the configured runtime has instances of, and how many each.
pub(super) async fn installations(
    config: &Config,
    environment: &Environment,
) -> anyhow::Result<BTreeMap<InstallationId, usize>> {
    // Whose instances are asked for does not matter to whether somebody answers.
    match kind(config, InstallationId::new(), environment).await?.0 {
        Kind::Docker => docker_installations(config).await,
        Kind::Kubernetes => kubernetes_installations(config).await,
        Kind::Process => {
            let folder = agents_folder(config);
            ProcessRuntime::installations(&folder).with_context(|| format!("cannot read {}", folder.display()))
        }
    }
}

/// Injects faults into the instances of a running service, whose runtime has this name.
pub(super) fn injector(
    config: &Config,
    runtime: &str,
    installation: InstallationId,
) -> anyhow::Result<Arc<dyn FaultInjector>> {
    match Kind::parse(runtime) {
        Some(Kind::Docker) => docker_injector(config, installation),
        Some(Kind::Kubernetes) => anyhow::bail!("faults are done to a cluster by its own tools: kubectl delete pod"),
        Some(Kind::Process) => Ok(Arc::new(ProcessFaultInjector::new(installation))),
        None => anyhow::bail!("nothing is known of how to do faults to the runtime {runtime}"),
    }
}

/// Which runtime it is to be, and why.
async fn kind(
    config: &Config,
    installation: InstallationId,
    environment: &Environment,
) -> anyhow::Result<(Kind, String)> {
    let kept = kept(config);
    Ok(match (config.runtime, earlier(&kept)) {
        (RuntimeChoice::Docker, _) => (Kind::Docker, "asked for".to_owned()),
        (RuntimeChoice::Kubernetes, _) => (Kind::Kubernetes, "asked for".to_owned()),
        (RuntimeChoice::Process, _) => (Kind::Process, "asked for".to_owned()),
        (RuntimeChoice::Auto, Some(kind)) => (kind, format!("chosen at an earlier start; kept in {}", kept.display())),
        #[cfg(feature = "kubernetes")]
        (RuntimeChoice::Auto, None) if crate::runtime::kubernetes::in_cluster() => {
            (Kind::Kubernetes, "this is a Pod of a cluster".to_owned())
        }
        (RuntimeChoice::Auto, None) => find(config, installation, environment).await?,
    })
}

/// Where the choice is kept.
fn kept(config: &Config) -> PathBuf {
    config.data.join("runtime")
}

fn earlier(kept: &Path) -> Option<Kind> {
    std::fs::read_to_string(kept).ok().as_deref().and_then(Kind::parse)
}

fn agents_folder(config: &Config) -> PathBuf {
    config.data.join("agents")
}

fn keep(path: &Path, kind: Kind) -> anyhow::Result<()> {
    private_file::write(path, &format!("{}\n", kind.as_str()))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// What the engine's address came from, for people who have to correct it.
#[cfg(feature = "docker")]
fn host_source(config: &Config, environment: &Environment) -> &'static str {
    let named = super::client::variable(environment, "DOCKER_HOST").and_then(|host| host.split_once("://"));
    match (named, config.docker.host.split_once("://")) {
        (Some((_, named)), Some((_, host))) if named == host => "DOCKER_HOST",
        _ => "docker.host",
    }
}

/// A service that is a container itself is on other networks than the machine.
#[cfg(feature = "docker")]
fn warn_in_container(config: &Config) {
    let marks = ["/.dockerenv", "/run/.containerenv"];
    if config.docker.is_bridge() && marks.iter().any(|mark| Path::new(mark).exists()) {
        tracing::warn!(
            "zeroone runs in a container, where it cannot reach agents on the machine's loopback: set docker.isolation = \
             \"per-agent\" (ZEROONE_DOCKER__ISOLATION) and docker.joined to the name of zeroone's container \
             (ZEROONE_DOCKER__JOINED), as docker-compose.yml does, or run the container with the machine's network"
        );
    }
}

#[cfg(feature = "docker")]
async fn find(
    config: &Config,
    installation: InstallationId,
    environment: &Environment,
) -> anyhow::Result<(Kind, String)> {
    let options = config.docker.options(installation).map_err(anyhow::Error::msg)?;
    let (host, from) = (options.host.clone(), host_source(config, environment));
    let engine = crate::runtime::docker::DockerRuntime::new(options).with_context(|| {
        format!("{from} names an engine that cannot be used; correct it, or choose with --runtime process")
    })?;
    Ok(match tokio::time::timeout(ENGINE_PATIENCE, engine.ping()).await {
        Ok(Ok(())) => (Kind::Docker, format!("an engine answers at {host}, {from}")),
        Ok(Err(RuntimeError::Unavailable(why))) => (Kind::Process, format!("no engine: {why} ({from})")),
        Ok(Err(error)) => (Kind::Process, format!("no engine at {host}, {from}: {error}")),
        Err(_) => (Kind::Process, format!("no engine answers at {host}, {from}")),
    })
}

#[cfg(not(feature = "docker"))]
async fn find(_: &Config, _: InstallationId, _: &Environment) -> anyhow::Result<(Kind, String)> {
    Ok((Kind::Process, "this build has no other".into()))
}

#[cfg(feature = "docker")]
async fn docker(
    config: &Config,
    installation: InstallationId,
    environment: &Environment,
) -> anyhow::Result<(Arc<dyn ContainerRuntime>, Profile)> {
    use crate::zeroclaw::software::ImageClues;
    let options = config.docker.options(installation).map_err(anyhow::Error::msg)?;
    // The engine tells it for each image. Until it does, which may be away now, the tag has to do.
    let tagged = ImageClues { reference: &options.image, ..ImageClues::default() }.probable();
    let profile = options.profile.or_else(|| tagged.map(|clue| clue.profile)).unwrap_or(Profile::V08);
    let from = host_source(config, environment);
    let engine = crate::runtime::docker::DockerRuntime::new(options).with_context(|| format!("cannot use {from}"))?;
    warn_in_container(config);
    Ok((Arc::new(engine), profile))
}

#[cfg(not(feature = "docker"))]
async fn docker(
    _: &Config,
    _: InstallationId,
    _: &Environment,
) -> anyhow::Result<(Arc<dyn ContainerRuntime>, Profile)> {
    anyhow::bail!("this build has no Docker runtime (feature `docker`)")
}

#[cfg(feature = "docker")]
fn docker_injector(config: &Config, installation: InstallationId) -> anyhow::Result<Arc<dyn FaultInjector>> {
    let options = config.docker.options(installation).map_err(anyhow::Error::msg)?;
    Ok(Arc::new(crate::runtime::docker::DockerFaultInjector::new(options)?))
}

#[cfg(not(feature = "docker"))]
fn docker_injector(_: &Config, _: InstallationId) -> anyhow::Result<Arc<dyn FaultInjector>> {
    anyhow::bail!("this build has no Docker runtime (feature `docker`)")
}

#[cfg(feature = "docker")]
async fn docker_installations(config: &Config) -> anyhow::Result<BTreeMap<InstallationId, usize>> {
    let options = config.docker.options(InstallationId::new()).map_err(anyhow::Error::msg)?;
    Ok(crate::runtime::docker::DockerRuntime::installations(&options).await?)
}

#[cfg(not(feature = "docker"))]
async fn docker_installations(_: &Config) -> anyhow::Result<BTreeMap<InstallationId, usize>> {
    anyhow::bail!("this build has no Docker runtime (feature `docker`)")
}

#[cfg(feature = "kubernetes")]
async fn kubernetes(
    config: &Config,
    installation: InstallationId,
) -> anyhow::Result<(Arc<dyn ContainerRuntime>, Profile)> {
    use crate::zeroclaw::software::ImageClues;
    let options = config.kubernetes.options(installation).map_err(anyhow::Error::msg)?;
    let tagged = ImageClues { reference: &options.image, ..ImageClues::default() }.probable();
    let profile = options.profile.or_else(|| tagged.map(|clue| clue.profile)).unwrap_or(Profile::V08);
    Ok((Arc::new(crate::runtime::kubernetes::KubernetesRuntime::open(options).await?), profile))
}

#[cfg(not(feature = "kubernetes"))]
async fn kubernetes(_: &Config, _: InstallationId) -> anyhow::Result<(Arc<dyn ContainerRuntime>, Profile)> {
    anyhow::bail!("this build has no Kubernetes runtime (feature `kubernetes`)")
}

#[cfg(feature = "kubernetes")]
async fn kubernetes_installations(config: &Config) -> anyhow::Result<BTreeMap<InstallationId, usize>> {
    let options = config.kubernetes.options(InstallationId::new()).map_err(anyhow::Error::msg)?;
    Ok(crate::runtime::kubernetes::KubernetesRuntime::installations(options).await?)
}

#[cfg(not(feature = "kubernetes"))]
async fn kubernetes_installations(_: &Config) -> anyhow::Result<BTreeMap<InstallationId, usize>> {
    anyhow::bail!("this build has no Kubernetes runtime (feature `kubernetes`)")
}

async fn process(
    config: &Config,
    installation: InstallationId,
    environment: &Environment,
) -> anyhow::Result<(Arc<dyn ContainerRuntime>, Profile)> {
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    let options = config.process.options(installation, agents_folder(config), own, environment);
    let profile = match config.process.profile().map_err(anyhow::Error::msg)? {
        Some(profile) => profile,
        None if config.process.command.as_os_str().is_empty() => Profile::Embedded,
        None => ask_version(&options).await?,
    };
    Ok((Arc::new(ProcessRuntime::open_unclaimed(options)?), profile))
}

/// Asks a program which ZeroClaw it is.
async fn ask_version(options: &ProcessOptions) -> anyhow::Result<Profile> {
    let program = options.program.display();
    let mut command = tokio::process::Command::new(&options.program);
    command.arg("--version").env_clear().envs(options.environment.iter().cloned());
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    let asked = tokio::time::timeout(VERSION_PATIENCE, command.output()).await;
    let output = asked.with_context(|| format!("{program} --version does not answer"))?;
    let output = output.with_context(|| format!("cannot run {program} (process.command)"))?;
    let clue = Clue::of_output(&String::from_utf8_lossy(&output.stdout)).with_context(|| {
        format!("{program} does not tell its version; set process.profile to 0.1, 0.6, 0.8 or embedded")
    })?;
    Ok(clue.profile)
}
