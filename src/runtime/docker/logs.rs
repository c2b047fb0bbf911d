//! A container's output, as whole lines with exact times.
//!
//! The engine's own `since` counts whole seconds, in which a fast restart leaves two runs' lines; so every line's time is
//! compared here, to the nanosecond. It sends pieces of 16 KiB, each with a time of its own; they are joined here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use super::engine::{Engine, Failure};
use super::observe::{self, Found};
use crate::domain::Timestamp;
use crate::runtime::{LogLine, LogQuery, LogStream, RuntimeError, RuntimeResult};

/// A stream that was silent for so long is checked by a ping: an engine that hangs ends no stream.
const IDLE: Duration = Duration::from_secs(15);

/// How often a followed stream that ended, though its run did not, is opened again without a single new line.
const REOPENINGS: u32 = 5;

/// The wait before it is opened again, since the engine ends the stream a moment before it shows the end of the run.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

/// The lines of a container that a query asks for.
pub(super) async fn open(
    engine: Arc<Engine>,
    found: &Found,
    query: LogQuery,
) -> RuntimeResult<BoxStream<'static, RuntimeResult<LogLine>>> {
    let Some(span) = Span::of(found, &query)? else { return Ok(stream::empty().boxed()) };
    // Where no run is, nothing new comes; the engine would end the stream at once.
    let run = found.started_at.filter(|_| query.follow && found.observed.run().is_some());
    let mut reader = Reader {
        engine,
        container: found.id.clone(),
        span,
        follows: run,
        frames: None,
        assembly: Assembly::default(),
        ready: VecDeque::new(),
        last: None,
        reopenings: 0,
    };
    reader.open(query.tail).await?;
    Ok(stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(line)) => Some((Ok(line), Some(reader))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed())
}

/// The time in which lines are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    from: Timestamp,
    until: Option<Timestamp>,
}

impl Span {
    /// `None` where no line can be in it.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] where the run was another container's.
    fn of(found: &Found, query: &LogQuery) -> RuntimeResult<Option<Self>> {
        let mut span = Self { from: query.since.unwrap_or(Timestamp::UNIX_EPOCH), until: None };
        let Some(boot) = &query.boot else { return Ok(Some(span)) };
        let (container, started) = observe::parse_boot(boot).ok_or(RuntimeError::NotFound)?;
        if container != found.id {
            return Err(RuntimeError::NotFound);
        }
        let Some(latest) = found.started_at else { return Ok(None) };
        span.from = span.from.max(started);
        span.until = (started < latest).then_some(latest);
        Ok(Some(span))
    }

    fn contains(self, time: Timestamp) -> bool {
        time >= self.from && self.until.is_none_or(|until| time < until)
    }
}

type Frames = BoxStream<'static, Result<LogOutput, Error>>;

struct Reader {
    engine: Arc<Engine>,
    container: String,
    span: Span,
    /// Start of the run that is followed.
    follows: Option<Timestamp>,
    frames: Option<Frames>,
    assembly: Assembly,
    ready: VecDeque<LogLine>,
    /// Time of the last line that was given.
    last: Option<Timestamp>,
    /// Since the last line.
    reopenings: u32,
}

impl Reader {
    async fn open(&mut self, tail: Option<usize>) -> RuntimeResult<()> {
        let from = self.last.unwrap_or(self.span.from);
        let options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .follow(self.follows.is_some())
            .since(i32::try_from(from.as_second()).unwrap_or(i32::MAX))
            .tail(&tail.map_or_else(|| "all".into(), |lines| lines.to_string()))
            .build();
        self.frames = Some(self.engine.docker().await?.logs(&self.container, Some(options)).boxed());
        Ok(())
    }

    async fn next(&mut self) -> RuntimeResult<Option<LogLine>> {
        loop {
            while let Some(line) = self.ready.pop_front() {
                if self.span.contains(line.time) && self.last.is_none_or(|last| line.time > last) {
                    self.last = Some(line.time);
                    self.reopenings = 0;
                    return Ok(Some(line));
                }
            }
            let Some(frames) = &mut self.frames else { return Ok(None) };
            match tokio::time::timeout(IDLE, frames.next()).await {
                Ok(Some(Ok(frame))) => self.ready.extend(self.assembly.push(&frame)),
                Ok(Some(Err(error))) => {
                    let failure = Failure::from(error);
                    if self.follows.is_none() || failure.not_found() {
                        return Err(failure.into());
                    }
                    self.reopen().await?;
                }
                Ok(None) => self.reopen().await?,
                Err(_) => self.engine.ping().await?,
            }
        }
    }

