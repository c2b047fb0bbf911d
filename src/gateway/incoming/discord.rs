//! Discord by its gateway WebSocket. The session is kept in the inbox with the messages: after a restart it is resumed,
//! and Discord sends what came in between.

mod event;

use std::time::Duration;

use rand::Rng as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::backoff::Backoff;
use super::inbox::InboxError;
use super::message::Batch;
use super::webhook::text;
use super::websocket::{Socket, SocketError};
use crate::gateway::channels::{ChannelError, Discord, discord_get};
use crate::gateway::shared::App;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Discord allows a thousand new sessions a day.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Servers and their threads, messages there, direct messages.
const INTENTS: u64 = 1 | 1 << 9 | 1 << 12;
/// The words of messages that do not mention the bot. It must be switched on in Discord's developer portal.
const MESSAGE_CONTENT: u64 = 1 << 15;
const NO_CONTENT: &str = "Discord does not let the bot read messages that do not mention it; switch on the Message \
                          Content Intent in the developer portal. Until then it reads mentions and direct messages";

/// What is needed to take a session up again.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Session {
    id: String,
    url: String,
    sequence: u64,
    /// The bot's user id.
    bot: String,
}

#[derive(Debug, thiserror::Error)]
enum ListenError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error(transparent)]
    Inbox(#[from] InboxError),
    #[error("Discord did not greet")]
    NoHello,
    #[error("Discord ended the session")]
    Invalid,
    #[error("Discord asked for a new connection")]
    Reconnect,
    #[error("Discord does not acknowledge heartbeats")]
    NoHeartbeat,
}

/// Receives messages until dropped.
pub(super) async fn listen(app: App, discord: Discord) {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut intents = INTENTS | MESSAGE_CONTENT;
    loop {
        let Err(error) = connection(&app, &discord, intents, &mut backoff).await;
        match &error {
            ListenError::Reconnect => continue,
            ListenError::Socket(SocketError::Closed(Some(4014))) if intents & MESSAGE_CONTENT != 0 => {
                tracing::warn!("{NO_CONTENT}");
                intents = INTENTS;
                continue;
            }
            _ => {}
        }
        if session_is_over(&error) {
            keep(&app, &discord, None).await;
        }
        let (pause, words) = (backoff.pause(), explain(&error));
        tracing::warn!(error = &error as &dyn std::error::Error, ?pause, "cannot receive messages of Discord: {words}");
        app.health.error("discord", &words);
        app.health.restarted("discord");
        tokio::time::sleep(pause).await;
    }
}

/// One connection, until it ends.
async fn connection(
    app: &App,
    discord: &Discord,
    intents: u64,
    backoff: &mut Backoff,
) -> Result<std::convert::Infallible, ListenError> {
    let key = mark(discord);
    let kept = app.incoming.on_disk(move |inbox| inbox.mark(&key)).await?;
    let mut session: Option<Session> = kept.and_then(|kept| serde_json::from_str(&kept).ok());
    let url = match &session {
        Some(session) => session.url.clone(),
        None => text(&discord_get(&app.http, discord, "gateway/bot").await?, "/url").to_owned(),
    };
    let mut socket = Socket::connect(&app.http, &format!("{}/?v=10&encoding=json", url.trim_end_matches('/'))).await?;
    let hello = socket.next().await?;
    let interval =
        hello["d"]["heartbeat_interval"].as_u64().filter(|_| hello["op"] == 10).ok_or(ListenError::NoHello)?;
    let interval = Duration::from_millis(interval.max(100));
    socket.send(&greeting(discord, intents, session.as_ref())).await?;
    // The first heartbeat comes at a random time, so that all clients of a restarted server do not come at once.
    let mut heartbeat = Instant::now() + interval.mul_f64(rand::rng().random::<f64>());
    let mut acknowledged = true;
    loop {
        let message = tokio::select! {
            message = socket.next() => message?,
            () = sleep_until(heartbeat) => {
                if !acknowledged {
                    return Err(ListenError::NoHeartbeat);
                }
                acknowledged = false;
                heartbeat = Instant::now() + interval;
                socket.send(&beat(session.as_ref())).await?;
                continue;
            }
        };
        match message["op"].as_u64() {
            Some(0) => {
                dispatch(app, discord, &mut session, &message).await?;
                if matches!(text(&message, "/t"), "READY" | "RESUMED") {
                    ready(app, intents);
                    backoff.reset();
                }
            }
            Some(1) => socket.send(&beat(session.as_ref())).await?,
            Some(7) => return Err(ListenError::Reconnect),
            Some(9) if message["d"] == true => return Err(ListenError::Reconnect),
            Some(9) => return Err(ListenError::Invalid),
            Some(11) => acknowledged = true,
            _ => {}
        }
    }
}

