//! Reading what instances wrote.
//!
//! The files hold bytes and no times: the instance writes them itself. So a line's time is the one that it begins with, as
//! every line of a tracing log does; else that of the line before; else the start of its run. Each run has a file of its
//! own, so which run a line belongs to is exact.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use futures_util::stream::{BoxStream, StreamExt, unfold};

use super::live::LiveRun;
use super::output::Output;
use super::output_watch::SAFETY_NET;
use crate::domain::Timestamp;
use crate::runtime::lines::LineSplitter;
use crate::runtime::{LogCursor, LogLine, LogQuery, LogStream, RuntimeError, RuntimeResult};

/// Where a run's output is read from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Live(Arc<LiveRun>),
    Past(Arc<Output>),
}

impl Source {
    fn output(&self) -> &Output {
        match self {
            Self::Live(run) => &run.output,
            Self::Past(output) => output,
        }
    }
}

/// Reads at once: much more than a usual burst, little enough for a hundred readers.
const CHUNK: usize = 64 * 1024;

/// Reads one run's output from the oldest kept line on.
#[derive(Debug)]
struct Reader {
    source: Source,
    offset: u64,
    /// Where the line begins that is read now.
    line_start: u64,
    lines: LineSplitter,
    time: Timestamp,
}

/// Which file of an agent, by the start of its run, and how much of it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    started: Timestamp,
    offset: u64,
}

impl Place {
    fn cursor(self) -> LogCursor {
        LogCursor(format!("{}.{}", self.started.as_nanosecond(), self.offset).into())
    }

    fn parse(cursor: &LogCursor) -> Option<Self> {
        let (started, offset) = cursor.0.split_once('.')?;
        let started = Timestamp::from_nanosecond(started.parse().ok()?).ok()?;
        Some(Self { started, offset: offset.parse().ok()? })
    }
}

impl Reader {
    /// Reads on from a place in this run or in an earlier one; `None` where it is in a later one.
    fn new(source: Source, after: Option<Place>) -> Option<Self> {
        let time = source.output().started;
        let offset = match after {
            Some(after) if after.started > time => return None,
            Some(after) if after.started == time => after.offset,
            Some(_) | None => 0,
        };
        Some(Self { source, offset, line_start: offset, lines: LineSplitter::default(), time })
    }

    /// Reads on and gives each whole line to `sink`. `false` at the end of what is written so far.
    fn read(&mut self, mut sink: impl FnMut(LogLine)) -> io::Result<bool> {
        let output = self.source.output();
        // Shorter than it was: truncated, where no hole can be punched.
        let lost = if self.offset > output.len()? { Some(0) } else { None };
        if let Some(offset) = lost.or_else(|| behind(output, self.offset)) {
            self.offset = offset;
            self.lines.discard_partial();
        }
        let mut chunk = vec![0; CHUNK];
        let count = output.read_at(&mut chunk, self.offset)?;
        if behind(output, self.offset).is_some() {
            // Given back while we read, so this may be zeros. The next call goes on behind it.
            return Ok(true);
        }
        let (started, begin) = (output.started, self.offset);
        self.offset += count as u64;
        let (time, line_start, now) = (&mut self.time, &mut self.line_start, Timestamp::now());
        self.lines.push_counted(&chunk[..count], |text, used| {
            *line_start = begin + used as u64;
            sink(timed(text, time, now, Place { started, offset: *line_start }));
        });
        Ok(count > 0)
    }

    /// The run is over and read, or no more is wanted: its last line may have no line break. Where it gets one later, the
    /// whole line comes behind this cursor.
    fn end(&mut self, mut sink: impl FnMut(LogLine)) {
        let over = self.is_over();
        let place =
            Place { started: self.source.output().started, offset: if over { self.offset } else { self.line_start } };
        let (time, now) = (&mut self.time, Timestamp::now());
        self.lines.end(|text| sink(timed(text, time, now, place)));
    }

    fn is_over(&self) -> bool {
        match &self.source {
            Source::Live(run) => run.is_over(),
            Source::Past(_) => true,
        }
    }
}

/// Where to go on if what is at `offset` was given back.
fn behind(output: &Output, offset: u64) -> Option<u64> {
    let floor = output.floor();
    (offset < floor).then_some(floor)
}

/// Gives a line its time. Times never go back, and never beyond `now`: a line may claim anything.
fn timed(text: String, latest: &mut Timestamp, now: Timestamp, place: Place) -> LogLine {
    if let Some(own) = leading_time(&text) {
        *latest = own.min(now).max(*latest);
    }
    LogLine { time: *latest, cursor: place.cursor(), stream: LogStream::Stdout, text }
}

fn leading_time(text: &str) -> Option<Timestamp> {
    let word = text.trim_start().trim_start_matches('[').split([' ', ']']).next()?;
    // Cheap enough to ask of every line.
    let dated = word.len() >= "2026-11-22T19:39Z".len() && word.as_bytes()[4] == b'-' && word.as_bytes()[10] == b'T';
    if dated { word.parse().ok() } else { None }
}

