//! The copy of the sources that the mutants are planted in, and its builds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::Folder;
use crate::mutant::{Mutant, State};
use crate::plant::{Place, plant};

const SWITCH: &str = include_str!("../planted/mutant_switch.rs");

/// The suites that CI runs and that need no engine. The library's own tests are the suite `lib`.
pub const SUITES: [&str; 9] =
    ["lib", "recovery", "api", "hostile", "fake", "simulation", "store_kill", "process", "cells"];

/// What the compiler complains of.
struct Complaint {
    text: String,
    /// Files with the bytes that are meant; the first ones are the place itself.
    spans: Vec<(String, Range<usize>)>,
}

pub struct Tree<'a> {
    folder: &'a Folder,
    /// Functions that the compiler has to evaluate.
    constant: BTreeSet<String>,
    places: BTreeMap<String, Vec<Place>>,
}

impl<'a> Tree<'a> {
    pub fn new(folder: &'a Folder) -> Self {
        Self { folder, constant: folder.read("constant.json").unwrap_or_default(), places: BTreeMap::new() }
    }

    /// Plants and builds until everything compiles; gives the program of each suite.
    pub fn build(&mut self, suites: &[&str], mutants: &mut [Mutant]) -> Result<BTreeMap<String, PathBuf>> {
        // The library first: nothing else can tell more of it.
        self.build_all(&["lib"], mutants)?;
        self.build_all(suites, mutants)
    }

    fn build_all(&mut self, suites: &[&str], mutants: &mut [Mutant]) -> Result<BTreeMap<String, PathBuf>> {
        loop {
            self.write(mutants)?;
            let (complaints, programs) = self.compile(suites)?;
            if complaints.is_empty() {
                return Ok(programs);
            }
            let left: usize = self.leave_out(mutants, &complaints)?;
            println!("{} errors; {left} mutants do not compile", complaints.len());
            self.folder.write("mutants.json", mutants)?;
            self.folder.write("constant.json", &self.constant)?;
        }
    }

    fn tree(&self) -> PathBuf {
        self.folder.data.join("tree")
    }

    /// The copy as it is in git and beside, with the mutants that may compile.
    fn write(&mut self, mutants: &mut [Mutant]) -> Result<()> {
        let output = Command::new("git")
            .current_dir(&self.folder.root)
            .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
            .output()?;
        ensure!(output.status.success(), "git ls-files failed");
        let listed = String::from_utf8(output.stdout)?;
        self.places.clear();
        for file in listed.split('\0').filter(|file| !file.is_empty() && self.folder.root.join(file).is_file()) {
            let (from, to) = (self.folder.root.join(file), self.tree().join(file));
            if file.starts_with("src/") && file.ends_with(".rs") {
                let text = self.planted(file, &fs::read_to_string(&from)?, mutants)?;
                put(&to, text.as_bytes())?;
            } else {
                put(&to, &fs::read(&from)?)?;
                fs::set_permissions(&to, fs::metadata(&from)?.permissions())?;
            }
        }
        put(&self.tree().join("src/mutant_switch.rs"), SWITCH.as_bytes())
    }

    fn planted(&mut self, file: &str, source: &str, mutants: &mut [Mutant]) -> Result<String> {
        let here: Vec<&Mutant> =
            mutants.iter().filter(|mutant| mutant.file == file && mutant.state == State::Planted).collect();
        let planted = plant(source, &here, &self.constant).with_context(|| file.to_owned())?;
        for mutant in mutants.iter_mut().filter(|mutant| planted.left.contains(&mutant.number)) {
            mutant.state = State::Unviable;
            "a `let` in the condition".clone_into(&mut mutant.why);
        }
        self.places.insert(file.to_owned(), planted.places);
        if file != "src/lib.rs" {
            return Ok(planted.text);
        }
        // What the compiler finds suspicious is what a mutant is about.
        let with =
            "#![allow(warnings, arithmetic_overflow, unconditional_panic)]\n\npub mod mutant_switch;\n\n#[macro_use]\n";
        ensure!(planted.text.contains("#[macro_use]\n"), "the first item of lib.rs is another");
        Ok(planted.text.replacen("#[macro_use]\n", with, 1).replace("#![deny(missing_docs)]", ""))
    }

