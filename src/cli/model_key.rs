//! Where a model's API key comes from. Not from the command line, if it can be helped: every user of the machine can read
//! the command lines of all.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;

use clap::Args;

use super::Environment;
use super::client::variable;
use super::outcome::Failure;

/// Longest key that is read; the service takes 1024 characters.
const LIMIT: u64 = 4096;

#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct ModelKeyArgs {
    /// Name of the environment variable that has the model's API key.
    #[arg(long, value_name = "NAME")]
    api_key_env: Option<String>,
    /// File that has it.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Read it from standard input.
    #[arg(long)]
    api_key_stdin: bool,
    /// The key itself. Others on this machine can see it in the list of processes: prefer one of the above.
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
}

impl ModelKeyArgs {
    pub(super) fn read(&self, environment: &Environment) -> Result<Option<String>, Failure> {
        if let Some(name) = &self.api_key_env {
            let key = variable(environment, name).filter(|key| !key.is_empty());
            return key.map(clean).map(Some).ok_or_else(|| Failure::Usage(format!("the variable {name} is not set")));
        }
        if let Some(path) = &self.api_key_file {
            let failed = |error| Failure::Usage(format!("cannot read {}: {error}", path.display()));
            let file = std::fs::File::open(path).map_err(failed)?;
            return take(file).map(Some).map_err(failed);
        }
        if self.api_key_stdin {
            let stdin = std::io::stdin();
            if stdin.is_terminal() {
                return Err(Failure::Usage("--api-key-stdin wants the key from a pipe or a file".into()));
            }
            return take(stdin.lock()).map(Some).map_err(Failure::from);
        }
        Ok(self.api_key.as_deref().map(clean))
    }
}

fn take(from: impl std::io::Read) -> std::io::Result<String> {
    let mut key = String::new();
    from.take(LIMIT).read_to_string(&mut key)?;
    Ok(clean(&key))
}

/// Without the line break that editors and `echo` leave behind it.
fn clean(key: &str) -> String {
    key.trim().to_owned()
}
