//! Real, free questions to each platform: does it know our token, and can messages reach us? `doctor` asks them.

use std::time::Duration;

use serde_json::{Value, json};

use super::config::{Channels, Discord, Github, NextcloudTalk, Slack, Telegram, WhatsApp};
use super::delivery::{ChannelError, json as read_json, request};
use super::{discord, slack, telegram};
use crate::gateway::outbound::HttpClients;

/// A platform that takes longer for so little has trouble.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a platform is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum State {
    Good,
    /// It works in part.
    Doubtful,
    Bad,
}

pub(in crate::gateway) type Report = (State, String);

/// Asks all usable platforms at the same time.
pub(in crate::gateway) async fn check(http: &HttpClients, channels: &Channels) -> Vec<Report> {
    let telegram = async { Some(report("telegram", ask_telegram(http, channels.telegram.as_ref()?)).await) };
    let slack = async { Some(report("slack", ask_slack(http, channels.slack.as_ref()?)).await) };
    let discord = async { Some(report("discord", ask_discord(http, channels.discord.as_ref()?)).await) };
    let whatsapp = async { Some(report("whatsapp", ask_whatsapp(http, channels.whatsapp.as_ref()?)).await) };
    let github = async { Some(report("github", ask_github(http, channels.github.as_ref()?)).await) };
    let talk = async { Some(report("nextcloud_talk", ask_nextcloud(http, channels.nextcloud_talk.as_ref()?)).await) };
    let (telegram, slack, discord, whatsapp, github, talk) =
        tokio::join!(telegram, slack, discord, whatsapp, github, talk);
    [telegram, slack, discord, whatsapp, github, talk].into_iter().flatten().collect()
}

async fn report(name: &str, asked: impl Future<Output = Result<Report, ChannelError>>) -> Report {
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok((state, words))) => (state, format!("{name}: {words}")),
        Ok(Err(error)) => (State::Bad, format!("{name} cannot receive or send messages: {}", explain(&error))),
        Err(_) => (State::Bad, format!("{name} cannot receive or send messages: the platform does not answer")),
    }
}

fn explain(error: &ChannelError) -> String {
    match error {
        ChannelError::Refused { status: 401 | 403, reason } => {
            format!("the platform does not take the token ({reason}); set a new one")
        }
        ChannelError::NotAccepted { reason } => {
            format!("the platform does not take the token ({reason}); set a new one")
        }
        other => other.to_string(),
    }
}

/// `getMe`, and `getWebhookInfo`: a webhook keeps all messages from a bot that polls.
async fn ask_telegram(http: &HttpClients, settings: &Telegram) -> Result<Report, ChannelError> {
    let call = async |name: &str| {
        let url = telegram::method(settings, name);
        match request(http.client(&url)?.post(&url).json(&json!({}))).await {
            Ok(response) => Ok(read_json(response).await?["result"].take()),
            // Telegram says "not found" to a token that it does not know.
            Err(ChannelError::Refused { status: 404, reason }) => Err(ChannelError::Refused { status: 401, reason }),
            Err(error) => Err(error),
        }
    };
    let me = call("getMe").await?;
    let name = me["username"].as_str().unwrap_or_default();
    let webhook = call("getWebhookInfo").await?;
    if webhook["url"].as_str().is_some_and(|url| !url.is_empty()) {
        let words = "a webhook is set, with which the bot cannot be polled; it is removed when the gateway polls";
        return Ok((State::Doubtful, words.to_owned()));
    }
    if !settings.mention_only && me["can_read_all_group_messages"] == false {
        let words = format!("@{name} is known; in groups it sees only what mentions it (privacy mode of @BotFather)");
        return Ok((State::Good, words));
    }
    Ok((State::Good, format!("@{name} is known, and nothing is in the way of its messages")))
}

/// `auth.test`, and for Socket Mode whether a connection would be opened.
async fn ask_slack(http: &HttpClients, settings: &Slack) -> Result<Report, ChannelError> {
    let me = slack::call(http, settings, &settings.bot_token, "auth.test", &json!({})).await?;
    let known = format!("{} of {} is known", text(&me, "user"), text(&me, "team"));
    let Some(token) = &settings.app_token else { return Ok((State::Good, known)) };
    match slack::call(http, settings, token, "apps.connections.open", &json!({})).await {
        Ok(_) => Ok((State::Good, format!("{known}, and Socket Mode is open"))),
        Err(error) => Ok((State::Bad, format!("{known}, but Socket Mode is not open: {error}"))),
    }
}

async fn ask_discord(http: &HttpClients, settings: &Discord) -> Result<Report, ChannelError> {
    let me = discord::get(http, settings, "users/@me").await?;
    Ok((State::Good, format!("{} is known", text(&me, "username"))))
}

async fn ask_whatsapp(http: &HttpClients, settings: &WhatsApp) -> Result<Report, ChannelError> {
    let base = settings.api_base.trim_end_matches('/');
    let url = format!("{base}/{}?fields=display_phone_number,verified_name", settings.phone_number_id);
    let answer = request(http.client(&url)?.get(&url).bearer_auth(settings.access_token.expose())).await?;
    let number = read_json(answer).await?;
    Ok((State::Good, format!("the number {} is known", text(&number, "display_phone_number"))))
}

/// The rate limit costs nothing to ask for, and every kind of token may.
async fn ask_github(http: &HttpClients, settings: &Github) -> Result<Report, ChannelError> {
    let url = format!("{}/rate_limit", settings.api_base.trim_end_matches('/'));
    let call = http.client(&url)?.get(&url).bearer_auth(settings.access_token.expose());
    let limit = read_json(request(call.header("accept", "application/vnd.github+json")).await?).await?;
    let left = &limit["resources"]["core"]["remaining"];
    if left == 0 {
        return Ok((State::Doubtful, "the token is known, but its requests of this hour are used up".to_owned()));
    }
    Ok((State::Good, "the token is known".to_owned()))
}

/// A bot has nothing that it may ask for; whether the server is there is all that can be known.
async fn ask_nextcloud(http: &HttpClients, settings: &NextcloudTalk) -> Result<Report, ChannelError> {
    let url = format!("{}/status.php", settings.base_url.trim_end_matches('/'));
    let status = read_json(request(http.client(&url)?.get(&url)).await?).await?;
    if status["maintenance"] == true {
        return Ok((State::Bad, "the server is in maintenance".to_owned()));
    }
    Ok((State::Good, format!("{} {} answers", text(&status, "productname"), text(&status, "versionstring"))))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}
