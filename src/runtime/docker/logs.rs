//! A container's output, as whole lines with exact times.
//!
//! The engine's own `since` counts whole seconds, in which a fast restart leaves two runs' lines; so every line's time is
//! compared here, to the nanosecond. It sends pieces of 16 KiB; they are joined here. And its own `follow` leaves lines
//! out when a log is rotated fast, while a plain read is always complete: so following only rings a bell here, and what
//! is new is then read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use jiff::SignedDuration;

use super::engine::{Engine, Failure, READ};
use super::observe::{self, Found};
use crate::domain::Timestamp;
use crate::runtime::{LogLine, LogQuery, LogStream, RuntimeError, RuntimeResult};

/// The engine notes the time of a start when the process already runs, which may have spoken by then. Between the end of
/// one run and the next start lie at least a hundred milliseconds of its own work.
const START_SLACK: SignedDuration = SignedDuration::from_millis(50);

/// How long a bell may be silent before a look is taken all the same: the engine may have left out the last line.
const SILENCE: Duration = Duration::from_secs(1);

/// How many lines are read when the bell rings, and by how much more it is tried where that was not enough.
const STEP: usize = 64;
const GROWTH: usize = 8;

/// The lines of a container that a query asks for.
pub(super) async fn open(
    engine: Arc<Engine>,
    found: &Found,
    query: LogQuery,
) -> RuntimeResult<BoxStream<'static, RuntimeResult<LogLine>>> {
    let Some(span) = Span::of(found, &query)? else { return Ok(stream::empty().boxed()) };
    let since = i32::try_from(span.from.as_second()).unwrap_or(i32::MAX);
    let mut reader = Reader {
        source: Source { engine, container: found.id.clone(), since },
        span,
        // Where no run is, nothing new comes.
        follows: found.started_at.filter(|_| query.follow && found.observed.run().is_some()),
        bell: None,
        read: None,
        seen: Seen::default(),
        ready: VecDeque::new(),
    };
    reader.begin(query.tail, true).await?;
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
        span.from = span.from.max(started - START_SLACK);
        span.until = (started < latest).then_some(latest - START_SLACK);
        Ok(Some(span))
    }

    fn contains(self, time: Timestamp) -> bool {
        time >= self.from && self.until.is_none_or(|until| time < until)
    }
}

type Frames = BoxStream<'static, Result<LogOutput, Error>>;

/// Whose log it is, and from when on, in the engine's whole seconds.
struct Source {
    engine: Arc<Engine>,
    container: String,
    since: i32,
}

impl Source {
    async fn frames(&self, follow: bool, tail: Option<usize>) -> RuntimeResult<Frames> {
        let options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .follow(follow)
            .since(self.since)
            .tail(&tail.map_or_else(|| "all".into(), |lines| lines.to_string()))
            .build();
        Ok(self.engine.docker().await?.logs(&self.container, Some(options)).boxed())
    }
}

struct Reader {
    source: Source,
    span: Span,
    /// Start of the run that is followed, as long as it goes on.
    follows: Option<Timestamp>,
    bell: Option<Frames>,
    read: Option<Read>,
    seen: Seen,
    ready: VecDeque<LogLine>,
}

/// One pass over the end of the log.
struct Read {
    frames: Frames,
    assembly: Assembly,
    /// `None`: the whole log.
    tail: Option<usize>,
    /// The first pass: all that it gives is new.
    first: bool,
    /// Whether its beginning was checked to be known.
    joined: bool,
}

