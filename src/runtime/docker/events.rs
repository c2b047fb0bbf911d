//! Wake-ups from the engine's event stream.
//!
//! Events are hints: the engine keeps a few hundred, forgets them when it restarts, and an exit while it is down gives
//! none at all. So nothing is read from an event but whose it is, and, for people, how a run ended; and every break in the
//! stream becomes a gap. An engine, or a filter before it, that refuses the stream is asked again less and less often;
//! health checks and the sweep then find what happens.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;

use super::answers::Event;
use super::container;
use super::engine::Engine;
use super::exit_history::ExitHistory;
use super::failure::Failure;
use super::run_id::Boots;
use super::suspects::Suspects;
use super::wire::Lines;
use crate::domain::{InstallationId, Timestamp};
use crate::runtime::Resync;

/// What changes the state of a container, in Docker's words and in Podman's; the rest, such as an exec of a health check,
/// is noise. Each engine ignores the other's words.
const ACTIONS: [&str; 16] = [
    "create", "start", "restart", "die", "died", "oom", "kill", "stop", "pause", "unpause", "rename", "update",
    "destroy", "remove", "cleanup", "init",
];

/// Wake-ups that may wait for a slow reader; one more becomes a gap, which stands for all of them.
const QUEUE: usize = 256;

/// A stream that was silent for so long is checked by a ping: an engine that hangs ends no stream.
const IDLE: Duration = Duration::from_secs(5);

/// Pauses between attempts to connect again. A refusal is an answer that will be the same in a moment, so it is given
/// more time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE_REFUSED: Duration = Duration::from_secs(60);

/// Events from so long before the connection are asked for again: to wake twice is harmless, to miss one is not.
const OVERLAP: Duration = Duration::from_secs(10);

/// What the events of an installation are read with.
pub(super) struct Watcher {
    pub(super) engine: Arc<Engine>,
    pub(super) history: Arc<ExitHistory>,
    pub(super) runs: Arc<Boots>,
    pub(super) suspects: Arc<Suspects>,
    pub(super) installation: InstallationId,
}

/// The wake-ups for all containers of an installation, without end; it starts with a gap.
pub(super) fn watch(watcher: Watcher) -> BoxStream<'static, Resync> {
    let (wake, queue) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        tokio::select! {
            () = watcher.pump(&wake) => {}
            () = wake.closed() => {}
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(queue).boxed()
}

