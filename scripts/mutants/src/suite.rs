//! The tests: which there are, what each reaches, and how they are run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use wait_timeout::ChildExt;

use crate::Folder;
use crate::tree::SUITES;

/// A test, or one of those with more seeds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Test {
    pub suite: String,
    pub name: String,
    pub seeds: Option<u32>,
    pub seconds: f64,
    pub passes: bool,
    /// The numbers of the mutants that it comes by.
    pub reached: BTreeSet<usize>,
}

impl Test {
    pub fn rank(&self) -> usize {
        SUITES.iter().position(|suite| *suite == self.suite).unwrap_or(SUITES.len())
    }

    fn key(&self) -> (&str, &str, Option<u32>) {
        (&self.suite, &self.name, self.seeds)
    }
}

/// How often the simulation's main test is run: by itself with few seeds, then with more.
const SEEDS: (&str, [u32; 2]) = ("whatever_dies_when_everything_that_must_hold_holds", [10, 200]);

/// What no test takes that hangs in its first run.
const LONGEST: Duration = Duration::from_secs(600);

pub enum Ended {
    Passed,
    /// With the names of the tests that failed; none if the whole process died.
    Failed(Vec<String>),
    /// It was ended when its time was over.
    Hung,
}

/// Runs tests as `cargo test` would, one process for all that are named.
pub struct Runner<'a> {
    folder: &'a Folder,
    programs: BTreeMap<String, PathBuf>,
}

impl<'a> Runner<'a> {
    pub fn new(folder: &'a Folder) -> Result<Self> {
        Ok(Self { folder, programs: folder.read("programs.json").context("first comes `build`")? })
    }

    fn tests_of(&self, suite: &str) -> Result<Vec<Test>> {
        let program = self.programs.get(suite).with_context(|| format!("there is no suite {suite}"))?;
        let listed = |more: &[&str]| -> Result<BTreeSet<String>> {
            let output = Command::new(program).args(["--list", "--format=terse"]).args(more).output()?;
            let text = String::from_utf8(output.stdout)?;
            Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
        };
        let ignored = listed(&["--ignored"])?;
        let mut tests = Vec::new();
        for name in listed(&[])?.difference(&ignored) {
            let seeds = if name == SEEDS.0 { SEEDS.1.map(Some).to_vec() } else { vec![None] };
            let test = |seeds| Test {
                suite: suite.to_owned(),
                name: name.clone(),
                seeds,
                seconds: 0.0,
                passes: false,
                reached: BTreeSet::new(),
            };
            tests.extend(seeds.into_iter().map(test));
        }
        Ok(tests)
    }

    /// `variable` is for the switch. All of the tests are of one suite.
    pub fn run(&self, tests: &[&Test], variable: (&str, &str), within: Duration) -> Result<Ended> {
        wait_for_quiet();
        // What a test leaves in it, or a process that it does not end, goes with it.
        let folder = tempfile::Builder::new().prefix("mutant").tempdir()?;
        let output = folder.path().join("output");
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", r#""$@"; exit $?"#, "sh"]);
        command.arg(&self.programs[&tests[0].suite]).args(["--exact", "--test-threads=2"]);
        command.args(tests.iter().map(|test| &test.name));
        command.current_dir(self.folder.data.join("tree")).env(variable.0, variable.1).env("TMPDIR", folder.path());
        if let Some(seeds) = tests[0].seeds {
            command.env("ZEROONE_SIM_SEEDS", seeds.to_string());
        }
        let file = File::create(&output)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let mut child = command.spawn().context("unshare, of util-linux")?;
        let Some(status) = child.wait_timeout(within)? else {
            child.kill()?;
            child.wait()?;
            return Ok(Ended::Hung);
        };
        if status.success() {
            return Ok(Ended::Passed);
        }
        let text = String::from_utf8_lossy(&fs::read(&output)?).into_owned();
        let failed = |line: &str| Some(line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?.to_owned());
        Ok(Ended::Failed(text.lines().filter_map(failed).collect()))
    }
}

/// A file named by `MUTANTS_PAUSE` keeps the next run from beginning, for a machine on which others measure.
fn wait_for_quiet() {
    while std::env::var_os("MUTANTS_PAUSE").is_some_and(|file| PathBuf::from(file).exists()) {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Runs each test that was not run yet, by itself, and notes how long it takes and what it reaches.
pub fn reach(folder: &Folder) -> Result<()> {
    let runner = Runner::new(folder)?;
    let known: Vec<Test> = folder.read("tests.json").unwrap_or_default();
    let mut there = Vec::new();
    for suite in SUITES.iter().filter(|suite| runner.programs.contains_key(**suite)) {
        there.extend(runner.tests_of(suite)?);
    }
    let kept: Vec<Test> =
        known.into_iter().filter(|test| there.iter().any(|other| other.key() == test.key())).collect();
    there.retain(|test| !kept.iter().any(|other| other.key() == test.key()));
    println!("{} tests to run, {} known", there.len(), kept.len());

    let (next, done) = (AtomicUsize::new(0), Mutex::new(kept));
    let work = || -> Result<()> {
        while let Some(test) = there.get(next.fetch_add(1, Ordering::Relaxed)) {
            let test = reached(&runner, test.clone())?;
            if !test.passes {
                println!("fails without any mutant: {} {}", test.suite, test.name);
            }
            let mut done = done.lock().expect("no panic");
            done.push(test);
            if done.len() % 50 == 0 {
                folder.write("tests.json", &*done)?;
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers = [scope.spawn(work), scope.spawn(work)];
        workers.into_iter().try_for_each(|worker| worker.join().expect("no panic"))
    })?;
    folder.write("tests.json", &done.into_inner()?)
}

fn reached(runner: &Runner<'_>, mut test: Test) -> Result<Test> {
    let noted = tempfile::NamedTempFile::new()?;
    let path = noted.path().to_str().context("a plain path")?;
    let began = Instant::now();
    let ended = runner.run(&[&test], ("MUTANTS_REACHED", path), LONGEST)?;
    test.seconds = began.elapsed().as_secs_f64();
    test.passes = matches!(ended, Ended::Passed);
    test.reached = fs::read_to_string(path)?.lines().filter_map(|line| line.parse().ok()).collect();
    Ok(test)
}
