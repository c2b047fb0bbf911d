use super::*;

/// A timeline: millisecond, status after it, code, attempt.
type Line = (i64, Status, &'static str, u64);

use Status::{Error, Running, Starting, Stopped, Stopping};

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap()
}

fn entries(lines: &[Line]) -> Vec<LogEntry> {
    let mut from = Status::Pending;
    let entry = |(seq, &(millis, to, cause, attempt)): (usize, &Line)| LogEntry {
        seq: seq as u64 + 1,
        time: at(millis),
        from: std::mem::replace(&mut from, to),
        to,
        cause: cause.into(),
        attempt,
        detail: None,
        root: None,
        exit_code: None,
    };
    lines.iter().enumerate().map(entry).collect()
}

const UP: Line = (0, Running, "paired", 1);

#[test]
fn each_kind_of_trouble_is_told_apart() {
    for (to, code, kind) in [
        (Starting, "exited", Kind::Exit),
        (Starting, "oom-killed", Kind::Oom),
        (Starting, "health-lost", Kind::Probe),
        (Starting, "token-refused", Kind::Token),
        (Error, "pairing-disabled", Kind::Token),
        (Starting, "instance-gone", Kind::Operator),
        (Starting, "restarted-outside", Kind::Operator),
        (Starting, "ended-outside", Kind::Operator),
        (Starting, "runtime-unavailable", Kind::Engine),
        (Error, "cannot-run", Kind::Engine),
        (Error, "secrets-unreadable", Kind::Service),
    ] {
        let found = incidents(&entries(&[UP, (10, to, code, 2)]));
        assert_eq!(found.len(), 1, "{code}");
        assert_eq!((found[0].kind, &found[0].code[..], found[0].state), (kind, code, State::Open));
        assert_eq!((found[0].seq, found[0].detected_at, found[0].ended_at), (2, at(10), None));
    }
}

#[test]
fn what_users_ask_for_and_hiccups_are_none() {
    for lines in [
        &[UP, (1, Stopping, "stop-requested", 1), (2, Stopped, "stopped", 1)][..],
        &[UP, (1, Stopping, "restart-requested", 1), (2, Starting, "stopped", 2), (3, Running, "paired", 2)],
        &[UP, (1, Running, "health-missed", 1), (2, Running, "health-back", 1)],
        &[UP, (1, Running, "spec-changed", 1), (2, Running, "service-restarted", 1)],
        &[UP, (1, Starting, "a-code-of-another-version", 1)],
    ] {
        assert_eq!(incidents(&entries(lines)), [], "{lines:?}");
    }
}

#[test]
fn an_immediate_restart_has_no_back_off() {
    let found = incidents(&entries(&[
        UP,
        (10, Starting, "exited", 2),
        (11, Starting, "instance-created", 2),
        (13, Starting, "instance-started", 2),
        (20, Starting, "instance-healthy", 2),
        (22, Running, "token-valid", 2),
        (90, Running, "spec-changed", 2),
    ]));
    let [incident] = &found[..] else { panic!("{found:?}") };
    assert_eq!((incident.state, incident.attempt, incident.back_off_at), (State::Recovered, 2, None));
    assert_eq!((incident.started_at, incident.healthy_at), (Some(at(13)), Some(at(20))));
    assert_eq!((incident.paired_at, incident.ended_at), (Some(at(22)), Some(at(22))));
}

#[test]
fn several_attempts_are_one_incident_with_the_times_of_the_last() {
    let found = incidents(&entries(&[
        UP,
        (10, Starting, "exited", 1),
        (20, Starting, "retry-due", 2),
        (21, Starting, "instance-started", 2),
        (25, Starting, "instance-healthy", 2),
        (30, Starting, "pairing-timeout", 2),
        (60, Starting, "retry-due", 3),
        (61, Starting, "instance-started", 3),
        (62, Starting, "instance-healthy", 3),
        (63, Running, "paired", 3),
        (80, Starting, "oom-killed", 4),
    ]));
    let [first, second] = &found[..] else { panic!("{found:?}") };
    assert_eq!((first.kind, first.attempt, first.detected_at), (Kind::Exit, 3, at(10)));
    assert_eq!((first.back_off_at, first.started_at, first.healthy_at), (Some(at(30)), Some(at(61)), Some(at(62))));
    assert_eq!((second.kind, second.state, second.seq), (Kind::Oom, State::Open, 11));
}

