//! The search terms of a text.
//!
//! A term is a word in lower case without accents, so that `gruntee` finds `Grüntee`. Scripts that put no blanks between
//! words (Chinese, Japanese, Thai and others) have no words that a program without a dictionary could find: there every
//! character and every pair of neighbours is a term.

use std::collections::HashSet;

use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};

use crate::gateway::persona::head;

/// Longest term, in characters: what is longer is no word that somebody searches for.
const LENGTH: usize = 48;

/// The distinct terms of a text in the order in which they appear, at most `limit`.
pub(super) fn terms(text: &str, limit: usize) -> Vec<String> {
    let mut found = Terms { seen: HashSet::new(), list: Vec::new(), limit };
    let folded = fold(text);
    for word in folded.split(|c: char| !is_part_of_word(c)).filter(|word| !word.is_empty()) {
        found.word(word);
        if found.list.len() >= limit {
            break;
        }
    }
    found.list
}

/// As much of a long question as is searched by, in bytes: its beginning and its end, where people say what they want.
const QUESTION: usize = 4_096;

/// The terms to search for: of a long text the longest ones, which say most. A run of a script without blanks is
/// searched for by its pairs alone; single characters match too much.
pub(super) fn query(text: &str, limit: usize) -> Vec<String> {
    /// Terms among which the longest are chosen.
    const CONSIDERED: usize = 1_024;
    let end = &text[text.ceil_char_boundary(text.len().saturating_sub(QUESTION).max(QUESTION).min(text.len()))..];
    let mut all = terms(&format!("{}\n{end}", head(text, QUESTION)), CONSIDERED);
    let lone = |term: &String| term.chars().count() == 1 && term.chars().all(has_no_blanks);
    if all.iter().any(|term| !lone(term)) {
        let pairs: HashSet<char> = all.iter().filter(|term| !lone(term)).flat_map(|term| term.chars()).collect();
        all.retain(|term| !lone(term) || !term.chars().all(|c| pairs.contains(&c)));
    }
    if all.len() > limit {
        // Stable: of equal length the first ones stay. A pair of ideographs says as much as a word of several letters.
        let weight = |term: &String| if term.chars().all(has_no_blanks) { 6 } else { term.chars().count() };
        all.sort_by_key(|term| std::cmp::Reverse(weight(term)));
        all.truncate(limit);
    }
    all
}

struct Terms {
    seen: HashSet<String>,
    list: Vec<String>,
    limit: usize,
}

impl Terms {
    /// Splits a word where its script changes between one with blanks and one without.
    fn word(&mut self, word: &str) {
        let mut rest = word;
        while let Some(first) = rest.chars().next() {
            let kind = has_no_blanks(first);
            let end = rest.char_indices().find(|(_, c)| has_no_blanks(*c) != kind).map_or(rest.len(), |(at, _)| at);
            let (run, behind) = rest.split_at(end);
            if kind {
                self.pairs(run)
            } else {
                self.add(run.chars().take(LENGTH).collect())
            }
            rest = behind;
        }
    }

    fn pairs(&mut self, run: &str) {
        let mut previous = None;
        for c in run.chars() {
            self.add(c.to_string());
            if let Some(previous) = previous {
                self.add([previous, c].into_iter().collect());
            }
            previous = Some(c);
            if self.list.len() >= self.limit {
                return;
            }
        }
    }

    fn add(&mut self, term: String) {
        if self.list.len() < self.limit && self.seen.insert(term.clone()) {
            self.list.push(term);
        }
    }
}

/// Lower case, compatibility forms resolved, without the accents of alphabets and the vowel points of Hebrew and Arabic.
/// Marks of other scripts are letters in all but name and stay.
fn fold(text: &str) -> String {
    let decomposed = DecomposingNormalizerBorrowed::new_nfkd().normalize(text);
    let mut bare = String::with_capacity(decomposed.len());
    for c in decomposed.chars().filter(|c| !is_accent(*c)).flat_map(char::to_lowercase) {
        match c {
            'ß' => bare.push_str("ss"),
            'æ' => bare.push_str("ae"),
            'œ' => bare.push_str("oe"),
            'ø' => bare.push('o'),
            'ł' => bare.push('l'),
            'đ' | 'ð' => bare.push('d'),
            'þ' => bare.push_str("th"),
            'ı' => bare.push('i'),
            'ς' => bare.push('σ'),
            c if is_accent(c) => {}
            c => bare.push(c),
        }
    }
    ComposingNormalizerBorrowed::new_nfc().normalize(&bare).into_owned()
}

