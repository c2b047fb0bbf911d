//! The engine's pieces of a log, joined to lines and told from those that are known.

use bollard::container::LogOutput;

use jiff::SignedDuration;

use crate::domain::Timestamp;
use crate::runtime::lines::LineSplitter;
use crate::runtime::{LogCursor, LogLine, LogStream};

/// Up to where the lines are known. For each of the two streams, since only within one of them times always grow.
#[derive(Default)]
pub(super) struct Seen {
    stdout: Option<Timestamp>,
    stderr: Option<Timestamp>,
}

impl Seen {
    fn slot(&mut self, stream: LogStream) -> &mut Option<Timestamp> {
        match stream {
            LogStream::Stdout => &mut self.stdout,
            LogStream::Stderr => &mut self.stderr,
        }
    }

    /// Notes a line, and says whether it is new.
    pub(super) fn note(&mut self, line: &LogLine) -> bool {
        let slot = self.slot(line.stream);
        let new = slot.is_none_or(|last| line.time > last);
        *slot = (*slot).max(Some(line.time));
        new
    }

    /// Whether a pass that begins with this piece joins what is known: then it leaves nothing out. Of whole seconds the
    /// first one may be cut, so that all of it must be known.
    pub(super) fn knows(&mut self, frame: &LogOutput) -> bool {
        let Some((stream, stamp, _)) = piece(frame) else { return false };
        let joins = |last: Timestamp| {
            if stamp.coarse { stamp.time.as_second() < last.as_second() } else { stamp.time <= last }
        };
        self.slot(stream).is_some_and(joins)
    }

    /// After a pass, a stream that said nothing is known as far as the other one.
    pub(super) fn settle(&mut self) {
        let last = self.stdout.max(self.stderr);
        self.stdout = self.stdout.or(last);
        self.stderr = self.stderr.or(last);
    }
}

/// Joins the engine's pieces to lines, for each of the two streams.
#[derive(Default)]
pub(super) struct Assembly {
    stdout: Partial,
    stderr: Partial,
    /// The engine tells times in whole seconds.
    coarse: bool,
}

#[derive(Default)]
struct Partial {
    /// Time of the line's first piece.
    time: Option<Timestamp>,
    /// The whole second of the last line, and how many lines there were in it.
    second: Option<(Timestamp, i64)>,
    splitter: LineSplitter,
}

impl Partial {
    /// The time of a line that begins. Lines of one whole second are told apart by their order in it.
    fn begin(&mut self, stamp: Stamp) -> Timestamp {
        if !stamp.coarse {
            return stamp.time;
        }
        let before = self.second.filter(|(second, _)| *second == stamp.time).map_or(0, |(_, lines)| lines);
        self.second = Some((stamp.time, before + 1));
        stamp.time.checked_add(SignedDuration::from_nanos(before)).unwrap_or(stamp.time)
    }
}

impl Assembly {
    /// Takes a piece, and gives the line that it ends: a piece never holds the ends of two.
    pub(super) fn push(&mut self, frame: &LogOutput) -> Option<LogLine> {
        let (stream, stamp, bytes) = piece(frame)?;
        self.coarse |= stamp.coarse;
        let partial = match stream {
            LogStream::Stdout => &mut self.stdout,
            LogStream::Stderr => &mut self.stderr,
        };
        let time = match partial.time {
            Some(time) => time,
            None => partial.begin(stamp),
        };
        partial.time = Some(time);
        let mut line = None;
        partial.splitter.push(bytes, |text| line = Some(LogLine { time, cursor: cursor(time), stream, text }));
        if line.is_some() {
            partial.time = None;
        }
        line
    }

    /// Whether times are whole seconds, with the lines of each counted: right from the second second of a pass on.
    pub(super) const fn is_coarse(&self) -> bool {
        self.coarse
    }

    /// Lines whose end never came.
    pub(super) fn finish(&mut self) -> impl Iterator<Item = LogLine> + use<> {
        let mut lines = Vec::new();
        for (stream, partial) in [(LogStream::Stdout, &mut self.stdout), (LogStream::Stderr, &mut self.stderr)] {
            if let Some(time) = partial.time.take() {
                partial.splitter.end(|text| lines.push(LogLine { time, cursor: cursor(time), stream, text }));
            }
        }
        lines.into_iter()
    }
}

/// The engine's time of a piece. Docker's is exact to the nanosecond; Podman's Docker API tells whole seconds.
#[derive(Debug, Clone, Copy)]
struct Stamp {
    time: Timestamp,
    coarse: bool,
}

/// A piece as the engine sends it: its stream, its time, a space, its text. All pieces of a line have the time of its
/// first.
fn piece(frame: &LogOutput) -> Option<(LogStream, Stamp, &[u8])> {
    let (stream, message) = match frame {
        LogOutput::StdErr { message } => (LogStream::Stderr, message),
        LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => {
            (LogStream::Stdout, message)
        }
    };
    let space = message.iter().position(|byte| *byte == b' ')?;
    let text = str::from_utf8(&message[..space]).ok()?;
    Some((stream, Stamp { time: text.parse().ok()?, coarse: !text.contains('.') }, &message[space + 1..]))
}

/// The engine numbers no lines; its times are exact to the nanosecond, and grow while its clock does.
fn cursor(time: Timestamp) -> LogCursor {
    LogCursor(time.to_string().into())
}

