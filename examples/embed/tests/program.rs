//! The program runs to its end, with the real `zeroone gateway` as its agent.

use std::path::Path;
use std::process::Command;

#[test]
fn members_have_one_agent_each_and_see_no_others() {
    let program = Path::new(env!("CARGO_BIN_EXE_embed"));
    let zeroone = program.with_file_name("zeroone");
    assert!(zeroone.exists(), "there is no {}: run `cargo build` first", zeroone.display());
    let output = Command::new(program).arg(zeroone).output().expect("it starts");
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}{errors}", output.status);
    assert!(out.contains("yes: Bob does not see it") && out.contains("came and went"), "{out}{errors}");
}
