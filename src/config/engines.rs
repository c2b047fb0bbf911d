//! What runs agents: the sections `process`, `docker` and `kubernetes`, and what each runtime takes of its own.

use std::path::PathBuf;
#[cfg(feature = "docker")]
use std::time::Duration;

use serde::Deserialize;

use crate::domain::InstallationId;
use crate::runtime::process::{ProcessOptions, Uids};
use crate::zeroclaw::profile::Profile;

/// Keys of the process runtime.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// The program that agents run, as a path or a name in `PATH`. Empty: this binary.
    pub command: PathBuf,
    /// Its arguments before `gateway`.
    pub args: Vec<String>,
    profile: String,
    /// MiB of output that are kept of each of an agent's last runs.
    pub log_limit_mb: u64,
    /// Whether each agent is kept to its own folder and away from other processes, as far as the kernel can.
    pub walls: bool,
    uids: String,
    /// Files and folders beside that folder and the system's that agents may read and run.
    pub readable: Vec<PathBuf>,
}

/// Keys of the Docker runtime; they are there, and checked, in a build without it too.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Docker {
    /// Where the engine is: `unix:///path` or `tcp://host:port`.
    pub host: String,
    /// ZeroClaw's image, by tag or by digest.
    pub image: String,
    profile: String,
    /// The agents' network; where each has its own, what the names of these begin with.
    pub network: String,
    pub(super) isolation: Isolation,
    pub(super) joined: Vec<String>,
    subnets: String,
    reach: Reach,
    pub(super) traefik: bool,
    traefik_entrypoint: String,
    traefik_resolver: String,
    start_throttle: usize,
    pull_deadline_secs: u64,
    log_size: String,
    log_files: u32,
}

/// Keys of the Kubernetes runtime; they are there, and checked, in a build without it too.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kubernetes {
    /// Names the cluster. Empty: that of this Pod, else what `KUBECONFIG` or `~/.kube/config` name.
    pub kubeconfig: PathBuf,
    /// Where the agents are.
    pub namespace: String,
    /// ZeroClaw's image, as the nodes pull it.
    pub image: String,
    /// zeroone's own image, which puts an agent's files into its volume before a start.
    pub stage_image: String,
    profile: String,
    storage_class: String,
    storage: String,
    request_cpu: String,
    request_memory: String,
    runtime_class: String,
    reach: ClusterReach,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ClusterReach {
    Auto,
    Pod,
    PortForward,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Isolation {
    Bridge,
    PerAgent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Reach {
    Auto,
    Container,
    HostPort,
}

impl Process {
    /// Which ZeroClaw the program is; `None`: it is to be asked.
    ///
    /// # Errors
    /// A sentence that lists the names.
    pub fn profile(&self) -> Result<Option<Profile>, String> {
        profile(&self.profile)
    }

    /// Whether agents are to be users of their own, where that is possible.
    pub const fn has_uids(&self) -> bool {
        self.walls && !self.uids.is_empty()
    }

    /// Of which each agent gets one; `None` where the text is empty.
    pub(super) fn uids(&self) -> Result<Option<Uids>, String> {
        if self.uids.is_empty() { Ok(None) } else { Uids::parse(&self.uids).map(Some) }
    }

    /// The section, as the runtime takes it. `root`: where the agents' folders are. `program`: this binary. `environment`: the
    /// service's own, of which instances get what they need.
    pub fn options(
        &self,
        installation: InstallationId,
        root: PathBuf,
        program: PathBuf,
        environment: &[(String, String)],
    ) -> ProcessOptions {
        let inherited = |name: &str| ProcessOptions::INHERITED.contains(&name);
        ProcessOptions {
            installation,
            root,
            program: if self.command.as_os_str().is_empty() { program } else { self.command.clone() },
            args_prefix: self.args.clone(),
            environment: environment.iter().filter(|(name, _)| inherited(name)).cloned().collect(),
            log_limit_bytes: self.log_limit_mb * 1024 * 1024,
            walls: self.walls,
            uids: self.uids().ok().flatten(),
            readable: self.readable.clone(),
        }
    }
}

impl Docker {
    /// Which ZeroClaw is in the image; `None`: it tells by itself.
    ///
    /// # Errors
    /// A sentence that lists the names.
    pub fn profile(&self) -> Result<Option<Profile>, String> {
        profile(&self.profile)
    }

    /// Whether the agents share a network that only the machine itself reaches.
    pub fn is_bridge(&self) -> bool {
        self.isolation == Isolation::Bridge && self.reach != Reach::Container
    }

    /// The section, as the runtime takes it.
    ///
    /// # Errors
    /// Where the subnets are no range of addresses, or the profile has no such name.
    #[cfg(feature = "docker")]
    pub fn options(&self, installation: InstallationId) -> Result<crate::runtime::docker::DockerOptions, String> {
        use crate::runtime::docker as engine;
        let subnets = engine::Subnets::parse(&self.subnets).map_err(|error| error.to_string())?;
        Ok(engine::DockerOptions {
            host: self.host.clone(),
            image: self.image.clone(),
            profile: self.profile()?,
            network: self.network.clone(),
            installation,
            isolation: match self.isolation {
                Isolation::Bridge => engine::Isolation::Bridge,
                Isolation::PerAgent => engine::Isolation::PerAgent { joined: self.joined.clone(), subnets },
            },
            reach: match self.reach {
                Reach::Auto => engine::Reach::Auto,
                Reach::Container => engine::Reach::Container,
                Reach::HostPort => engine::Reach::HostPort,
            },
            traefik: self.traefik.then(|| engine::Traefik {
                entrypoint: self.traefik_entrypoint.clone(),
                resolver: self.traefik_resolver.clone(),
            }),
            start_throttle: self.start_throttle,
            pull_deadline: Duration::from_secs(self.pull_deadline_secs),
            log_size: self.log_size.clone(),
            log_files: self.log_files,
        })
    }
}

impl Kubernetes {
    /// Which ZeroClaw is in the image; `None`: its tag tells.
    ///
    /// # Errors
    /// A sentence that lists the names.
    pub fn profile(&self) -> Result<Option<Profile>, String> {
        profile(&self.profile)
    }

    /// The section, as the runtime takes it.
    ///
    /// # Errors
    /// Where the profile has no such name.
    #[cfg(feature = "kubernetes")]
    pub fn options(
        &self,
        installation: InstallationId,
    ) -> Result<crate::runtime::kubernetes::KubernetesOptions, String> {
        use crate::runtime::kubernetes as cluster;
        Ok(cluster::KubernetesOptions {
            kubeconfig: self.kubeconfig.clone(),
            namespace: self.namespace.clone(),
            image: self.image.clone(),
            stage_image: self.stage_image.clone(),
            profile: self.profile()?,
            storage_class: self.storage_class.clone(),
            storage: self.storage.clone(),
            request_cpu: self.request_cpu.clone(),
            request_memory: self.request_memory.clone(),
            runtime_class: self.runtime_class.clone(),
            reach: match self.reach {
                ClusterReach::Auto => cluster::Reach::Auto,
                ClusterReach::Pod => cluster::Reach::Pod,
                ClusterReach::PortForward => cluster::Reach::PortForward,
            },
            installation,
        })
    }
}

fn profile(name: &str) -> Result<Option<Profile>, String> {
    match name {
        "auto" => Ok(None),
        name => Profile::parse(name).map(Some).map_err(|_| "must be one of auto, 0.1, 0.6, 0.8, embedded".into()),
    }
}
