//! `zeroone config`, and how every verb that needs it loads the configuration.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use super::Environment;
use super::client::variable;
use super::outcome::Failure;
use super::output::line;
use crate::config::{Config, DEFAULT_FILE, File, Flag, Loaded};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Say whether the configuration can be used, and if not, everything that is wrong.
    Check(FileArgs),
    /// Print the configuration in force as TOML, with the origin of each value.
    Show(FileArgs),
}

#[derive(Debug, Clone, Default, Args)]
pub(super) struct FileArgs {
    /// The configuration file; ZEROONE_CONFIG, else config/zeroone.toml if it is there.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// Which installation: where it is configured, where its data is, what runs its agents.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct InstallationArgs {
    #[command(flatten)]
    pub(super) file: FileArgs,
    /// Folder of everything that is kept; ./zeroone-data.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// What runs the agents.
    #[arg(long, value_enum)]
    runtime: Option<Runtime>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Runtime {
    /// In a cluster Kubernetes, else Docker where an engine answers at the first start, else processes.
    Auto,
    Docker,
    Kubernetes,
    Process,
}

impl Runtime {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Docker => "docker",
            Self::Kubernetes => "kubernetes",
            Self::Process => "process",
        }
    }
}

impl InstallationArgs {
    pub(super) fn flags(&self) -> Result<Vec<Flag>, Failure> {
        let text = |path: &PathBuf| {
            let text = path.to_str().map(str::to_owned);
            text.ok_or_else(|| Failure::Usage("--data must be a path in UTF-8".into()))
        };
        let data = flag("--data", "data", self.data.as_ref().map(text).transpose()?);
        let runtime = flag("--runtime", "runtime", self.runtime.map(|runtime| runtime.as_str().to_owned()));
        Ok(data.into_iter().chain(runtime).collect())
    }
}

/// A flag that was given, as the key that it stands for.
pub(super) fn flag(name: &'static str, key: &'static str, value: Option<String>) -> Option<Flag> {
    value.map(|value| Flag { name, key, value })
}

pub(super) fn run(verb: ConfigVerb, environment: &Environment) -> Result<(), Failure> {
    match verb {
        ConfigVerb::Check(args) => {
            load(&args, environment, &[])?;
            line("the configuration can be used");
        }
        ConfigVerb::Show(args) => line(load(&args, environment, &[])?.show().trim_end()),
    }
    Ok(())
}

/// Reads the file and puts all layers together.
pub(super) fn load(args: &FileArgs, environment: &Environment, flags: &[Flag]) -> Result<Loaded, Failure> {
    let named = variable(environment, "ZEROONE_CONFIG").filter(|name| !name.is_empty()).map(PathBuf::from);
    let file = match args.config.clone().or(named) {
        Some(path) => Some(read(&path).map_err(|error| cannot_read(&path, &error))?),
        None => match read(Path::new(DEFAULT_FILE)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            read => Some(read.map_err(|error| cannot_read(Path::new(DEFAULT_FILE), &error))?),
        },
    };
    let file = file.as_ref().map(|(name, text)| File { name, text });
    Config::load(file, environment, flags).map_err(Failure::of)
}

fn read(path: &Path) -> std::io::Result<(String, String)> {
    Ok((path.display().to_string(), std::fs::read_to_string(path)?))
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Failure {
    Failure::said(format!("cannot read the configuration file {}: {error}", path.display()))
}