/// The first moment after a cursor's line.
pub(super) fn behind(cursor: &LogCursor) -> Option<Timestamp> {
    cursor.0.parse::<Timestamp>().ok()?.checked_add(std::time::Duration::from_nanos(1)).ok()
}

/// Removes the first line of each stream, which may be the rest of one.
pub(super) fn drop_headless(lines: &mut Vec<LogLine>) {
    for stream in [LogStream::Stdout, LogStream::Stderr] {
        if let Some(first) = lines.iter().position(|line| line.stream == stream) {
            lines.remove(first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(second: u32, text: &[u8]) -> LogOutput {
        let mut message = format!("2026-11-22T19:51:{second:02}.634846000Z ").into_bytes();
        message.extend_from_slice(text);
        LogOutput::StdOut { message: message.into() }
    }

    fn time(second: u32) -> Timestamp {
        format!("2026-11-22T19:51:{second:02}.634846Z").parse().unwrap()
    }

    #[test]
    fn pieces_become_lines_with_the_time_of_the_first() {
        let mut assembly = Assembly::default();
        assert_eq!(assembly.push(&frame(1, b"one ")), None);
        assert_eq!(
            assembly.push(&LogOutput::StdErr { message: "no time".into() }),
            None,
            "what is no piece is left out"
        );
        let err = LogOutput::StdErr { message: "2026-11-22T19:51:02.634846000Z err\n".into() };
        assert_eq!(assembly.push(&err).map(|line| (line.stream, line.text)), Some((LogStream::Stderr, "err".into())));
        let line = assembly.push(&frame(3, b"two\r\n")).unwrap();
        assert_eq!(
            line,
            LogLine { time: time(1), cursor: cursor(time(1)), stream: LogStream::Stdout, text: "one two".into() }
        );
        assert_eq!(assembly.push(&frame(4, b"\n")).unwrap().text, "");
        assert_eq!(assembly.push(&frame(5, b"unfinished")), None);
        assert_eq!(assembly.finish().map(|line| line.text).collect::<Vec<_>>(), ["unfinished"]);
        assert_eq!(assembly.finish().count(), 0);
        assert_eq!(assembly.push(&frame(6, b"\x1b[2mplain\x1b[0m\n")).unwrap().text, "plain");
    }

    /// As Podman tells them.
    #[test]
    fn lines_of_one_whole_second_are_told_apart_by_their_order() {
        let line = |second: u32, text: &str| LogOutput::StdOut {
            message: format!("2026-11-22T19:51:{second:02}Z {text}\n").into_bytes().into(),
        };
        let mut assembly = Assembly::default();
        let mut seen = Seen::default();
        let mut new = |assembly: &mut Assembly, second, text| {
            let line = assembly.push(&line(second, text)).unwrap();
            seen.note(&line).then_some(line.text)
        };
        for (second, text) in [(1, "a"), (1, "b"), (2, "c")] {
            assert_eq!(new(&mut assembly, second, text).as_deref(), Some(text));
        }
        assert!(assembly.is_coarse());
        // Read once more from the beginning of a second, with one more line in the last one.
        let mut again = Assembly::default();
        let found = [(1, "a"), (1, "b"), (2, "c"), (2, "d")].map(|(second, text)| new(&mut again, second, text));
        assert_eq!(found, [None, None, None, Some("d".into())]);
        assert!(seen.knows(&line(1, "b")) && !seen.knows(&line(2, "c")), "of the last second some may be missing");
    }

    #[test]
    fn a_line_without_an_end_takes_no_more_room_than_a_line() {
        let mut assembly = Assembly::default();
        for second in 0..40 {
            assert_eq!(assembly.push(&frame(second, &[b'x'; 16 * 1024])), None);
        }
        assert_eq!(assembly.push(&frame(41, b"\n")).unwrap().text.len(), LogLine::MAX);
        assert_eq!(assembly.push(&frame(42, &[0xff; 16 * 1024])), None);
        let garbage = assembly.push(&frame(43, b"\n")).unwrap();
        assert!(garbage.text.len() <= LogLine::MAX && garbage.text.chars().all(|c| c == '\u{fffd}'));
    }

    #[test]
    fn a_pass_joins_what_is_known_or_is_made_longer() {
        let line =
            |second, stream| LogLine { time: time(second), cursor: cursor(time(second)), stream, text: String::new() };
        let mut seen = Seen::default();
        assert!(!seen.knows(&frame(1, b"x\n")), "nothing is known yet");
        assert!(seen.note(&line(5, LogStream::Stdout)));
        seen.settle();
        assert!(!seen.note(&line(5, LogStream::Stdout)) && !seen.note(&line(4, LogStream::Stderr)));
        assert!(seen.knows(&frame(5, b"x\n")) && !seen.knows(&frame(6, b"x\n")));
        assert!(seen.note(&line(7, LogStream::Stderr)));
        assert!(seen.note(&line(6, LogStream::Stdout)), "the streams have times of their own");
    }

    #[test]
    fn what_may_be_cut_is_left_out() {
        let line = |stream, text: &str| LogLine { time: time(1), cursor: cursor(time(1)), stream, text: text.into() };
        let mut lines = vec![line(LogStream::Stderr, "a"), line(LogStream::Stdout, "b"), line(LogStream::Stdout, "c")];
        drop_headless(&mut lines);
        assert_eq!(lines, [line(LogStream::Stdout, "c")]);
    }
}
