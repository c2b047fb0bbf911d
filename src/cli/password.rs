//! A password that somebody types or pipes in. Never from the command line: every user of the machine can read that.

use std::io::{BufRead as _, IsTerminal as _};

use super::outcome::Failure;

/// Longer lines are no passwords.
const LIMIT: u64 = 4096;

/// One line from standard input. What is typed on a terminal is not shown, and is asked for twice.
pub(super) fn read() -> Result<String, Failure> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return typed();
    }
    let mut line = String::new();
    std::io::Read::take(stdin.lock(), LIMIT).read_line(&mut line)?;
    let password = line.trim_end_matches(['\r', '\n']).to_owned();
    if password.is_empty() { Err(Failure::Usage("standard input has no password".into())) } else { Ok(password) }
}

fn typed() -> Result<String, Failure> {
    let password = rpassword::prompt_password("New password: ")?;
    if rpassword::prompt_password("The same again: ")? != password {
        return Err(Failure::Usage("the two passwords differ".into()));
    }
    if password.is_empty() { Err(Failure::Usage("no password was typed".into())) } else { Ok(password) }
}
