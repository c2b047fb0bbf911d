//! Notices at once that instances have written, and keeps their output from growing.
//!
//! One inotify descriptor for all runs: a quiet agent costs nothing, a new pairing code is read within milliseconds, and a
//! flood is cut back while it comes in. A slow tick catches what the kernel could not tell: no watch left, events lost.

use std::collections::{HashMap, HashSet};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio_util::task::AbortOnDropHandle;

use super::live::LiveRun;
use super::readiness::readable;

/// After the first event, the time in which more are gathered: a flood is looked at 200 times a second, not once a write.
const GATHER: Duration = Duration::from_millis(5);
/// How often everything is looked at without being told.
pub(super) const SAFETY_NET: Duration = Duration::from_secs(1);
/// Room for a thousand events without names.
const EVENTS: usize = 16 * 1024;

/// Ends with its owner.
#[derive(Debug)]
pub(super) struct OutputWatch {
    inotify: Arc<AsyncFd<OwnedFd>>,
    runs: Runs,
    _task: AbortOnDropHandle<()>,
}

/// By watch descriptor; a negative number where there was no watch to be had.
type Runs = Arc<Mutex<HashMap<i32, Arc<LiveRun>>>>;

impl OutputWatch {
    /// # Errors
    /// The kernel has no inotify instance left for us. Must be called inside a tokio runtime.
    pub(super) fn new() -> io::Result<Self> {
        let inotify = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        let inotify = Arc::new(readable(inotify)?);
        let runs = Runs::default();
        let task = tokio::spawn(watch(Arc::clone(&inotify), Arc::clone(&runs)));
        Ok(Self { inotify, runs, _task: AbortOnDropHandle::new(task) })
    }

    pub(super) fn add(&self, path: &Path, run: &Arc<LiveRun>) {
        let added = inotify::add_watch(self.inotify.get_ref(), path, inotify::WatchFlags::MODIFY);
        let key = added.unwrap_or_else(|error| {
            tracing::debug!(agent = %run.marker.agent, %error, "no watch for a log; looking at it now and then");
            -run.process.pid
        });
        lock(&self.runs).insert(key, Arc::clone(run));
    }
}

fn lock(runs: &Runs) -> std::sync::MutexGuard<'_, HashMap<i32, Arc<LiveRun>>> {
    runs.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn watch(inotify: Arc<AsyncFd<OwnedFd>>, runs: Runs) {
    let mut tick = tokio::time::interval(SAFETY_NET);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let written = tokio::select! {
            events = next_events(&inotify) => events,
            _ = tick.tick() => None,
        };
        let due = match written {
            Some(keys) => keys.iter().filter_map(|key| lock(&runs).get(key).cloned()).collect(),
            None => all(&inotify, &runs),
        };
        for run in &due {
            run.written.send_replace(());
        }
        // Only the end of the whole program cancels it.
        let _ = tokio::task::spawn_blocking(move || trim(&due)).await;
        tokio::time::sleep(GATHER).await;
    }
}

/// All runs, for a last time those that are over.
fn all(inotify: &AsyncFd<OwnedFd>, runs: &Runs) -> Vec<Arc<LiveRun>> {
    let mut runs = lock(runs);
    let all = runs.values().cloned().collect();
    runs.retain(|key, run| {
        let over = run.is_over();
        if over && *key >= 0 {
            // Fails where the file is gone, and the watch with it.
            let _ = inotify::remove_watch(inotify.get_ref(), *key);
        }
        !over
    });
    all
}

fn trim(runs: &[Arc<LiveRun>]) {
    for run in runs {
        if let Err(error) = run.output.trim() {
            tracing::warn!(agent = %run.marker.agent, %error, "cannot keep a log from growing");
        }
    }
}

/// The watches that events came for; `None` for all, where the kernel dropped some.
async fn next_events(inotify: &AsyncFd<OwnedFd>) -> Option<HashSet<i32>> {
    loop {
        let Ok(mut ready) = inotify.readable().await else { return None };
        if let Ok(events) = ready.try_io(|descriptor| Ok(read_events(descriptor.get_ref())?)) {
            return events.unwrap_or_default();
        }
    }
}

/// One read's worth of events.
fn read_events(descriptor: &OwnedFd) -> rustix::io::Result<Option<HashSet<i32>>> {
    let mut buffer = [MaybeUninit::uninit(); EVENTS];
    let mut events = inotify::Reader::new(descriptor, &mut buffer);
    let mut written = HashSet::new();
    loop {
        let event = events.next()?;
        if event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) {
            return Ok(None);
        }
        written.insert(event.wd());
        if events.is_buffer_empty() {
            return Ok(Some(written));
        }
    }
}
