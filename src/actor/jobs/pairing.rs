//! The way to a token that works.

use std::net::SocketAddr;

use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    JobInput, JobReport, JobResult, answer_within, endpoint_of, key_of, migration, no_endpoint, runtime_failure,
    superseded, usability,
};
use crate::actor::Services;
use crate::domain::Secret;
use crate::lifecycle::{Cause, Code, Failure, FailureKind, Outcome};
use crate::runtime::{LogQuery, Run};
use crate::zeroclaw::client::Pairing;
use crate::zeroclaw::pairing::{Announcement, CodeScanner};

/// Makes sure of a token: the held one, if there is one, else one for a code that is newer than this run.
pub(super) async fn pair(services: &Services, input: &JobInput, cancel: &CancellationToken) -> JobResult {
    let endpoint = endpoint_of(input)?;
    let work = async {
        if let Some(token) = &input.token {
            return if token_accepted(services, endpoint, token).await? {
                make_usable(services, input, endpoint, token).await?;
                let token = Some(token.clone());
                Ok(JobReport { token, ..Outcome::Paired(Code::TokenValid).into() })
            } else {
                // The files that it was given hold the token's hash, so they are not what it runs on: whatever else they
                // said is lost as well. They are written anew, rather than pairing with what nobody configured.
                Err(Failure { kind: FailureKind::Transient, cause: Cause::new(Code::TokenRefused) })
            };
        }
        let protected = async {
            if requires_pairing(services, endpoint).await {
                return Ok(());
            }
            // Anyone could talk to it: an agent that cannot be protected is not run.
            Err(Failure { kind: FailureKind::Permanent, cause: Cause::new(Code::PairingDisabled) })
        };
        let ((), code) = tokio::try_join!(protected, await_code(services, input))?;
        let report = redeem(services, endpoint, &code).await?;
        if let Some(token) = &report.token {
            make_usable(services, input, endpoint, token).await?;
        }
        Ok(report)
    };
    tokio::select! {
        biased;
        report = work => report,
        () = cancel.cancelled() => Err(superseded()),
    }
}

/// The gateway would answer messages, and knows what waits to be told to it.
async fn make_usable(
    services: &Services,
    input: &JobInput,
    at: SocketAddr,
    token: &Secret<String>,
) -> Result<(), Failure> {
    usability::require(services, &input.record, at, token).await?;
    if input.record.untold { migration::tell(services, &key_of(&input.record), at, token).await } else { Ok(()) }
}

async fn token_accepted(services: &Services, at: SocketAddr, token: &Secret<String>) -> Result<bool, Failure> {
    let limits = &services.settings.limits;
    answer_within(limits.pairing, || services.gateway.accepts_token(at, token, limits.health)).await
}

/// What `/health` says about pairing. A gateway that does not say is taken to require it: then a code must come.
async fn requires_pairing(services: &Services, at: SocketAddr) -> bool {
    let report = services.gateway.health(at, services.settings.limits.health).await.ok();
    let body = report.and_then(|report| serde_json::from_slice::<serde_json::Value>(&report.body).ok());
    body.and_then(|body| body.get("require_pairing")?.as_bool()).unwrap_or(true)
}

/// The pairing code in the log of exactly this run.
async fn await_code(services: &Services, input: &JobInput) -> Result<Secret<String>, Failure> {
    let Some(run) = &input.run else { return Err(no_endpoint()) };
    let deadline = Instant::now() + services.settings.limits.pairing;
    let missing = |detail: &'static str| Failure {
        kind: FailureKind::Transient,
        cause: Cause::because(Code::PairingTimeout, detail),
    };
    let mut lines = services
        .runtime
        .logs(&key_of(&input.record), announcements(run))
        .await
        .map_err(|error| runtime_failure(&error))?;
    let mut scanner = CodeScanner::new();
    loop {
        match timeout_at(deadline, lines.next()).await {
            Ok(Some(Ok(line))) => match scanner.read(&line.text) {
                Some(Announcement::Code(code)) => return Ok(code),
                Some(Announcement::Active) => {
                    return Err(missing("the gateway is paired already and gives no code"));
                }
                None => {}
            },
            Ok(Some(Err(error))) => return Err(runtime_failure(&error)),
            Ok(None) => return Err(missing("the log ended before a code appeared")),
            Err(_elapsed) => return Err(missing("no code appeared in the log")),
        }
    }
}

/// What a run prints from its start on. The time as well as the run: a code of the run before was worth something for that one
/// alone, and an engine may not tell the lines of two runs apart.
fn announcements(run: &Run) -> LogQuery {
    LogQuery { run_id: Some(run.run_id.clone()), since: Some(run.started_at), follow: true, ..LogQuery::default() }
}

/// Sends the code once: a failure counts towards the gateway's lockout.
async fn redeem(services: &Services, at: SocketAddr, code: &Secret<String>) -> JobResult {
    match services.gateway.pair(at, code, services.settings.limits.pairing).await {
        Ok(Pairing::Paired { token, persisted }) => {
            if !persisted {
                tracing::warn!(%at, "the gateway could not persist the token: it will ask for a new pairing when it restarts");
            }
            Ok(JobReport { token: Some(token), ..Outcome::Paired(Code::Paired).into() })
        }
        Ok(Pairing::Refused) => Err(Failure { kind: FailureKind::Transient, cause: Cause::new(Code::PairingRefused) }),
        Ok(Pairing::LockedOut { retry_after_secs }) => {
            let cause = Cause::because(Code::PairingLocked, format!("for {retry_after_secs} s"));
            Err(Failure { kind: FailureKind::Transient, cause })
        }
        // The code may be spent: a restart gives another one.
        Err(error) => {
            let cause = Cause::because(Code::PairingRefused, error.to_string());
            Err(Failure { kind: FailureKind::Transient, cause })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{RunId, Timestamp};

    #[test]
    fn code_is_looked_for_in_the_output_of_this_run_alone() {
        let started_at = Timestamp::from_second(1000).unwrap();
        let run = Run::new(RunId("b2".into()), started_at, ([127, 0, 0, 1], 40_000).into());
        let query = announcements(&run);
        assert_eq!((query.run_id, query.since), (Some(run.run_id), Some(started_at)));
        assert!(query.follow && query.tail.is_none() && query.after.is_none(), "whenever it is printed");
    }
}