/// The lines of these runs that a query asks for, oldest first: the last ones, and then what comes. With `follow` the
/// stream goes on until the last run ends.
pub(super) fn read(
    sources: Vec<Source>,
    query: &LogQuery,
) -> RuntimeResult<BoxStream<'static, RuntimeResult<LogLine>>> {
    let after = query.after.as_ref().and_then(Place::parse);
    let readers = sources.into_iter().filter_map(|source| Reader::new(source, after)).collect();
    let mut reading = Reading { readers, ready: VecDeque::new(), since: query.since, follow: query.follow };
    if let Some(count) = query.tail {
        reading.skip_to(count).map_err(unreadable)?;
    }
    Ok(unfold(Some(reading), |reading| async move {
        let mut reading = reading?;
        match reading.next().await {
            Ok(Some(line)) => Some((Ok(line), Some(reading))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed())
}

fn unreadable(error: io::Error) -> RuntimeError {
    RuntimeError::Unavailable(format!("cannot read the log: {error}"))
}

struct Reading {
    readers: VecDeque<Reader>,
    /// Read and not yet taken: lines of one chunk, or the tail.
    ready: VecDeque<LogLine>,
    since: Option<Timestamp>,
    follow: bool,
}

impl Reading {
    /// Reads all that is written, newest run first, and keeps the last `count` lines.
    fn skip_to(&mut self, count: usize) -> io::Result<()> {
        let newest = self.readers.len().saturating_sub(1);
        for (index, reader) in self.readers.iter_mut().enumerate().rev() {
            let room = count - self.ready.len();
            if room == 0 && index != newest {
                break;
            }
            let (mut lines, since) = (VecDeque::new(), self.since);
            let mut keep = |line: LogLine| {
                if since.is_none_or(|since| line.time >= since) {
                    lines.push_back(line);
                    if lines.len() > room {
                        lines.pop_front();
                    }
                }
            };
            // Before the last read, so that nothing can be written between them.
            let over = reader.is_over() || !(self.follow && index == newest);
            while reader.read(&mut keep)? {}
            if over {
                reader.end(&mut keep);
            }
            lines.append(&mut self.ready);
            self.ready = lines;
        }
        self.readers.drain(..newest);
        if !self.follow {
            self.readers.clear();
        }
        Ok(())
    }

    async fn next(&mut self) -> RuntimeResult<Option<LogLine>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            let Some(reader) = self.readers.front() else { return Ok(None) };
            let mut written = match &reader.source {
                Source::Live(run) => Some(run.written.subscribe()),
                Source::Past(_) => None,
            };
            // Asked before reading: what was written before the end is read before the end is believed.
            let over = reader.is_over() || !self.follow || self.readers.len() > 1;
            if self.fill().await? {
                continue;
            }
            if over {
                let since = self.since;
                if let Some(mut reader) = self.readers.pop_front() {
                    reader.end(|line| keep(line, since, &mut self.ready));
                }
                continue;
            }
            if let (Some(written), Some(Reader { source: Source::Live(run), .. })) =
                (&mut written, self.readers.front())
            {
                tokio::select! {
                    _ = written.changed() => {}
                    () = run.over() => {}
                    () = tokio::time::sleep(SAFETY_NET) => {}
                }
            }
        }
    }

    /// Reads the next chunk off the runtime's threads. `false` at the end of what is written so far.
    async fn fill(&mut self) -> RuntimeResult<bool> {
        let Some(mut reader) = self.readers.pop_front() else { return Ok(false) };
        let since = self.since;
        let work = tokio::task::spawn_blocking(move || {
            let mut lines = VecDeque::new();
            let more = reader.read(|line| keep(line, since, &mut lines));
            (reader, lines, more)
        });
        let (reader, lines, more) =
            work.await.map_err(|error| RuntimeError::Unavailable(format!("the log's reader ended: {error}")))?;
        self.readers.push_front(reader);
        self.ready = lines;
        more.map_err(unreadable)
    }
}

fn keep(line: LogLine, since: Option<Timestamp>, lines: &mut VecDeque<LogLine>) {
    if since.is_none_or(|since| line.time >= since) {
        lines.push_back(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_own_time_or_that_of_the_line_before() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-11-22T20:00:00Z");
        let mut latest = at("2026-11-22T19:00:00Z");
        let place = Place { started: latest, offset: 7 };
        assert_eq!(Place::parse(&place.cursor()), Some(place));
        for odd in ["", "7", "x.7", "7.x", "2026-11-22T19:00:00Z"] {
            assert_eq!(Place::parse(&LogCursor(odd.into())), None, "{odd}");
        }
        for (text, time) in [
            ("banner", "2026-11-22T19:00:00Z"),
            ("2026-11-22T19:00:01.123456789Z  INFO up", "2026-11-22T19:00:01.123456789Z"),
            ("  [2026-11-22T19:00:02Z INFO] up", "2026-11-22T19:00:02Z"),
            ("  continued", "2026-11-22T19:00:02Z"),
            ("2026-11-22T18:00:00Z lied about the past", "2026-11-22T19:00:02Z"),
            ("2999-11-22T18:00:00Z lied about the future", "2026-11-22T20:00:00Z"),
            ("2026-99-22T19:00:01Z no date", "2026-11-22T20:00:00Z"),
            ("ä€ä€ä€ä€ä€ä€ä€", "2026-11-22T20:00:00Z"),
        ] {
            assert_eq!(timed(text.into(), &mut latest, now, place).time, at(time), "{text}");
        }
    }
}
