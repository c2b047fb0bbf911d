//! Programs that a test makes and then runs.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Copies a program to a place from which it is run at once.
///
/// Another process does it. What this one has open for writing, a child that some other test starts meanwhile has open
/// too until it executes its own program, and the system runs no file that anybody can write into (`ETXTBSY`).
pub fn install(from: &Path, to: &Path) {
    let done = Command::new("install").args(["-m", "755", "--"]).args([from, to]).status().expect("coreutils");
    assert!(done.success(), "{} cannot be made of {}", to.display(), from.display());
}

/// Makes a program of a script.
#[allow(dead_code, reason = "others only copy")]
pub fn write(script: &str, to: &Path) {
    let source = to.with_extension("source");
    fs::write(&source, script).expect("a script can be written");
    install(&source, to);
}
