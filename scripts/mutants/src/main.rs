//! Which planted bugs do the suites find? `scripts/mutants` runs it; CONTRIBUTING.md tells when.
//!
//! cargo-mutants lists the mutants. It would build each of them by itself, which takes days here; this plants all of them in a
//! copy of the sources, builds that once, and switches one on at a time by a variable of the environment.
//!
//! - `build` plants and builds, and finds out which mutants do not compile;
//! - `reach` runs every test once and notes which mutants it reaches;
//! - `judge` runs, for each mutant, the tests that reach it until one fails;
//! - `table` tells the result.
//!
//! Each goes on where it was stopped; what it found is in `target/mutants`.

mod judge;
mod mutant;
mod plant;
mod suite;
mod table;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::mutant::Mutant;

const USAGE: &str = "mutants build [--suites lib,api] | reach | judge [--again] [--limit N] [--jobs N] | table";

/// The sources, and where everything is kept that is learned of them.
pub struct Folder {
    pub root: PathBuf,
    pub data: PathBuf,
}

impl Folder {
    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let text = fs::read(self.data.join(name)).with_context(|| format!("there is no {name} yet"))?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// As a whole or not at all: whoever is stopped goes on with what was there.
    fn write<T: Serialize + ?Sized>(&self, name: &str, value: &T) -> Result<()> {
        let new = self.data.join(format!("{name}.new"));
        fs::write(&new, serde_json::to_vec_pretty(value)?)?;
        Ok(fs::rename(new, self.data.join(name))?)
    }
}

fn build(folder: &Folder, suites: &[&str]) -> Result<()> {
    let known: Vec<Mutant> = folder.read("mutants.json").unwrap_or_default();
    let numbers: BTreeSet<usize> = known.iter().map(|mutant| mutant.number).collect();
    let mut mutants = mutant::list(&folder.root, known)?;
    // What tests reach is noted by numbers, and those that are new nobody has looked for.
    if mutants.iter().any(|mutant| !numbers.contains(&mutant.number)) {
        let _ = fs::remove_file(folder.data.join("tests.json"));
    }
    folder.write("mutants.json", &mutants)?;
    let built = tree::Tree::new(folder).build(suites, &mut mutants)?;
    folder.write("mutants.json", &mutants)?;
    let mut programs: BTreeMap<String, PathBuf> = folder.read("programs.json").unwrap_or_default();
    programs.extend(built);
    folder.write("programs.json", &programs)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let value = |flag: &str| arguments.iter().skip_while(|argument| *argument != flag).nth(1);
    let number = |flag: &str| {
        value(flag).map(|value| value.parse::<usize>().with_context(|| format!("{flag} takes a number"))).transpose()
    };
    let suites = value("--suites").map_or(tree::SUITES.to_vec(), |names| names.split(',').collect());
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let folder = Folder { data: root.join("target/mutants"), root };
    fs::create_dir_all(&folder.data)?;
    match arguments.first().map(String::as_str) {
        Some("build") => build(&folder, &suites),
        Some("reach") => suite::reach(&folder),
        Some("judge") => {
            let limit = number("--limit")?.unwrap_or(usize::MAX);
            judge::judge(&folder, has("--again"), limit, number("--jobs")?.unwrap_or(2))
        }
        Some("table") => table::print(&folder),
        _ => bail!(USAGE),
    }
}
