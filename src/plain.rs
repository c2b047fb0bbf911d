//! A program's output as plain text: without colours, cursor moves and control characters.
//!
//! Programs colour their logs even where no terminal is. What is kept and shown is text alone: nobody's terminal obeys
//! what an agent printed.

use std::borrow::Cow;

/// `line` without ANSI escape sequences and without control characters other than tabs.
pub(crate) fn plain(line: &str) -> Cow<'_, str> {
    if !line.chars().any(unwanted) {
        return Cow::Borrowed(line);
    }
    let mut text = String::with_capacity(line.len());
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        if c == ESCAPE {
            skip_sequence(&mut rest);
        } else if !unwanted(c) {
            text.push(c);
        }
    }
    Cow::Owned(text)
}

const ESCAPE: char = '\x1b';
const BELL: char = '\x07';

fn unwanted(c: char) -> bool {
    c.is_control() && c != '\t'
}

/// Skips the rest of an escape sequence (ECMA-48): `ESC [ … final`, `ESC ] … BEL`, `ESC ] … ESC \`, or `ESC` and one more.
fn skip_sequence(rest: &mut std::str::Chars<'_>) {
    match rest.next() {
        Some('[') => {
            rest.find(|c| ('\x40'..='\x7e').contains(c));
        }
        Some(']') => {
            if rest.find(|c| matches!(*c, BELL | ESCAPE)) == Some(ESCAPE) {
                rest.next();
            }
        }
        Some(_) | None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_control_characters_go_and_text_stays() {
        for (line, text) in [
            ("plain äöü 🦀\ttab", "plain äöü 🦀\ttab"),
            ("\x1b[2m2026-11-22T19:39:01Z\x1b[0m \x1b[32m INFO\x1b[0m up", "2026-11-22T19:39:01Z  INFO up"),
            ("\x1b[38;5;196mred\x1b[m", "red"),
            ("\x1b]0;title\x07shown", "shown"),
            ("\x1b]8;;http://x\x1b\\link", "link"),
            ("bell\x07 back\x08 return\r", "bell back return"),
            ("cut \x1b[31", "cut "),
            ("cut \x1b", "cut "),
            ("", ""),
        ] {
            assert_eq!(plain(line), text, "{line:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_comes_out_is_printable_and_stays_the_same(line in ".*") {
            let text = plain(&line).into_owned();
            proptest::prop_assert!(!text.chars().any(unwanted));
            proptest::prop_assert_eq!(plain(&text), text.as_str());
        }
    }
}
