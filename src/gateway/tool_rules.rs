//! Which tools may be used, by the settings and by who asks.
//!
//! Pure but for [`Actions`], which counts.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::config::{Config, Level};
use super::memory::Owner;

/// Tools that change nothing: all that is left to an agent that may only read.
const READING: [&str; 5] = ["memory_recall", "time", "file_read", "cron_list", "http_fetch"];

/// Whether a tool may be used for an answer to `owner`.
pub(super) fn permits(config: &Config, owner: &Owner, tool: &str) -> bool {
    let named = |list: &[String]| list.iter().any(|entry| means(entry, tool));
    let (agent, autonomy) = (&config.agent, &config.autonomy);
    let closed = |list: &[String]| !list.is_empty() && !named(list);
    if autonomy.deny_all_tools || closed(&agent.allowed_tools) || closed(&autonomy.allowed_tools) {
        return false;
    }
    if named(&autonomy.excluded_tools) || named(&autonomy.always_ask) {
        return false;
    }
    if autonomy.level == Level::ReadOnly && !READING.contains(&tool) {
        return false;
    }
    !is_stranger(config, owner) || named(&agent.channel_tools)
}

/// Whether somebody is a person of a channel that everybody may write to. Those whom an allow-list names are no strangers.
fn is_stranger(config: &Config, owner: &Owner) -> bool {
    let channels = &config.channels_config;
    let open = |list: Option<&Vec<String>>| list.is_some_and(|list| list.iter().any(|entry| entry.trim() == "*"));
    if !owner.is_stranger() {
        return false;
    }
    match owner.as_str().split(':').next().unwrap_or_default() {
        "telegram" => open(channels.telegram.as_ref().map(|telegram| &telegram.allowed_users)),
        "discord" => open(channels.discord.as_ref().map(|discord| &discord.allowed_users)),
        "slack" => open(channels.slack.as_ref().map(|slack| &slack.allowed_users)),
        "whatsapp" => open(channels.whatsapp.as_ref().map(|whatsapp| &whatsapp.allowed_numbers)),
        "github" => open(channels.github.as_ref().map(|github| &github.allowed_users)),
        "nextcloud_talk" => open(channels.nextcloud_talk.as_ref().map(|talk| &talk.allowed_users)),
        _ => true,
    }
}

/// Whether an entry of a list names a tool: by our name, by ZeroClaw's, or all of them.
fn means(entry: &str, tool: &str) -> bool {
    let entry = entry.trim();
    entry == "*"
        || entry == tool
        || match entry {
            "http_request" | "web_fetch" => tool == "http_fetch",
            "schedule" | "cron" => tool.starts_with("cron_"),
            "cron_delete" => tool == "cron_remove",
            "memory" => tool.starts_with("memory_"),
            "read_file" => tool == "file_read",
            "write_file" | "file_edit" => tool == "file_write",
            _ => false,
        }
}

/// The runs of tools in the last hour.
#[derive(Default)]
pub(super) struct Actions(Mutex<VecDeque<Instant>>);

impl Actions {
    /// Counts a run, unless there were `most` in the last hour; 0 is no limit.
    pub(super) fn admit(&self, most: usize, now: Instant) -> bool {
        const HOUR: Duration = Duration::from_secs(3_600);
        if most == 0 {
            return true;
        }
        let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while runs.front().is_some_and(|first| now.duration_since(*first) >= HOUR) {
            runs.pop_front();
        }
        let admitted = runs.len() < most;
        if admitted {
            runs.push_back(now);
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    fn permitted(text: &str, owner: &Owner) -> Vec<&'static str> {
        let tools = ["memory_store", "memory_recall", "time", "file_write", "cron_add", "http_fetch"];
        let config = config(text);
        tools.into_iter().filter(|tool| permits(&config, owner, tool)).collect()
    }

    #[test]
    fn the_settings_decide() {
        let of = |text: &str| permitted(text, &Owner::client());
        assert_eq!(of("").len(), 6);
        assert_eq!(of("[autonomy]\nlevel = \"readonly\""), ["memory_recall", "time", "http_fetch"]);
        assert_eq!(of("[autonomy]\nlevel = \"read_only\"").len(), 3);
        assert_eq!(of("[autonomy]\nallowed_tools = [\"time\", \"schedule\"]"), ["time", "cron_add"]);
        assert_eq!(of("[agent]\nallowed_tools = [\"http_request\"]"), ["http_fetch"]);
        assert!(!of("[autonomy]\nexcluded_tools = [\"cron_add\"]").contains(&"cron_add"));
        assert!(!of("[autonomy]\nexcluded_tools = [\"memory\"]").contains(&"memory_store"));
        assert!(!of("[autonomy]\nalways_ask = [\"file_write\"]").contains(&"file_write"));
        assert!(of("[autonomy]\ndeny_all_tools = true").is_empty());
    }

    #[test]
    fn who_comes_by_an_open_channel_has_the_tools_that_are_named() {
        let ada = Owner::person("telegram", "7");
        let open = "[channels_config.telegram]\nbot_token = \"1:t\"\nallowed_users = [\"ada\", \"*\"]\n";
        let closed = open.replace(", \"*\"", "");
        assert!(permitted(open, &ada).is_empty());
        assert_eq!(permitted(&closed, &ada).len(), 6);
        assert_eq!(permitted(&format!("{open}[agent]\nchannel_tools = [\"time\"]"), &ada), ["time"]);
        assert_eq!(permitted(open, &Owner::session("s")).len(), 6);
        assert!(permitted(open, &Owner::person("carrier-pigeon", "7")).is_empty());
    }

    #[test]
    fn the_runs_of_an_hour_are_bounded() {
        let (actions, start) = (Actions::default(), Instant::now());
        let at = |secs| start + Duration::from_secs(secs);
        assert!(actions.admit(2, at(0)) && actions.admit(2, at(10)) && !actions.admit(2, at(20)));
        assert!(actions.admit(2, at(3_600)) && !actions.admit(2, at(3_601)));
        assert!((0..100).all(|_| actions.admit(0, start)));
    }
}
