//! From the errors of the layers below to problems: the only place that decides which error is which status.
//!
//! The client sees less than the log: what failed inside is logged here and named to the client by its code alone.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, header};

use super::problem::{Code, FieldError, Problem};
use crate::actor::{AccountRefusal, AskError, KEYS_PER_USER, MAX_TICKETS};
use crate::control::{AccountError, CommandError, CreateError, DeliveryError, RotateError, SignInError, WaitError};
use crate::domain::Status;
use crate::runtime::RuntimeError;
use crate::store::StoreError;
use crate::zeroclaw::client::{GatewayError, ModelFailure, Refusal, WebhookAnswer};

/// When an agent that comes up is worth another try: a start takes about that long.
const READY_RETRY_SECS: u64 = 2;
/// When an engine or a store that is away may be back.
const AWAY_RETRY_SECS: u64 = 5;
/// When a busy actor may have time.
const BUSY_RETRY_SECS: u64 = 1;
/// What a gateway that has too much to do means without a time of its own.
const GATEWAY_RETRY_SECS: u64 = 60;

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Gone => Self::not_found(),
            CommandError::Illegal { status, allowed } => illegal(status, &allowed),
            CommandError::Stale => Self::new(Code::Conflict, "The agent was changed by someone else; read it again."),
            CommandError::Unknown(why) => {
                tracing::warn!(%why, "a command's outcome is unknown");
                outcome_unknown()
            }
            CommandError::Store(error) => error.into(),
        }
    }
}

impl From<CreateError> for Problem {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Quota { limit, used } => {
                Self::new(Code::QuotaExceeded, format!("The plan allows {limit} agents, and {used} exist."))
                    .with("limit", limit)
                    .with("used", used)
            }
            CreateError::SlugTaken => {
                let fault = FieldError::at("/slug", "is taken; choose another");
                Self::new(Code::NameTaken, "The slug is taken; choose another.").with_error(fault)
            }
            CreateError::NoFreePort => {
                Self::new(Code::NoCapacity, "No host port is free.").retry_after(AWAY_RETRY_SECS)
            }
            CreateError::Denied(denied) => Self::new(Code::Forbidden, denied.0),
            CreateError::NoSuchUser => Self::new(Code::Unauthorized, "The key's user is gone."),
            CreateError::Store(error) => error.into(),
            CreateError::Registry(error) => error.into(),
        }
    }
}

impl From<AccountError> for Problem {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Refused(refusal) => refusal.into(),
            AccountError::Registry(error) => error.into(),
        }
    }
}

impl From<AccountRefusal> for Problem {
    fn from(refusal: AccountRefusal) -> Self {
        match refusal {
            AccountRefusal::EmailTaken => {
                let error = FieldError::at("/email", "is taken");
                Self::new(Code::NameTaken, "A user with this e-mail address exists already.").with_error(error)
            }
            AccountRefusal::NoSuchUser
            | AccountRefusal::NoSuchKey
            | AccountRefusal::NoSuchSession
            | AccountRefusal::NoSuchTicket => Self::not_found(),
            AccountRefusal::TooManyTickets => {
                let detail =
                    format!("{MAX_TICKETS} invitations and links are open; withdraw some, or wait for their end.");
                Self::new(Code::QuotaExceeded, detail).with("limit", MAX_TICKETS).with("used", MAX_TICKETS)
            }
            AccountRefusal::HasAgents => {
                Self::new(Code::InUse, "The user still has agents; delete them first, or ask with ?agents=delete.")
            }
            AccountRefusal::TooManyKeys => {
                let detail = format!("A user may have {KEYS_PER_USER} keys; revoke one first.");
                Self::new(Code::QuotaExceeded, detail).with("limit", KEYS_PER_USER).with("used", KEYS_PER_USER)
            }
            AccountRefusal::LastAdministrator => Self::new(
                Code::LastAdministrator,
                "Without it nobody could administer the service; make another administrator, or another key with the scope \
                 admin, first.",
            ),
            AccountRefusal::Deleting => Self::new(Code::InUse, "The user is being deleted."),
            AccountRefusal::Store(error) => error.into(),
        }
    }
}

