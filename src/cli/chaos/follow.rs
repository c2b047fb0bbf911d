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
use crate::runtime::fault::{Fault, Hands};

/// Between looks. Ten a second for each agent in trouble stay below the service's limit for a key.
const LOOK: Duration = Duration::from_millis(100);
/// How long a pause or a cut lasts at most: longer than the service takes, as it is configured by default, to find out and
/// to act, short enough that a cut agent is not given up.
const HOLD: Duration = Duration::from_secs(20);
/// After it was taken back: an agent that has no incident by then had none.
const UNNOTICED: Duration = Duration::from_secs(2);

/// Does a fault and says how it went, `within` this time.
pub(super) async fn follow(
    hands: Arc<dyn Hands>,
    client: Client,
    agent: AgentId,
    fault: Fault,
    within: Duration,
) -> Outcome {
    let at = Timestamp::now();
    match hands.inject(agent, fault).await {
        Ok(true) => {}
        Ok(false) => return Outcome::Skipped,
        Err(error) => return Outcome::Impossible(error.to_string()),
    }
    let outcome = watch(&*hands, &client, agent, fault, at, within).await;
    if lasts(fault) {
        // Also where all went well: what is left of it must not outlive this run.
        let _ = hands.undo(agent, fault).await;
    }
    outcome
}

async fn watch(
    hands: &dyn Hands,
    client: &Client,
    agent: AgentId,
    fault: Fault,
    at: Timestamp,
    within: Duration,
) -> Outcome {
    let begun = Instant::now();
    let mut undone = None;
    loop {
        sleep(LOOK).await;
        // A service that does not answer now may do so at the next look.
        let newest = client.get(&format!("/api/agents/{agent}/incidents?limit=1")).await.unwrap_or_default();
        let incident = since(&newest["data"][0], at);
        match incident.map(|incident| (incident["state"].as_str(), time(&incident["pairedAt"]))) {
            Some((Some("recovered"), Some(paired))) => return Outcome::Recovered(elapsed(at, paired)),
            Some((Some("abandoned"), _)) => return Outcome::Abandoned,
            None if undone.is_some_and(|undone: Instant| undone.elapsed() >= UNNOTICED) => return Outcome::Unnoticed,
            Some(_) | None => {}
        }
        if lasts(fault) && undone.is_none() && begun.elapsed() >= HOLD {
            if let Err(error) = hands.undo(agent, fault).await {
                return Outcome::Impossible(format!("taking it back: {error}"));
            }
            undone = Some(Instant::now());
        }
        if begun.elapsed() >= within {
            return Outcome::Lost;
        }
    }
}

/// Whether it goes on until it is taken back.
const fn lasts(fault: Fault) -> bool {
    match fault {
        Fault::Pause | Fault::Cut => true,
        Fault::Kill | Fault::Stop => false,
    }
}

/// The incident, if it began after this time.
fn since(incident: &Value, at: Timestamp) -> Option<&Value> {
    time(&incident["detectedAt"]).filter(|detected| *detected >= at).map(|_| incident)
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_older_incident_says_nothing_about_this_fault() {
        let at: Timestamp = "2026-11-01T00:00:01Z".parse().unwrap();
        for (detected, counts) in [
            (json!("2026-11-01T00:00:00.999Z"), false),
            (json!("2026-11-01T00:00:01Z"), true),
            (json!("2026-11-01T00:00:01.25Z"), true),
            (json!(null), false),
        ] {
            assert_eq!(since(&json!({ "detectedAt": detected }), at).is_some(), counts, "{detected}");
        }
    }
}
