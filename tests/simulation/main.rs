//! The whole control plane on fakes, under virtual time, with everything going wrong that a seed can think of.
//!
//! A seed decides commands, faults, hands that meddle, and where the service is cut off: in a commit, before or after it is
//! durable, or between any two turns of its tasks. The next life takes up what is on the disk. After the last one everything
//! outside is well again, and all must come to rest. What must hold is in `zeroone::testkit::Invariant`.
//!
//! - `ZEROONE_SIM_SEEDS=2000` runs so many seeds (200 by default);
//! - `ZEROONE_SIM_SEED=17` replays one, with its history;
//! - `ZEROONE_SIM_SECS=3600` goes on with new seeds for so long: the nightly mode.
//!
//! `checks` shows that every check can fail, `weeks` that nothing grows.
#![cfg(feature = "testkit")]

mod checks;
mod script;
mod weeks;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use world::{History, run};
use zeroone::testkit::Invariant;
use zeroone::testkit::Sabotage;

/// How many seeds a plain `cargo test` runs.
const SEEDS: u64 = 200;

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// The line that replays a seed.
fn report(history: &History) -> String {
    let violations: Vec<String> = history.violations.iter().map(ToString::to_string).collect();
    let seed = history.seed;
    let replay = format!("ZEROONE_SIM_SEED={seed} cargo test --all-features --test simulation one_seed -- --nocapture");
    format!("seed {seed}: {} | replay: {replay}", violations.join("; "))
}

/// Runs seeds on all cores until `go_on` says no; gives the failures.
fn sweep(first: u64, go_on: impl Fn(u64) -> bool + Sync) -> (u64, Vec<String>) {
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let failures = std::thread::scope(|scope| {
        let work = || {
            let mut failures = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if !go_on(seed - first) {
                    return failures;
                }
                let history = run(seed, None);
                if !history.violations.is_empty() {
                    failures.push(report(&history));
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a simulation does not panic")).collect()
    });
    (next.into_inner() - first - threads as u64, failures)
}

#[test]
fn whatever_dies_when_everything_that_must_hold_holds() {
    let began = Instant::now();
    let (seeds, failures) = match number("ZEROONE_SIM_SECS") {
        Some(secs) => {
            let first = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs() << 16);
            sweep(first, |_| began.elapsed() < Duration::from_secs(secs))
        }
        None => {
            let seeds = number("ZEROONE_SIM_SEEDS").unwrap_or(SEEDS);
            sweep(0, |n| n < seeds)
        }
    };
    println!("{seeds} seeds in {:.1?}", began.elapsed());
    assert!(failures.is_empty(), "{} of {seeds} seeds failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn one_seed() {
    let seed = number("ZEROONE_SIM_SEED").unwrap_or(1);
    let history = run(seed, None);
    for line in &history.lines {
        println!("{line}");
    }
    assert!(history.violations.is_empty(), "{}", report(&history));
}

#[test]
fn the_same_seed_has_the_same_history() {
    let mut lines = 0;
    for seed in 1000..1012 {
        let (first, second) = (run(seed, None), run(seed, None));
        let differ = first.lines.iter().zip(&second.lines).find(|(first, second)| first != second);
        assert_eq!(differ, None, "seed {seed}");
        assert_eq!(first.lines.len(), second.lines.len(), "seed {seed}");
        lines += first.lines.len();
    }
    assert!(lines > 500, "twelve seeds do next to nothing: {lines} lines");
}

/// Seeds within which a planted bug must show.
const SEEDS_FOR_A_BUG: u64 = 100;

#[track_caller]
fn finds(sabotage: Sabotage, by: Invariant) {
    let shows = |seed: &u64| run(*seed, Some(sabotage)).violations.iter().any(|violation| violation.invariant == by);
    let found = (0..SEEDS_FOR_A_BUG).find(shows);
    println!("{sabotage:?} shows as {by:?} with seed {found:?}");
    assert!(found.is_some(), "{sabotage:?} was not found in {SEEDS_FOR_A_BUG} seeds");
}

#[test]
fn an_effect_without_its_commit_is_found() {
    finds(Sabotage::SkipIntentCommit, Invariant::IntentFirst);
}

#[test]
fn news_of_an_older_attempt_that_count_are_found() {
    finds(Sabotage::ForgetAttemptCheck, Invariant::NewsOfThisRun);
}

#[test]
fn a_port_that_is_given_back_too_early_is_found() {
    finds(Sabotage::ReleasePortEarly, Invariant::RunsAreRecorded);
}
