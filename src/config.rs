//! Configuration: defaults < file < environment < flags.
//!
//! A pure function of what it is given: nothing here reads a file or the environment. The defaults are not in the code
//! either: they are `config/zeroone.toml`, compiled in, so that the example with every key and its reason is what the
//! program does. Unknown keys are errors, wherever they come from, because a typo must never silently do nothing.
//!
//! ```text
//! layers    one table of values, each layer put over the one before, with the origin of each value
//! sections  the table as types, and what the parts of the service take of it; oidc: one of them
//! engines   three of them: the runtimes' own
//! ranges    what numbers make sense                      nearest   "did you mean"
//! show      the table as TOML again                      variables the environment's names
//! cell      two sections for installations of several control planes
//! docker_host, proxies   what other programs' variables say, for keys that nothing set
//! ```

mod cell;
mod docker_host;
mod engines;
mod layers;
mod nearest;
mod oidc;
mod proxies;
mod ranges;
mod sections;
mod show;
mod variables;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

pub use cell::{CellSection, RouterSection};
pub use engines::{Docker, Kubernetes, Process};
pub use layers::Origin;
pub use oidc::Oidc;
pub use sections::{
    Accounts, Agents, Health, Log, LogFormat, Proxy, RateLimit, Reconcile, Restart, RuntimeChoice, Server, Start,
    VaultSection,
};

use crate::control::KeyFile;
use crate::domain::Secret;
use crate::vault::MasterKeySource;
use layers::Layers;

/// The file that is read when nobody names one, if it is there.
pub const DEFAULT_FILE: &str = "config/zeroone.toml";

/// The whole configuration, as types. See `config/zeroone.toml` for what each key means.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the service keeps what it has: the store, the master key, the folders of agents that are processes.
    pub data: PathBuf,
    /// Where the API listens; port 0 takes a free one.
    pub bind: SocketAddr,
    /// What runs agents.
    pub runtime: RuntimeChoice,
    /// `[server]`: the bounds of the API's listener, and who may call it from where.
    pub server: Server,
    /// `[accounts]`: how people get accounts and stay signed in.
    pub accounts: Accounts,
    /// `[oidc]`: sign-in by an identity provider.
    pub oidc: Oidc,
    /// `[ratelimit]`: how many requests an API key may make.
    pub ratelimit: RateLimit,
    /// `[restart]`: when a failed agent is restarted, and when it is left at rest.
    pub restart: Restart,
    /// `[health]`: how running agents are checked.
    pub health: Health,
    /// `[start]`: how long the parts of a start and of a stop may take.
    pub start: Start,
    /// `[reconcile]`: what is done where instances and records differ.
    pub reconcile: Reconcile,
    /// `[process]`: agents as processes of this machine.
    pub process: Process,
    /// `[docker]`: agents as containers.
    pub docker: Docker,
    /// `[kubernetes]`: agents as Pods.
    pub kubernetes: Kubernetes,
    /// `[agents]`: which servers agents may use for their models, and by which proxies.
    pub agents: Agents,
    /// `[proxy]`: the data path to agents' own gateways.
    pub proxy: Proxy,
    /// `[cell]`: which of several control planes this is.
    pub cell: CellSection,
    /// `[router]`: what is before them.
    pub router: RouterSection,
    /// `[vault]`: where the master key is.
    pub vault: VaultSection,
    /// `[log]`: the service's own log lines.
    pub log: Log,
}

/// A configuration file as it was read.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// For messages.
    pub name: &'a str,
    /// What is in it, as TOML.
    pub text: &'a str,
}

/// A flag of the command line that stands for a key.
#[derive(Debug, Clone)]
pub struct Flag {
    /// As it is typed, e.g. `--bind`.
    pub name: &'static str,
    /// The key that it sets, e.g. `bind`.
    pub key: &'static str,
    /// As it was typed; read as the type that the key has.
    pub value: String,
}

/// What was loaded: the configuration, the secret that is no part of it, and where every value comes from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration in force.
    pub config: Config,
    /// `ZEROONE_MASTER_KEY`.
    master_key: Option<Secret<String>>,
    layers: Layers,
}

/// Everything that is wrong, one line each. Shows keys and where they stand, never a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Puts the layers together and checks the result.
    ///
    /// `env` may be the whole environment: only names that begin with `ZEROONE_` are looked at.
    ///
    /// # Errors
    /// Every unknown key, wrong type and value out of range, at once.
    pub fn load(file: Option<File<'_>>, env: &[(String, String)], flags: &[Flag]) -> Result<Loaded, ConfigError> {
        let mut problems = Vec::new();
        let mut layers = Layers::defaults();
        if let Some(file) = file {
            layers.put_file(file, &mut problems);
        }
        let master_key = layers.put_environment(env, &mut problems);
        layers.put_flags(flags, &mut problems);
        ranges::check(&layers, &mut problems);
        let typed = layers.typed(&mut problems);
        if let Some(config) = &typed {
            config.check(&layers, &mut problems);
        }
        match typed {
            Some(config) if problems.is_empty() => Ok(Loaded { config, master_key, layers }),
            _ => Err(ConfigError { problems }),
        }
    }

    /// What only makes sense, or none, together.
    fn check(&self, layers: &Layers, problems: &mut Vec<String>) {
        if !self.bind.ip().is_loopback() && !self.server.public_bind {
            problems.push(format!(
                "bind{} is an address that other machines can reach: if that is meant, say so with server.public_bind = \
                 true or --public-bind, and put TLS in front",
                layers.from("bind")
            ));
        }
        for (key, problem) in self.sections_check() {
            problems.push(format!("{key}{} {problem}", layers.from(key)));
        }
    }
}

impl Loaded {
    /// Where the master key comes from.
    ///
    /// `store_exists`: a key is only made for a new store; made for an old one it could not open it anyway, and would
    /// hide that the real one is missing.
    pub fn master_key(&self, store_exists: bool) -> MasterKeySource {
        let file = &self.config.vault.master_key_file;
        match &self.master_key {
            Some(key) => MasterKeySource::Value(key.clone()),
            None if !file.is_empty() => MasterKeySource::File(file.into()),
            None if store_exists => MasterKeySource::File(self.config.data.join("master.key")),
            None => MasterKeySource::FileOrNew(self.config.data.join("master.key")),
        }
    }

    /// The file that has the master key, unless the environment has the key itself.
    pub fn master_key_file(&self) -> Option<KeyFile> {
        let file = &self.config.vault.master_key_file;
        match &self.master_key {
            Some(_) => None,
            None if !file.is_empty() => Some(KeyFile { path: file.into(), own: false }),
            None => Some(KeyFile { path: self.config.data.join("master.key"), own: true }),
        }
    }

    /// What was set and has no effect, one sentence each: it may be somebody else's, so the service starts all the same.
    pub fn warnings(&self) -> &[String] {
        &self.layers.warnings
    }

    /// The configuration in force as TOML, the origin of each value beside it. The master key is not in it.
    pub fn show(&self) -> String {
        let key = match self.master_key {
            Some(_) => "ZEROONE_MASTER_KEY (not shown)",
            None if self.config.vault.master_key_file.is_empty() => "master.key in the data folder",
            None => "the file vault.master_key_file",
        };
        let warnings: String = self.warnings().iter().map(|warning| format!("# {warning}\n")).collect();
        format!("# master key: {key}\n{warnings}{}", show::toml(&self.layers))
    }
}
