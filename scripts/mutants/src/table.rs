//! What came out, as a table of Markdown and a list of those that no test finds.

use std::fmt::Write as _;

use anyhow::Result;

use crate::Folder;
use crate::judge::{Outcome, judgements};
use crate::mutant::{MODULES, Mutant, State};

pub fn print(folder: &Folder) -> Result<()> {
    let mutants: Vec<Mutant> = folder.read("mutants.json")?;
    let judged = judgements(folder);
    let outcome = |mutant: &Mutant| judged.get(&mutant.name).map(|judgement| judgement.outcome);

    println!(
        "| Module | listed | do not compile | without a switch | judged | found | of these hang | missed | found |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let row = |name: &str, mutants: &[&Mutant]| {
        let count = |state: State| mutants.iter().filter(|mutant| mutant.state == state).count();
        let outcomes: Vec<Outcome> = mutants
            .iter()
            .filter(|mutant| mutant.state == State::Planted)
            .filter_map(|mutant| outcome(mutant))
            .collect();
        let hang = outcomes.iter().filter(|outcome| **outcome == Outcome::Hangs).count();
        let found = hang + outcomes.iter().filter(|outcome| **outcome == Outcome::Found).count();
        let (listed, judged) = (mutants.len(), outcomes.len());
        let (unviable, no_switch) = (count(State::Unviable), count(State::Constant) + count(State::Opaque));
        let share =
            if judged == 0 { "–".to_owned() } else { format!("{:.1} %", 100.0 * found as f64 / judged as f64) };
        let missed = judged - found;
        println!("| {name} | {listed} | {unviable} | {no_switch} | {judged} | {found} | {hang} | {missed} | {share} |");
    };
    for module in MODULES {
        row(module, &mutants.iter().filter(|mutant| mutant.module() == module).collect::<Vec<_>>());
    }
    row("all", &mutants.iter().collect::<Vec<_>>());

    let mut rest = String::new();
    for mutant in mutants.iter().filter(|mutant| mutant.state == State::Planted) {
        match outcome(mutant) {
            Some(Outcome::Missed) => writeln!(rest, "- {}", mutant.name)?,
            Some(Outcome::Unreached) => writeln!(rest, "- {} (no test reaches it)", mutant.name)?,
            _ => {}
        }
    }
    println!("\n{rest}");
    Ok(())
}
