//! How runs ended that the engine replaced before they were observed.
//!
//! A container that its restart policy brought up again says nothing more about its last exit. The engine's events do, so
//! what they said is kept until the next exit. An event may be lost, and with it how a run ended: it helps to tell what
//! ended by itself, by its memory, or by somebody's order, and nothing else is decided by it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::Exit;

/// SIGKILL, which is how the kernel ends what has too much memory.
const KILLED: i32 = 128 + 9;

/// What the events said of each container since the last gap.
#[derive(Default)]
pub(super) struct ExitHistory(Mutex<HashMap<String, Notes>>);

#[derive(Default)]
struct Notes {
    /// The engine was asked to end the run.
    asked: bool,
    /// The run reached its memory limit.
    out_of_memory: bool,
    over: bool,
    /// How the last run ended.
    last: Option<Exit>,
}

impl ExitHistory {
    /// Takes an event into account. Only those of exits and starts matter here, in Docker's words or Podman's.
    pub(super) fn record(&self, container: &str, action: &str, exit_code: Option<i32>) {
        let mut all = self.lock();
        if matches!(action, "destroy" | "remove") {
            all.remove(container);
            return;
        }
        let notes = all.entry(container.to_owned()).or_default();
        match action {
            "start" => *notes = Notes { last: notes.last.take(), ..Notes::default() },
            "kill" => notes.asked = true,
            // Memory and exits reach the engine on two ways: this may be the later event.
            "oom" if notes.over => {
                if let Some(exit) = notes.last.as_mut().filter(|exit| !exit.asked) {
                    exit.oom = exit.code == Some(KILLED);
                }
            }
            "oom" => notes.out_of_memory = true,
            "die" | "died" => {
                let asked = notes.asked;
                let oom = !asked && notes.out_of_memory && exit_code == Some(KILLED);
                *notes = Notes {
                    over: true,
                    last: Some(Exit { code: exit_code, oom, asked, reason: None }),
                    ..Notes::default()
                };
            }
            _ => {}
        }
    }

    /// How the container's last run ended, if an event told.
    pub(super) fn last_exit(&self, container: &str) -> Option<Exit> {
        self.lock().get(container)?.last.clone()
    }

    /// Whether the engine was asked to end the run that is over with this status. The order may be known before the end.
    pub(super) fn was_asked(&self, container: &str, code: Option<i32>) -> bool {
        let told = |exit: &Exit| exit.asked && exit.code == code;
        self.lock().get(container).is_some_and(|notes| notes.asked || notes.last.as_ref().is_some_and(told))
    }

    /// Events may have been missed.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Notes>> {
        // Nothing can panic between two halves of a change here.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(events: &[(&str, Option<i32>)]) -> Option<Exit> {
        let history = ExitHistory::default();
        for (action, exit_code) in events {
            history.record("c", action, *exit_code);
            history.record("another", "die", Some(7));
        }
        history.last_exit("c")
    }

    #[test]
    fn an_end_is_told_by_its_code_its_memory_and_whether_it_was_asked_for() {
        let exit = |code, oom| Some(Exit { code: Some(code), oom, asked: false, reason: None });
        let asked = Some(Exit { code: Some(137), oom: false, asked: true, reason: None });
        let (die, start, oom, kill) = (("die", Some(137)), ("start", None), ("oom", None), ("kill", None));
        let table = [
            (vec![], None),
            (vec![start], None),
            (vec![start, die], exit(137, false)),
            (vec![start, ("die", Some(3)), start], exit(3, false)),
            (vec![start, ("died", Some(3)), start], exit(3, false)),
            (vec![start, oom, die, start], exit(137, true)),
            (vec![start, die, oom, start], exit(137, true)),
            // A child of the first process had too much: that one ended in another way.
            (vec![start, oom, ("die", Some(1))], exit(1, false)),
            (vec![start, kill, die, start], asked.clone()),
            (vec![oom, kill, die, start], asked.clone()),
            // Each run has its own end.
            (vec![start, oom, die, start, die], exit(137, false)),
            (vec![start, kill, start, die], exit(137, false)),
            (vec![start, die, start, kill, die], asked.clone()),
            (vec![start, die, ("pause", None), ("rename", None)], exit(137, false)),
            (vec![start, die, ("destroy", None)], None),
            (vec![start, die, ("remove", None)], None),
        ];
        for (events, expected) in table {
            assert_eq!(told(&events), expected, "{events:?}");
        }
    }

    #[test]
    fn an_order_counts_for_the_run_that_it_was_given_to() {
        let history = ExitHistory::default();
        let asked = |action, code| {
            history.record("c", action, code);
            history.was_asked("c", Some(143))
        };
        assert!(!asked("start", None));
        assert!(asked("kill", None), "before its end is told");
        assert!(asked("die", Some(143)));
        assert!(asked("start", None), "the last run's end");
        assert!(!asked("die", Some(143)), "the next one ended by itself");
    }

    #[test]
    fn after_a_gap_nothing_is_known() {
        let history = ExitHistory::default();
        history.record("c", "die", Some(3));
        history.clear();
        assert_eq!(history.last_exit("c"), None);
    }
}