/// Takes an event, together with how far the session was read.
async fn dispatch(
    app: &App,
    discord: &Discord,
    session: &mut Option<Session>,
    message: &Value,
) -> Result<(), ListenError> {
    let (kind, data) = (text(message, "/t"), &message["d"]);
    if kind == "READY" {
        let made = |pointer| text(data, pointer).to_owned();
        *session = Some(Session {
            id: made("/session_id"),
            url: made("/resume_gateway_url"),
            sequence: 0,
            bot: made("/user/id"),
        });
    }
    let Some(session) = session else { return Ok(()) };
    session.sequence = message["s"].as_u64().unwrap_or(session.sequence);
    let event = event::read(discord, &session.bot, kind, data);
    if event.is_none() && kind != "READY" {
        return Ok(());
    }
    let kept = serde_json::to_string(session).unwrap_or_default();
    let batch = Batch { events: event.into_iter().collect(), marks: vec![(mark(discord), kept)] };
    Ok(app.incoming.take(app, batch).await?)
}

fn greeting(discord: &Discord, intents: u64, session: Option<&Session>) -> Value {
    let token = discord.bot_token.expose();
    match session {
        Some(session) => json!({ "op": 6, "d": { "token": token, "session_id": session.id, "seq": session.sequence } }),
        None => {
            let properties = json!({ "os": std::env::consts::OS, "browser": "zeroone", "device": "zeroone" });
            json!({ "op": 2, "d": { "token": token, "intents": intents, "properties": properties } })
        }
    }
}

fn beat(session: Option<&Session>) -> Value {
    json!({ "op": 1, "d": session.map(|session| session.sequence) })
}

fn ready(app: &App, intents: u64) {
    if intents & MESSAGE_CONTENT == 0 {
        app.health.error("discord", NO_CONTENT);
    } else {
        app.health.ok("discord");
    }
}

/// Forgets the session, or keeps it.
async fn keep(app: &App, discord: &Discord, session: Option<&Session>) {
    let kept = session.and_then(|session| serde_json::to_string(session).ok()).unwrap_or_default();
    let marks = vec![(mark(discord), kept)];
    if let Err(error) = app.incoming.take(app, Batch { events: vec![], marks }).await {
        super::complain(app, &error);
    }
}

/// The name of the session in the inbox. The first part of a token is the bot's id, which is no secret.
fn mark(discord: &Discord) -> String {
    format!(
        "discord/{}/session",
        discord.bot_token.expose().split('.').next().filter(|id| id.len() < 40).unwrap_or_default()
    )
}

/// Whether the session cannot be taken up again.
const fn session_is_over(error: &ListenError) -> bool {
    match error {
        ListenError::Invalid => true,
        ListenError::Socket(SocketError::Closed(Some(code))) => {
            matches!(*code, 1000 | 1001 | 4003 | 4004 | 4007 | 4009..=4014)
        }
        // The address of a session that is gone.
        ListenError::Socket(SocketError::Unreachable(_) | SocketError::Refused(_) | SocketError::Address) => true,
        _ => false,
    }
}

fn explain(error: &ListenError) -> String {
    match error {
        ListenError::Socket(SocketError::Closed(Some(4004)))
        | ListenError::Channel(ChannelError::Refused { status: 401, .. }) => {
            "Discord does not know the bot token; set bot_token to the one of the developer portal".to_owned()
        }
        other => other.to_string(),
    }
}
