//! Works the inbox off: one queue for each conversation, so that a slow one delays no other.
//!
//! Within a conversation one message after the other is answered, with what was said before. Many conversations are
//! answered at the same time; the number is bounded, for each costs a call of the model.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::backoff::Backoff;
use super::inbox::{Answered, InboxError, Pending};
use super::{complain, name};
use crate::gateway::agent::{self, Ask, Source};
use crate::gateway::channels::{ChannelError, Outcome, Place, Platform, pieces, send_piece};
use crate::gateway::memory::Owner;
use crate::gateway::provider::Message;
use crate::gateway::shared::App;

/// Conversations that are answered at the same time.
const AT_ONCE: usize = 64;
/// Processes that may die while they ask for the same message; then the message is what kills them.
const TRIES: u32 = 3;
/// Questions with their answers that are read of a conversation. How much of it the model is shown again is decided by its
/// length in tokens, as in sessions.
const HISTORY: usize = 500;
/// How often a piece is sent that did not arrive, and the pauses between.
const SENDS: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A platform that asks for a longer pause is not waited for. GitHub counts by the hour.
const LONGEST_ASKED_PAUSE: Duration = Duration::from_secs(3_660);
/// What a message that is being sent is given at the end, beyond the grace: cut off, it would be in doubt.
const LAST_SENDS: Duration = Duration::from_secs(2);
/// What people are told when there is no answer; why is in the log.
pub(super) const SORRY: &str = "Sorry, I could not answer that. Please try again later.";
/// When a process died while it was sending.
pub(super) const IN_DOUBT: &str =
    "Sorry, I was interrupted while I answered. If you do not see my answer, please ask again.";

pub(super) struct Dispatcher {
    /// Conversations that a task works on, and whether more came since it last looked.
    active: Mutex<HashMap<Place, bool>>,
    slots: Semaphore,
    tasks: TaskTracker,
    /// No further message is begun.
    stopping: CancellationToken,
    /// Questions under way are given up.
    cut: CancellationToken,
}

/// Why a conversation's task ends for now. What is not done stays in the inbox.
enum Pause {
    Stopping,
    Inbox(InboxError),
}

impl From<InboxError> for Pause {
    fn from(error: InboxError) -> Self {
        Self::Inbox(error)
    }
}

impl Dispatcher {
    pub(super) fn new() -> Self {
        Self {
            active: Mutex::default(),
            slots: Semaphore::new(AT_ONCE),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            cut: CancellationToken::new(),
        }
    }

    /// Has conversations looked after that have something to do.
    pub(super) fn wake(&self, app: &App, places: Vec<Place>) {
        for place in places {
            let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(more) = active.get_mut(&place) {
                *more = true;
                continue;
            }
            active.insert(place.clone(), false);
            let app = app.clone();
            self.tasks.spawn(async move { work_off(&app, place).await });
        }
    }

    pub(super) async fn stop(&self, grace: Duration) {
        self.stopping.cancel();
        self.tasks.close();
        if tokio::time::timeout(grace, self.tasks.wait()).await.is_err() {
            tracing::info!("messages are left to the next start");
            self.cut.cancel();
            let _ = tokio::time::timeout(LAST_SENDS, self.tasks.wait()).await;
        }
    }

    /// Whether a task may end: not when more came in the meantime.
    fn ends(&self, place: &Place) -> bool {
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        match active.get_mut(place) {
            Some(more) if *more => {
                *more = false;
                false
            }
            _ => {
                active.remove(place);
                true
            }
        }
    }
}

/// Answers what waits in a conversation, until nothing does.
async fn work_off(app: &App, place: Place) {
    /// A disk that fails is not mended by trying at once again.
    const AFTER_ERROR: Duration = Duration::from_secs(5);
    let dispatcher = &app.incoming.dispatcher;
    loop {
        let looked_at = place.clone();
        let result = match app.incoming.on_disk(move |inbox| inbox.next(&looked_at)).await {
            Ok(None) if dispatcher.ends(&place) => return,
            Ok(None) => continue,
            Ok(Some(_)) if dispatcher.stopping.is_cancelled() => return,
            Ok(Some(pending)) => answer(app, pending).await,
            Err(error) => Err(Pause::Inbox(error)),
        };
        match result {
            Ok(()) => {}
            Err(Pause::Stopping) => return,
            Err(Pause::Inbox(error)) => {
                complain(app, &error);
                tokio::select! {
                    () = tokio::time::sleep(AFTER_ERROR) => {}
                    () = dispatcher.stopping.cancelled() => return,
                }
            }
        }
    }
}

/// Brings one message to its end: asks, if there is no answer yet, and sends.
async fn answer(app: &App, mut pending: Pending) -> Result<(), Pause> {
    let number = pending.number;
    match &pending.answer {
        None => {
            let answered = if pending.tries >= TRIES {
                tracing::error!(channel = name(&pending.place), "a message was given up: each try ended the process");
                Answered::apology(SORRY)
            } else {
                ask(app, &pending).await?
            };
            (pending.answer, pending.apology) = (Some(answered.text.clone()), answered.apology);
            app.incoming.on_disk(move |inbox| inbox.answered(number, &answered)).await?;
        }
        // A process died here: whether the piece arrived is unknown.
        Some(_) if pending.begun > pending.sent && pending.apology => {
            return Ok(app.incoming.on_disk(move |inbox| inbox.done(number)).await?);
        }
        Some(_) if pending.begun > pending.sent => in_doubt(app, &mut pending).await?,
        Some(_) => {}
    }
    send(app, pending).await
}

