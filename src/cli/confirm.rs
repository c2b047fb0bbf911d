//! A question before what cannot be undone.

use std::io::{IsTerminal as _, Write as _};

use super::outcome::Failure;

/// Whether it is meant: asks whoever sits at a terminal; a script has said what it wants.
pub(super) fn confirmed(question: &str) -> Result<bool, Failure> {
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Ok(true);
    }
    let _ = write!(std::io::stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
