//! `GET /problems/{code}`: what a problem means, and what to do. Every problem's `type` leads here.

use std::sync::LazyLock;

use axum::Json;
use axum::extract::{Path, Request};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::problem::{Code, Problem};
use super::sse::accepts;

/// The page's only style. It stands in the page, so that it is one answer; the policy names it by its hash.
const STYLE: &str = ":root{color-scheme:light dark}\
    body{margin:0;background:light-dark(#f6f7fb,#12141c);color:light-dark(#1b1f2a,#e6e8ef);font:1rem/1.5 system-ui,sans-serif}\
    main{max-width:40rem;margin:0 auto;padding:2rem 1.25rem}\
    h1{font-size:1.6rem;line-height:1.25;margin:0 0 .5rem}h2{font-size:1.1rem;margin:1.5rem 0 .25rem}p{margin:.25rem 0}\
    code{font-family:ui-monospace,monospace}";

static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; frame-ancestors 'none'")
});

/// A code that problems have.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemPage {
    code: &'static str,
    status: u16,
    title: &'static str,
    /// Whether the same request may succeed later.
    retryable: bool,
    meaning: &'static str,
    remedy: &'static str,
}

/// What a problem means and what to do about it; as a page for browsers.
#[utoipa::path(
    get, path = "/problems/{code}", tag = "service",
    params(("code" = String, Path)),
    responses((status = 200, content((ProblemPage = "application/json"), (String = "text/html"))))
)]
pub async fn problem_page(code: Path<String>, request: Request) -> Result<Response, Problem> {
    let code = Code::ALL.iter().find(|known| known.as_str() == code.0).ok_or_else(Problem::not_found)?;
    let (meaning, remedy) = explained(*code);
    let page = ProblemPage {
        code: code.as_str(),
        status: code.status().as_u16(),
        title: code.title(),
        retryable: code.retryable(),
        meaning,
        remedy,
    };
    if accepts(request.headers(), "text/html") {
        let headers =
            [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY.as_str())];
        return Ok((headers, page.html()).into_response());
    }
    Ok(Json(page).into_response())
}

impl ProblemPage {
    /// All texts are our own: nothing in here needs to be escaped.
    fn html(&self) -> String {
        let Self { code, status, title, meaning, remedy, .. } = self;
        let retry =
            if self.retryable { "The same request may succeed later." } else { "The same request fails again." };
        format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title} · zeroone</title>\
             <style>{STYLE}</style></head><body><main><h1>{title}</h1><p><code>{code}</code>, HTTP {status}</p>\
             <h2>What it means</h2><p>{meaning}</p><h2>What to do</h2><p>{remedy}</p><p>{retry}</p></main></body></html>\n"
        )
    }
}