impl From<SignInError> for Problem {
    fn from(error: SignInError) -> Self {
        let field = |pointer: &str, remedy: &str| Self::invalid(vec![FieldError::at(pointer, remedy)]);
        match error {
            SignInError::Wrong => bearer(Self::new(Code::Unauthorized, "The e-mail address or the password is wrong.")),
            SignInError::Suspended => suspended(),
            SignInError::TooSoon(wait) => rate_limited("failed sign-ins", wait),
            SignInError::Busy(_) => overloaded(),
            SignInError::Closed => {
                Self::new(Code::Forbidden, "Registration is closed; ask an administrator for an account.")
            }
            SignInError::InvitationNeeded => field("/invitation", "is required; ask an administrator for one"),
            SignInError::NoTicket => {
                field("/invitation", "is not valid, is for another address, or was used already; ask for a new one")
            }
            SignInError::CurrentNeeded => field("/current", "is required"),
            SignInError::OtherIdentity => Self::new(
                Code::Forbidden,
                "The account with this e-mail address belongs to another person at the identity provider; ask an \
                 administrator.",
            ),
            SignInError::SessionNeeded => Self::new(Code::Forbidden, "Sign in to set a first password: a key cannot."),
            SignInError::Account(error) => error.into(),
        }
    }
}

impl From<RotateError> for Problem {
    fn from(error: RotateError) -> Self {
        match error {
            RotateError::NoKeeper => Self::new(Code::InUse, format!("{}.", capitalized(&error.to_string()))),
            RotateError::InProgress => {
                Self::new(Code::InProgress, "A rotation is going on already.").retry_after(BUSY_RETRY_SECS)
            }
            RotateError::Store(error) => error.into(),
            RotateError::Agent(error) => error.into(),
            RotateError::Keeper(_) | RotateError::Canary(_) | RotateError::Unsettled | RotateError::Interrupted => {
                tracing::error!(%error, "the master key was not changed");
                Self::new(Code::Internal, "The master key was not changed; the operator's log says why.")
            }
        }
    }
}

/// Characters of an engine's own words that are passed on.
const MAX_CAUSE: usize = 500;

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        tracing::warn!(%error, "an actor did not answer");
        match error {
            AskError::Busy | AskError::Gone => outcome_unknown(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Rejected(conflict) => {
                tracing::warn!(%conflict, "the store refused a change");
                Self::new(Code::Conflict, "It was changed by someone else meanwhile; try again.")
            }
            StoreError::Unknown(why) => {
                tracing::error!(%why, "a commit's outcome is unknown");
                outcome_unknown()
            }
            StoreError::Unavailable(why) => {
                tracing::error!(%why, "the store is not available");
                store_away()
            }
            StoreError::Busy | StoreError::Closed => store_away(),
            StoreError::Corrupt { .. } => {
                tracing::error!(%error, "damaged store");
                Self::new(Code::Internal, "A record of the store is damaged; the operator's log says which.")
            }
        }
    }
}

impl From<RuntimeError> for Problem {
    fn from(error: RuntimeError) -> Self {
        match error {
            // What is only read is in nobody's way, unless it does not run.
            RuntimeError::NotFound | RuntimeError::Conflict(_) => not_running(),
            // It did answer: its own words are the cause.
            RuntimeError::Capacity(why) | RuntimeError::Failed(why) => {
                tracing::warn!(why, "the runtime could not do it");
                let why: String = why.chars().take(MAX_CAUSE).collect();
                Self::new(Code::RuntimeUnavailable, format!("The container engine could not do it: {why}"))
                    .retry_after(AWAY_RETRY_SECS)
            }
            RuntimeError::Unavailable(_) | RuntimeError::UnknownOutcome(_) => {
                tracing::warn!(%error, "the runtime did not answer");
                Self::new(Code::RuntimeUnavailable, "The container engine does not answer at present.")
                    .retry_after(AWAY_RETRY_SECS)
            }
            RuntimeError::Invalid(_) | RuntimeError::PortTaken(_) | RuntimeError::NotOwned(_) => {
                tracing::error!(%error, "the runtime refused a read");
                Self::new(Code::Internal, "The container engine refused the call; the operator's log says why.")
            }
        }
    }
}

impl From<WaitError> for Problem {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::TimedOut => Self::new(Code::Timeout, "The status was not reached in time."),
            WaitError::OutOfReach { status, allowed } => Self::new(
                Code::IllegalTransition,
                format!(
                    "An agent that is {status} does not get there without a command; allowed lists those that it takes."
                ),
            )
            .with("agentStatus", status.as_str())
            .with("allowed", allowed),
            WaitError::Gone => Self::not_found(),
        }
    }
}

