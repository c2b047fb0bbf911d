//! GitHub: signed webhooks, answered by comments where the question was written.
//!
//! | Event | |
//! |---|---|
//! | `issues`, `pull_request`, action `opened` | title and text; the answer is a comment |
//! | `issue_comment`, action `created` | text; the answer is a comment |
//! | `pull_request_review`, action `submitted`, with words | text; the answer is a comment |
//! | `pull_request_review_comment`, action `created` | text; the answer stands in the thread of the review |
//! | `commit_comment`, action `created` | text; the answer is a comment on the commit |
//! | action `edited` of these | only where the edit brings the mention in |
//! | what has our mark, what bots write, all others | ignored |
//!
//! With `mention`, only texts that have it count; quoted lines do not.

use axum::Json;
use axum::extract::State;
use serde_json::Value;

use super::message::{Batch, Content, Event, Incoming, mentions};
use super::webhook::{accept, id, ignored, payload, text};
use crate::gateway::body::Limited;
use crate::gateway::channels::{GITHUB_MARK, Github, Place, Platform, permit, signature};
use crate::gateway::reply::Refusal;
use crate::gateway::shared::App;

/// A payload holds the issue, the repository and more beside the comment. GitHub sends up to 25 MB; what is longer than
/// this is a push, which we have no use for.
const BODY_LIMIT: usize = 5 << 20;

/// `POST /github`.
pub(in crate::gateway) async fn webhook(
    State(app): State<App>,
    body: Limited<BODY_LIMIT>,
) -> Result<Json<Value>, Refusal> {
    let config = app.config();
    let github = config.channels_config.github().map_err(|_| Refusal::NotConfigured("GitHub"))?;
    let signed = body.header("x-hub-signature-256").strip_prefix("sha256=").unwrap_or_default();
    let secret = github.webhook_secret.as_ref().ok_or(Refusal::BadSignature)?;
    if !signature::verify(secret, &[&body.bytes], signed) {
        tracing::warn!("a GitHub webhook with a wrong signature was refused");
        return Err(Refusal::BadSignature);
    }
    let payload = payload(body.header("content-type"), &body.bytes);
    match read(github, body.header("x-github-event"), &payload) {
        Ok(incoming) => accept(&app, Batch { events: vec![Event::Message(incoming)], marks: vec![] }).await,
        Err(reason) => Ok(ignored(reason)),
    }
}

/// The message in a payload, or why there is none for us.
fn read(github: &Github, event: &str, payload: &Value) -> Result<Incoming, &'static str> {
    let repository = text(payload, "/repository/full_name");
    let sender = text(payload, "/sender/login");
    let (body, thread, name) = place(event, payload).ok_or("event")?;
    if text(payload, "/sender/type") == "Bot" {
        return Err("sender is a bot");
    }
    if !is_repository(repository) || !is_allowed(&github.allowed_repos, repository) {
        return Err("repository is not allowed");
    }
    if permit(&github.allowed_users, &[sender]).is_err() {
        return Err("sender is not allowed");
    }
    if body.contains(GITHUB_MARK) {
        return Err("it is our own");
    }
    match (text(payload, "/action"), &github.mention) {
        ("opened" | "created" | "submitted", None) => {}
        ("opened" | "created" | "submitted", Some(mention)) if is_for(&body, mention) => {}
        // Issues are edited often, by ticking a box even: only an edit that calls us counts.
        ("edited", Some(mention)) if is_for(&body, mention) && !is_for(&before(payload), mention) => {}
        ("opened" | "created" | "submitted", Some(_)) => return Err("it is not for us"),
        _ => return Err("action"),
    }
    let content = Content::new(&body, None).ok_or("it is not for us")?;
    let place = Place { platform: Platform::Github, chat: repository.to_owned(), thread: Some(thread) };
    Ok(Incoming { id: name, place, quoted: None, sender: sender.to_owned(), content })
}

/// Text, thread of the answer, and the name of the message.
fn place(event: &str, payload: &Value) -> Option<(String, String, String)> {
    let repository = text(payload, "/repository/full_name");
    let issue = id(payload, "/issue/number").or_else(|| id(payload, "/pull_request/number"));
    let comment = id(payload, "/comment/id");
    let body = |pointer| text(payload, pointer).to_owned();
    match event {
        "issues" | "pull_request" => {
            let of = if event == "issues" { "issue" } else { "pull_request" };
            let said = |field| text(payload, &format!("/{of}/{field}"));
            let issue = issue?;
            let words = format!("{}\n\n{}", said("title"), said("body"));
            Some((words, format!("issue/{issue}"), format!("{repository}#{issue}")))
        }
        "issue_comment" => Some((body("/comment/body"), format!("issue/{}", issue?), format!("{event}-{}", comment?))),
        "pull_request_review" => {
            let review = id(payload, "/review/id")?;
            Some((body("/review/body"), format!("issue/{}", issue?), format!("{event}-{review}")))
        }
        "pull_request_review_comment" => {
            // Replies go to the first comment of a thread; GitHub refuses replies to replies.
            let first = id(payload, "/comment/in_reply_to_id").or_else(|| comment.clone())?;
            let lines = text(payload, "/comment/diff_hunk");
            let context = if lines.is_empty() { String::new() } else { format!("\n\n```diff\n{lines}\n```") };
            let words = body("/comment/body");
            let words = if words.trim().is_empty() { words } else { words + &context };
            Some((words, format!("review/{}/{first}", issue?), format!("{event}-{}", comment?)))
        }
        "commit_comment" => Some((
            body("/comment/body"),
            format!("commit/{}", text(payload, "/comment/commit_id")),
            format!("{event}-{}", comment?),
        )),
        _ => None,
    }
}

