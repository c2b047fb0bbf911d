//! Faults done to a running service's agents, by the program's own hands.

use std::process::Stdio;

use serde_json::Value;

use super::world::{World, echo_model, processes_in};
use crate::lines::Lines;

fn report(world: &World) -> Value {
    serde_json::from_str(&std::fs::read_to_string(world.path("report.json")).unwrap()).unwrap()
}

fn violated(report: &Value) -> Vec<&str> {
    let invariants = report["invariants"].as_array().unwrap().iter();
    invariants.filter(|it| it["holds"] == false).map(|it| it["name"].as_str().unwrap()).collect()
}

#[test]
fn a_team_of_its_own_recovers_from_every_fault_and_is_gone_afterwards() {
    let world = World::new();
    // A hang is found sooner than by default.
    let env = [("ZEROONE_HEALTH__INTERVAL_SECS", "1"), ("ZEROONE_HEALTH__MISSES", "2")];
    let serving = world.try_serve(&env).expect("it serves");
    let script = ["chaos", "--runtime", "process", "--seed", "7", "--duration", "4", "--rate", "2", "--agents", "3"];
    let load = ["--messages-per-second", "20", "--report", "report.json"];
    let ended = world.run(&[&script[..], &load].concat(), &[("ZEROONE_URL", &serving.url)]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report = report(&world);
    assert_eq!((violated(&report), &report["seed"], &report["agents"]), (vec![], &Value::from(7), &Value::from(3)));
    let faults = report["faults"].as_array().unwrap();
    let names: Vec<_> = faults.iter().map(|fault| fault["fault"].as_str().unwrap()).collect();
    assert_eq!(names, ["kill", "pause", "stop"]);
    let sum = |member: &str| faults.iter().map(|fault| fault[member].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum("injected") + sum("skipped"), 8, "{report}");
    assert!(sum("recovered") > 0 && sum("recovered") == sum("injected"), "{report}");
    let kill = &faults[0];
    assert!(kill["p50Ms"].as_u64() > Some(0) && kill["maxMs"].as_u64() >= kill["p95Ms"].as_u64(), "{report}");
    let messages = &report["messages"];
    let counts = ["answered", "refused", "unknown", "wrong"].map(|fate| messages[fate].as_u64().unwrap());
    assert!(counts[0] > 0 && counts[3] == 0, "{report}");
    assert_eq!(messages["sent"].as_u64(), Some(counts.iter().sum()), "{report}");
    for part in ["well again after", "FAULT", "holds     every agent settles RUNNING"] {
        assert!(ended.stdout.contains(part), "{part} is not in {}", ended.stdout);
    }
    assert_eq!(serving.json(&world, &["user", "list"]).as_array().unwrap().len(), 1, "the team's user is gone");
    assert_eq!(processes_in(&world.path("zeroone-data/agents")), Vec::<String>::new());
}

#[test]
fn agents_in_use_are_touched_only_with_consent_and_what_does_not_exist_is_not_pretended() {
    let world = World::new();
    let serving = world.serve();
    let asked = serving.refused(&world, &["chaos", "--existing"]);
    assert!(asked.code == Some(2) && asked.stderr.contains("--yes"), "{asked:?}");
    let none = serving.refused(&world, &["chaos", "--existing", "--yes"]);
    assert_eq!(none.code, Some(3), "{none:?}");
    let cut = serving.refused(&world, &["chaos", "--faults", "kill,cut"]);
    assert!(cut.code == Some(2) && cut.stderr.contains("no cut on the runtime process"), "{cut:?}");
    assert_eq!(serving.refused(&world, &["chaos", "--faults", "melt"]).code, Some(2));
    let user = serving.verb(&world, &["user", "create", "--email", "a@b.c"]);
    let key = serving.verb(&world, &["key", "create", "--user", &user]);
    let no_admin = world.run(&["chaos"], &[("ZEROONE_URL", &serving.url), ("ZEROONE_API_KEY", &key)]);
    assert_eq!(no_admin.code, Some(4), "{no_admin:?}");
    assert_eq!(serving.json(&world, &["user", "list"]).as_array().unwrap().len(), 2, "nothing was made");
}

#[test]
fn a_violated_invariant_is_named_and_is_a_failure() {
    let (world, model) = (World::new(), echo_model());
    let serving = world.serve();
    let create = ["agent", "create", "Ada", "--provider", "openai", "--model", "m", "--provider-url", &model];
    serving.verb(&world, &[&create[..], &["--api-key-env", "MODEL_KEY", "--wait"]].concat());
    let script =
        ["chaos", "--existing", "--yes", "--faults", "kill", "--duration", "2", "--rate", "1", "--settle", "5"];
    let mut command = world.command(&[&script[..], &["--report", "report.json"]].concat());
    let mut chaos =
        command.env("ZEROONE_URL", &serving.url).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = Lines::of(chaos.stdout.take().unwrap());
    // It has chosen its agents; now somebody stops the only one.
    assert!(lines.by_ref().any(|line| line.starts_with("seed ")));
    serving.verb(&world, &["agent", "stop", "ada"]);
    let told: Vec<String> = lines.collect();
    assert_eq!(chaos.wait().unwrap().code(), Some(1), "{told:?}");
    assert_eq!(violated(&report(&world)), ["every agent settles RUNNING"], "{told:?}");
    assert!(told.iter().any(|line| line == "VIOLATED  every agent settles RUNNING: ada is STOPPED"), "{told:?}");
}