#[test]
fn steps_of_an_attempt_that_failed_are_not_those_of_the_next() {
    let found = incidents(&entries(&[
        UP,
        (10, Starting, "exited", 2),
        (11, Starting, "instance-started", 2),
        (12, Starting, "service-restarted", 3),
    ]));
    assert_eq!((found[0].started_at, found[0].attempt), (None, 3));
}

#[test]
fn a_hang_begins_with_the_first_check_that_was_missed() {
    let missed = |millis| (millis, Running, "health-missed", 1);
    let found = incidents(&entries(&[
        UP,
        missed(10),
        (20, Running, "health-back", 1),
        missed(30),
        missed(40),
        missed(50),
        (51, Starting, "health-lost", 1),
    ]));
    assert_eq!((found.len(), found[0].detected_at, found[0].back_off_at), (1, at(30), Some(at(51))));
}

#[test]
fn a_stop_in_the_middle_abandons_it() {
    for (to, code) in [(Stopping, "stop-requested"), (Stopping, "delete-requested"), (Stopped, "stopped")] {
        let found = incidents(&entries(&[UP, (10, Starting, "exited", 1), (15, to, code, 1)]));
        assert_eq!((found[0].state, found[0].ended_at, found[0].paired_at), (State::Abandoned, Some(at(15)), None));
    }
    // A restart is asked for to end it.
    let restart =
        [UP, (10, Error, "exited", 1), (15, Status::Pending, "restart-requested", 1), (20, Running, "paired", 2)];
    let found = incidents(&entries(&restart));
    assert_eq!((found.len(), found[0].state), (1, State::Recovered));
}

#[test]
fn a_crash_loop_is_told_by_its_root() {
    let mut loops = entries(&[UP, (10, Error, "crash-loop", 9)]);
    loops[1].root = Some("exited".into());
    loops[1].exit_code = Some(3);
    let found = incidents(&loops);
    assert_eq!((found[0].kind, &found[0].code[..], found[0].exit_code), (Kind::Exit, "exited", Some(3)));
}

#[test]
fn a_timeline_that_begins_in_the_middle_tells_the_rest() {
    let found = incidents(&entries(&[(10, Starting, "instance-healthy", 7), (11, Running, "paired", 7)]));
    assert_eq!(found, [], "of what went before nothing is known");
    let found = incidents(&entries(&[(10, Starting, "exited", 7), (11, Running, "paired", 7)]));
    assert_eq!((found[0].state, found[0].back_off_at), (State::Recovered, None));
}

#[test]
fn entries_of_an_older_store_are_read() {
    let old = r#"{"seq":2,"time":"2026-11-01T00:00:00Z","from":"RUNNING","to":"STARTING","cause":"exited","attempt":1,"detail":null}"#;
    let entry: LogEntry = serde_json::from_str(old).unwrap();
    let found = incidents(&[entry]);
    assert_eq!((found[0].kind, found[0].exit_code), (Kind::Exit, None));
}

#[test]
fn failed_model_is_an_incident_until_it_answers_or_the_run_ends() {
    let failed = (10, Running, "model-failed", 1);
    let open = incidents(&entries(&[UP, failed]));
    assert_eq!((open.len(), open[0].kind, open[0].state, open[0].detected_at), (1, Kind::Model, State::Open, at(10)));
    let hiccup = [(11, Running, "health-missed", 1), (12, Running, "health-back", 1)];
    let lines =
        [&[UP, failed], &hiccup[..], &[(20, Running, "model-failed", 1), (30, Running, "model-back", 1)]].concat();
    let answered = incidents(&entries(&lines));
    assert_eq!((answered.len(), answered[0].state, answered[0].ended_at), (1, State::Recovered, Some(at(30))));
    assert_eq!((answered[0].paired_at, answered[0].back_off_at), (None, None), "nothing was started for it");

    let crashed = incidents(&entries(&[UP, failed, (20, Starting, "exited", 2), (30, Running, "paired", 2)]));
    let told: Vec<_> = crashed.iter().map(|incident| (incident.kind, incident.state, incident.ended_at)).collect();
    assert_eq!(told, [(Kind::Model, State::Abandoned, Some(at(20))), (Kind::Exit, State::Recovered, Some(at(30)))]);
    let stopped = incidents(&entries(&[UP, failed, (20, Stopping, "stop-requested", 1), (30, Stopped, "stopped", 1)]));
    assert_eq!((stopped.len(), stopped[0].state), (1, State::Abandoned));
}
