use std::collections::BTreeSet;

use super::*;
use crate::domain::Status;

/// Every phase, and every step in it, under the name of its row below.
fn phases() -> Vec<(&'static str, Phase)> {
    let retry = Some(at(500));
    let mut phases =
        vec![("PENDING", Phase::Pending), ("RUNNING", paired(0)), ("RUNNING", paired(3)), ("STOPPED", Phase::Stopped)];
    for (name, then) in [
        ("STOPPING/stay", AfterStop::Stay),
        ("STOPPING/restart", AfterStop::Restart),
        ("STOPPING/delete", AfterStop::Delete),
    ] {
        phases.push((name, stopping(then)));
        phases.push((name, Phase::Stopping { then, since: at(0), retry_at: retry }));
    }
    for (name, resume) in
        [("ERROR/start", RetryTarget::Start), ("ERROR/stop", RetryTarget::Stop), ("ERROR/delete", RetryTarget::Delete)]
    {
        phases.push((name, Phase::Failed { resume, retry_at: retry }));
    }
    phases.push(("ERROR/start", Phase::Failed { resume: RetryTarget::Start, retry_at: None }));
    for step in steps() {
        for stage in [true, false] {
            phases.push(("STARTING", starting(step.clone(), stage)));
        }
        let (step, away_since) = (step.clone(), Some(at(0)));
        phases.push(("STARTING", Phase::Starting { step, stage: false, rebinds: 255, away_since }));
    }
    phases
}

fn steps() -> Vec<Step> {
    let waiting = |kill| Step::BackingOff { until: at(500), kill };
    let steps = [Step::Killing, Step::Creating, Step::Rebinding, Step::Launching, Step::Awaiting, probing(), pairing()];
    steps.into_iter().chain([waiting(true), waiting(false)]).collect()
}

#[test]
fn an_agent_is_being_deleted_from_the_command_on_also_where_that_failed() {
    for (name, phase) in phases() {
        let state = AgentState { phase, ..AgentState::new() };
        assert_eq!(state.deleting(), ["STOPPING/delete", "ERROR/delete"].contains(&name), "{name}");
    }
}

const COMMANDS: [Command; 6] = [
    Command::Start,
    Command::Stop,
    Command::Restart,
    Command::Delete,
    Command::Update { inside: true },
    Command::Update { inside: false },
];

/// A status is what a command that is followed leads to.
const ANSWERS: &str = "
    phase             start     stop      restart   delete    update    rename
    PENDING           already   STOPPING  PENDING   STOPPING  PENDING   PENDING
    STARTING          already   STOPPING  STOPPING  STOPPING  STARTING  STARTING
    RUNNING           already   STOPPING  STOPPING  STOPPING  STOPPING  RUNNING
    STOPPING/stay     refuse    already   refuse    STOPPING  STOPPING  STOPPING
    STOPPING/restart  already   STOPPING  STOPPING  STOPPING  STOPPING  STOPPING
    STOPPING/delete   refuse    refuse    refuse    already   refuse    refuse
    STOPPED           STARTING  already   STARTING  STOPPING  STOPPED   STOPPED
    ERROR/start       PENDING   STOPPING  PENDING   STOPPING  ERROR     ERROR
    ERROR/stop        PENDING   STOPPING  PENDING   STOPPING  ERROR     ERROR
    ERROR/delete      refuse    refuse    refuse    STOPPING  refuse    refuse
";

#[test]
fn every_command_has_its_answer_in_every_phase() {
    let rows: Vec<Vec<&str>> = ANSWERS.lines().map(|line| line.split_whitespace().collect()).collect();
    let mut met = BTreeSet::new();
    for (name, phase) in phases() {
        let row = rows.iter().find(|row| row.first() == Some(&name)).expect("each phase has its row");
        met.insert(name);
        for (command, expected) in COMMANDS.into_iter().zip(&row[1..]) {
            let mut story = Story::in_phase(phase.clone());
            let before = story.state.clone();
            let verdict = admit(&phase, command);
            story.command(command);
            let answer = match verdict {
                Admission::Accept => story.state.status().as_str(),
                Admission::NoOp => "already",
                Admission::Deny => "refuse",
            };
            assert_eq!(&answer, expected, "{command:?} in {phase:?}");
            assert_eq!(story.state != before, verdict == Admission::Accept, "{command:?} in {phase:?}");
            let updates = u64::from(matches!(command, Command::Update { .. }) && verdict == Admission::Accept);
            assert_eq!(story.state.generation, before.generation + updates, "{command:?} in {phase:?}");
        }
    }
    assert_eq!(met.len(), rows.iter().filter(|row| !row.is_empty()).count() - 1, "each row was met");
}

#[test]
fn what_is_allowed_is_what_would_be_done() {
    for (phase, names) in [
        (Phase::Pending, &["stop", "restart", "update", "delete"][..]),
        (Phase::Stopped, &["start", "restart", "update", "delete"]),
        (stopping(AfterStop::Stay), &["update", "delete"]),
        (stopping(AfterStop::Delete), &[]),
        (Phase::Failed { resume: RetryTarget::Delete, retry_at: None }, &["delete"]),
    ] {
        assert_eq!(allowed(&phase), names, "{phase:?}");
    }
}

