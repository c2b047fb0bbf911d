//! Wake-ups from one watch of all Pods of an installation.
//!
//! A watch ends without an error when the API server is killed, and is merely silent when it is stopped. So every end is a
//! gap, and so is a silence in which a question gets no answer.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use kube::api::{ListParams, WatchEvent, WatchParams};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::cluster::{CALL, Cluster, read};
use super::{carriers, objects};
use crate::domain::InstallationId;
use crate::runtime::{Resync, RuntimeResult};

/// Wake-ups that may wait for a slow reader; one more becomes a gap, which stands for all of them.
const QUEUE: usize = 256;
/// A watch that was silent for so long is checked by a question.
const IDLE: Duration = Duration::from_secs(10);
/// The API server ends each watch after so many seconds: all is listed anew some times in an hour, come what may.
const SECONDS: u32 = 290;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Without end; it starts with a gap.
pub(super) fn watch(cluster: Cluster, installation: InstallationId) -> BoxStream<'static, Resync> {
    let (wake, queue) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let mut pause = FIRST_PAUSE;
        while !wake.is_closed() {
            let mut told = Told { wake: &wake, missed: true };
            match follow(&cluster, installation, &mut told).await {
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

/// One watch, from a moment on at which everything is looked at again.
async fn follow(cluster: &Cluster, installation: InstallationId, told: &mut Told<'_>) -> RuntimeResult<()> {
    let selector = objects::selector(installation);
    let pods = cluster.pods();
    // Only the moment is of interest.
    let newest = read(pods.list_metadata(&ListParams::default().labels(&selector).limit(1))).await?;
    let from = newest.metadata.resource_version.unwrap_or_default();
    let params = WatchParams::default().labels(&selector).timeout(SECONDS);
    let mut events = read(pods.watch_metadata(&params, &from)).await?.boxed();
    told.all();
    loop {
        match timeout(IDLE, events.next()).await {
            Ok(Some(Ok(WatchEvent::Added(pod) | WatchEvent::Modified(pod)))) if carriers::is_one(&pod.metadata) => {
                tokio::spawn(carriers::tidied(cluster.clone(), pod.metadata));
            }
            Ok(Some(Ok(WatchEvent::Added(pod) | WatchEvent::Modified(pod) | WatchEvent::Deleted(pod)))) => {
                told.of(&pod.metadata)
            }
            Ok(Some(Ok(WatchEvent::Bookmark(_)))) => told.flush(),
            // Its place in history is too old, or the connection broke.
            Ok(Some(Ok(WatchEvent::Error(_)) | Err(_)) | None) => return Ok(()),
            Err(_) => {
                timeout(CALL, cluster.client.apiserver_version()).await.map_or_else(
                    |_| Err(crate::runtime::RuntimeError::Unavailable("it is silent".into())),
                    |answer| {
                        answer.map(drop).map_err(|error| crate::runtime::RuntimeError::Unavailable(error.to_string()))
                    },
                )?;
                told.flush();
            }
        }
    }
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

    fn of(&mut self, meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) {
        self.flush();
        if let Some(agent) = objects::agent_of(meta) {
            self.missed |= self.wake.try_send(Resync::Instance(agent)).is_err();
        }
    }

    fn flush(&mut self) {
        self.missed = self.missed && self.wake.try_send(Resync::All).is_err();
    }
}
