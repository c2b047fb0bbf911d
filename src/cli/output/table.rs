//! The layout of a table: columns as wide as their widest cell, or narrowed until a line fits the terminal.

use crate::domain::Timestamp;

/// A terminal with fewer columns gets lines that it wraps itself.
pub(super) const NARROWEST: usize = 40;
/// No column is cut below this.
const LEAST: usize = 8;
/// The last column is wrapped rather than cut, unless less than this is left for it.
const LEAST_TEXT: usize = 16;
const GAP: usize = 2;

/// The lines of a table. With a `width` no line is longer: cells that are not ids are cut, the last column is wrapped.
pub(super) fn table(head: Vec<String>, rows: Vec<Vec<String>>, width: Option<usize>) -> Vec<String> {
    let cells: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let natural: Vec<usize> =
        (0..cells[0].len()).map(|column| cells.iter().map(|row| length(&row[column])).max().unwrap_or(0)).collect();
    let widths = match width {
        Some(width) => narrowed(&natural, &cells, width),
        None => natural,
    };
    cells.iter().flat_map(|row| lines(row, &widths)).collect()
}

/// Takes from the widest column until the line fits. Ids and times stay whole: half an id is of no use.
fn narrowed(natural: &[usize], cells: &[Vec<String>], width: usize) -> Vec<usize> {
    let mut widths = natural.to_vec();
    let last = widths.len().saturating_sub(1);
    let whole = |cell: &str| cell.parse::<uuid::Uuid>().is_ok() || cell.parse::<Timestamp>().is_ok();
    let stays = |column: usize| cells.iter().skip(1).any(|row| whole(&row[column]));
    let least = |column: usize| if column == last { LEAST_TEXT } else { length(&cells[0][column]).max(LEAST) };
    while widths.iter().sum::<usize>() + GAP * last > width {
        let candidates = (0..widths.len()).filter(|&column| !stays(column) && widths[column] > least(column));
        let Some(widest) = candidates.max_by_key(|&column| (widths[column], column)) else { break };
        widths[widest] -= 1;
    }
    widths
}

/// One row; more lines than one where its last cell is wrapped.
fn lines(row: &[String], widths: &[usize]) -> Vec<String> {
    let Some((last, others)) = row.split_last() else { return Vec::new() };
    let first: String =
        others.iter().zip(widths).map(|(cell, &width)| format!("{:width$}{:GAP$}", cut(cell, width), "")).collect();
    let indent = " ".repeat(length(&first));
    let pieces = wrapped(last, widths[others.len()]);
    let mut lines: Vec<String> = pieces.iter().map(|piece| format!("{indent}{piece}")).collect();
    lines[0] = format!("{first}{}", pieces[0]).trim_end().to_owned();
    lines
}

fn cut(cell: &str, width: usize) -> String {
    if length(cell) <= width {
        return cell.to_owned();
    }
    cell.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// At blanks; a word that is longer than a line is divided.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() || length(line) + 1 + length(word) <= width {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
        while let Some((at, _)) = lines.last().and_then(|line| line.char_indices().nth(width)) {
            let rest = lines.last_mut().expect("there is always a line").split_off(at);
            lines.push(rest);
        }
    }
    lines
}

fn length(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![strings(&["1", "añb", "-"]), strings(&["12", "-", "-"])];
        let lines = table(strings(&["ID", "NAME", "X"]), rows, None);
        assert_eq!(lines, ["ID  NAME  X", "1   añb   -", "12  -     -"]);
    }

    #[test]
    fn a_narrow_terminal_cuts_cells_but_no_ids_and_wraps_the_last_column() {
        let id = "01a2181a-e8a9-72cb-bd66-909b8362559b";
        let detail = "the gateway answered with a page of a proxy that nobody expected";
        let rows = vec![strings(&[id, "a-very-long-name-of-an-agent-that-somebody-chose", detail])];
        let lines = table(strings(&["ID", "NAME", "DETAIL"]), rows, Some(80));
        assert!(lines.iter().all(|line| length(line) <= 80), "{lines:#?}");
        assert!(lines[1].starts_with(id) && lines[1].contains('…'), "{lines:#?}");
        let text = lines.join(" ");
        assert!(detail.split(' ').all(|word| text.contains(word)), "{lines:#?}");
    }

    #[test]
    fn long_words_are_divided() {
        assert_eq!(wrapped("ab cdefghij k", 4), ["ab", "cdef", "ghij", "k"]);
        assert_eq!(wrapped("", 4), [""]);
    }
}
