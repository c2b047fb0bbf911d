//! A password that somebody types or pipes in. Never from the command line: every user of the machine can read that.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use super::outcome::Failure;

/// Longer lines are no passwords.
const LIMIT: u64 = 4096;

/// One line from standard input. What is typed on a terminal is shown: there is no library here that could hide it.
pub(super) fn read() -> Result<String, Failure> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        eprint!("New password (it is shown; or pipe it in): ");
        std::io::stderr().flush()?;
    }
    let mut line = String::new();
    std::io::Read::take(stdin.lock(), LIMIT).read_line(&mut line)?;
    let password = line.trim_end_matches(['\r', '\n']).to_owned();
    if password.is_empty() { Err(Failure::Usage("standard input has no password".into())) } else { Ok(password) }
}