/// Meaning and remedy.
const fn explained(code: Code) -> (&'static str, &'static str) {
    match code {
        Code::Malformed => {
            ("The request cannot be read: its JSON or a header is malformed.", "The detail says where; correct it.")
        }
        Code::CellNeeded => (
            "Behind this address are several cells, and the request is for one of them without saying which.",
            "Name it by the header Zeroone-Cell, or use a key of that cell; the detail says more.",
        ),
        Code::CellUnavailable => (
            "The cell that this belongs to cannot be reached; cell has its number. Nothing was done. Other cells are not concerned.",
            "Try again after Retry-After; the operator should look at that cell.",
        ),
        Code::CellFailed => (
            "The request was sent to its cell, which ended or hung before it answered; cell has its number. It may have been carried out.",
            "Read what it would have changed before it is sent again; with an Idempotency-Key it can be sent again as it is.",
        ),
        Code::Unauthorized => (
            "The request has no API key that works.",
            "Send a valid key in Authorization: Bearer. It may have expired or been revoked.",
        ),
        Code::QuotaExceeded => (
            "The plan's limit is reached; limit and used say how far.",
            "Delete something first, or ask an administrator for another plan.",
        ),
        Code::Forbidden => ("The key may not do this.", "Use a key with the scope that the detail names."),
        Code::Suspended => (
            "The key's user is suspended: keys are refused and agents are stopped. All data is kept.",
            "Ask an administrator to make the user active again.",
        ),
        Code::NotFound => ("It does not exist, or it belongs to another user.", "Check the id and the key."),
        Code::MethodNotAllowed => ("The path exists, but not for this method.", "The header Allow lists the methods."),
        Code::Timeout => {
            ("What was waited for did not happen in time.", "Wait again, or look at the agent with explain.")
        }
        Code::IllegalTransition => (
            "The agent's status does not allow this; agentStatus and allowed say what is possible.",
            "Wait for another status, or send one of the allowed commands.",
        ),
        Code::NameTaken => ("Somebody else has this name.", "Choose another one."),
        Code::InProgress => (
            "The first request with this idempotency key is still being worked on.",
            "Send it again after Retry-After to get its answer.",
        ),
        Code::InstallationInUse => (
            "Another control plane works with this installation: the same data folder, or a copy of it beside the same engine. No request is answered so; the service that was started second says it and ends.",
            "Let one of them run. For a second installation give it a data folder of its own; for a copy see zeroone serve --new-installation and --take-over.",
        ),
        Code::InUse => ("Something still depends on it.", "Remove what the detail names first."),
        Code::LastAdministrator => (
            "Without it nobody could administer the service.",
            "Make another administrator, or a key with the scope admin, first.",
        ),
        Code::AnswerNotKept => (
            "A request with this idempotency key was done before, but its answer was not kept, because it showed a secret, was too long, or the user's room for kept answers is used up.",
            "Read what it changed; do not send it again under a new key unless it is to be done twice.",
        ),
        Code::NotSupported => (
            "The version of the agent's gateway has nothing that could do this.",
            "Use an image of a newer version; the detail says which one can.",
        ),
        Code::IdentityProvider => (
            "The OpenID Connect provider of this service cannot be reached, or what it said is not valid.",
            "Try again in a minute. The operator finds the cause in the service's log, beside the request's id.",
        ),
        Code::Conflict => (
            "Somebody else changed it at the same time, or its present state does not allow what was asked.",
            "The detail says what is in the way. Read it again, and repeat the change where that can help.",
        ),
        Code::PreconditionFailed => (
            "If-Match names an older generation: it was changed since it was read.",
            "Read it again and repeat the change with the new ETag.",
        ),
        Code::TooLarge => ("The body is larger than allowed.", "Send less; the detail names the limit."),
        Code::UnsupportedMediaType => ("The body is not JSON.", "Send it with Content-Type: application/json."),
        Code::Invalid => (
            "The request can be read, but fields or parameters are not valid; errors lists them.",
            "Correct what errors names.",
        ),
        Code::RateLimited => (
            "Too many requests, streams or messages at once.",
            "Wait for Retry-After, or close streams that are not needed.",
        ),
        Code::ConfigurationManaged => (
            "The agent's configuration is managed by zeroone, so the gateway's own way to change it is closed.",
            "Change the agent by PATCH /api/agents/{id}.",
        ),
        Code::TooManyStreams => (
            "Too many requests, streams and WebSockets are open to the agent's gateway.",
            "Close some, or wait; the bound is open_per_agent in [proxy].",
        ),
        Code::TooManyStreamsOfUser => (
            "Too many requests, streams and WebSockets are open to all agents of the user.",
            "Close some, or wait; the bound is open_per_user in [proxy].",
        ),
        Code::StreamIdle => (
            "Nothing came on the stream for longer than it may be silent, so it was closed.",
            "Open it again; the bound is idle_secs in [proxy].",
        ),
        Code::StreamClosed => (
            "The stream was closed before its end: the service shuts down, or the key or session that opened it no longer works.",
            "Open it again, with a key that works.",
        ),
        Code::HeadersTooLarge => ("The request's headers are larger than allowed.", "Send fewer or smaller headers."),
        Code::Internal => (
            "The service failed inside. That is a bug, or damaged data.",
            "The operator's log has the cause under the requestId.",
        ),
        Code::ModelError => (
            "The agent works, and its model gave no answer: a wrong key, an unknown model, no credit, a server that is away.",
            "Do what `detail` says; `model` has the server's status and code. Send it again only where `retryable` is true.",
        ),
        Code::GatewayError => {
            ("The agent's gateway failed, or its answer cannot be used.", "Look at the agent's explain and logs.")
        }
        Code::DeliveryUnknown => (
            "The message was sent, and its answer was lost: the agent may have acted on it.",
            "Ask the agent before the message is sent again.",
        ),
        Code::AgentNotReady => (
            "The agent is not running, or did not become ready in time.",
            "Wait for RUNNING; explain says what it waits for.",
        ),
        Code::RuntimeUnavailable => (
            "What runs the agents does not answer.",
            "Try again after Retry-After; the operator should look at the container engine.",
        ),
        Code::StoreUnavailable => (
            "The store cannot write, for instance because the disk is full. Nothing was changed.",
            "Try again after Retry-After; the operator should look at the disk.",
        ),
        Code::OutcomeUnknown => {
            ("It may or may not have been done.", "Read it, or repeat the request: commands can be repeated.")
        }
        Code::NoCapacity => {
            ("No host port is free for another agent.", "Delete agents, or ask the operator for more ports.")
        }
        Code::Overloaded => {
            ("The service has more to do than it can, or is shutting down.", "Try again after Retry-After.")
        }
        Code::GatewayTimeout => (
            "The agent, or its model, did not answer in time.",
            "Try again, or look at the agent's logs for the model's answer.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_explained_in_sentences() {
        for code in Code::ALL {
            let (meaning, remedy) = explained(*code);
            assert!(meaning.ends_with('.') && remedy.ends_with('.'), "{}", code.as_str());
        }
    }
}