fn failures() -> Vec<Outcome> {
    [
        (FailureKind::Transient, Code::HealthTimeout),
        (FailureKind::Transient, Code::PairingTimeout),
        (FailureKind::Permanent, Code::CannotRun),
        (FailureKind::EngineAway, Code::RuntimeUnavailable),
        (FailureKind::EngineRefuses, Code::RuntimeRefuses),
        (FailureKind::PortTaken, Code::PortTaken),
    ]
    .map(|(kind, code)| failure(kind, code))
    .into()
}

const JOBS: [Job; 9] =
    [Job::Kill, Job::Create, Job::Rebind, Job::Launch, Job::Await, Job::Probe, Job::Pair, Job::Stop, Job::Remove];

#[test]
fn an_agent_at_rest_waits_for_no_job_but_the_kill_of_what_was_left() {
    for phase in [Phase::Stopped, Phase::Failed { resume: RetryTarget::Start, retry_at: None }] {
        for job in JOBS {
            let mut story = Story::in_phase(phase.clone());
            let effects = story.job(job, failure(FailureKind::Transient, Code::Internal));
            assert_eq!(effects.is_empty(), job != Job::Kill, "{job:?} in {phase:?}");
        }
    }
}

fn outcomes() -> Vec<Outcome> {
    let mut outcomes = failures();
    let good =
        [Outcome::Done, created(None), created(Some("b1")), accepted(), launched("b1"), Outcome::Paired(Code::Paired)];
    outcomes.extend(good);
    outcomes
}

fn accepted() -> Outcome {
    Outcome::Accepted { why: "it looks for a place".into() }
}

fn sightings() -> Vec<Observation> {
    vec![Observation::Absent, down(1), up("b1"), up("b2"), paused("b1"), paused("b2"), Observation::Unknown]
}

/// Everything that can happen to a life, none of it stale.
fn events(state: &AgentState) -> Vec<Event> {
    let (attempt, revision) = (state.attempt, state.revision);
    let mut events = vec![
        Event::Recovered,
        Event::Resync,
        Event::Health { attempt, alive: true },
        Event::Health { attempt, alive: false },
        Event::Unusable { attempt, why: "it lacks a model".into() },
        Event::TokenRefused { attempt },
        Event::ModelFailed { attempt, model: failed_model("timeout") },
        Event::ModelAnswered { attempt },
        Event::Wake { revision },
    ];
    events.extend(COMMANDS.map(Event::Command));
    events.extend(sightings().into_iter().map(|observation| Event::Observed { revision, observation }));
    for job in JOBS {
        events.extend(outcomes().into_iter().map(|outcome| Event::Job { attempt, job, outcome }));
    }
    events
}

/// A budget that is whole, and one that is spent.
fn budgets() -> [RestartPolicy; 2] {
    let whole = RestartPolicy::default();
    let spent = RestartPolicy { max_restarts: 0, max_failed_starts: 1, ..RestartPolicy::default() };
    [whole, spent]
}

#[test]
fn the_status_changes_along_the_known_edges_and_along_all_of_them() {
    let mut seen = BTreeSet::new();
    for (_, phase) in phases() {
        let state = life_in(phase);
        for event in events(&state) {
            for restart in budgets() {
                // Too late for any patience, too.
                for now in [at(0), at(3_600_000)] {
                    let mut story = Story { restart: restart.clone(), now, ..Story::of(state.clone()) };
                    story.tell(event.clone());
                    let edge = (state.status(), story.state.status());
                    assert!(edge.0 == edge.1 || Status::EDGES.contains(&edge), "{edge:?} by {event:?} in {state:?}");
                    if edge.0 != edge.1 {
                        seen.insert(edge);
                    }
                }
            }
        }
    }
    assert_eq!(seen, Status::EDGES.iter().copied().collect());
}

#[test]
fn what_is_stale_changes_nothing_in_any_phase() {
    for (_, phase) in phases() {
        let state = life_in(phase);
        let (attempt, revision) = (state.attempt - 1, state.revision - 1);
        let mut stale = vec![
            Event::Health { attempt, alive: true },
            Event::Health { attempt, alive: false },
            Event::Unusable { attempt, why: "it lacks a model".into() },
            Event::TokenRefused { attempt },
            Event::ModelFailed { attempt, model: failed_model("timeout") },
            Event::ModelAnswered { attempt },
            Event::Wake { revision },
        ];
        for job in JOBS {
            stale.extend(outcomes().into_iter().map(|outcome| Event::Job { attempt, job, outcome }));
        }
        for event in stale {
            let mut story = Story::of(state.clone());
            assert_eq!(story.tell(event.clone()), [], "{event:?} in {state:?}");
            assert_eq!(story.state, state, "{event:?}");
        }
        for observation in sightings() {
            let mut story = Story::of(state.clone());
            let event = Event::Observed { revision, observation };
            assert_eq!(story.tell(event), [Effect::Observe], "what was seen too early is looked at again");
            assert_eq!(story.state, state);
        }
    }
}

#[test]
fn a_life_is_stored_and_read_back_as_it_is() {
    for (_, phase) in phases() {
        let mut state = life_in(phase);
        state.reason = Some(Cause::because(Code::Exited, "exit code 1"));
        state.restarts.died(at(5), &RestartPolicy::default(), 7);
        let stored = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<AgentState>(&stored).unwrap(), state, "{stored}");
    }
}
