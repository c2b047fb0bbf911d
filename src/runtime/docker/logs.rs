//! A container's output, as whole lines with exact times.
//!
//! The engine's own `since` counts whole seconds, in which a fast restart leaves two runs' lines; so every line's time is
//! compared here, to the nanosecond. It sends pieces of 16 KiB; they are joined here. And its own `follow` leaves lines
//! out when a log is rotated fast, while a plain read is always complete: so following only rings a bell here, and what
//! is new is then read.

mod pieces;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};

use self::pieces::{Assembly, Seen, behind, drop_headless};
use super::engine::{Engine, READ};
use super::failure::Failure;
use super::observe::{self, Found};
use super::run_id::Boot;
use crate::domain::Timestamp;
use crate::runtime::{LogLine, LogQuery, RuntimeError, RuntimeResult};

/// How long a bell may be silent before a look is taken all the same: the engine may have left out the last line.
const SILENCE: Duration = Duration::from_secs(1);

/// How many pieces are read when the bell rings, by how much more it is tried where that was not enough, and how many are
/// so many that all may be read as well.
const STEP: usize = 64;
const GROWTH: usize = 8;
const FARTHEST: usize = 20_000;

/// The lines of a container that a query asks for.
pub(super) async fn open(
    engine: Arc<Engine>,
    found: &Found,
    query: LogQuery,
) -> RuntimeResult<BoxStream<'static, RuntimeResult<LogLine>>> {
    let Some(span) = Span::of(found, &query)? else { return Ok(stream::empty().boxed()) };
    let first = span.behind.map_or(span.from, |behind| behind.max(span.from));
    let since = i32::try_from(first.as_second()).unwrap_or(i32::MAX);
    let mut reader = Reader {
        source: Source { engine, container: found.id.clone(), since },
        span,
        // Where no run is, nothing new comes.
        follows: found
            .run_id
            .filter(|_| query.follow && found.observed.run().is_some())
            .map(|run_id| run_id.started_at),
        bell: None,
        pass: None,
        seen: Seen::default(),
        ready: VecDeque::new(),
    };
    reader.begin(Aim::first(query.tail)).await?;
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
    /// What comes before it is known.
    behind: Option<Timestamp>,
}

impl Span {
    /// `None` where no line can be in it.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] where the run was another container's.
    fn of(found: &Found, query: &LogQuery) -> RuntimeResult<Option<Self>> {
        let behind = query.after.as_ref().and_then(behind);
        let mut span = Self { from: query.since.unwrap_or(Timestamp::UNIX_EPOCH), until: None, behind };
        let Some(run_id) = &query.run_id else { return Ok(Some(span)) };
        let (container, run_id) = Boot::parse(run_id).ok_or(RuntimeError::NotFound)?;
        if container != found.id {
            return Err(RuntimeError::NotFound);
        }
        let Some(latest) = found.run_id else { return Ok(None) };
        let from = if run_id.started_at == latest.started_at { latest.from } else { run_id.from };
        span.from = span.from.max(from);
        span.until = (run_id.started_at < latest.started_at).then_some(latest.from);
        Ok(Some(span))
    }

    /// `coarse`: times are whole seconds, so that all lines of the second in which it begins may be meant.
    fn contains(self, time: Timestamp, coarse: bool) -> bool {
        let begun = time >= self.from || (coarse && time.as_second() == self.from.as_second());
        begun && self.behind.is_none_or(|behind| time >= behind) && self.until.is_none_or(|until| time < until)
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
    /// The last so many pieces of the log, or all.
    async fn frames(&self, follow: bool, last: Option<usize>) -> RuntimeResult<Frames> {
        let options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .follow(follow)
            .since(self.since)
            .tail(&last.map_or_else(|| "all".into(), |last| last.to_string()))
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
    pass: Option<Pass>,
    seen: Seen,
    ready: VecDeque<LogLine>,
}

/// What a pass over the end of the log is to give, and how many pieces it asks for (`None`: all).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    /// The whole log.
    All,
    /// The last so many lines.
    Tail { lines: usize, pieces: Option<usize> },
    /// What is new.
    New { pieces: Option<usize> },
}

impl Aim {
    fn first(tail: Option<usize>) -> Self {
        tail.map_or(Self::All, |lines| Self::Tail { lines, pieces: Some(lines.saturating_add(1)) })
    }

    const fn pieces(self) -> Option<usize> {
        match self {
            Self::All => None,
            Self::Tail { pieces, .. } | Self::New { pieces } => pieces,
        }
    }

