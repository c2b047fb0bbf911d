//! Wake-ups from watches of all Pods and Secrets of an installation, which feed the [`Reflector`] on the way.
//!
//! A watch ends without an error when the API server is killed, and is merely silent when it is stopped. So every end before its
//! time is a gap, and so is a silence in which a question gets no answer. After a gap everything is listed; a watch that ends
//! when its time is over goes on where it was.

use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, PartialObjectMeta, WatchEvent, WatchParams};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::cluster::{Cluster, read};
use super::reflector::{Feeder, Objects, Positions, Reflector};
use super::{PAGE, carriers, objects};
use crate::domain::{InstallationId, Timestamp};
use crate::runtime::{Resync, RuntimeError, RuntimeResult};

/// Wake-ups that may wait for a slow reader; one more becomes a gap, which stands for all of them.
const QUEUE: usize = 256;
/// A watch that was silent for so long is checked by a question.
const IDLE: Duration = Duration::from_secs(10);
/// The API server ends each watch after so many seconds, which is no gap.
const SECONDS: u32 = 290;
/// What a watch may end before or after its time.
const EARLY: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Without end; it starts with a gap.
pub(super) fn watch(
    cluster: Cluster,
    reflector: Reflector,
    installation: InstallationId,
) -> BoxStream<'static, Resync> {
    let (wake, queue) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let mut pause = FIRST_PAUSE;
        while !wake.is_closed() {
            let mut told = Told { wake: &wake, missed: false };
            match follow(&cluster, &reflector, installation, &mut told).await {
                Ok(()) => pause = FIRST_PAUSE,
                Err(error) => {
                    tracing::debug!(%error, "the watch of the cluster has ended");
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            tokio::time::sleep(pause).await;
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(queue).boxed()
}

/// From a list of everything until the next gap.
async fn follow(
    cluster: &Cluster,
    reflector: &Reflector,
    installation: InstallationId,
    told: &mut Told<'_>,
) -> RuntimeResult<()> {
    let (feeder, selector) = (reflector.feeder(), objects::selector(installation));
    let (listed, mut at) = list(cluster, &selector).await?;
    feeder.begin(listed, &at);
    told.all();
    loop {
        let ends = Instant::now() + Duration::from_secs(SECONDS.into()) - EARLY;
        go_on(cluster, &feeder, &selector, &mut at, told).await?;
        if Instant::now() < ends || told.wake.is_closed() {
            return Ok(());
        }
    }
}

/// All Secrets and Pods of an installation, page by page, and where in history they are.
pub(super) async fn list(cluster: &Cluster, selector: &str) -> RuntimeResult<(Objects, Positions)> {
    let (mut listed, mut at) = (Objects::default(), Positions::default());
    let ours = ListParams::default().labels(selector).limit(PAGE);
    let mut query = ours.clone();
    loop {
        let page = read(cluster.secrets().list_metadata(&query)).await?;
        page.items.iter().for_each(|secret| listed.put_secret(&secret.metadata));
        at.secrets = page.metadata.resource_version.unwrap_or_default();
        query.continue_token = page.metadata.continue_.filter(|more| !more.is_empty());
        if query.continue_token.is_none() {
            break;
        }
    }
    let mut query = ours;
    loop {
        let page = read(cluster.pods().list(&query)).await?;
        for pod in &page.items {
            listed.put_pod(pod, Timestamp::now());
            if carriers::is_one(&pod.metadata) {
                carriers::tidy(cluster, pod).await;
            }
        }
        at.pods = page.metadata.resource_version.unwrap_or_default();
        query.continue_token = page.metadata.continue_.filter(|more| !more.is_empty());
        if query.continue_token.is_none() {
            return Ok((listed, at));
        }
    }
}

enum Event {
    Pod(Box<WatchEvent<Pod>>),
    Secret(Box<WatchEvent<PartialObjectMeta<Secret>>>),
    End,
}

/// From these positions until one of the watches ends.
async fn go_on(
    cluster: &Cluster,
    feeder: &Feeder,
    selector: &str,
    at: &mut Positions,
    told: &mut Told<'_>,
) -> RuntimeResult<()> {
    let params = WatchParams::default().labels(selector).timeout(SECONDS);
    let secrets = read(cluster.secrets().watch_metadata(&params, &at.secrets)).await?;
    let pods = read(cluster.pods().watch(&params, &at.pods)).await?;
    let pods = until_its_end(pods, |event| Event::Pod(Box::new(event)));
    let secrets = until_its_end(secrets, |event| Event::Secret(Box::new(event)));
    let mut events = stream::select(pods, secrets).boxed();
    // A connection that has died unnoticed has no end.
    let over = Instant::now() + Duration::from_secs(SECONDS.into()) + EARLY;
    while Instant::now() < over {
        match timeout(IDLE, events.next()).await {
            Ok(Some(Event::Pod(event))) => match *event {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                    at.pods = version(&pod.metadata, &at.pods);
                    if carriers::is_one(&pod.metadata) {
                        let cluster = cluster.clone();
                        tokio::spawn(async move { carriers::tidy(&cluster, &pod).await });
                    } else {
                        feeder.put_pod(&pod, Timestamp::now());
                        told.of(&pod.metadata);
                    }
                }
                WatchEvent::Deleted(pod) => {
                    at.pods = version(&pod.metadata, &at.pods);
                    feeder.drop_pod(&pod.metadata);
                    told.of(&pod.metadata);
                }
                WatchEvent::Bookmark(bookmark) => {
                    at.pods = bookmark.metadata.resource_version;
                    told.flush();
                }
                // Its place in history is too old.
                WatchEvent::Error(status) => return Err(RuntimeError::Unavailable(status.message.clone())),
            },
            Ok(Some(Event::Secret(event))) => match *event {
                WatchEvent::Added(secret) | WatchEvent::Modified(secret) => {
                    at.secrets = version(&secret.metadata, &at.secrets);
                    feeder.put_secret(&secret.metadata);
                }
                WatchEvent::Deleted(secret) => {
                    at.secrets = version(&secret.metadata, &at.secrets);
                    feeder.drop_secret(&secret.metadata);
                    // Without one there is no instance, whether it ran or not.
                    told.of(&secret.metadata);
                }
                WatchEvent::Bookmark(bookmark) => at.secrets = bookmark.metadata.resource_version,
                WatchEvent::Error(status) => return Err(RuntimeError::Unavailable(status.message.clone())),
            },
            Ok(Some(Event::End) | None) => return Ok(()),
            Err(_) => {
                read(cluster.client.apiserver_version()).await?;
                told.flush();
            }
        }
    }
    Ok(())
}

/// An end by an error is one as well: whoever reads it cannot go on there.
fn until_its_end<T>(
    events: impl Stream<Item = Result<WatchEvent<T>, kube::Error>>,
    kind: impl Fn(WatchEvent<T>) -> Event,
) -> impl Stream<Item = Event> {
    events.map(move |event| event.map_or(Event::End, &kind)).chain(stream::once(std::future::ready(Event::End)))
}

fn version(meta: &ObjectMeta, before: &str) -> String {
    meta.resource_version.clone().unwrap_or_else(|| before.to_owned())
}

/// The reader, and whether it has to hear of a gap as soon as it takes something.
struct Told<'a> {
    wake: &'a mpsc::Sender<Resync>,
    missed: bool,
}

impl Told<'_> {
    fn all(&mut self) {
        self.missed = true;
        self.flush();
    }

    fn of(&mut self, meta: &ObjectMeta) {
        self.flush();
        if let Some(agent) = objects::agent_of(meta) {
            self.missed |= self.wake.try_send(Resync::Instance(agent)).is_err();
        }
    }

    fn flush(&mut self) {
        self.missed = self.missed && self.wake.try_send(Resync::All).is_err();
    }
}
