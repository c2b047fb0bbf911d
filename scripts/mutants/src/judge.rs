//! For each mutant: do the tests that reach it fail?

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::Folder;
use crate::mutant::{Mutant, State};
use crate::suite::{Ended, Runner, Test};

/// Tests that run in one process: enough that starting it is no cost, few enough that a failure is known soon.
const BATCH_SECS: f64 = 3.0;
const QUICK_SECS: f64 = 0.5;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// A test fails.
    Found,
    /// A test does not end in its time.
    Hangs,
    /// Tests reach it, and all pass.
    Missed,
    /// No test reaches it.
    Unreached,
}

#[derive(Serialize, Deserialize)]
pub struct Judgement {
    pub name: String,
    pub outcome: Outcome,
    /// The test that found it.
    pub by: String,
    pub seconds: f64,
}

/// The newest judgement of each mutant, by its name.
pub fn judgements(folder: &Folder) -> BTreeMap<String, Judgement> {
    let text = fs::read_to_string(folder.data.join("judged.jsonl")).unwrap_or_default();
    let parsed = text.lines().filter_map(|line| serde_json::from_str::<Judgement>(line).ok());
    parsed.map(|judgement| (judgement.name.clone(), judgement)).collect()
}

/// Judges the mutants that have no judgement yet, or with `again` those that were missed, at most `limit` of them.
///
/// Their order is that of a hash of their names: what is done at any time is a sample that nobody chose.
pub fn judge(folder: &Folder, again: bool, limit: usize, jobs: usize) -> Result<()> {
    let runner = Runner::new(folder)?;
    let mut tests: Vec<Test> = folder.read("tests.json")?;
    tests.retain(|test| test.passes);
    let known = judgements(folder);
    let mut mutants: Vec<Mutant> = folder.read("mutants.json")?;
    mutants.retain(|mutant| {
        let missed = |judgement: &Judgement| matches!(judgement.outcome, Outcome::Missed | Outcome::Unreached);
        mutant.state == State::Planted && known.get(&mutant.name).map_or(!again, |known| again && missed(known))
    });
    mutants.sort_by_key(|mutant| hash(&mutant.name));
    mutants.truncate(limit);
    println!("{} mutants to judge", mutants.len());

    let results = Mutex::new(OpenOptions::new().append(true).create(true).open(folder.data.join("judged.jsonl"))?);
    let queue = Mutex::new(mutants.into_iter());
    let work = || -> Result<()> {
        loop {
            let Some(mutant) = queue.lock().expect("no panic").next() else { return Ok(()) };
            let line = serde_json::to_string(&judged(&runner, &tests, &mutant)?)? + "\n";
            results.lock().expect("no panic").write_all(line.as_bytes())?;
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no panic"))
    })
}

fn judged(runner: &Runner<'_>, tests: &[Test], mutant: &Mutant) -> Result<Judgement> {
    let began = Instant::now();
    let reaching: Vec<&Test> = tests.iter().filter(|test| test.reached.contains(&mutant.number)).collect();
    let (mut outcome, mut by) = (if reaching.is_empty() { Outcome::Unreached } else { Outcome::Missed }, String::new());
    for batch in batches(reaching) {
        if let Some((how, test)) = failure(runner, &batch, mutant.number)? {
            (outcome, by) = (how, test);
            break;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{outcome:?} {} {by} ({seconds:.0} s)", mutant.name);
    Ok(Judgement { name: mutant.name.clone(), outcome, by, seconds })
}

/// The quick ones of each suite together, then the others one by one, the quickest first.
fn batches(mut tests: Vec<&Test>) -> Vec<Vec<&Test>> {
    tests.sort_by(|a, b| a.rank().cmp(&b.rank()).then(a.seconds.total_cmp(&b.seconds)));
    let (quick, mut slow): (Vec<&Test>, Vec<&Test>) = tests.into_iter().partition(|test| test.seconds < QUICK_SECS);
    let (mut batches, mut seconds): (Vec<Vec<&Test>>, f64) = (Vec::new(), 0.0);
    for test in quick {
        match batches.last_mut() {
            Some(batch) if batch[0].suite == test.suite && seconds < BATCH_SECS => batch.push(test),
            _ => {
                seconds = 0.0;
                batches.push(vec![test]);
            }
        }
        seconds += test.seconds;
    }
    slow.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    batches.extend(slow.into_iter().map(|test| vec![test]));
    batches
}

/// The test that fails with this mutant on. It has to fail twice: some look at a clock.
fn failure(runner: &Runner<'_>, batch: &[&Test], number: usize) -> Result<Option<(Outcome, String)>> {
    let number = number.to_string();
    let run = |tests: &[&Test]| {
        let seconds: f64 = tests.iter().map(|test| test.seconds).sum();
        runner.run(tests, ("MUTANT", &number), Duration::from_secs_f64(10.0 + 5.0 * seconds))
    };
    let name = |test: &Test| format!("{}::{}", test.suite, test.name);
    let failed = match run(batch)? {
        Ended::Passed => return Ok(None),
        Ended::Hung => return Ok(Some((Outcome::Hangs, name(batch[0])))),
        Ended::Failed(names) => names,
    };
    let named = |test: &&&Test| failed.contains(&test.name);
    let mut again: Vec<Vec<&Test>> = batch.iter().filter(named).take(3).map(|test| vec![*test]).collect();
    if again.is_empty() {
        again.push(batch.to_vec());
    }
    for tests in again {
        match run(&tests)? {
            Ended::Passed => {}
            Ended::Hung => return Ok(Some((Outcome::Hangs, name(tests[0])))),
            Ended::Failed(_) => return Ok(Some((Outcome::Found, name(tests[0])))),
        }
    }
    Ok(None)
}

/// FNV-1a, and its bits mixed: the same on every machine.
fn hash(text: &str) -> u64 {
    let sum = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (sum ^ (sum >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
