//! An instance's output, by the time stamps that its node gave to each line.
//!
//! A node keeps what the present container wrote, and the one before it. The stream of a container that runs ends when that
//! ends. stdout and stderr are not told apart.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{AsyncBufRead, AsyncRead, AsyncReadExt, StreamExt};
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

/// How often a node is asked that cannot read what it has, and how long it is left alone in between.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(300);

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
        let Some(bytes) = self.opened(key, &params).await? else { return Ok(nothing()) };
        let wanted = Wanted { since: query.since, after: place };
        let lines = lines(Box::pin(bytes), wanted);
        match query.tail.filter(|_| !query.follow) {
            Some(tail) => Ok(last(lines, tail).await),
            None => Ok(lines),
        }
    }
}

impl KubernetesRuntime {
    /// The node's answer; none for a container that has written nothing, because it has not begun.
    async fn opened(&self, key: &InstanceKey, params: &LogParams) -> RuntimeResult<Option<impl AsyncBufRead + use<>>> {
        let pods = self.cluster.pods();
        for attempt in 1.. {
            let opened = read(async {
                match pods.log_stream(&name(key.agent), params).await {
                    Ok(stream) => Ok(Some(stream)),
                    Err(Error::Api(status)) if status.code == 400 && has_not_begun(&status.message) => Ok(None),
                    Err(error) => Err(error),
                }
            });
            match opened.await {
                // A node says 400 of everything that goes wrong there, such as of an engine that did not answer it in time.
                Err(RuntimeError::Invalid(why)) if attempt >= ATTEMPTS => return Err(RuntimeError::Unavailable(why)),
                Err(RuntimeError::Invalid(_)) => tokio::time::sleep(PAUSE).await,
                answer => return answer,
            }
        }
        unreachable!("the attempts are counted")
    }
}

/// Whether a refusal means that the container has not begun, by the words of kubelet and of the API server.
fn has_not_begun(refusal: &str) -> bool {
    ["is waiting to start", "is not available", "does not have a host assigned"]
        .iter()
        .any(|words| refusal.contains(words))
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
    /// What the node said in place of lines.
    excuse: Option<String>,
    wanted: Wanted,
    ended: bool,
}

fn lines(bytes: impl AsyncRead + Send + Unpin + 'static, wanted: Wanted) -> BoxStream<'static, RuntimeResult<LogLine>> {
    let reader = Reader {
        bytes,
        splitter: LineSplitter::default(),
        ready: std::collections::VecDeque::new(),
        place: None,
        excuse: None,
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
                // Its words alone mean that it has the lines and cannot read them.
                let excuse = self.excuse.take().filter(|_| self.place.is_none())?;
                return Some((Err(RuntimeError::Unavailable(excuse)), self));
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
        let (time, rest) = text.split_once(' ').unwrap_or((text, ""));
        let Ok(time) = time.parse::<Timestamp>() else {
            self.excuse.get_or_insert_with(|| text.to_owned());
            return;
        };
        let nth = self.place.as_ref().filter(|place| place.time == time).map_or(0, |place| place.nth + 1);
        let place = Place { time, nth };
        if self.wanted.has(&place) {
            let cursor = place.cursor();
            self.ready.push_back(LogLine { time, cursor, stream: LogStream::Stdout, text: rest.to_owned() });
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
    async fn a_node_that_cannot_read_its_lines_is_no_instance_without_lines() {
        let wanted = || Wanted { since: None, after: None };
        let excuse: &[u8] = b"unable to retrieve container logs for docker://0123";
        let answer: Vec<_> = lines(excuse, wanted()).collect().await;
        assert!(
            matches!(&answer[..], [Err(RuntimeError::Unavailable(why))] if why.contains("unable to retrieve")),
            "{answer:?}"
        );
        // Where there are lines, or nothing at all, its words are of no interest.
        assert_eq!(read(wanted()).await.len(), 4);
        assert_eq!(lines(&b""[..], wanted()).count().await, 0);
        let unwanted = Wanted { since: Some("2027-01-01T00:00:00Z".parse().unwrap()), after: None };
        assert_eq!(read(unwanted).await.len(), 0);
    }

    #[test]
    fn only_a_container_that_has_not_begun_has_nothing_to_say() {
        for words in [
            "container \"zeroclaw\" in pod \"zc-1\" is waiting to start: ContainerCreating",
            "container \"zeroclaw\" in pod \"zc-1\" is waiting to start: trying and failing to pull image",
            "container \"zeroclaw\" in pod \"zc-1\" is not available",
            "pod zc-1 does not have a host assigned",
        ] {
            assert!(has_not_begun(words), "{words}");
        }
        for words in [
            "unable to retrieve container logs for docker://0123",
            "container zeroclaw is not valid for pod zc-1",
            "failed to try resolving symlinks in path \"/var/log/pods/x/0.log\"",
            "operation timeout: context deadline exceeded",
        ] {
            assert!(!has_not_begun(words), "{words}");
        }
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
