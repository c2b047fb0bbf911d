//! GitHub: new issues and comments on issues and pull requests, answered by a comment.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::config::Github;
use super::inbox::{Incoming, ReplyTo};
use super::{ChannelError, deliver, permit, signature};
use crate::gateway::agent::Source;
use crate::gateway::body::Limited;
use crate::gateway::memory::Owner;
use crate::gateway::persona::head;
use crate::gateway::reply::Refusal;
use crate::gateway::shared::App;

/// A payload holds the issue and the repository beside the comment.
const BODY_LIMIT: usize = 1 << 20;
/// GitHub's limit for one comment, with room for the mark, in bytes.
const COMMENT: usize = 65_000;
/// Stands at the end of our own comments, invisibly: without it the agent would answer itself for ever.
const MARK: &str = "<!-- zeroone -->";

#[derive(Deserialize)]
struct Payload {
    action: String,
    repository: Repository,
    sender: User,
    issue: Option<Issue>,
    pull_request: Option<Issue>,
    comment: Option<Comment>,
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
}

#[derive(Deserialize)]
struct User {
    login: String,
    #[serde(rename = "type", default)]
    kind: String,
}

#[derive(Deserialize)]
struct Issue {
    number: u64,
    #[serde(default)]
    title: String,
    body: Option<String>,
}

#[derive(Deserialize)]
struct Comment {
    id: u64,
    body: Option<String>,
}

/// `POST /github`.
pub(in crate::gateway) async fn webhook(
    State(app): State<App>,
    body: Limited<BODY_LIMIT>,
) -> Result<Json<Value>, Refusal> {
    let config = app.config();
    let github = config.channels_config.github.as_ref().ok_or(Refusal::NotConfigured("GitHub"))?;
    let signed = body.header("x-hub-signature-256").strip_prefix("sha256=").unwrap_or_default();
    let secret = github.webhook_secret.as_ref().ok_or(Refusal::BadSignature)?;
    if !signature::verify(secret, &[&body.bytes], signed) {
        tracing::warn!("a GitHub webhook with a wrong signature was refused");
        return Err(Refusal::BadSignature);
    }
    let event = body.header("x-github-event");
    if !matches!(event, "issue_comment" | "issues" | "pull_request_review_comment") {
        return Ok(ignored("event"));
    }
    let payload: Payload = serde_json::from_slice(&body.bytes).map_err(|_| Refusal::BadBody("Invalid JSON payload"))?;
    match read(github, event, payload) {
        Ok(incoming) => {
            app.inbox.take(&app, incoming).map_err(|_| Refusal::Busy)?;
            Ok(Json(json!({ "status": "ok" })))
        }
        Err(reason) => Ok(ignored(reason)),
    }
}

fn ignored(reason: &str) -> Json<Value> {
    Json(json!({ "status": "ignored", "reason": reason }))
}

/// The message in a payload, or why there is none for us.
fn read(github: &Github, event: &str, payload: Payload) -> Result<Incoming, &'static str> {
    let repository = payload.repository.full_name;
    if payload.sender.kind == "Bot" {
        return Err("sender is a bot");
    }
    let listed = |list, name: &str| permit(list, &[name]).is_ok();
    if !is_repository(&repository) || !listed(&github.allowed_repos, &repository) {
        return Err("repository is not allowed");
    }
    if !listed(&github.allowed_users, &payload.sender.login) {
        return Err("sender is not allowed");
    }
    let issue = payload.issue.or(payload.pull_request).ok_or("there is no issue")?;
    let (id, text) = match (event, payload.action.as_str(), payload.comment) {
        ("issues", "opened", _) => {
            let text = format!("{}\n\n{}", issue.title, issue.body.unwrap_or_default());
            (format!("{repository}#{}", issue.number), text)
        }
        ("issue_comment" | "pull_request_review_comment", "created", Some(comment)) => {
            (format!("{event}-{}", comment.id), comment.body.unwrap_or_default())
        }
        _ => return Err("action"),
    };
    if text.contains(MARK) {
        return Err("it is our own");
    }
    if text.trim().is_empty() || github.mention.as_ref().is_some_and(|mention| !text.contains(mention.as_str())) {
        return Err("it is not for us");
    }
    let owner = Owner::person("github", &payload.sender.login);
    Ok(Incoming {
        source: Source::Github,
        owner,
        id,
        text,
        reply_to: ReplyTo::Github { repository, issue: issue.number },
    })
}

/// `owner/name` and nothing that would change the meaning of a URL.
fn is_repository(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    name.split_once('/').is_some_and(|(owner, name)| part(owner) && part(name))
}

pub(super) async fn comment(
    app: &App,
    github: &Github,
    repository: &str,
    issue: u64,
    text: &str,
) -> Result<(), ChannelError> {
    let url = format!("{}/repos/{repository}/issues/{issue}/comments", github.api_base.trim_end_matches('/'));
    let request = app.http.client(&url)?.post(&url).bearer_auth(github.access_token.expose());
    let body = json!({ "body": format!("{}\n\n{MARK}", head(text, COMMENT)) });
    deliver(request.header("accept", "application/vnd.github+json").json(&body)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_repository_names_are_taken() {
        assert!(is_repository("ada/engine-1.0"));
        for bad in ["ada", "ada/", "/x", "ada/x/y", "../x", "ada/..", "ada/x?y", "ada/x y"] {
            assert!(!is_repository(bad), "{bad}");
        }
    }
}
