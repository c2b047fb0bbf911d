//! `zeroone config`, and how every verb that needs it loads the configuration.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

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
