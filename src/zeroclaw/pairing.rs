//! The lines with which a starting gateway announces its one-time pairing code.
//!
//! ```text
//!   🔐 PAIRING REQUIRED — use this one-time code:
//!      ┌──────────────┐
//!      │  622406  │
//!      └──────────────┘
//!      Send: POST /pair with header X-Pairing-Code: 622406
//! ```
//!
//! Only whole lines count. A log also holds what strangers sent to the agent, and a line that merely *contains* such words
//! must not choose the code that we try: wrong codes count towards a lockout. Which run the lines belong to is the caller's
//! affair; old codes stay in a log.

use crate::domain::Secret;
use crate::plain::plain;

/// What a gateway says about pairing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Announcement {
    /// It waits for a client with this code.
    Code(Secret<String>),
    /// It is paired already: no code will come in this run, a held token works.
    Active,
}

/// Reads one run's output line by line, oldest first.
#[derive(Debug, Clone, Default)]
pub struct CodeScanner {
    banner: Banner,
    latest: Option<Announcement>,
}

/// How much of the boxed form was seen, in the lines right before this one.
#[derive(Debug, Clone, Copy, Default)]
enum Banner {
    #[default]
    Outside,
    Heading,
    BoxTop,
}

impl CodeScanner {
    /// For a run of which nothing was read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next line and answers what it announces, if it is such a line.
    pub fn read(&mut self, line: &str) -> Option<Announcement> {
        let line = plain(line);
        let line = line.trim();
        let boxed = self.boxed(line);
        let announced = boxed.or_else(|| instruction(line)).map(|code| Announcement::Code(code.into()));
        let announced = announced.or_else(|| is_active(line).then_some(Announcement::Active));
        if announced.is_some() {
            self.latest.clone_from(&announced);
        }
        announced
    }

    /// The last announcement so far: a gateway that prints two codes takes the second.
    pub const fn latest(&self) -> Option<&Announcement> {
        self.latest.as_ref()
    }

    /// The code in force; `None` where none was announced, or the gateway is paired already.
    pub const fn code(&self) -> Option<&Secret<String>> {
        match &self.latest {
            Some(Announcement::Code(code)) => Some(code),
            Some(Announcement::Active) | None => None,
        }
    }

    /// The code inside the box: heading, upper border and code must follow each other without a line between.
    fn boxed<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        let (next, code) = match self.banner {
            Banner::Heading if is_border(line) => (Banner::BoxTop, None),
            Banner::BoxTop => (Banner::Outside, inside_box(line)),
            Banner::Outside | Banner::Heading if is_heading(line) => (Banner::Heading, None),
            Banner::Outside | Banner::Heading => (Banner::Outside, None),
        };
        self.banner = next;
        code
    }
}

fn is_heading(line: &str) -> bool {
    let line = line.strip_prefix('🔐').map_or(line, str::trim_start);
    line.starts_with("PAIRING REQUIRED") && line.ends_with("code:")
}

fn is_border(line: &str) -> bool {
    line.strip_prefix('┌')
        .and_then(|line| line.strip_suffix('┐'))
        .is_some_and(|line| !line.is_empty() && line.chars().all(|c| c == '─'))
}

fn inside_box(line: &str) -> Option<&str> {
    let code = line.strip_prefix('│')?.strip_suffix('│')?;
    if code.starts_with(' ') && code.ends_with(' ') { parse_code(code.trim()) } else { None }
}

/// `Send: POST /pair with header X-Pairing-Code: 622406`, the path perhaps with scheme and host before it.
fn instruction(line: &str) -> Option<&str> {
    let (target, code) = line.strip_prefix("Send: POST ")?.split_once(" with header X-Pairing-Code: ")?;
    if target.ends_with("/pair") && !target.contains(char::is_whitespace) { parse_code(code) } else { None }
}

fn is_active(line: &str) -> bool {
    line.starts_with("🔒 Pairing: ACTIVE")
}

/// The code that a line of plain text shows, whatever stands around the line: for those who hide it. The box of a log that
/// is cut off above it has no heading.
pub fn shown_code(line: &str) -> Option<&str> {
    let line = line.trim();
    inside_box(line).or_else(|| instruction(line))
}

/// Lengths of codes: six digits in ZeroClaw 0.1 to 0.7, 32 characters in 0.8.7, more by its configuration.
const CODE_LENGTH: std::ops::RangeInclusive<usize> = 6..=64;

