//! Messaging platforms: how their messages come in, and how answers go out.
//!
//! WhatsApp, GitHub and Nextcloud Talk call us (a signed webhook); Telegram is asked (long polling); Slack and Discord
//! only get messages, since hearing them needs a connection of another kind than HTTP. Whoever is not on a platform's
//! allow-list is not heard and not written to. An empty list allows nobody, as in ZeroClaw, `*` everybody.

mod config;
mod discord;
mod github;
mod inbox;
mod nextcloud;
mod signature;
mod slack;
mod telegram;
mod whatsapp;

use std::time::Duration;

use reqwest::{RequestBuilder, Response};
use tokio_util::task::AbortOnDropHandle;

pub(super) use config::Channels;
pub(super) use inbox::Inbox;
pub(super) use {github::webhook as github, nextcloud::webhook as nextcloud_talk};
pub(super) use {whatsapp::verify as whatsapp_verify, whatsapp::webhook as whatsapp};

use super::config::Config;
use super::outbound::OutboundError;
use super::shared::App;

/// A platform that takes longer has trouble of its own.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest pause that a platform may ask for before the one repetition.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub(super) enum ChannelError {
    #[error("that channel is not configured for sending")]
    NotConfigured,
    #[error("that recipient is not among the allowed ones")]
    NotAllowed,
    #[error(transparent)]
    NoClient(#[from] OutboundError),
    /// Without its URL, which holds a token on some platforms.
    #[error("the platform cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("the platform answered {0}")]
    Refused(u16),
    #[error("the platform refused the message")]
    NotAccepted,
}

/// The channels that can be written to.
pub(super) fn outgoing(config: &Config) -> Vec<&'static str> {
    let channels = &config.channels_config;
    let present = [
        channels.telegram.is_some().then_some("telegram"),
        channels.slack.is_some().then_some("slack"),
        channels.discord.is_some().then_some("discord"),
        channels.whatsapp.is_some().then_some("whatsapp"),
    ];
    present.into_iter().flatten().collect()
}

/// Sends a message to somebody who is allowed to get one.
///
/// # Errors
/// See [`ChannelError`].
pub(super) async fn send(app: &App, channel: &str, to: &str, text: &str) -> Result<(), ChannelError> {
    let config = app.config();
    let channels = &config.channels_config;
    match channel {
        "telegram" => {
            let telegram = channels.telegram.as_ref().ok_or(ChannelError::NotConfigured)?;
            permit(&telegram.allowed_users, &[to])?;
            telegram::send(app, telegram, to, text).await
        }
        "slack" => slack::send(app, channels.slack.as_ref().ok_or(ChannelError::NotConfigured)?, to, text).await,
        "discord" => discord::send(app, channels.discord.as_ref().ok_or(ChannelError::NotConfigured)?, to, text).await,
        "whatsapp" => {
            let whatsapp = channels.whatsapp.as_ref().ok_or(ChannelError::NotConfigured)?;
            permit(&whatsapp.allowed_numbers, &[to])?;
            whatsapp::send(app, whatsapp, to, text).await
        }
        _ => Err(ChannelError::NotConfigured),
    }
}

/// Starts what has to be running to hear messages; each runs until its handle is dropped.
pub(super) fn start(app: &App) -> Vec<AbortOnDropHandle<()>> {
    let config = app.config();
    let poll = |telegram: &config::Telegram| tokio::spawn(telegram::poll(app.clone(), telegram.clone()));
    config.channels_config.telegram.iter().map(poll).map(AbortOnDropHandle::new).collect()
}

/// Whether one of the names of somebody is on the list. An `@` in front and the case of letters do not matter.
fn permit(allowed: &[String], names: &[&str]) -> Result<(), ChannelError> {
    let bare = |name: &str| name.trim().trim_start_matches(['@', '+']).to_lowercase();
    let listed = |name: &&str| allowed.iter().any(|entry| bare(entry) == bare(name) && !bare(name).is_empty());
    if allowed.iter().any(|entry| entry.trim() == "*") || names.iter().any(listed) {
        Ok(())
    } else {
        Err(ChannelError::NotAllowed)
    }
}

/// Sends a request, once more if the platform asks for a pause that is worth waiting for.
async fn deliver(request: RequestBuilder) -> Result<Response, ChannelError> {
    let request = request.timeout(TIMEOUT);
    let again = request.try_clone();
    let unreachable = |error: reqwest::Error| ChannelError::Unreachable(error.without_url());
    let mut response = request.send().await.map_err(unreachable)?;
    if response.status().as_u16() == 429
        && let Some(pause) = asked_pause(&response)
        && let Some(again) = again
    {
        tokio::time::sleep(pause).await;
        response = again.send().await.map_err(unreachable)?;
    }
    match response.status() {
        status if status.is_success() => Ok(response),
        status => Err(ChannelError::Refused(status.as_u16())),
    }
}

fn asked_pause(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(reqwest::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok().filter(|pause| *pause <= LONGEST_PAUSE)
}

/// A text in pieces that a platform takes, cut at line ends or blanks where there are some.
fn pieces(text: &str, limit: usize) -> Vec<&str> {
    let mut rest = text.trim();
    let mut pieces = Vec::new();
    while let Some((hard, _)) = rest.char_indices().nth(limit) {
        let head = &rest[..hard];
        let cut = head.rfind('\n').or_else(|| head.rfind(' ')).filter(|cut| *cut > 0).unwrap_or(hard);
        pieces.push(rest[..cut].trim_end());
        rest = rest[cut..].trim_start();
    }
    if !rest.is_empty() {
        pieces.push(rest);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_fit_and_hold_everything_but_blanks(text in "[a-zé\n ]{0,60}", limit in 1usize..12) {
            let cut = pieces(&text, limit);
            prop_assert!(cut.iter().all(|piece| piece.chars().count() <= limit && !piece.is_empty()), "{cut:?}");
            let bare = |text: &str| text.split_whitespace().collect::<String>();
            prop_assert_eq!(bare(&cut.concat()), bare(&text));
        }
    }

    #[test]
    fn lists_name_people_in_several_ways_and_an_empty_one_nobody() {
        let permitted = |list: &[&str], names: &[&str]| {
            let list: Vec<String> = list.iter().map(|entry| (*entry).to_owned()).collect();
            permit(&list, names).is_ok()
        };
        assert!(!permitted(&[], &["ada"]));
        assert!(permitted(&["*"], &["anyone"]));
        assert!(permitted(&["@Ada", "+41790000000"], &["7", "ada"]));
        assert!(permitted(&["+41790000000"], &["41790000000"]));
        assert!(!permitted(&["", "@"], &[""]));
        assert!(!permitted(&["ada"], &["adam"]));
    }

    #[test]
    fn long_texts_are_cut_at_blanks_and_nothing_is_lost() {
        assert_eq!(pieces("one two three", 8), ["one two", "three"]);
        assert_eq!(pieces("ééééé", 2), ["éé", "éé", "é"]);
        assert_eq!(pieces("a\nb c", 4), ["a", "b c"]);
        assert!(pieces("  ", 5).is_empty());
    }
}