impl Watcher {
    /// Connects again and again; ends when nobody listens any more.
    async fn pump(&self, wake: &mpsc::Sender<Resync>) {
        let mut pause = FIRST_PAUSE;
        let mut told = false;
        while !wake.is_closed() {
            let longest = match self.connect().await {
                Ok(mut events) => {
                    self.history.clear();
                    self.find_suspects().await;
                    if wake.send(Resync::All).await.is_err() {
                        return;
                    }
                    match self.forward(&mut events, wake).await {
                        // A stream that told something was a good one.
                        true => pause = FIRST_PAUSE,
                        false => tracing::debug!("the engine's event stream ended without an event"),
                    }
                    told = false;
                    LONGEST_PAUSE
                }
                Err(Failure::Refused(status, message)) if !(502..=504).contains(&status) => {
                    if !told {
                        tracing::warn!(
                            status,
                            why = message,
                            "the engine's events are refused; exits are noticed by health checks alone, some seconds later"
                        );
                        told = true;
                        // The listener is to begin all the same.
                        if wake.send(Resync::All).await.is_err() {
                            return;
                        }
                    }
                    LONGEST_PAUSE_REFUSED
                }
                Err(_) => LONGEST_PAUSE,
            };
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Agents that have several containers: what made them may have been missed.
    async fn find_suspects(&self) {
        if let Ok(listed) = self.engine.containers(&container::owner_filter(self.installation, None)).await {
            self.suspects.record_all(listed.iter().filter_map(|container| container::agent_of(&container.labels)));
        }
    }

    async fn connect(&self) -> Result<Lines, Failure> {
        if let Err(error) = self.engine.ping().await {
            return Err(Failure::Away(error.to_string()));
        }
        let since = Timestamp::now().as_second() - OVERLAP.as_secs() as i64;
        self.engine.events(since, &container::event_filter(self.installation, &ACTIONS)).await
    }

    /// Passes events on until the stream ends or the engine hangs. Whether there was any.
    async fn forward(&self, events: &mut Lines, wake: &mpsc::Sender<Resync>) -> bool {
        let mut any = false;
        loop {
            match tokio::time::timeout(IDLE, events.next()).await {
                Ok(Some(Ok(line))) => {
                    any = true;
                    // What cannot be read may be about any of them.
                    let resync = serde_json::from_slice(&line).map_or(Some(Resync::All), |event| self.read(&event));
                    let Some(resync) = resync else { continue };
                    // A full queue is no reason to leave the engine waiting, which drops events of slow readers silently.
                    let full = wake.try_send(resync).is_err();
                    if full && wake.send(Resync::All).await.is_err() {
                        return any;
                    }
                }
                Ok(Some(Err(_)) | None) => return any,
                Err(_) => {
                    // So long a silence shows that the stream stands.
                    any = true;
                    if self.engine.ping().await.is_err() {
                        return any;
                    }
                }
            }
        }
    }

    /// Whom an event wakes. Some engines leave the labels out, and one of another's container then comes through too.
    fn read(&self, event: &Event) -> Option<Resync> {
        let (container, attributes) = (&event.actor.id, &event.actor.attributes);
        let agent = container::agent_of(attributes).or_else(|| self.runs.agent(container));
        // Before the agent is woken to look.
        self.history.record(container, &event.action, exit_code(event));
        match agent {
            Some(agent) => {
                self.suspects.record(agent, &event.action);
                Some(Resync::Instance(agent))
            }
            None if attributes.keys().any(|name| name.starts_with(container::LABELS)) => None,
            None => Some(Resync::All),
        }
    }
}

fn exit_code(event: &Event) -> Option<i32> {
    let attributes = &event.actor.attributes;
    let code = attributes.get("exitCode").or_else(|| attributes.get("containerExitCode"))?;
    code.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::AgentId;

    fn watcher() -> Watcher {
        Watcher {
            engine: Arc::new(Engine::new("unix:///x").unwrap()),
            history: Arc::default(),
            runs: Arc::default(),
            suspects: Arc::default(),
            installation: InstallationId::new(),
        }
    }

    fn event(text: &str) -> Event {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn an_event_wakes_whom_it_names_and_otherwise_everybody() {
        let (watcher, agent) = (watcher(), AgentId::new());
        let named = format!(
            r#"{{"Action":"die","Actor":{{"ID":"c","Attributes":{{"zeroone.agent":"{agent}","exitCode":"3"}}}}}}"#
        );
        assert_eq!(watcher.read(&event(&named)), Some(Resync::Instance(agent)));
        assert_eq!(watcher.history.last_exit("c").and_then(|exit| exit.code), Some(3));
        // Podman's word, and no labels.
        let bare = r#"{"Action":"died","Actor":{"ID":"d","Attributes":{"containerExitCode":"4"}}}"#;
        assert_eq!(watcher.read(&event(bare)), Some(Resync::All));
        assert_eq!(watcher.history.last_exit("d").and_then(|exit| exit.code), Some(4));
        watcher.runs.belongs("d", agent);
        assert_eq!(watcher.read(&event(bare)), Some(Resync::Instance(agent)));
        assert_eq!(watcher.read(&event(r#"{"Action":"dance"}"#)), Some(Resync::All));
        assert_eq!(watcher.read(&event(r#"{"Actor":{"Attributes":{"zeroone.agent":"odd"}}}"#)), None);
    }
}