/// Letters and digits, perhaps in groups with single hyphens between: `622406`, `ABCD-1234`.
fn parse_code(text: &str) -> Option<&str> {
    let grouped = text.split('-').all(|group| !group.is_empty() && group.bytes().all(|b| b.is_ascii_alphanumeric()));
    (CODE_LENGTH.contains(&text.len()) && grouped).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code_in(log: &str) -> Option<String> {
        let mut scanner = CodeScanner::new();
        for line in log.lines() {
            scanner.read(line);
        }
        scanner.code().map(|code| code.expose().clone())
    }

    const BANNER: &str = "🦀 ZeroClaw Gateway listening on http://[::]:42617
  🌐 Web Dashboard: http://[::]:42617/
  POST /pair      — pair a new client (X-Pairing-Code header)

  🔐 PAIRING REQUIRED — use this one-time code:
     ┌──────────────┐
     │  622406  │
     └──────────────┘
     Send: POST /pair with header X-Pairing-Code: 622406
  Press Ctrl+C to stop.";

    #[test]
    fn a_code_is_seen_in_any_part_of_a_log() {
        let shown: Vec<_> = BANNER.lines().filter_map(shown_code).collect();
        assert_eq!(shown, ["622406", "622406"]);
        assert_eq!(shown_code("the code is 622406"), None);
    }

    #[test]
    fn every_printed_form_is_read() {
        let boxed = BANNER.lines().take(7).collect::<Vec<_>>().join("\n");
        for (log, code) in [
            (BANNER, "622406"),
            (&boxed, "622406"),
            ("Send: POST /pair with header X-Pairing-Code: ABCD-1234", "ABCD-1234"),
            ("  Send: POST http://127.0.0.1:42617/pair with header X-Pairing-Code: 622406  ", "622406"),
            ("\x1b[1mSend: POST /pair with header X-Pairing-Code: 622406\x1b[0m\r", "622406"),
            (
                "Send: POST /pair with header X-Pairing-Code: 0123456789abcdefghijABCDEFGHIJ42",
                "0123456789abcdefghijABCDEFGHIJ42",
            ),
            ("PAIRING REQUIRED, code:\n┌──┐\n│ A1B2C3D4 │", "A1B2C3D4"),
            // A gateway that was started twice into the same log: the second code counts.
            (&format!("{BANNER}\n{}", BANNER.replace("622406", "111222")), "111222"),
        ] {
            assert_eq!(code_in(log).as_deref(), Some(code), "{log}");
        }
    }

    #[test]
    fn what_only_looks_like_a_code_is_not_one() {
        for log in [
            // A stranger's words inside a log line.
            "2026-11-22T19:39:01Z  WARN duplicate key X-Pairing-Code: 999999",
            "2026-11-22T19:39:01Z  INFO Send: POST /pair with header X-Pairing-Code: 999999",
            "Send: POST /pair with header X-Pairing-Code: 999999 (said a user)",
            "Send: POST /pair with header X-Pairing-Code: ",
            "Send: POST /pair with header X-Pairing-Code: 12345",
            "Send: POST /pair with header X-Pairing-Code: 12 3456",
            "Send: POST /pair with header X-Pairing-Code: --------",
            "Send: POST /pair and /x with header X-Pairing-Code: 999999",
            "Send: POST /repair2 with header X-Pairing-Code: 999999",
            &format!("Send: POST /pair with header X-Pairing-Code: {}", "9".repeat(65)),
            // A box that is not right under its heading.
            "     │  999999  │",
            "┌──────┐\n│  999999  │\n└──────┘",
            "PAIRING REQUIRED — use this one-time code:\n│  999999  │",
            "PAIRING REQUIRED — use this one-time code:\nhello\n┌──────┐\n│  999999  │",
            "PAIRING REQUIRED — use this one-time code:\n┌──────┐\nhello\n│  999999  │",
            "PAIRING REQUIRED — use this one-time code:\n┌──────┐\n│999999│",
            "2026-11-22T19:39:01Z PAIRING REQUIRED — use this one-time code:\n┌──────┐\n│  999999  │",
            // Another product's code.
            "  🔐 Telegram pairing required. One-time bind code: 423654",
            "",
        ] {
            assert_eq!(code_in(log), None, "{log}");
        }
    }

    #[test]
    fn a_gateway_that_is_paired_says_so() {
        let mut scanner = CodeScanner::new();
        assert_eq!(scanner.read("INFO: 🔒 Pairing: ACTIVE"), None);
        assert_eq!(scanner.read("  🔒 Pairing: ACTIVE (bearer token required)"), Some(Announcement::Active));
        assert_eq!((scanner.latest(), scanner.code()), (Some(&Announcement::Active), None));
    }

    #[test]
    fn the_code_cannot_be_printed() {
        let mut scanner = CodeScanner::new();
        scanner.read("Send: POST /pair with header X-Pairing-Code: 622406");
        assert!(!format!("{scanner:?}").contains("622406"));
    }

    proptest! {
        #[test]
        fn noise_is_never_a_code(log in "(.|\n){0,300}") {
            prop_assert_eq!(code_in(&log), None);
        }

        /// Whatever stands before the words on their line, or after them, makes them a stranger's words.
        #[test]
        fn words_inside_a_line_are_never_a_code(
            before in "[!-~]{1,40}",
            after in "[!-~]{1,40}",
            code in "[0-9]{6}",
            form in 0..3_usize,
        ) {
            let words = [
                format!("Send: POST /pair with header X-Pairing-Code: {code}"),
                format!("X-Pairing-Code: {code}"),
                format!("│  {code}  │"),
            ][form].clone();
            prop_assert_eq!(code_in(&format!("{before} {words}")), None);
            prop_assert_eq!(code_in(&format!("{words} {after}")), None);
        }

        #[test]
        fn every_valid_code_is_read_in_both_forms(code in "[0-9]{6}|[A-Z0-9]{4}-[A-Z0-9]{4}|[A-Za-z0-9]{6,64}") {
            let boxed = format!("  🔐 PAIRING REQUIRED — use this one-time code:\n  ┌──────┐\n  │  {code}  │\n");
            prop_assert_eq!(code_in(&boxed), Some(code.clone()));
            let line = format!("Send: POST /pair with header X-Pairing-Code: {code}");
            prop_assert_eq!(code_in(&line), Some(code));
        }
    }
}
