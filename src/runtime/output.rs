//! What instances print, and which of it is wanted.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::{RunId, Timestamp};

/// Where an instance wrote a line to. See [`Caps::splits_output`](super::Caps::splits_output).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output; all output where the engine does not tell them apart.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A place in an instance's output, right behind a line. Opaque: only the runtime that gave it out can read it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LogCursor(pub Arc<str>);

/// One whole line of an instance's output, without its line break, at most [`LogLine::MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogLine {
    /// For people; clocks are set back and lines without a time of their own have that of another. What to go on from is
    /// the cursor.
    pub time: Timestamp,
    /// The place right behind this line.
    pub cursor: LogCursor,
    /// Where it was written to.
    pub stream: LogStream,
    /// The line; bytes that are not UTF-8 are replaced.
    pub text: String,
}

impl LogLine {
    /// Longer lines are cut here: a line without an end must not fill the memory.
    pub const MAX: usize = 16 * 1024;

    /// A line with its place. It is not cut here.
    pub fn new(time: Timestamp, cursor: LogCursor, stream: LogStream, text: impl Into<String>) -> Self {
        Self { time, cursor, stream, text: text.into() }
    }
}

/// Which log lines are wanted.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LogQuery {
    /// Only lines of this run.
    pub run_id: Option<RunId>,
    /// Only lines at or after this time, exact to the nanosecond.
    pub since: Option<Timestamp>,
    /// Only lines behind this place. One that cannot be read is as if it were not there.
    pub after: Option<LogCursor>,
    /// Only the last so many lines; `None` for all that is kept.
    pub tail: Option<usize>,
    /// Go on with new lines. The stream ends when the run ends.
    pub follow: bool,
}

impl LogQuery {
    setters! {
        with_run_id(run_id: impl Into<Option<RunId>> => run_id.into());
        with_since(since: impl Into<Option<Timestamp>> => since.into());
        with_after(after: impl Into<Option<LogCursor>> => after.into());
        with_tail(tail: impl Into<Option<usize>> => tail.into());
        with_follow(follow: bool);
    }
}
