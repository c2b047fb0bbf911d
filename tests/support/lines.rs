//! What a child prints, line by line, with a limit: a test whose line never comes fails and says so, it does not hang.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// How long a child may print nothing; far longer than it ever should on a busy machine.
const SILENCE: Duration = Duration::from_secs(90);
/// Lines that a test has not asked for yet; more than any of these children prints.
const MOST: usize = 1 << 16;

/// The lines of a child's output until it ends. They are read as they come, so the child never waits for the test.
pub struct Lines {
    read: Receiver<String>,
    given: Vec<String>,
}

impl Lines {
    pub fn of(output: impl Read + Send + 'static) -> Self {
        let (sender, read) = sync_channel(MOST);
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            // Read to the end also when nobody wants them any more: a closed pipe would end the child.
            lines.for_each(|line| drop(sender.send(line)));
        });
        Self { read, given: Vec::new() }
    }
}

impl Iterator for Lines {
    type Item = String;

    /// # Panics
    /// If no line comes in time: with those that came before.
    fn next(&mut self) -> Option<String> {
        let asked = Instant::now();
        let line = self.read.recv_timeout(SILENCE);
        if line == Err(RecvTimeoutError::Timeout) {
            panic!("no line for {} s after:\n{}", asked.elapsed().as_secs(), self.given.join("\n"));
        }
        self.given.extend(line.clone());
        line.ok()
    }
}