impl Reader {
    async fn next(&mut self) -> RuntimeResult<Option<LogLine>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            match (&mut self.read, self.follows) {
                (Some(_), _) => self.advance().await?,
                (None, Some(run)) => {
                    self.wait(run).await?;
                    self.begin(Some(STEP), false).await?;
                }
                (None, None) => return Ok(None),
            }
        }
    }

    async fn begin(&mut self, tail: Option<usize>, first: bool) -> RuntimeResult<()> {
        let frames = self.source.frames(false, tail).await?;
        self.read = Some(Read { frames, assembly: Assembly::default(), tail, first, joined: first || tail.is_none() });
        Ok(())
    }

    /// Takes the next piece of the pass.
    async fn advance(&mut self) -> RuntimeResult<()> {
        let Some(read) = &mut self.read else { return Ok(()) };
        let late = || RuntimeError::Unavailable("the engine stopped in the middle of a log".into());
        match tokio::time::timeout(READ, read.frames.next()).await.map_err(|_| late())? {
            Some(Ok(frame)) => {
                if !read.joined && !self.seen.knows(&frame) {
                    // There is more that is new than was read: once more, from further back.
                    let tail = read.tail.map(|tail| tail * GROWTH).filter(|tail| *tail <= STEP * GROWTH * GROWTH);
                    return self.begin(tail, false).await;
                }
                read.joined = true;
                if let Some(line) = read.assembly.push(&frame) {
                    let first = read.first;
                    self.take(line, first);
                }
            }
            Some(Err(error)) => return Err(Failure::from(error).into()),
            None => {
                let first = read.first;
                // A line without an end may yet get one, while the run goes on.
                let rest: Vec<LogLine> =
                    if self.follows.is_none() { read.assembly.finish().collect() } else { Vec::new() };
                self.read = None;
                rest.into_iter().for_each(|line| self.take(line, first));
                self.seen.settle();
            }
        }
        Ok(())
    }

    fn take(&mut self, line: LogLine, first: bool) {
        if self.seen.note(&line, first) && self.span.contains(line.time) {
            self.ready.push_back(line);
        }
    }

    /// Returns when there may be something new. Where the run ended, one more pass is the last.
    async fn wait(&mut self, run: Timestamp) -> RuntimeResult<()> {
        let bell = match &mut self.bell {
            Some(bell) => bell,
            // It rings at once for the last line that is there, so that nothing said meanwhile is missed.
            None => {
                let bell = self.source.frames(true, Some(1)).await?;
                self.bell.insert(bell)
            }
        };
        match tokio::time::timeout(SILENCE, bell.next()).await {
            Ok(Some(Ok(_))) => {
                // One look for all that was said by now.
                while let Some(Some(Ok(_))) = bell.next().now_or_never() {}
            }
            Ok(Some(Err(_)) | None) => {
                self.bell = None;
                let state =
                    self.source.engine.inspect(&self.source.container).await?.and_then(|inspected| inspected.state);
                let goes_on = state.is_some_and(|state| {
                    state.running == Some(true) && state.started_at.as_deref().and_then(observe::time) == Some(run)
                });
                if goes_on {
                    // The engine ends the stream a moment before it shows the end of the run.
                    tokio::time::sleep(SILENCE / 10).await;
                } else {
                    self.follows = None;
                }
            }
            Err(_) => {}
        }
        Ok(())
    }
}

/// Up to where the lines are known. For each of the two streams, since only within one of them times always grow.
#[derive(Default)]
struct Seen {
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
    fn note(&mut self, line: &LogLine, first: bool) -> bool {
        let slot = self.slot(line.stream);
        let new = first || slot.is_none_or(|last| line.time > last);
        *slot = (*slot).max(Some(line.time));
        new
    }

    /// Whether a pass that begins with this piece joins what is known: then it leaves nothing out.
    fn knows(&mut self, frame: &LogOutput) -> bool {
        let Some((stream, time, _)) = piece(frame) else { return false };
        self.slot(stream).is_some_and(|last| time <= last)
    }

    /// After a pass, a stream that said nothing is known as far as the other one.
    fn settle(&mut self) {
        let last = self.stdout.max(self.stderr);
        self.stdout = self.stdout.or(last);
        self.stderr = self.stderr.or(last);
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
        let (stream, time, text) = piece(frame)?;
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

/// A piece as the engine sends it: its stream, its time, a space, its text. All pieces of a line have the time of its
/// first.
fn piece(frame: &LogOutput) -> Option<(LogStream, Timestamp, &[u8])> {
    let (stream, message) = match frame {
        LogOutput::StdErr { message } => (LogStream::Stderr, message),
        LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => {
            (LogStream::Stdout, message)
        }
    };
    let space = message.iter().position(|byte| *byte == b' ')?;
    let time = str::from_utf8(&message[..space]).ok()?.parse().ok()?;
    Some((stream, time, &message[space + 1..]))
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

    #[test]
    fn a_pass_joins_what_is_known_or_is_made_longer() {
        let line = |second, stream| LogLine { time: time(second), stream, text: String::new() };
        let mut seen = Seen::default();
        assert!(!seen.knows(&frame(1, b"x\n")), "nothing is known yet");
        assert!(seen.note(&line(5, LogStream::Stdout), true));
        seen.settle();
        assert!(!seen.note(&line(5, LogStream::Stdout), false) && !seen.note(&line(4, LogStream::Stderr), false));
        assert!(seen.knows(&frame(5, b"x\n")) && !seen.knows(&frame(6, b"x\n")));
        assert!(seen.note(&line(7, LogStream::Stderr), false));
        assert!(seen.note(&line(6, LogStream::Stdout), false), "the streams have times of their own");
    }
}
