//! Who the agent is: the system prompt, made of the persona files of its workspace.
//!
//! The files are read for every message, so that an edit works at once and without a restart.

use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;

use super::config::Config;

/// In the order in which they are put together.
const FILES: [&str; 3] = ["IDENTITY.md", "USER.md", "SOUL.md"];
/// As much of one file as is sent with every message; more would cost on each of them.
const FILE_LIMIT: usize = 20_000;
/// What an agent without any persona file is.
const PLAIN: &str = "You are a helpful assistant.";

/// The system prompt. A missing or unreadable file is left out.
pub(super) async fn system_prompt(workspace: &Path) -> String {
    let workspace: PathBuf = workspace.to_owned();
    // Three small files in one hop to a thread where waiting for the disk hurts nobody.
    tokio::task::spawn_blocking(move || compose(&FILES.map(|name| read(&workspace.join(name)))))
        .await
        .unwrap_or_else(|_| PLAIN.to_owned())
}

/// The agent's time zone: by the settings, by its `USER.md`, or UTC. Blocks on the disk.
pub(super) fn zone(config: &Config, workspace: &Path) -> String {
    let by_file = || read(&workspace.join("USER.md")).and_then(|text| zone_in(&text));
    config.timezone.clone().or_else(by_file).unwrap_or_else(|| "UTC".to_owned())
}

/// The zone in a line such as `- Time zone: Asia/Tokyo` or `- **Timezone:** Asia/Tokyo`.
fn zone_in(text: &str) -> Option<String> {
    let zone = |line: &str| {
        let bare = line.replace(['*', '`'], "");
        let (name, value) = bare.trim_start_matches(['-', '#', ' ']).split_once(':')?;
        let is_zone =
            matches!(name.trim().to_ascii_lowercase().as_str(), "time zone" | "timezone" | "time-zone" | "tz");
        let value = value.split_whitespace().next().filter(|_| is_zone)?;
        TimeZone::get(value).is_ok().then(|| value.to_owned())
    };
    text.lines().find_map(zone)
}

fn read(path: &Path) -> Option<String> {
    let bytes = std::fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    Some(head(text.trim(), FILE_LIMIT).to_owned()).filter(|text| !text.is_empty())
}

fn compose(parts: &[Option<String>]) -> String {
    let present: Vec<&str> = parts.iter().flatten().map(String::as_str).collect();
    if present.is_empty() { PLAIN.to_owned() } else { present.join("\n\n") }
}

/// The first `limit` bytes at most, cut between characters.
pub(super) fn head(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_come_in_order_and_missing_ones_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(system_prompt(folder.path()).await, PLAIN);
        std::fs::write(folder.path().join("SOUL.md"), "Be brief.\n").unwrap();
        std::fs::write(folder.path().join("IDENTITY.md"), "I am Ada.\n").unwrap();
        assert_eq!(system_prompt(folder.path()).await, "I am Ada.\n\nBe brief.");
    }

    #[test]
    fn the_zone_is_read_from_the_file_about_the_user() {
        for (text, zone) in [
            ("# User\n\n- Name: Ada\n- Time zone: Asia/Tokyo\n", Some("Asia/Tokyo")),
            ("- **Timezone:** Europe/Zurich", Some("Europe/Zurich")),
            ("TZ: `America/New_York` (EST)", Some("America/New_York")),
            ("- Timezone: Mars/Olympus\n- Time zone: UTC", Some("UTC")),
            ("My time zone is Asia/Tokyo", None),
            ("", None),
        ] {
            assert_eq!(zone_in(text).as_deref(), zone, "{text}");
        }
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(head("aé", 2), "a");
        assert_eq!(head("aé", 9), "aé");
    }
}