impl From<GatewayError> for Problem {
    fn from(error: GatewayError) -> Self {
        tracing::debug!(%error, "a gateway did not answer");
        match error {
            GatewayError::TimedOut => Self::new(Code::GatewayTimeout, "The agent's gateway did not answer in time."),
            GatewayError::NotSent(_) | GatewayError::Unknown(_) | GatewayError::Garbage(_) => {
                Self::new(Code::GatewayError, "The agent's gateway gave no answer that can be used.")
            }
        }
    }
}

impl From<DeliveryError> for Problem {
    fn from(error: DeliveryError) -> Self {
        match error {
            DeliveryError::Gone => Self::not_found(),
            DeliveryError::Closing => {
                Self::new(Code::AgentNotReady, "The service is shutting down; the message was not sent.")
                    .retry_after(READY_RETRY_SECS)
            }
            DeliveryError::NotRunning { status, allowed } => illegal(status, &allowed),
            DeliveryError::NotReady { status, held } => Self::new(
                Code::AgentNotReady,
                format!("The agent is {status} and did not become ready within {} s.", held.as_secs()),
            )
            .with("agentStatus", status.as_str())
            .retry_after(READY_RETRY_SECS),
            DeliveryError::QueueFull => {
                Self::new(Code::RateLimited, "Too many messages wait for this agent.").retry_after(READY_RETRY_SECS)
            }
            DeliveryError::Unknown(why) => {
                tracing::warn!(%why, "the answer of a message was lost");
                delivery_unknown()
            }
            DeliveryError::TimedOut => Self::new(Code::GatewayTimeout, "The agent did not answer in time."),
            DeliveryError::Garbage(why) => {
                tracing::warn!(%why, "a gateway's answer cannot be used");
                Self::new(Code::GatewayError, "The agent's gateway gave no answer that can be used.")
            }
            DeliveryError::Unauthorized => {
                Self::new(Code::GatewayError, "The agent's gateway refuses a token that was just proven.")
            }
        }
    }
}

/// What a gateway's answer to a message means that was given up after `limit`, or is no success for another reason.
pub fn message_refusal(answer: &WebhookAnswer, limit: Duration) -> Problem {
    let problem = gateway_refusal(answer);
    if answer.status == 408 { problem.with("limitSecs", limit.as_secs()) } else { problem }
}

/// What a gateway's answer that is no success means.
pub fn gateway_refusal(answer: &WebhookAnswer) -> Problem {
    let refusal = Refusal::read(answer);
    let problem = match &refusal {
        Refusal::Model(_) if answer.status == 408 => Problem::new(
            Code::GatewayTimeout,
            "The agent's model did not answer within the service's limit (server.answer_secs).",
        ),
        Refusal::Model(failure) => model_error(failure),
        Refusal::NotConfigured(said) => {
            let detail =
                format!("The agent's gateway has no model that it could ask ({said}); its configuration is checked.");
            Problem::new(Code::AgentNotReady, detail).retry_after(READY_RETRY_SECS)
        }
        Refusal::Restarting => {
            Problem::new(Code::AgentNotReady, "The agent's gateway is restarting; send it again in a few seconds.")
                .retry_after(READY_RETRY_SECS)
        }
        Refusal::TooMany { retry_after } => Problem::new(
            Code::RateLimited,
            "The agent's gateway has too many requests; wait as long as Retry-After says.",
        )
        .retry_after(retry_after.unwrap_or(GATEWAY_RETRY_SECS)),
        Refusal::TooLarge => {
            Problem::new(Code::TooLarge, "The message is too large for the agent; send a shorter one.")
        }
        Refusal::Gateway { status, said } => {
            let said = said.as_ref().map_or_else(|| ".".to_owned(), |said| format!(": {said}"));
            let problem = Problem::new(Code::GatewayError, format!("The agent's gateway answered {status}{said}"));
            // The same message is refused again.
            let for_good = (400..500).contains(status) && !matches!(status, 401 | 408 | 409 | 425 | 429);
            if for_good { problem.with("retryable", false) } else { problem }
        }
    };
    let problem = match &refusal {
        Refusal::Model(failure) => problem.of_model(failure),
        _ => problem,
    };
    problem.with("failed", refusal.failed().as_str()).with("gatewayStatus", answer.status)
}