/// The answer in place of one whose delivery is unknown.
async fn in_doubt(app: &App, pending: &mut Pending) -> Result<(), Pause> {
    let number = pending.number;
    app.incoming.on_disk(move |inbox| inbox.answered(number, &Answered::apology(IN_DOUBT))).await?;
    (pending.answer, pending.apology) = (Some(IN_DOUBT.to_owned()), true);
    (pending.begun, pending.sent) = (0, 0);
    Ok(())
}

/// Asks the model.
async fn ask(app: &App, pending: &Pending) -> Result<Answered, Pause> {
    let dispatcher = &app.incoming.dispatcher;
    let slot = tokio::select! {
        slot = dispatcher.slots.acquire() => slot,
        () = dispatcher.stopping.cancelled() => return Err(Pause::Stopping),
    };
    let (number, place) = (pending.number, pending.place.clone());
    let history = app
        .incoming
        .on_disk(move |inbox| {
            inbox.asking(number)?;
            inbox.history(&place, number, HISTORY)
        })
        .await?;
    let turn = |(question, answer)| [Message::User(question), Message::Assistant(answer)];
    let mut conversation: Vec<Message> = history.into_iter().flat_map(turn).collect();
    let earlier = conversation.len();
    conversation.push(Message::User(pending.text.clone()));
    // Memories are the person's, whatever chat it wrote in.
    let owner = Owner::person(name(&pending.place), &pending.sender);
    let ask = Ask { owner, conversation, ..Ask::new(source(pending.place.platform), "") };
    let answer = tokio::select! {
        answer = agent::answer(app, ask) => answer,
        () = dispatcher.cut.cancelled() => {
            app.incoming.on_disk(move |inbox| inbox.not_asked(number)).await?;
            return Err(Pause::Stopping);
        }
    };
    drop(slot);
    let Ok(answer) = answer else { return Ok(Answered::apology(SORRY)) };
    if answer.left_out > 0 {
        // What the model called too long stays left out.
        let (place, keep) = (pending.place.clone(), earlier.saturating_sub(answer.left_out) / 2);
        app.incoming.on_disk(move |inbox| inbox.shorten(&place, number, keep)).await?;
    }
    match answer.message() {
        Message::Assistant(said) if !said.text.trim().is_empty() => Ok(Answered::of(&said)),
        _ => Ok(Answered::apology(SORRY)),
    }
}

/// Sends what of an answer was not sent yet.
async fn send(app: &App, pending: Pending) -> Result<(), Pause> {
    let number = pending.number;
    let text = pending.answer.clone().unwrap_or_default();
    let pieces: Vec<String> = pieces(&text, pending.place.platform.limit()).into_iter().map(str::to_owned).collect();
    let count = pieces.len();
    for (index, piece) in pieces.into_iter().enumerate().skip(pending.sent) {
        let last = index + 1 == count;
        match send_surely(app, &pending, &piece).await? {
            Ok(()) => {
                app.incoming.on_disk(move |inbox| inbox.sent(number, last)).await?;
                app.health.ok(name(&pending.place));
            }
            Err(error) => {
                failed(app, &pending.place, &error);
                break;
            }
        }
    }
    Ok(app.incoming.on_disk(move |inbox| inbox.done(number)).await?)
}

/// Sends a piece until it arrived, cannot arrive, or may have arrived.
async fn send_surely(app: &App, pending: &Pending, piece: &str) -> Result<Result<(), ChannelError>, Pause> {
    let number = pending.number;
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    for sends in 1.. {
        app.incoming.on_disk(move |inbox| inbox.sending(number)).await?;
        let config = app.config();
        let place = &pending.place;
        let result = send_piece(&app.http, &config.channels_config, place, pending.quoted.as_deref(), piece).await;
        let Err(error) = result else { return Ok(Ok(())) };
        let pause = match error.outcome() {
            Outcome::NotDelivered { pause } if sends < SENDS => pause.unwrap_or_else(|| backoff.pause()),
            _ => return Ok(Err(error)),
        };
        app.incoming.on_disk(move |inbox| inbox.not_sent(number)).await?;
        if pause > LONGEST_ASKED_PAUSE {
            return Ok(Err(error));
        }
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            channel = name(place),
            ?pause,
            "an answer has to wait"
        );
        app.health.error(name(place), &error.to_string());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = app.incoming.dispatcher.stopping.cancelled() => return Err(Pause::Stopping),
        }
    }
    unreachable!("the last send returns")
}

fn failed(app: &App, place: &Place, error: &ChannelError) {
    tracing::error!(error = error as &dyn std::error::Error, channel = name(place), "an answer was not delivered");
    app.events.error(name(place), &error.to_string());
    app.health.error(name(place), &error.to_string());
}

const fn source(platform: Platform) -> Source {
    match platform {
        Platform::Telegram => Source::Telegram,
        Platform::Discord => Source::Discord,
        Platform::Slack => Source::Slack,
        Platform::WhatsApp => Source::WhatsApp,
        Platform::Github => Source::Github,
        Platform::NextcloudTalk => Source::NextcloudTalk,
    }
}
