//! Which mutant is switched on, and which were reached. It is written into the copy of the sources that mutants are planted in.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// More than there are mutants.
const MOST: usize = 1 << 16;

/// The number of the mutant that is on; 0 is none.
static ON: LazyLock<usize> =
    LazyLock::new(|| std::env::var("MUTANT").ok().and_then(|number| number.parse().ok()).unwrap_or(0));

/// Where the number of each mutant is noted that is reached.
static REACHED: LazyLock<Option<File>> = LazyLock::new(|| {
    let path = std::env::var_os("MUTANTS_REACHED")?;
    OpenOptions::new().append(true).create(true).open(path).ok()
});

static NOTED: [AtomicBool; MOST] = [const { AtomicBool::new(false) }; MOST];

/// Whether this mutant is on.
pub fn on(number: usize) -> bool {
    if let Some(mut file) = REACHED.as_ref() {
        if !NOTED[number].swap(true, Ordering::Relaxed) {
            // One call for the line: whoever is killed leaves all of it or nothing.
            let _ = file.write_all(format!("{number}\n").as_bytes());
        }
    }
    *ON == number
}
