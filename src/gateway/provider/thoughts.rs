//! Thoughts that a model writes in front of its answer, between `<think>` and `</think>`.
//!
//! A server that knows its model gives them a member of their own. One that does not leaves them in the text, where they are for
//! nobody: not for the person who asked, and not for the next call.

const TAGS: [(&str, &str); 2] = [("<think>", "</think>"), ("<thinking>", "</thinking>")];

/// The answer without the thoughts before it.
pub(super) fn without(text: &str) -> String {
    let mut thoughts = Thoughts::default();
    let mut answer = thoughts.push(text.to_owned());
    answer.push_str(&thoughts.end());
    answer
}

/// Takes the thoughts out of an answer that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Thoughts(State);

#[derive(Debug)]
enum State {
    /// What came may be the beginning of a tag.
    Begins(String),
    /// Within thoughts that end with this tag. As much of the end of the last piece as may be the beginning of it.
    Inside(&'static str, String),
    /// Between the thoughts and the answer.
    Behind,
    Answer,
}

impl Default for State {
    fn default() -> Self {
        Self::Begins(String::new())
    }
}

impl Thoughts {
    /// What of this piece, and of those held back before it, is for the reader.
    pub(super) fn push(&mut self, piece: String) -> String {
        let (state, out) = match std::mem::take(&mut self.0) {
            State::Answer => (State::Answer, piece),
            State::Behind => behind(&piece),
            State::Begins(held) => begins(held + &piece),
            State::Inside(tag, held) => inside(tag, held + &piece),
        };
        self.0 = state;
        out
    }

    /// What was held back and turned out to be no tag.
    pub(super) fn end(&mut self) -> String {
        match std::mem::replace(&mut self.0, State::Answer) {
            State::Begins(held) => held,
            State::Inside(..) | State::Behind | State::Answer => String::new(),
        }
    }
}

fn begins(text: String) -> (State, String) {
    let start = text.trim_start();
    for (open, close) in TAGS {
        if let Some(rest) = start.strip_prefix(open) {
            return inside(close, rest.to_owned());
        }
    }
    if TAGS.iter().any(|(open, _)| open.starts_with(start)) {
        (State::Begins(text), String::new())
    } else {
        (State::Answer, text)
    }
}

fn inside(tag: &'static str, text: String) -> (State, String) {
    if let Some(at) = text.find(tag) {
        return behind(&text[at + tag.len()..]);
    }
    // No more is kept than the beginning of a tag.
    let kept = (1..tag.len()).rev().find(|length| text.ends_with(&tag[..*length])).unwrap_or(0);
    (State::Inside(tag, text[text.len() - kept..].to_owned()), String::new())
}

fn behind(text: &str) -> (State, String) {
    let answer = text.trim_start();
    if answer.is_empty() { (State::Behind, String::new()) } else { (State::Answer, answer.to_owned()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_thoughts_before_the_answer_go() {
        for (text, answer) in [
            ("<think>so\nor so</think>\n\nYes.", "Yes."),
            ("\n<think>\n\n</think>\n\nYes.", "Yes."),
            ("<thinking>a < b</thinking>Yes.", "Yes."),
            ("<think>never ended", ""),
            ("Yes. <think>no</think>", "Yes. <think>no</think>"),
            ("<thin air>", "<thin air>"),
            ("  indented", "  indented"),
            ("<th", "<th"),
            ("", ""),
        ] {
            assert_eq!(without(text), answer, "{text}");
        }
    }

    proptest! {
        #[test]
        fn pieces_give_the_same_as_the_whole(text in "( |\n)?(<think>|<thinking>|<thi)?[a<> /]{0,8}(</think>|</thinking>)?\n?[a<>é]{0,6}", size in 1_usize..6) {
            let mut thoughts = Thoughts::default();
            let mut answer = String::new();
            let letters: Vec<char> = text.chars().collect();
            for piece in letters.chunks(size) {
                answer.push_str(&thoughts.push(piece.iter().collect()));
            }
            answer.push_str(&thoughts.end());
            prop_assert_eq!(answer, without(&text));
        }
    }
}