    /// What to do when the stream ended: with the run, that was all; without it, the rest is asked for again.
    async fn reopen(&mut self) -> RuntimeResult<()> {
        self.frames = None;
        self.ready.extend(self.assembly.finish());
        let Some(run) = self.follows else { return Ok(()) };
        tokio::time::sleep(REOPEN_PAUSE).await;
        let state = self.engine.inspect(&self.container).await?.and_then(|inspected| inspected.state);
        let goes_on = state.is_some_and(|state| {
            state.running == Some(true) && state.started_at.as_deref().and_then(observe::time) == Some(run)
        });
        if !goes_on {
            return Ok(());
        }
        self.reopenings += 1;
        if self.reopenings > REOPENINGS {
            return Err(RuntimeError::Unavailable("the engine ends the log of a container that runs".into()));
        }
        self.open(None).await
    }
}

/// Joins the engine's pieces to lines, for each of the two streams.
#[derive(Default)]
struct Assembly {
    stdout: Option<Partial>,
    stderr: Option<Partial>,
}

struct Partial {
    time: Timestamp,
    text: Vec<u8>,
}

impl Assembly {
    fn push(&mut self, frame: &LogOutput) -> Option<LogLine> {
        let (stream, message) = match frame {
            LogOutput::StdErr { message } => (LogStream::Stderr, message),
            LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => {
                (LogStream::Stdout, message)
            }
        };
        let (time, text) = timed(message)?;
        let slot = match stream {
            LogStream::Stdout => &mut self.stdout,
            LogStream::Stderr => &mut self.stderr,
        };
        let partial = slot.get_or_insert_with(|| Partial { time, text: Vec::new() });
        let room = LogLine::MAX - partial.text.len();
        let (text, ended) = text.strip_suffix(b"\n").map_or((text, false), |text| (text, true));
        partial.text.extend_from_slice(&text[..text.len().min(room)]);
        if ended { slot.take().map(|partial| partial.line(stream)) } else { None }
    }

    /// Lines whose end never came.
    fn finish(&mut self) -> impl Iterator<Item = LogLine> + use<> {
        let stdout = self.stdout.take().map(|partial| partial.line(LogStream::Stdout));
        let stderr = self.stderr.take().map(|partial| partial.line(LogStream::Stderr));
        stdout.into_iter().chain(stderr)
    }
}

impl Partial {
    fn line(self, stream: LogStream) -> LogLine {
        let text = String::from_utf8_lossy(&self.text);
        let mut text = text.trim_end_matches('\r').to_owned();
        // A byte that is no text grows to three, so that the cut is made once more.
        while text.len() > LogLine::MAX {
            text.pop();
        }
        LogLine { time: self.time, stream, text }
    }
}

/// A piece as the engine sends it: its time, a space, its text.
fn timed(message: &[u8]) -> Option<(Timestamp, &[u8])> {
    let space = message.iter().position(|byte| *byte == b' ')?;
    let time = str::from_utf8(&message[..space]).ok()?.parse().ok()?;
    Some((time, &message[space + 1..]))
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
        assert_eq!(line, LogLine { time: time(1), stream: LogStream::Stdout, text: "one two".into() });
        assert_eq!(assembly.push(&frame(4, b"\n")).unwrap().text, "");
        assert_eq!(assembly.push(&frame(5, b"unfinished")), None);
        assert_eq!(assembly.finish().map(|line| line.text).collect::<Vec<_>>(), ["unfinished"]);
        assert_eq!(assembly.finish().count(), 0);
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
    fn a_span_is_exact() {
        let span = Span { from: time(2), until: Some(time(4)) };
        assert_eq!([1, 2, 3, 4].map(|second| span.contains(time(second))), [false, true, true, false]);
        let nanosecond = jiff::SignedDuration::from_nanos(1);
        assert!(!span.contains(time(2) - nanosecond) && span.contains(time(4) - nanosecond));
    }
}