/// The model failed, with whether a retry can help.
fn model_error(failure: &ModelFailure) -> Problem {
    let problem = Problem::new(Code::ModelError, format!("The agent's model failed: {}", failure.message))
        .with("model", failure.to_json())
        .with("retryable", failure.retryable);
    match failure.retry_after {
        Some(secs) => problem.retry_after(secs),
        None => problem,
    }
}

/// It was sent once, and nobody knows what became of it.
pub fn delivery_unknown() -> Problem {
    Problem::new(
        Code::DeliveryUnknown,
        "The message was sent, and its answer was lost. It is not sent again by itself: look whether the agent has acted on it first.",
    )
}

/// A read of something that only a running agent has.
pub fn not_running() -> Problem {
    Problem::new(Code::AgentNotReady, "The agent is not running: start it, or wait until it is RUNNING.")
        .retry_after(READY_RETRY_SECS)
}

pub fn overloaded() -> Problem {
    Problem::new(Code::Overloaded, "The service is overloaded; try again as Retry-After says.")
        .retry_after(BUSY_RETRY_SECS)
}

/// `what` is too many: requests of a key, of a user, or with keys that do not work.
pub fn rate_limited(what: &str, wait: Duration) -> Problem {
    let secs = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Problem::new(Code::RateLimited, format!("Too many {what}; wait as long as Retry-After says."))
        .retry_after(secs.max(1))
}

pub fn suspended() -> Problem {
    Problem::new(Code::Suspended, "The user is suspended; an administrator can make them active again.")
}

/// A stream or a wait more than a user may have open.
pub fn too_many_streams(limit: usize) -> Problem {
    let detail = format!("A user may have {limit} streams and waits open at once; close one first.");
    Problem::new(Code::RateLimited, detail).retry_after(BUSY_RETRY_SECS)
}

pub fn too_many_open(limit: usize) -> Problem {
    let detail = format!("A user may have {limit} requests open at once; wait until one has its answer.");
    Problem::new(Code::RateLimited, detail).retry_after(BUSY_RETRY_SECS)
}

pub fn unauthorized() -> Problem {
    bearer(Problem::new(Code::Unauthorized, "Send a valid API key as `Authorization: Bearer zo_…`, or sign in."))
}

fn bearer(problem: Problem) -> Problem {
    problem.header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"zeroone\""))
}

/// The caller knows an older generation.
pub fn stale(generation: u64) -> Problem {
    let problem = Problem::new(Code::PreconditionFailed, "The agent was changed since; read it again.");
    match HeaderValue::try_from(format!("\"{generation}\"")) {
        Ok(etag) => problem.header(header::ETAG, etag),
        Err(_) => problem,
    }
}

pub fn bad_header(name: &HeaderName, remedy: &str) -> Problem {
    Problem::new(Code::Malformed, format!("The header {name} {remedy}."))
}

fn illegal(status: Status, allowed: &[&'static str]) -> Problem {
    Problem::new(Code::IllegalTransition, format!("Not possible while the agent is {status}; allowed lists what is."))
        .with("agentStatus", status.as_str())
        .with("allowed", allowed)
}

fn outcome_unknown() -> Problem {
    Problem::new(Code::OutcomeUnknown, "Whether it was done is unknown; read it again, or repeat the request.")
        .retry_after(BUSY_RETRY_SECS)
}

fn store_away() -> Problem {
    Problem::new(
        Code::StoreUnavailable,
        "The store cannot write at present, so nothing was changed; its cause is in the service's log.",
    )
    .retry_after(AWAY_RETRY_SECS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: RuntimeError) -> String {
        Problem::from(error).body("/api/agents", "r")["detail"].as_str().unwrap_or_default().to_owned()
    }

    #[test]
    fn an_engine_that_answered_is_quoted_and_not_called_silent() {
        let why = "the image nosuch:1 is not on this engine, and its registry cannot be reached now";
        assert!(told(RuntimeError::Failed(why.into())).ends_with(why));
        assert!(told(RuntimeError::Capacity("no space left on device".into())).contains("no space left"));
        assert!(told(RuntimeError::Failed("x".repeat(10_000))).len() < 600);
        assert!(told(RuntimeError::Unavailable("no answer".into())).contains("does not answer"));
    }
}
