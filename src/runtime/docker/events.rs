//! Wake-ups from the engine's event stream.
//!
//! Events are hints: the engine keeps a few hundred, forgets them when it restarts, and a death while it is down gives
//! none at all. So nothing is read from an event but whose it is, and, for people, how a run ended; and every break in the
//! stream becomes a gap.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;

use super::container;
use super::deaths::Deaths;
use super::engine::Engine;
use crate::domain::{InstallationId, Timestamp};
use crate::runtime::{Resync, RuntimeResult};

/// What changes the state of a container; the rest, such as an exec of a health check, is noise.
const ACTIONS: [&str; 11] =
    ["create", "start", "restart", "die", "oom", "kill", "pause", "unpause", "rename", "update", "destroy"];

/// Wake-ups that may wait for a slow reader; one more becomes a gap, which stands for all of them.
const QUEUE: usize = 256;

/// A stream that was silent for so long is checked by a ping: an engine that hangs ends no stream.
const IDLE: Duration = Duration::from_secs(5);

/// Pauses between attempts to connect again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Events from so long before the connection are asked for again: to wake twice is harmless, to miss one is not.
const OVERLAP: Duration = Duration::from_secs(10);

/// The wake-ups for all containers of an installation, for ever; it starts with a gap.
pub(super) fn watch(
    engine: Arc<Engine>,
    deaths: Arc<Deaths>,
    installation: InstallationId,
) -> BoxStream<'static, Resync> {
    let (wake, queue) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        tokio::select! {
            () = pump(&engine, &deaths, installation, &wake) => {}
            () = wake.closed() => {}
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(queue).boxed()
}

/// Connects again and again; ends when nobody listens any more.
async fn pump(engine: &Engine, deaths: &Deaths, installation: InstallationId, wake: &mpsc::Sender<Resync>) {
    let mut pause = FIRST_PAUSE;
    while !wake.is_closed() {
        if let Ok(mut events) = connect(engine, installation).await {
            pause = FIRST_PAUSE;
            deaths.forget();
            if wake.send(Resync::All).await.is_err() {
                return;
            }
            forward(engine, deaths, &mut events, wake).await;
            tracing::debug!("the engine's event stream ended");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

type Events = BoxStream<'static, Result<EventMessage, bollard::errors::Error>>;

async fn connect(engine: &Engine, installation: InstallationId) -> RuntimeResult<Events> {
    engine.ping().await?;
    let mut filters: HashMap<String, Vec<String>> = container::owner_filter(installation, None);
    filters.insert("type".into(), vec!["container".into()]);
    filters.insert("event".into(), ACTIONS.map(String::from).to_vec());
    let since = Timestamp::now().as_second() - OVERLAP.as_secs() as i64;
    let options = EventsOptionsBuilder::default().since(&since.to_string()).filters(&filters).build();
    Ok(engine.docker().await?.events(Some(options)).boxed())
}

/// Passes events on until the stream ends or the engine hangs.
async fn forward(engine: &Engine, deaths: &Deaths, events: &mut Events, wake: &mpsc::Sender<Resync>) {
    loop {
        match tokio::time::timeout(IDLE, events.next()).await {
            Ok(Some(Ok(event))) => {
                let Some(actor) = event.actor else { continue };
                let attributes = actor.attributes.unwrap_or_default();
                let Some(agent) = container::agent_of(&attributes) else { continue };
                if let (Some(container), Some(action)) = (&actor.id, &event.action) {
                    let exit_code = attributes.get("exitCode").and_then(|code| code.parse().ok());
                    // Before anybody is woken to look.
                    deaths.note(container, action, exit_code);
                }
                // A full queue is no reason to leave the engine waiting, which drops events of slow readers silently.
                let full = wake.try_send(Resync::Instance(agent)).is_err();
                if full && wake.send(Resync::All).await.is_err() {
                    return;
                }
            }
            Ok(Some(Err(_)) | None) => return,
            Err(_) => {
                if engine.ping().await.is_err() {
                    return;
                }
            }
        }
    }
}
