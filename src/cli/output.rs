//! What verbs print: JSON for programs, a table for people.

mod table;

use std::io::{IsTerminal as _, Write as _};

use rustix::event::{PollFd, PollFlags, poll};
use serde::Serialize;
use serde_json::Value;

use self::table::table;
use super::outcome::Failure;
use super::{Environment, variable};
use crate::domain::{Timestamp, is_misleading};

/// How answers are printed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Output {
    pub(super) json: bool,
    /// Tables with ids and all else.
    pub(super) wide: bool,
    colour: bool,
    /// Columns of the terminal; nothing where lines may be of any length.
    width: Option<usize>,
}

/// A column of a table: its head, and where in a row's JSON it is.
pub(super) type Column = (&'static str, &'static str);

/// One line on stdout. A reader that went away is no error.
pub(super) fn line(text: &str) {
    let _ = line_read(text);
}

/// The same; `false` where the reader went away, as `head` does: whoever follows something has no reason to go on.
pub(super) fn line_read(text: &str) -> bool {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).is_ok()
}

/// A value as JSON on stdout.
pub(super) fn json(value: &impl Serialize) -> Result<(), Failure> {
    line(&escaped(&serde_json::to_string_pretty(value).map_err(Failure::of)?));
    Ok(())
}

/// Completes when the reader of standard output has gone away, so that a follower need not wait for its next line to
/// notice. Never for a file.
pub(super) async fn reader_gone() {
    let (gone, told) = tokio::sync::oneshot::channel();
    // Ends with the process: a poll without a time limit has no other end.
    let watch = move || {
        let stdout = std::io::stdout();
        let watched = || poll(&mut [PollFd::new(&stdout, PollFlags::empty())], None);
        if rustix::io::retry_on_intr(watched).is_ok() {
            let _ = gone.send(());
        }
    };
    let watching = std::thread::Builder::new().name("stdout".into()).spawn(watch);
    if watching.is_err() || told.await.is_err() {
        std::future::pending().await
    }
}

/// JSON whose texts have no character that a terminal obeys or that hides: they can only be inside of strings.
pub(super) fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if (c.is_control() && c != '\n') || is_misleading(c) {
            let mut units = [0; 2];
            c.encode_utf16(&mut units).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}")));
        } else {
            text.push(c);
        }
    }
    text
}

impl Output {
    pub(super) fn new(json: bool, wide: bool, environment: &Environment) -> Self {
        let stdout = std::io::stdout();
        let set = |name: &str| variable(environment, name).filter(|value| !value.is_empty());
        let terminal = stdout.is_terminal();
        let columns = set("COLUMNS").and_then(|columns| columns.parse().ok());
        let of_terminal = || rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
        let width = columns.or_else(|| if terminal { of_terminal() } else { None });
        Self {
            json,
            wide,
            colour: terminal && set("NO_COLOR").is_none() && set("TERM") != Some("dumb"),
            width: width.filter(|width| *width >= table::NARROWEST && !wide),
        }
    }

    /// Something that was done: a sentence, or the same as JSON.
    pub(super) fn done(self, value: &Value, sentence: &str) -> Result<(), Failure> {
        if self.json {
            return json(value);
        }
        line(sentence);
        Ok(())
    }

    /// One thing: all its members, or the whole JSON.
    pub(super) fn one(self, value: &Value) -> Result<(), Failure> {
        let Value::Object(members) = value else { return json(value) };
        if self.json {
            return json(value);
        }
        let width = members.keys().map(String::len).max().unwrap_or(0);
        for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
            line(&format!("{name:width$}  {}", self.status(&named_cell(name, value))));
        }
        Ok(())
    }

    /// Many things: a row each.
    pub(super) fn many(self, columns: &[Column], rows: &[Value]) -> Result<(), Failure> {
        if self.json {
            return json(&rows);
        }
        let cells = rows.iter().map(|row| columns.iter().map(|(_, at)| named_cell(at, &row[*at])).collect());
        let head = columns.iter().map(|(head, _)| (*head).to_owned()).collect();
        for row in table(head, cells.collect(), self.width) {
            line(row.split(' ').map(|word| self.status(word)).collect::<Vec<_>>().join(" ").trim_end());
        }
        Ok(())
    }

    /// Colours a status, and leaves every other word alone.
    pub(super) fn status(self, word: &str) -> String {
        let colour = match word {
            "RUNNING" => 32,
            "PENDING" | "STARTING" | "STOPPING" => 33,
            "ERROR" => 31,
            "STOPPED" => 2,
            _ => return word.to_owned(),
        };
        if self.colour { format!("\u{1b}[{colour}m{word}\u{1b}[0m") } else { word.to_owned() }
    }
}

/// A member's value on one line; times to the second.
fn named_cell(name: &str, value: &Value) -> String {
    match value.as_str() {
        Some(time) if name == "time" || name.ends_with("At") => second(time),
        _ => cell(value),
    }
}

/// A time without what comes after its second.
pub(super) fn second(time: &str) -> String {
    time.parse::<Timestamp>().map_or_else(|_| plain(time), |time| time.strftime("%FT%TZ").to_string())
}

/// A value on one line, without characters that a terminal would obey: names are other people's text.
pub(super) fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(|item| !item.is_object()) => {
            items.iter().map(cell).collect::<Vec<_>>().join(",")
        }
        Value::Object(members) if members.contains_key("message") => cell(&members["message"]),
        other => other.to_string(),
    };
    plain(&text)
}

/// The text without control characters, and without those that hide or change the direction.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_misleading(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_told_to_the_second() {
        assert_eq!(named_cell("createdAt", &json!("2026-11-26T13:45:46.410203689Z")), "2026-11-26T13:45:46Z");
        assert_eq!(named_cell("name", &json!("2026-11-26T13:45:46.41Z")), "2026-11-26T13:45:46.41Z");
        assert_eq!(named_cell("time", &json!("soon\u{1b}")), "soon\u{fffd}");
    }

    #[test]
    fn json_has_no_character_that_a_terminal_obeys() {
        let json = serde_json::to_string_pretty(&json!({ "a\u{9b}": "\u{1b}[2J\u{202e}\u{1fffe}é\n" })).unwrap();
        let text = escaped(&json);
        assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || is_misleading(c)), "{text}");
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read, serde_json::from_str::<Value>(&json).unwrap());
    }

    #[test]
    fn a_name_cannot_command_the_terminal() {
        assert_eq!(cell(&json!("a\u{1b}[31m\nb")), "a\u{fffd}[31m\u{fffd}b");
        assert_eq!(cell(&json!(["a", "b"])), "a,b");
        assert_eq!(cell(&json!({ "code": "c", "message": "why\n" })), "why\u{fffd}");
    }

    #[test]
    fn only_statuses_are_coloured_and_only_where_colours_are_wanted() {
        let colour = Output { colour: true, ..Output::default() };
        assert_eq!(colour.status("RUNNING"), "\u{1b}[32mRUNNING\u{1b}[0m");
        assert_eq!(colour.status("RUNNING!"), "RUNNING!");
        assert_eq!(Output { colour: false, ..colour }.status("RUNNING"), "RUNNING");
    }
}
