//! A copied data folder that is started beside the original.

use std::process::Command;

use super::world::{Serving, World, echo_model, processes_in};

fn copy_of(original: &World) -> World {
    let copy = World::new();
    let copied = Command::new("cp").arg("-a").args([original.path("zeroone-data"), copy.path("")]).status();
    assert!(copied.unwrap().success());
    copy
}

fn agents(serving: &Serving, world: &World) -> usize {
    let list = serving.json(world, &["agent", "list"]);
    list.as_array().or(list["data"].as_array()).map_or_else(|| panic!("{list}"), Vec::len)
}

fn processes(world: &World) -> Vec<String> {
    processes_in(&world.path("zeroone-data/agents"))
}

#[test]
fn a_copy_is_refused_or_becomes_an_installation_of_its_own() {
    let (world, model) = (World::new(), echo_model());
    let create = |serving: &Serving, world: &World, name: &str| {
        let line = ["agent", "create", name, "--provider", "openai", "--model", "m", "--provider-url", &model];
        serving.verb(world, &[&line[..], &["--api-key-env", "MODEL_KEY", "--wait"]].concat());
    };
    let mut original = world.serve();
    create(&original, &world, "Ada");
    let before = processes(&world);

    let copy = copy_of(&world);
    let refused = copy.try_serve(&[]).err().expect("the original lives");
    assert_eq!(refused.code, Some(1));
    for offer in ["installation-in-use", "--take-over", "--new-installation"] {
        assert!(refused.stderr.contains(offer), "{refused:?}");
    }

    // The copy has the administrator's key, and agents of its own.
    let mut beside = copy.serve_with(&["--new-installation"]);
    assert_eq!(agents(&beside, &copy), 0);
    create(&beside, &copy, "Ada");
    assert_eq!(processes(&world), before, "the original's agent runs on");

    // The flag stays in the command: nothing is forgotten a second time.
    assert!(beside.terminate().success());
    let beside = copy.serve_with(&["--new-installation"]);
    assert_eq!(agents(&beside, &copy), 1);
    assert!(original.terminate().success());
}
