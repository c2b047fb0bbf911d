//! Messaging platforms, the incoming half: what they send is taken into an inbox on disk and answered from there.
//!
//! ```text
//! webhooks (WhatsApp, GitHub, Nextcloud Talk, Slack) ─┐ event table   commit     queue per conversation
//! Telegram's long poll ───────────────────────────────┼──► Batch ──► Inbox ──► Dispatcher ──► agent ──► channels
//! WebSockets (Slack, Discord) ────────────────────────┘                │
//!                                                     then the platform hears "taken"
//! ```
//! Each platform has a table in pure functions: which of its events are text, which get the words "I can only read
//! text", and which are nothing for us. A signed event is never refused with 4xx: platforms switch webhooks off for it.

mod backoff;
mod discord;
mod dispatch;
mod github;
mod inbox;
mod message;
mod nextcloud;
mod slack;
mod telegram;
mod webhook;
mod websocket;
mod whatsapp;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

pub(super) use github::webhook as github;
pub(super) use inbox::InboxError;
pub(super) use nextcloud::webhook as nextcloud_talk;
pub(super) use slack::webhook as slack;
pub(super) use whatsapp::{verify as whatsapp_verify, webhook as whatsapp};

use super::channels::Place;
use super::shared::App;
use dispatch::Dispatcher;
use inbox::Inbox;
use message::Batch;

/// The inbox and what works it off.
pub(super) struct IncomingMessages {
    inbox: Arc<Inbox>,
    dispatcher: Dispatcher,
}

impl IncomingMessages {
    pub(super) fn new(workspace: &Path) -> Self {
        Self { inbox: Arc::new(Inbox::new(workspace)), dispatcher: Dispatcher::new() }
    }

    /// Takes what a platform sent; when this returns, it is on the disk.
    ///
    /// # Errors
    /// See [`InboxError`]. Nothing of the batch was taken then.
    async fn take(&self, app: &App, batch: Batch) -> Result<(), InboxError> {
        if batch.events.is_empty() && batch.marks.is_empty() {
            return Ok(());
        }
        let places = self.on_disk(move |inbox| inbox.take(&batch)).await?;
        self.dispatcher.wake(app, places);
        Ok(())
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inbox) -> Result<T, InboxError> + Send + 'static,
    ) -> Result<T, InboxError> {
        let inbox = self.inbox.clone();
        tokio::task::spawn_blocking(move || work(&inbox)).await.map_err(|_| InboxError::Interrupted)?
    }

    /// Lets answers under way finish for so long, and leaves the rest to the next start.
    pub(super) async fn stop(&self, grace: Duration) {
        self.dispatcher.stop(grace).await;
    }
}

/// Reports what cannot work, goes on with what the last process left, and starts what has to run to receive messages;
/// each runs until its handle is dropped.
pub(super) fn start(app: &App) -> Vec<AbortOnDropHandle<()>> {
    let config = app.config();
    let channels = &config.channels_config;
    for (channel, off, words) in channels.findings() {
        tracing::warn!(channel, "{channel} {words}");
        if off {
            app.health.error(channel, &words);
        }
    }
    let mut tasks = Vec::new();
    if channels.present().iter().any(|(_, present)| *present) {
        tasks.push(tokio::spawn(go_on(app.clone())));
    }
    if let Some(telegram) = channels.telegram.as_ref() {
        tasks.push(tokio::spawn(telegram::poll(app.clone(), telegram.clone())));
    }
    if let Some(slack) = channels.slack.as_ref().filter(|slack| slack.app_token.is_some()) {
        tasks.push(tokio::spawn(slack::listen(app.clone(), slack.clone())));
    }
    if let Some(discord) = channels.discord.as_ref() {
        tasks.push(tokio::spawn(discord::listen(app.clone(), discord.clone())));
    }
    tasks.into_iter().map(AbortOnDropHandle::new).collect()
}

/// Works off what an earlier process took and did not finish.
async fn go_on(app: App) {
    match app.incoming.on_disk(Inbox::unfinished).await {
        Ok(places) => {
            if !places.is_empty() {
                tracing::info!(conversations = places.len(), "answering messages from before the start");
            }
            app.incoming.dispatcher.wake(&app, places);
        }
        Err(error) => complain(&app, &error),
    }
}

/// Reports that the inbox cannot be used.
fn complain(app: &App, error: &InboxError) {
    tracing::error!(error = error as &dyn std::error::Error, "the inbox of messages cannot be used");
    app.health.error("inbox", &error.to_string());
}

/// The platform of a place in words for the log and for `/health`.
fn name(place: &Place) -> &'static str {
    place.platform.as_str()
}
