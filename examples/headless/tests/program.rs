//! The program runs to its end, with the real `zeroone gateway` as its agent.

use std::path::Path;
use std::process::Command;

#[test]
fn one_agent_is_created_killed_recovers_and_is_deleted() {
    let program = Path::new(env!("CARGO_BIN_EXE_headless"));
    let zeroone = program.with_file_name("zeroone");
    assert!(zeroone.exists(), "there is no {}: run `cargo build` first", zeroone.display());
    let output = Command::new(program).arg(zeroone).output().expect("it starts");
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}{errors}", output.status);
    assert!(out.contains("it was killed, and runs again"), "{out}{errors}");
}
