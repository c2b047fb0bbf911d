//! An instance's output, by the time stamps that its node gave to each line.
//!
//! A node keeps what the present container wrote, and the one before it. The stream of a container that runs ends when that
//! ends. stdout and stderr are not told apart.

use std::sync::Arc;

use futures_util::stream::{self, BoxStream};
use futures_util::{AsyncRead, AsyncReadExt, StreamExt};
use kube::Error;
use kube::api::LogParams;

use super::KubernetesRuntime;
use super::cluster::read;
use super::objects::{CONTAINER, name};
use super::observe;
use crate::domain::Timestamp;
use crate::runtime::lines::LineSplitter;
use crate::runtime::{InstanceKey, LogCursor, LogLine, LogQuery, LogStream, RuntimeError, RuntimeResult};

/// Bytes that are read at once.
const CHUNK: usize = 16 * 1024;

impl KubernetesRuntime {
    pub(super) async fn output(
        &self,
        key: &InstanceKey,
        query: LogQuery,
    ) -> RuntimeResult<BoxStream<'static, RuntimeResult<LogLine>>> {
        let nothing = || stream::empty().boxed();
        let Some(pod) = self.pod(key.agent).await? else {
            return self.secrets_of(key.agent).await?.first().map(|_| nothing()).ok_or(RuntimeError::NotFound);
        };
        let run = pod.status.as_ref().and_then(|status| observe::run(&pod, status));
        if query.run_id.as_ref().is_some_and(|wanted| run.as_ref().is_none_or(|run| run.run_id != *wanted)) {
            return Ok(nothing());
        }
        let place = query.after.as_ref().and_then(Place::read);
        let since = query.since.max(place.as_ref().map(|place| place.time));
        let params = LogParams {
            container: Some(CONTAINER.into()),
            follow: query.follow,
            timestamps: true,
            // By the second, so there may be too many. A tail is of what is wanted, which only we know where there is a bound.
            since_time: since.and_then(whole_second),
            tail_lines: query.tail.filter(|_| since.is_none()).and_then(|tail| i64::try_from(tail).ok()),
            ..LogParams::default()
        };
        let pods = self.cluster.pods();
        let opened = read(async {
            match pods.log_stream(&name(key.agent), &params).await {
                Ok(stream) => Ok(Some(stream)),
                // It has not begun.
                Err(Error::Api(status)) if status.code == 400 => Ok(None),
                Err(error) => Err(error),
            }
        });
        let Some(bytes) = opened.await? else { return Ok(nothing()) };
        let wanted = Wanted { since: query.since, after: place };
        let lines = lines(Box::pin(bytes), wanted);
        match query.tail.filter(|_| !query.follow) {
            Some(tail) => Ok(last(lines, tail).await),
            None => Ok(lines),
        }
    }
}

/// A second that begins before this time: nodes understand no parts of one.
fn whole_second(time: Timestamp) -> Option<Timestamp> {
    Timestamp::from_second(time.as_second() - 1).ok()
}

/// The last so many of a stream that ends.
async fn last(
    mut lines: BoxStream<'static, RuntimeResult<LogLine>>,
    tail: usize,
) -> BoxStream<'static, RuntimeResult<LogLine>> {
    let mut kept = std::collections::VecDeque::new();
    while let Some(line) = lines.next().await {
        kept.push_back(line);
        if kept.len() > tail {
            kept.pop_front();
        }
    }
    stream::iter(kept).boxed()
}

/// Behind the `nth` line of this very time; lines that were written at once may share one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    time: Timestamp,
    nth: u32,
}

impl Place {
    fn read(cursor: &LogCursor) -> Option<Self> {
        let (nanos, nth) = cursor.0.split_once('-')?;
        Some(Self { time: Timestamp::from_nanosecond(nanos.parse().ok()?).ok()?, nth: nth.parse().ok()? })
    }

    fn cursor(&self) -> LogCursor {
        LogCursor(Arc::from(format!("{}-{}", self.time.as_nanosecond(), self.nth)))
    }
}

struct Wanted {
    since: Option<Timestamp>,
    after: Option<Place>,
}

impl Wanted {
    fn has(&self, place: &Place) -> bool {
        self.since.is_none_or(|since| place.time >= since)
            && self.after.as_ref().is_none_or(|after| (place.time, place.nth) > (after.time, after.nth))
    }
}

/// What a stream of bytes is read with.
struct Reader<R> {
    bytes: R,
    splitter: LineSplitter,
    /// Lines that were read and not given out, in order.
    ready: std::collections::VecDeque<LogLine>,
    place: Option<Place>,
    wanted: Wanted,
    ended: bool,
}

fn lines(bytes: impl AsyncRead + Send + Unpin + 'static, wanted: Wanted) -> BoxStream<'static, RuntimeResult<LogLine>> {
    let reader = Reader {
        bytes,
        splitter: LineSplitter::default(),
        ready: std::collections::VecDeque::new(),
        place: None,
        wanted,
        ended: false,
    };
    stream::unfold(reader, Reader::next).boxed()
}

impl<R: AsyncRead + Send + Unpin> Reader<R> {
    async fn next(mut self) -> Option<(RuntimeResult<LogLine>, Self)> {
        let mut chunk = vec![0; CHUNK];
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some((Ok(line), self));
            }
            if self.ended {
                return None;
            }
            let mut texts = Vec::new();
            match self.bytes.read(&mut chunk).await {
                Ok(0) => {
                    self.splitter.end(|text| texts.push(text));
                    self.ended = true;
                }
                Ok(read) => self.splitter.push(&chunk[..read], |text| texts.push(text)),
                Err(error) => {
                    self.ended = true;
                    return Some((Err(RuntimeError::Unavailable(error.to_string())), self));
                }
            }
            for text in texts {
                self.take(&text);
            }
        }
    }

    /// A line is its time, a space, and what was written. Others are the node's own words, such as of a log that it lost.
    fn take(&mut self, text: &str) {
        let (time, text) = text.split_once(' ').unwrap_or((text, ""));
        let Ok(time) = time.parse::<Timestamp>() else { return };
        let nth = self.place.as_ref().filter(|place| place.time == time).map_or(0, |place| place.nth + 1);
        let place = Place { time, nth };
        if self.wanted.has(&place) {
            let cursor = place.cursor();
            self.ready.push_back(LogLine { time, cursor, stream: LogStream::Stdout, text: text.to_owned() });
        }
        self.place = Some(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"2026-01-01T00:00:00.000000001Z one\n2026-01-01T00:00:00.000000001Z two\nfailed to read\n\
        2026-01-01T00:00:00.5Z \n2026-01-01T00:00:01Z four\n";

    async fn read(wanted: Wanted) -> Vec<LogLine> {
        lines(TEXT, wanted).map(Result::unwrap).collect().await
    }

    fn texts(lines: &[LogLine]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[tokio::test]
    async fn lines_have_times_and_places_of_their_own() {
        let all = read(Wanted { since: None, after: None }).await;
        assert_eq!(texts(&all), ["one", "two", "", "four"]);
        for (index, line) in all.iter().enumerate() {
            let rest = read(Wanted { since: None, after: Place::read(&line.cursor) }).await;
            assert_eq!(texts(&rest), texts(&all[index + 1..]));
        }
        let since = Some(all[2].time);
        assert_eq!(texts(&read(Wanted { since, after: None }).await), ["", "four"]);
        assert_eq!(Place::read(&LogCursor("x".into())), None);
    }
}