    /// The same from further back, in the end from the beginning.
    fn further(self) -> Self {
        let more = |pieces: Option<usize>| pieces.map(|pieces| pieces * GROWTH).filter(|pieces| *pieces < FARTHEST);
        match self {
            Self::All => Self::All,
            Self::Tail { lines, pieces } => Self::Tail { lines, pieces: more(pieces) },
            Self::New { pieces } => Self::New { pieces: more(pieces) },
        }
    }
}

struct Pass {
    aim: Aim,
    frames: Frames,
    assembly: Assembly,
    pieces: usize,
    /// Lines of a [`Aim::Tail`], held back until it is known which of them are the last.
    held: Vec<LogLine>,
}

impl Reader {
    async fn next(&mut self) -> RuntimeResult<Option<LogLine>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            match (&mut self.pass, self.follows) {
                (Some(_), _) => self.advance().await?,
                (None, Some(run)) => {
                    self.wait(run).await?;
                    self.begin(Aim::New { pieces: Some(STEP) }).await?;
                }
                (None, None) => return Ok(None),
            }
        }
    }

    async fn begin(&mut self, aim: Aim) -> RuntimeResult<()> {
        let frames = self.source.frames(false, aim.pieces()).await?;
        self.pass = Some(Pass { aim, frames, assembly: Assembly::default(), pieces: 0, held: Vec::new() });
        Ok(())
    }

    /// Takes the next piece of the pass.
    async fn advance(&mut self) -> RuntimeResult<()> {
        let Some(pass) = &mut self.pass else { return Ok(()) };
        let late = || RuntimeError::Unavailable("the engine stopped in the middle of a log".into());
        let piece = tokio::time::timeout(READ, pass.frames.next()).await.map_err(|_| late())?;
        let Some(frame) = piece.transpose().map_err(|error| RuntimeError::from(Failure::from(error)))? else {
            return self.finish().await;
        };
        let begins = pass.pieces == 0;
        pass.pieces += 1;
        if begins && matches!(pass.aim, Aim::New { pieces: Some(_) }) && !self.seen.knows(&frame) {
            // There is more that is new than was asked for.
            let aim = pass.aim.further();
            return self.begin(aim).await;
        }
        if let Some(line) = pass.assembly.push(&frame) {
            let coarse = pass.assembly.is_coarse();
            if coarse {
                self.source.engine.note_whole_seconds();
            }
            match pass.aim {
                // The first second may be cut, and its lines be counted wrong.
                Aim::Tail { pieces: Some(_), lines } if coarse => {
                    return self.begin(Aim::Tail { lines, pieces: None }).await;
                }
                Aim::Tail { .. } => pass.held.push(line),
                Aim::All | Aim::New { .. } => self.take(line, coarse),
            }
        }
        Ok(())
    }

    /// The pass is at the end of the log.
    async fn finish(&mut self) -> RuntimeResult<()> {
        let Some(mut pass) = self.pass.take() else { return Ok(()) };
        // A line without an end may yet get one, while the run goes on.
        let unfinished: Vec<LogLine> =
            if self.follows.is_none() { pass.assembly.finish().collect() } else { Vec::new() };
        if let Aim::Tail { lines, pieces } = pass.aim {
            pass.held.extend(unfinished);
            if pieces == Some(pass.pieces) {
                // It may begin in the middle of a line, whose rest must not pass for a line of its own.
                drop_headless(&mut pass.held);
                if pass.held.len() < lines {
                    return self.begin(pass.aim.further()).await;
                }
            }
            let surplus = pass.held.len().saturating_sub(lines);
            for (index, line) in pass.held.into_iter().enumerate() {
                self.seen.note(&line);
                if index >= surplus && self.span.contains(line.time, pass.assembly.is_coarse()) {
                    self.ready.push_back(line);
                }
            }
        } else {
            unfinished.into_iter().for_each(|line| self.take(line, pass.assembly.is_coarse()));
        }
        self.seen.settle();
        Ok(())
    }

    fn take(&mut self, line: LogLine, coarse: bool) {
        if self.seen.note(&line) && self.span.contains(line.time, coarse) {
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
                let state = self.source.engine.inspect(&self.source.container).await?;
                let goes_on = state.and_then(|inspected| inspected.state).is_some_and(|state| {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn time(second: u32) -> Timestamp {
        format!("2026-11-22T19:51:{second:02}.634846Z").parse().unwrap()
    }

    #[test]
    fn a_span_is_exact() {
        let span = Span { from: time(2), until: Some(time(4)), behind: None };
        assert_eq!([1, 2, 3, 4].map(|second| span.contains(time(second), false)), [false, true, true, false]);
        let nanosecond = jiff::SignedDuration::from_nanos(1);
        assert!(!span.contains(time(2) - nanosecond, false) && span.contains(time(4) - nanosecond, false));
        let second: Timestamp = "2026-11-22T19:51:02Z".parse().unwrap();
        assert!(span.contains(second, true), "the run may have begun later in this second");
        let resumed = Span { behind: Some(second + nanosecond), ..span };
        assert!(!resumed.contains(second, true) && resumed.contains(second + nanosecond, true));
    }

    #[test]
    fn a_tail_goes_back_until_it_has_its_lines() {
        let first = Aim::first(Some(10));
        assert_eq!(first, Aim::Tail { lines: 10, pieces: Some(11) }, "one more tells whether it is cut");
        assert_eq!(first.further(), Aim::Tail { lines: 10, pieces: Some(88) });
        assert_eq!(Aim::New { pieces: Some(FARTHEST / 2) }.further(), Aim::New { pieces: None });
        assert_eq!((Aim::first(None), Aim::All.further()), (Aim::All, Aim::All));
    }
}
