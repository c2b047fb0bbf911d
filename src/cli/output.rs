//! What verbs print: JSON for programs, a table for people.

use std::io::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::outcome::Failure;
use crate::domain::is_misleading;

/// How answers are printed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) json: bool,
    pub(super) colour: bool,
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

/// JSON whose texts have no character that a terminal obeys or that hides: they can only be inside of strings.
fn escaped(json: &str) -> String {
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
    /// One thing: all its members, or the whole JSON.
    pub(super) fn one(self, value: &Value) -> Result<(), Failure> {
        let Value::Object(members) = value else { return json(value) };
        if self.json {
            return json(value);
        }
        let width = members.keys().map(String::len).max().unwrap_or(0);
        for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
            line(&format!("{name:width$}  {}", self.status(&cell(value))));
        }
        Ok(())
    }

    /// Many things: a row each.
    pub(super) fn many(self, columns: &[Column], rows: &[Value]) -> Result<(), Failure> {
        if self.json {
            return json(&rows);
        }
        for row in table(columns, rows) {
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

/// Head and rows, each column as wide as its widest cell.
fn table(columns: &[Column], rows: &[Value]) -> Vec<String> {
    let head = columns.iter().map(|(head, _)| (*head).to_owned()).collect();
    let cells: Vec<Vec<String>> = std::iter::once(head)
        .chain(rows.iter().map(|row| columns.iter().map(|(_, at)| cell(&row[*at])).collect()))
        .collect();
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect::<Vec<_>>().join("  ")
    };
    cells.iter().map(line).collect()
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
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [json!({ "id": "1", "name": "añb" }), json!({ "id": "12", "name": null })];
        let columns = [("ID", "id"), ("NAME", "name"), ("X", "x")];
        assert_eq!(table(&columns, &rows), ["ID  NAME  X", "1   añb   -", "12  -     -"]);
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
        let colour = Output { json: false, colour: true };
        assert_eq!(colour.status("RUNNING"), "\u{1b}[32mRUNNING\u{1b}[0m");
        assert_eq!(colour.status("RUNNING!"), "RUNNING!");
        assert_eq!(Output { colour: false, ..colour }.status("RUNNING"), "RUNNING");
    }
}
