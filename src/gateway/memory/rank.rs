//! Which notes answer a search best.
//!
//! Pure: a backend gives, for each term of the search, the notes that have it. A rare term says more than a common one, a
//! short note that has it more than a long one, and what was stored on purpose more than what was merely said.

use std::collections::HashMap;

/// Terms of a search that are looked up.
pub(super) const QUERY_TERMS: usize = 24;
/// A note of about so many terms is of normal length.
const NORMAL_LENGTH: f64 = 20.0;
/// How strongly the length of a note counts, 0 to 1.
const LENGTH_WEIGHT: f64 = 0.5;
/// What was stored on purpose counts so much more than what was said.
const ON_PURPOSE: f64 = 3.0;

/// How much a term says that so many of all notes have.
pub(super) fn weight(with_term: f64, all: f64) -> f64 {
    (1.0 + (all - with_term + 0.5).max(0.0) / (with_term + 0.5)).ln()
}

/// Adds up what the terms say for each note.
#[derive(Default)]
pub(super) struct Tally(HashMap<i64, f64>);

impl Tally {
    pub(super) fn add(&mut self, note: i64, weight: f64) {
        *self.0.entry(note).or_default() += weight;
    }

    /// The notes that matched most, best first, newest first among equals.
    pub(super) fn best(self, limit: usize) -> Vec<(i64, f64)> {
        let mut all: Vec<(i64, f64)> = self.0.into_iter().collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(b.0.cmp(&a.0)));
        all.truncate(limit);
        all
    }
}

/// The score of a note: what its terms say, by its length and by how it came to be stored.
pub(super) fn score(matched: f64, terms: usize, on_purpose: bool) -> f64 {
    let length = 1.0 - LENGTH_WEIGHT + LENGTH_WEIGHT * terms as f64 / NORMAL_LENGTH;
    matched / length.max(0.6) * if on_purpose { ON_PURPOSE } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_terms_say_more_and_a_term_of_all_notes_says_little() {
        assert!(weight(1.0, 1_000.0) > weight(100.0, 1_000.0));
        assert!(weight(1_000.0, 1_000.0) > 0.0 && weight(1_000.0, 1_000.0) < 0.01);
    }

    #[test]
    fn short_notes_and_notes_on_purpose_come_first() {
        assert!(score(2.0, 10, false) > score(2.0, 200, false));
        assert!(score(2.0, 20, true) > score(4.0, 20, false));
        assert!(score(2.0, 1, false) <= score(2.0, 4, false) + 1e-9, "a single word is no better than a sentence");
    }

    #[test]
    fn the_best_come_first_and_the_newest_of_equals() {
        let mut tally = Tally::default();
        for (note, weight) in [(1, 1.0), (2, 1.0), (3, 0.5), (1, 1.0), (4, 0.5)] {
            tally.add(note, weight);
        }
        let best: Vec<i64> = tally.best(3).into_iter().map(|(note, _)| note).collect();
        assert_eq!(best, [1, 2, 4]);
    }
}
