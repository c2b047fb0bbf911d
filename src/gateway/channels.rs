//! Messaging platforms, the outgoing half: settings, where an answer goes, and how it is sent.
//!
//! This module is below the agent, whose tools send messages. What platforms send to us is read in
//! [`incoming`](super::incoming), above the agent. An empty allow-list allows nobody, as in ZeroClaw, `*` everybody.

mod check;
mod config;
mod delivery;
mod discord;
mod github;
mod nextcloud;
mod place;
pub(super) mod signature;
mod slack;
mod telegram;
mod whatsapp;

use std::time::Duration;

pub(super) use check::{State, check};
pub(super) use config::{Channels, Discord, Github, NextcloudTalk, Slack, Telegram, WhatsApp};
pub(super) use delivery::{ChannelError, Outcome, request};
pub(super) use discord::get as discord_get;
pub(super) use github::MARK as GITHUB_MARK;
pub(super) use place::{Place, Platform};
pub(super) use slack::call as slack_call;
pub(super) use telegram::method as telegram_method;

use super::config::Config;
use super::outbound::HttpClients;

/// Longest pause before the one repetition of a message that the agent sends by a tool: the tool has a time limit.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// The channels that can be written to without having been asked something.
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

/// Sends a message to somebody who is allowed to get one, on the agent's own account.
///
/// # Errors
/// See [`ChannelError`].
pub(super) async fn send(
    http: &HttpClients,
    channels: &Channels,
    channel: &str,
    to: &str,
    text: &str,
) -> Result<(), ChannelError> {
    let platform = match channel {
        "telegram" => {
            permit(&channels.telegram()?.allowed_users, &[to])?;
            Platform::Telegram
        }
        "slack" => {
            slack::permit_recipient(channels.slack()?, to)?;
            Platform::Slack
        }
        "discord" => {
            discord::permit_recipient(http, channels.discord()?, to).await?;
            Platform::Discord
        }
        "whatsapp" => {
            permit(&channels.whatsapp()?.allowed_numbers, &[to])?;
            Platform::WhatsApp
        }
        _ => return Err(ChannelError::NotConfigured),
    };
    let place = Place { platform, chat: to.to_owned(), thread: None };
    for piece in pieces(text, platform.limit()) {
        let first = send_piece(http, channels, &place, None, piece).await;
        match first.as_ref().map_err(ChannelError::outcome) {
            Err(Outcome::NotDelivered { pause: Some(pause) }) if pause <= LONGEST_PAUSE => {
                tokio::time::sleep(pause).await;
                send_piece(http, channels, &place, None, piece).await?;
            }
            _ => first?,
        }
    }
    Ok(())
}

/// Sends one piece of an answer, once. `quoted` is the message that it answers, where the platform can show that.
///
/// # Errors
/// See [`ChannelError`]; [`ChannelError::outcome`] tells whether the piece may have arrived all the same.
pub(super) async fn send_piece(
    http: &HttpClients,
    channels: &Channels,
    place: &Place,
    quoted: Option<&str>,
    piece: &str,
) -> Result<(), ChannelError> {
    match place.platform {
        Platform::Telegram => telegram::send(http, channels.telegram()?, place, quoted, piece).await,
        Platform::Slack => slack::send(http, channels.slack()?, place, piece).await,
        Platform::Discord => discord::send(http, channels.discord()?, place, quoted, piece).await,
        Platform::WhatsApp => whatsapp::send(http, channels.whatsapp()?, place, piece).await,
        Platform::Github => github::send(http, channels.github()?, place, piece).await,
        Platform::NextcloudTalk => nextcloud::send(http, channels.nextcloud()?, place, quoted, piece).await,
    }
}

/// Whether one of the names of somebody is on the list. An `@` in front and the case of letters do not matter.
pub(super) fn permit(allowed: &[String], names: &[&str]) -> Result<(), ChannelError> {
    let bare = |name: &str| name.trim().trim_start_matches(['@', '+']).to_lowercase();
    let listed = |name: &&str| allowed.iter().any(|entry| bare(entry) == bare(name) && !bare(name).is_empty());
    if allowed.iter().any(|entry| entry.trim() == "*") || names.iter().any(listed) {
        Ok(())
    } else {
        Err(ChannelError::NotAllowed)
    }
}

/// A text in pieces that a platform takes, cut at line ends or blanks where there are some.
pub(super) fn pieces(text: &str, limit: usize) -> Vec<&str> {
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
    fn allow_lists_match_names_in_several_spellings_and_an_empty_list_matches_nobody() {
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
