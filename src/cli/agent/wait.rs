//! Waiting for a status, and for the end of an agent. A wait that fails says what `agent explain` says.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::explain::sentences;
use super::find::{Agent, query};
use crate::cli::client::{ANSWER, Client};
use crate::cli::outcome::Failure;
use crate::domain::Timestamp;

/// Longest wait, in seconds, that the service grants: with a cold image a start takes minutes.
pub(super) const LONGEST_SECS: u64 = 300;
/// Pause between two looks at an agent that is being removed.
const PAUSE: Duration = Duration::from_millis(200);

/// The record once the agent has one of the statuses (by comma, in any case).
pub(super) async fn until(client: &Client, agent: &Agent, statuses: &str, secs: u64) -> Result<Value, Failure> {
    let statuses = statuses.to_ascii_uppercase();
    let path = agent.path(&format!("/wait?status={}&timeout={secs}", query(&statuses)));
    match client.get_within(&path, Duration::from_secs(secs) + ANSWER).await {
        Err(failure) if failure.refusal("timeout").is_some() => {
            let why = format!("{statuses} was not reached within {secs} s.");
            Err(explained(client, agent, failure, Some(why)).await)
        }
        Err(failure) if failure.refusal("illegal-transition").is_some() => {
            Err(explained(client, agent, failure, None).await)
        }
        answer => answer,
    }
}

/// Waits until there is nothing left of it.
pub(super) async fn gone(client: &Client, agent: &Agent) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_secs(LONGEST_SECS);
    loop {
        match client.get(&agent.path("")).await {
            Err(failure) if failure.refusal("not-found").is_some() => return Ok(()),
            Err(failure) => return Err(failure),
            Ok(_) if Instant::now() >= deadline => {
                let failure = Failure::said(format!("{} is not gone yet", agent.name));
                return Err(explained(client, agent, failure, None).await);
            }
            Ok(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// The failure in the words of `explain`; as it is where that does not answer.
async fn explained(client: &Client, agent: &Agent, failure: Failure, first: Option<String>) -> Failure {
    let Ok(explanation) = client.get(&agent.path("/explain")).await else { return failure };
    let see = format!("See: zeroone agent explain {}", agent.name);
    let lines = first.into_iter().chain(sentences(&agent.name, &explanation, Timestamp::now())).chain([see]);
    failure.in_words(lines.collect::<Vec<_>>().join("\n"))
}
