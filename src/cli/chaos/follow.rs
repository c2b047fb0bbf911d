//! One fault: done to one agent, and watched until the agent is well again.
//!
//! How long that took is what the service's own record of the incident says, on the same clock: looking more often would
//! not make it more exact.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::report::Outcome;
use crate::cli::client::Client;
use crate::domain::{AgentId, Timestamp, elapsed};
use crate::runtime::fault::{Fault, FaultInjector};

/// Between looks. Ten a second for each agent in trouble stay below the service's limit for a key.
const LOOK: Duration = Duration::from_millis(100);
/// How long a pause or a cut lasts at most: longer than the service takes, as it is configured by default, to find out and
/// to act, short enough that a cut agent is not given up.
const HOLD: Duration = Duration::from_secs(20);
/// After it was done, or taken back if it lasts: an agent that is RUNNING and has no incident by then had none. Deaths are
/// noticed in milliseconds, and on the busiest machine sooner than this.
const UNNOTICED: Duration = Duration::from_secs(10);

/// Does a fault and says how it went, `within` this time.
pub(super) async fn follow(
    injector: Arc<dyn FaultInjector>,
    client: Client,
    agent: AgentId,
    fault: Fault,
    within: Duration,
) -> Outcome {
    let at = Timestamp::now();
    match injector.inject(agent, fault).await {
        Ok(true) => {}
        Ok(false) => return Outcome::Skipped,
        Err(error) => return Outcome::Impossible(error.to_string()),
    }
    let outcome = watch(&*injector, &client, agent, fault, at, within).await;
    if lasts(fault) {
        // Also where all went well: what is left of it must not outlive this run.
        let _ = injector.undo(agent, fault).await;
    }
    outcome
}

async fn watch(
    injector: &dyn FaultInjector,
    client: &Client,
    agent: AgentId,
    fault: Fault,
    at: Timestamp,
    within: Duration,
) -> Outcome {
    let begun = Instant::now();
    // From when on nothing more is done to it.
    let mut over = (!lasts(fault)).then_some(begun);
    loop {
        sleep(LOOK).await;
        let quiet = over.is_some_and(|over| over.elapsed() >= UNNOTICED);
        if let Some(outcome) = look(client, agent, at, quiet).await {
            return outcome;
        }
        if over.is_none() && begun.elapsed() >= HOLD {
            if let Err(error) = injector.undo(agent, fault).await {
                return Outcome::Impossible(format!("taking it back: {error}"));
            }
            over = Some(Instant::now());
        }
        if begun.elapsed() >= within {
            return Outcome::Lost;
        }
    }
}

/// What came of it, if that can be told yet. `quiet`: what has not become an incident by now will not.
async fn look(client: &Client, agent: AgentId, at: Timestamp, quiet: bool) -> Option<Outcome> {
    // A service that does not answer now may do so at the next look.
    let newest = client.get(&format!("/api/agents/{agent}/incidents?limit=1")).await;
    let newest = match newest {
        Err(failure) if failure.refusal("not-found").is_some() => return Some(Outcome::Abandoned),
        answer => answer.ok()?.pointer("/data/0").cloned().unwrap_or_default(),
    };
    if let Some(incident) = unless_over(&newest, at) {
        return match (incident["state"].as_str(), time(&incident["pairedAt"])) {
            (Some("recovered"), Some(paired)) => Some(Outcome::Recovered(elapsed(at, paired))),
            (Some("abandoned"), _) => Some(Outcome::Abandoned),
            _ => None,
        };
    }
    // One that was being stopped or restarted just then has no incident: it was to end anyway.
    let record = client.get(&format!("/api/agents/{agent}")).await.ok()?;
    match record["status"].as_str() {
        Some("STOPPED") => Some(Outcome::Abandoned),
        Some("RUNNING") if quiet => Some(Outcome::Unnoticed),
        _ => None,
    }
}

/// Whether it goes on until it is taken back.
const fn lasts(fault: Fault) -> bool {
    match fault {
        Fault::Pause | Fault::Cut => true,
        Fault::Kill | Fault::Stop => false,
    }
}

/// The incident, unless it was over by this time. One that was open then covers whatever was done in it.
fn unless_over(incident: &Value, at: Timestamp) -> Option<&Value> {
    time(&incident["detectedAt"])?;
    time(&incident["endedAt"]).is_none_or(|ended| ended >= at).then_some(incident)
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_incident_that_was_over_says_nothing_about_this_fault() {
        let at: Timestamp = "2026-11-01T00:00:01Z".parse().unwrap();
        let (before, after) = (json!("2026-11-01T00:00:00.999Z"), json!("2026-11-01T00:00:01.25Z"));
        for (detected, ended, counts) in [
            (&before, &before, false),
            (&before, &after, true),
            (&before, &Value::Null, true),
            (&after, &after, true),
            (&after, &Value::Null, true),
            (&Value::Null, &Value::Null, false),
        ] {
            let incident = json!({ "detectedAt": detected, "endedAt": ended });
            assert_eq!(unless_over(&incident, at).is_some(), counts, "{incident}");
        }
    }
}