/// The text before an edit.
fn before(payload: &Value) -> String {
    let unchanged = |field: &str| {
        let now = ["issue", "pull_request"].map(|of| text(payload, &format!("/{of}/{field}")));
        now.into_iter().find(|text| !text.is_empty()).unwrap_or_default().to_owned()
    };
    let from = |field: &str| payload.pointer(&format!("/changes/{field}/from")).and_then(Value::as_str);
    match (from("body"), from("title")) {
        (Some(body), None) => body.to_owned(),
        (body, Some(title)) => format!("{title}\n{}", body.map_or_else(|| unchanged("body"), str::to_owned)),
        // What was edited is neither: nothing is new in the text.
        (None, None) => {
            ["comment", "review", "issue", "pull_request"].map(|of| text(payload, &format!("/{of}/body"))).join("\n")
        }
    }
}

/// Whether a repository is on the list, by its name or as one of its owner's (`owner/*`).
fn is_allowed(list: &[String], repository: &str) -> bool {
    let owner = repository.split('/').next().unwrap_or_default();
    permit(list, &[repository, &format!("{owner}/*")]).is_ok()
}

fn is_for(text: &str, mention: &str) -> bool {
    let own_words = text.lines().filter(|line| !line.trim_start().starts_with('>'));
    mentions(&own_words.collect::<Vec<_>>().join("\n"), mention.trim())
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn github(mention: Option<&str>) -> Github {
        serde_json::from_value(json!({
            "access_token": "a", "allowed_repos": ["*"], "allowed_users": ["ada"], "mention": mention
        }))
        .unwrap()
    }

    fn event(action: &str, more: Value) -> Value {
        let mut event = json!({
            "action": action, "repository": { "full_name": "ada/engine" }, "sender": { "login": "ada", "type": "User" },
            "issue": { "number": 7, "title": "t", "body": "b" }
        });
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    }

    fn thread(kind: &str, event: &Value) -> String {
        read(&github(None), kind, event).unwrap().place.thread.unwrap()
    }

    #[test]
    fn answers_go_where_the_question_was_written() {
        let comment = json!({ "comment": { "id": 5, "body": "hi", "commit_id": "0af" } });
        assert_eq!(thread("issue_comment", &event("created", comment.clone())), "issue/7");
        assert_eq!(thread("pull_request_review_comment", &event("created", comment.clone())), "review/7/5");
        let reply = json!({ "comment": { "id": 6, "body": "hi", "in_reply_to_id": 5 } });
        assert_eq!(thread("pull_request_review_comment", &event("created", reply)), "review/7/5");
        assert_eq!(thread("commit_comment", &event("created", comment)), "commit/0af");
        assert_eq!(thread("issues", &event("opened", json!({}))), "issue/7");
        let pull = json!({ "issue": null, "pull_request": { "number": 8, "title": "t", "body": null } });
        assert_eq!(thread("pull_request", &event("opened", pull.clone())), "issue/8");
        let mut review = event("submitted", pull);
        review["review"] = json!({ "id": 9, "body": "why?" });
        assert_eq!(thread("pull_request_review", &review), "issue/8");
    }

    #[test]
    fn events_that_are_nothing_for_us_are_ignored_without_failing() {
        for kind in ["ping", "push", "star", "workflow_run", "discussion", ""] {
            assert_eq!(read(&github(None), kind, &event("created", json!({}))), Err("event"), "{kind}");
        }
        for junk in [json!(null), json!([]), json!({ "issue": 5 }), json!({ "comment": { "id": "x" } })] {
            assert!(read(&github(None), "issue_comment", &junk).is_err(), "{junk}");
        }
        for action in ["deleted", "closed", "labeled", "edited"] {
            assert_eq!(read(&github(None), "issues", &event(action, json!({}))), Err("action"), "{action}");
        }
        let mut empty = event("submitted", json!({ "review": { "id": 1, "body": null } }));
        assert_eq!(read(&github(None), "pull_request_review", &empty), Err("it is not for us"));
        empty["sender"]["login"] = json!("eve");
        assert_eq!(read(&github(None), "pull_request_review", &empty), Err("sender is not allowed"));
    }

    #[test]
    fn mentions_count_as_whole_words_outside_of_quotes_and_when_an_edit_brings_them() {
        let said = |body: &str| {
            read(
                &github(Some("@bot")),
                "issue_comment",
                &event("created", json!({ "comment": { "id": 1, "body": body } })),
            )
        };
        assert!(said("hi @Bot, look").is_ok());
        assert!(said("@bottle").is_err() && said("> @bot hi\nno").is_err() && said("no").is_err());
        let edited = |from: &str| {
            let more = json!({ "comment": { "id": 1, "body": "@bot now" }, "changes": { "body": { "from": from } } });
            read(&github(Some("@bot")), "issue_comment", &event("edited", more))
        };
        assert!(edited("no name").is_ok());
        assert!(edited("@bot before").is_err());
    }

    #[test]
    fn repositories_are_allowed_by_name_and_by_owner() {
        let allowed = |entry: &str, repository| is_allowed(&[entry.to_owned()], repository);
        assert!(allowed("ada/engine", "ada/engine") && allowed("*", "eve/x"));
        assert!(allowed("Ada/*", "ada/engine") && allowed("ada/*", "Ada/loom"));
        assert!(!allowed("ada/*", "eve/engine") && !allowed("ada/*", "adam/engine"));
        assert!(!allowed("*/engine", "ada/engine") && !allowed("ada/engine", "ada/loom"));
    }

    #[test]
    fn only_plain_repository_names_are_taken() {
        assert!(is_repository("ada/engine-1.0"));
        for bad in ["ada", "ada/", "/x", "ada/x/y", "../x", "ada/..", "ada/x?y", "ada/x y"] {
            assert!(!is_repository(bad), "{bad}");
        }
    }
}