const fn is_accent(c: char) -> bool {
    // Latin, Greek, Cyrillic; Hebrew points; Arabic vowel signs and the stretching mark.
    matches!(c, '\u{300}'..='\u{36f}' | '\u{591}'..='\u{5c7}' | '\u{610}'..='\u{61a}' | '\u{640}' | '\u{64b}'..='\u{65f}' | '\u{670}')
}

/// Letters, digits, and the marks of scripts whose vowels are marks.
fn is_part_of_word(c: char) -> bool {
    c.is_alphanumeric() || has_no_blanks(c) || is_vowel_sign(c)
}

/// Signs that stand for vowels in the scripts of India and its neighbours: without them a word falls apart.
const fn is_vowel_sign(c: char) -> bool {
    matches!(c, '\u{900}'..='\u{963}' | '\u{966}'..='\u{df4}' | '\u{3099}' | '\u{309a}')
}

/// Whether a character belongs to a script that does not separate its words, or (Korean) glues its particles to them.
const fn has_no_blanks(c: char) -> bool {
    matches!(c,
        '\u{e00}'..='\u{e4e}' | '\u{e80}'..='\u{ece}' // Thai, Lao
        | '\u{f40}'..='\u{fbc}' // Tibetan
        | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17d3}' // Burmese, Khmer
        | '\u{3005}'..='\u{3007}' | '\u{3041}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' // Japanese
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}'
        | '\u{ac00}'..='\u{d7a3}' // Korean
    ) && c != '\u{30fb}'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(note: &str, query_text: &str) -> bool {
        let note = terms(note, 1_000);
        let wanted = query(query_text, 32);
        !wanted.is_empty() && wanted.iter().any(|term| note.contains(term))
    }

    #[test]
    fn words_are_found_with_and_without_accents_and_in_any_case() {
        for (note, query) in [
            ("Ada trinkt Grüntee", "gruntee"),
            ("gruntee", "GRÜNTEE?"),
            ("Die Straße ist gesperrt", "STRASSE"),
            ("Łódź jest w Polsce", "lodz"),
            ("smørrebrød", "Smorrebrod"),
            ("Ηχώ της φωνής", "ΦΩΝΗΣ"),
            ("İstanbul'da", "istanbul"),
            ("café", "cafe\u{301}"),
            ("ﬁnance", "finance"),
            ("שָׁלוֹם", "שלום"),
            ("ёлка", "елка"),
        ] {
            assert!(matches(note, query), "{query} in {note}");
        }
        assert!(!matches("tea", "coffee"));
    }

    #[test]
    fn scripts_without_blanks_are_searched_by_pairs() {
        for (note, query) in [
            ("用户喜欢绿茶", "绿茶"),
            ("会議は火曜日の午後です", "火曜日?"),
            ("ผู้ใช้ชอบชาเขียว", "ชาเขียว"),
            ("회의는 화요일입니다", "화요일"),
            ("ជំរាបសួរពិភពលោក", "ពិភព"),
            ("မင်္ဂလာပါကမ္ဘာ", "ကမ္ဘာ"),
            ("用户喜欢绿茶", "茶"),
            ("iPhone15を買った", "iphone15"),
            ("ﾃﾚﾋﾞを見る", "テレビ"),
            ("हिन्दी में लिखा", "हिन्दी"),
        ] {
            assert!(matches(note, query), "{query} in {note}");
        }
        // One character in common is no match for a longer query.
        assert!(!matches("用户喜欢绿茶", "红茶"));
    }

    #[test]
    fn repeated_words_count_once_and_long_texts_are_bounded() {
        assert_eq!(terms(&"a ".repeat(30_000), 100), ["a"]);
        assert_eq!(query(&"a ".repeat(30_000), 32), ["a"]);
        let many: String = (0..9_000).map(|n| format!("word{n} ")).collect();
        assert_eq!(terms(&many, 1_000).len(), 1_000);
        assert_eq!(query(&many, 32).len(), 32);
        let long = format!("harbour {} lighthouse", "the ".repeat(20_000));
        assert!(["harbour", "lighthouse"].iter().all(|word| query(&long, 32).contains(&(*word).to_owned())));
        assert_eq!(query("the a of rhododendron at in", 1), ["rhododendron"]);
        assert!(query("?! -- 🫖", 32).is_empty());
    }

    proptest! {
        #[test]
        fn any_text_has_bounded_distinct_terms(text in any::<String>(), limit in 1usize..40) {
            let found = terms(&text, limit);
            let distinct: HashSet<&String> = found.iter().collect();
            prop_assert!(found.len() <= limit && distinct.len() == found.len());
            prop_assert!(found.iter().all(|term| !term.is_empty() && term.chars().count() <= LENGTH));
            prop_assert!(query(&text, limit).len() <= limit);
        }
    }
}
