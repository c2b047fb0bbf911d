//! The mutants, as cargo-mutants lists them, each with a number that it keeps.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// What is mutated: where decisions are made and where secrets, data and authorisation are kept.
pub const MODULES: [&str; 10] =
    ["lifecycle", "ledger", "backoff", "store", "control", "actor", "vault", "http/guard", "http/idempotency", "proxy"];

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It compiles and can be switched on.
    Planted,
    /// It does not compile.
    Unviable,
    /// It is in an expression that the compiler evaluates, where there is no switch.
    Constant,
    /// The return type is an `impl Trait`, of which a function can have but one.
    Opaque,
}

/// Line and column, as cargo-mutants counts them: both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Span {
    pub start: Position,
    pub end: Position,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mutant {
    #[serde(default)]
    pub number: usize,
    /// With file, line, column and what is changed.
    pub name: String,
    pub file: String,
    pub genre: String,
    pub replacement: String,
    pub span: Span,
    #[serde(default = "planted")]
    pub state: State,
    /// What the compiler says of one that is not viable.
    #[serde(default)]
    pub why: String,
}

fn planted() -> State {
    State::Planted
}

impl Mutant {
    pub fn module(&self) -> &'static str {
        let within = |module: &&&str| {
            let rest = self.file.strip_prefix("src/").and_then(|file| file.strip_prefix(**module));
            rest.is_some_and(|rest| rest.starts_with(['/', '.']))
        };
        MODULES.iter().find(within).copied().unwrap_or("")
    }
}

/// All mutants of the modules. Those that were known keep their numbers and what was learned of them.
pub fn list(root: &Path, known: Vec<Mutant>) -> Result<Vec<Mutant>> {
    let mut command = Command::new("cargo");
    command.current_dir(root).args(["mutants", "--list", "--json"]);
    // What is shown to developers is no behaviour.
    command.arg("--exclude-re=fmt::(Debug|Display) for");
    // A disk in memory, for tests and simulations.
    command.arg("--exclude=src/store/memory.rs");
    for module in MODULES {
        command.arg(format!("--file=src/{module}.rs")).arg(format!("--file=src/{module}/**/*.rs"));
    }
    let output = command.output().context("cargo mutants")?;
    ensure!(output.status.success(), "cargo mutants: {}", String::from_utf8_lossy(&output.stderr));
    let mut mutants: Vec<Mutant> = serde_json::from_slice(&output.stdout)?;

    let mut known: BTreeMap<String, Mutant> = known.into_iter().map(|mutant| (mutant.name.clone(), mutant)).collect();
    let mut last = known.values().map(|mutant| mutant.number).max().unwrap_or(0);
    for mutant in &mut mutants {
        if let Some(before) = known.remove(&mutant.name) {
            (mutant.number, mutant.state, mutant.why) = (before.number, before.state, before.why);
        } else {
            last += 1;
            mutant.number = last;
        }
        if mutant.name.contains("-> impl ") {
            mutant.state = State::Opaque;
        }
    }
    Ok(mutants)
}
