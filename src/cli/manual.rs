//! Completion scripts and manual pages, made from the same description as `--help`.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Cli;
use super::outcome::Failure;

const NAME: &str = "zeroone";

pub(super) fn completion(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    print(&script);
    Ok(())
}

/// The main page to standard output, or a page for each verb into a folder.
pub(super) fn pages(folder: Option<&Path>) -> Result<(), Failure> {
    let command = Cli::command().name(NAME);
    if let Some(folder) = folder {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        clap_mangen::generate_to(command, folder).with_context(|| format!("cannot write into {}", folder.display()))?;
        return Ok(());
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    print(&page);
    Ok(())
}

/// A reader that went away is not told about it.
fn print(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
}
