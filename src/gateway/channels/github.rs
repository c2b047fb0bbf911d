//! GitHub: answers as comments on an issue, in a review thread or on a commit.

use serde_json::json;

use super::config::Github;
use super::delivery::{ChannelError, request};
use super::place::Place;
use crate::gateway::outbound::HttpClients;

/// Stands at the end of our own comments, invisibly: without it the agent would answer itself for ever.
pub(in crate::gateway) const MARK: &str = "<!-- zeroone -->";

/// Comments. The thread of the place is `issue/7`, `review/7/55` (pull request and first comment) or `commit/<sha>`.
pub(super) async fn send(http: &HttpClients, github: &Github, place: &Place, piece: &str) -> Result<(), ChannelError> {
    let path = path(place.thread.as_deref().unwrap_or_default()).ok_or(ChannelError::NotAllowed)?;
    let url = format!("{}/repos/{}/{path}", github.api_base.trim_end_matches('/'), place.chat);
    let body = json!({ "body": format!("{piece}\n\n{MARK}") });
    let call = http.client(&url)?.post(&url).bearer_auth(github.access_token.expose());
    request(call.header("accept", "application/vnd.github+json").json(&body)).await?;
    Ok(())
}

fn path(thread: &str) -> Option<String> {
    let number = |text: &str| text.parse::<u64>().ok();
    match *thread.split('/').collect::<Vec<_>>() {
        ["issue", issue] => Some(format!("issues/{}/comments", number(issue)?)),
        ["review", pull, comment] => Some(format!("pulls/{}/comments/{}/replies", number(pull)?, number(comment)?)),
        ["commit", sha] if !sha.is_empty() && sha.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Some(format!("commits/{sha}/comments"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_name_the_path_of_their_answers() {
        assert_eq!(path("issue/7").as_deref(), Some("issues/7/comments"));
        assert_eq!(path("review/7/55").as_deref(), Some("pulls/7/comments/55/replies"));
        assert_eq!(path("commit/0af3").as_deref(), Some("commits/0af3/comments"));
        for bad in ["", "issue/x", "commit/..", "commit/", "review/7"] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }
}
