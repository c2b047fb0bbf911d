//! Which known word a typo was meant to be.

/// The known word that is closest to `word`, unless they have nothing in common.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(2);
    known.map(|known| (distance(word, known), known)).filter(|(far, _)| *far <= limit).min().map(|(_, known)| known)
}

/// How many letters must be put in, taken out or exchanged (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    // Row by row: `row[j]` is the distance of what was read of `a` to the first `j` letters of `b`.
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let exchanged = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = exchanged.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_textbook() {
        for (a, b, far) in [("", "", 0), ("kitten", "sitting", 3), ("bind", "bnid", 2), ("", "abc", 3), ("é", "e", 1)]
        {
            assert_eq!(distance(a, b), far, "{a} {b}");
            assert_eq!(distance(b, a), far, "{b} {a}");
        }
    }

    #[test]
    fn only_something_close_is_suggested() {
        let known = ["health.interval_secs", "health.retry_secs", "bind"];
        assert_eq!(nearest("health.intervall_sec", known.into_iter()), Some("health.interval_secs"));
        assert_eq!(nearest("helth.retry_secs", known.into_iter()), Some("health.retry_secs"));
        assert_eq!(nearest("bnd", known.into_iter()), Some("bind"));
        assert_eq!(nearest("telemetry.endpoint", known.into_iter()), None);
    }
}