    fn compile(&self, suites: &[&str]) -> Result<(Vec<Complaint>, BTreeMap<String, PathBuf>)> {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(self.tree()).args(["test", "--locked", "--no-run", "--message-format=json"]);
        command.env("CARGO_TARGET_DIR", self.folder.data.join("build")).env("CARGO_INCREMENTAL", "0");
        for suite in suites {
            if *suite == "lib" {
                command.arg("--lib")
            } else {
                command.args(["--test", suite])
            };
        }
        let output = command.stderr(Stdio::inherit()).output()?;
        let (mut complaints, mut programs) = (Vec::new(), BTreeMap::new());
        for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| line.first() == Some(&b'{')) {
            let line: Value = serde_json::from_slice(line)?;
            if line["reason"] == "compiler-message" && line["message"]["level"] == "error" {
                complaints.extend(complaint(&line["message"]));
            } else if let (Some(program), true) = (line["executable"].as_str(), line["profile"]["test"] == true) {
                let name = if line["target"]["kind"][0] == "test" { line["target"]["name"].as_str() } else { None };
                programs.insert(name.unwrap_or("lib").to_owned(), PathBuf::from(program));
            }
        }
        ensure!(output.status.success() || !complaints.is_empty(), "cargo test --no-run failed");
        Ok((complaints, programs))
    }

    /// Takes out of the next build what the compiler complains of; gives how many mutants it were.
    fn leave_out(&mut self, mutants: &mut [Mutant], complaints: &[Complaint]) -> Result<usize> {
        let (mut left, mut kept) = (0, 0);
        for complaint in complaints {
            let no_switch = complaint.text.contains("mutant_switch::on");
            if complaint.text.contains("cannot call non-const") && !no_switch {
                kept += usize::from(self.constant.insert(called(&complaint.text)));
                continue;
            }
            let numbers = self.meant(complaint);
            for mutant in mutants.iter_mut().filter(|mutant| numbers.contains(&mutant.number)) {
                left += usize::from(mutant.state == State::Planted);
                mutant.state = if no_switch { State::Constant } else { State::Unviable };
                if mutant.why.is_empty() {
                    mutant.why.clone_from(&complaint.text);
                }
            }
        }
        if left + kept == 0 {
            bail!("this is no mutant's doing: {} {:?}", complaints[0].text, complaints[0].spans);
        }
        Ok(left)
    }

    /// The mutants at the first place that has any, or else those of the smallest expression round it.
    fn meant(&self, complaint: &Complaint) -> Vec<usize> {
        let meet = |a: &Range<usize>, b: &Range<usize>| a.start < b.end.max(b.start + 1) && b.start < a.end;
        for (file, span) in &complaint.spans {
            let here = self.places.get(file).into_iter().flatten();
            let hit: Vec<usize> = here.filter(|place| meet(&place.mutant, span)).map(|place| place.number).collect();
            if !hit.is_empty() {
                return hit;
            }
        }
        for (file, span) in &complaint.spans {
            let here = || self.places.get(file).into_iter().flatten().filter(|place| meet(&place.whole, span));
            if let Some(smallest) = here().map(|place| place.whole.len()).min() {
                return here().filter(|place| place.whole.len() == smallest).map(|place| place.number).collect();
            }
        }
        Vec::new()
    }
}

/// Writes only what is different, so that the build sees what changed.
fn put(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|before| before == content) {
        return Ok(());
    }
    fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
    fs::write(path, content).with_context(|| path.display().to_string())
}

/// The name of the function in "cannot call non-const method `a::B::<C>::name` in constants".
fn called(text: &str) -> String {
    let path = text.split('`').nth(1).unwrap_or_default();
    let parts = path.split("::").filter(|part| !part.contains(['<', '>']));
    parts.last().unwrap_or_default().to_owned()
}

fn complaint(message: &Value) -> Option<Complaint> {
    let text = message["message"].as_str()?.to_owned();
    let mut spans = Vec::new();
    for primary in [true, false] {
        for span in message["spans"].as_array()?.iter().filter(|span| span["is_primary"] == primary) {
            spans.extend(place(span));
        }
    }
    let notes = message["children"].as_array()?.iter().filter_map(|note| note["spans"].as_array());
    spans.extend(notes.flatten().filter_map(place));
    // The last one only counts them.
    (!spans.is_empty()).then_some(Complaint { text, spans })
}

/// Where it is in a file of ours: a macro is meant where it is called.
fn place(span: &Value) -> Option<(String, Range<usize>)> {
    let file = span["file_name"].as_str()?;
    let byte = |name: &str| span[name].as_u64().and_then(|byte| usize::try_from(byte).ok());
    if span["expansion"].is_object() {
        return place(&span["expansion"]["span"]);
    }
    Some((file.to_owned(), byte("byte_start")?..byte("byte_end")?))
}
