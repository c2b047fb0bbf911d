//! Records as earlier versions wrote them.

use crate::domain::{RunId, Status};
use crate::lifecycle::{AfterStop, AgentState, Phase, RetryTarget, Step};
use crate::store::AgentRecord;

/// As the version of commit d332ea3 wrote it, for an agent in this phase.
fn record(phase: &str) -> String {
    format!(
        r#"{{
            "id": "0195b7c4-3c5e-7d80-9a51-6f1f0f4f2b11",
            "user": "0195b7c4-0000-7000-8000-000000000001",
            "slug": "ada",
            "created_at": "2025-03-21T10:00:00Z",
            "updated_at": "2025-03-21T10:05:00.123456789Z",
            "spec": {{
                "name": "Ada", "agentName": "ZeroClaw", "userName": null, "timezone": "Europe/Zurich",
                "communicationStyle": null, "provider": "openai", "model": "gpt-4o-mini", "providerUrl": null,
                "temperature": 0.7, "memoryBackend": "sqlite", "autoSave": true
            }},
            "api_key": null, "channels": null, "channel_kinds": ["telegram"], "token": null,
            "life": {{
                "phase": {phase},
                "generation": 2, "attempt": 7, "revision": 31, "restart_count": 4,
                "restarts": {{
                    "recent": ["2025-03-21T10:04:00Z"], "in_a_row": 1, "failed_starts": 1, "given_up": 0,
                    "running_since": null
                }},
                "reason": {{"code": "exited", "detail": "exit code 1", "exit_code": 1}},
                "instance": {{"engine_id": "4711", "boot": "run-1"}}
            }}
        }}"#
    )
}

fn read(phase: &str) -> AgentState {
    let record: AgentRecord = serde_json::from_str(&record(phase)).unwrap_or_else(|error| panic!("{phase}: {error}"));
    assert_eq!(record.spec.name, "Ada");
    record.state
}

#[test]
fn run_beside_the_phase_becomes_the_phases_own() {
    let run_id = || RunId("run-1".into());
    let running = r#"{"Running": {"misses": 2}}"#;
    assert_eq!(read(running).phase, Phase::Running { run_id: run_id(), misses: 2 });
    let failed = read(r#"{"Failed": {"resume": "Start", "retry_at": null}}"#);
    assert_eq!((failed.phase.run_id(), failed.run_id()), (None, Some(&run_id())), "it may have to be ended");
    assert_eq!(failed.engine_id.as_deref(), Some("4711"));
}

#[test]
fn record_that_lacks_its_run_looks_for_it_again() {
    let starting =
        |step| format!(r#"{{"Starting": {{"step": {step}, "stage": true, "rebinds": 0, "away_since": null}}}}"#);
    for phase in [r#"{"Running": {"misses": 2}}"#.to_owned(), starting(r#""Probing""#), starting(r#""Pairing""#)] {
        let without = record(&phase).replace(r#""boot": "run-1""#, r#""boot": null"#);
        let record: AgentRecord = serde_json::from_str(&without).unwrap();
        assert!(matches!(record.state.phase, Phase::Starting { step: Step::Creating, .. }), "{phase}");
    }
}

/// So that a service can be set back to the version before.
#[test]
fn states_are_written_as_the_first_schema_had_them() {
    let at = "2025-03-21T10:06:00Z";
    let starting = |step: &str| {
        format!(r#"{{"Starting": {{"step": {step}, "stage": false, "rebinds": 3, "away_since": "{at}"}}}}"#)
    };
    let steps = ["Halting", "Creating", "Rebinding", "Launching", "Awaiting", "Probing", "Pairing"];
    let mut phases: Vec<String> = steps.iter().map(|step| starting(&format!("{step:?}"))).collect();
    phases.push(starting(&format!(r#"{{"BackingOff": {{"until": "{at}", "halt": true}}}}"#)));
    phases.extend([r#""Pending""#, r#""Stopped""#, r#"{"Running": {"misses": 2}}"#].map(ToOwned::to_owned));
    phases.push(format!(r#"{{"Stopping": {{"then": "Restart", "since": "{at}", "retry_at": null}}}}"#));
    phases.push(format!(r#"{{"Failed": {{"resume": "Delete", "retry_at": "{at}"}}}}"#));
    for phase in phases {
        let before: serde_json::Value = serde_json::from_str(&record(&phase)).unwrap();
        let after = serde_json::to_value(read(&phase)).unwrap();
        assert_eq!(after, before["life"]);
    }
}

#[test]
fn records_of_the_first_schema_load() {
    let at = "2025-03-21T10:06:00Z";
    let starting =
        |step: &str| format!(r#"{{"Starting": {{"step": {step}, "stage": true, "rebinds": 1, "away_since": null}}}}"#);
    let state = read(&starting(r#""Halting""#));
    assert!(matches!(state.phase, Phase::Starting { step: Step::Killing, stage: true, rebinds: 1, away_since: None }));
    assert_eq!(state.run_id(), Some(&RunId("run-1".into())));
    assert_eq!((state.generation, state.attempt, state.revision, state.restart_count), (2, 7, 31, 4));
    let waiting = read(&starting(&format!(r#"{{"BackingOff": {{"until": "{at}", "halt": true}}}}"#)));
    assert!(matches!(waiting.phase, Phase::Starting { step: Step::BackingOff { kill: true, .. }, .. }));
    for (step, expected) in [
        (r#""Creating""#, Step::Creating),
        (r#""Rebinding""#, Step::Rebinding),
        (r#""Launching""#, Step::Launching),
        (r#""Probing""#, Step::Probing { run_id: RunId("run-1".into()) }),
        (r#""Pairing""#, Step::Pairing { run_id: RunId("run-1".into()) }),
    ] {
        let state = read(&starting(step));
        assert!(matches!(state.phase, Phase::Starting { step, .. } if step == expected));
    }
    for (phase, status) in [
        (r#""Pending""#.to_owned(), Status::Pending),
        (r#"{"Running": {"misses": 2}}"#.to_owned(), Status::Running),
        (r#""Stopped""#.to_owned(), Status::Stopped),
    ] {
        assert_eq!(read(&phase).status(), status);
    }
    for then in ["Stay", "Restart", "Delete"] {
        let state = read(&format!(r#"{{"Stopping": {{"then": "{then}", "since": "{at}", "retry_at": null}}}}"#));
        let deletes = matches!(state.phase, Phase::Stopping { then: AfterStop::Delete, .. });
        assert_eq!((state.status(), deletes), (Status::Stopping, then == "Delete"));
    }
    for resume in ["Start", "Stop", "Delete"] {
        let state = read(&format!(r#"{{"Failed": {{"resume": "{resume}", "retry_at": "{at}"}}}}"#));
        let starts = matches!(state.phase, Phase::Failed { resume: RetryTarget::Start, retry_at: Some(_) });
        assert_eq!((state.status(), starts), (Status::Error, resume == "Start"));
    }
}
