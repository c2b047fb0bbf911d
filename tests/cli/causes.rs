//! The table of the service's own failures in `docs/causes.md`, against what the program says.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::world::{Ended, World};

/// What the page says that is said.
fn said(case: &str) -> String {
    let page = include_str!("../../docs/causes.md");
    let row =
        page.lines().find(|line| line.starts_with(&format!("| {case} | "))).unwrap_or_else(|| panic!("no row {case}"));
    let [_, _, said, remedy, _] = row.split('|').collect::<Vec<_>>()[..] else { panic!("{row}") };
    assert!(remedy.trim().len() > 10, "{row}");
    said.trim().trim_matches('`').to_owned()
}

fn check(case: &str, ended: &Ended) {
    let said = said(case);
    assert_eq!(ended.code, Some(1), "{case}: {ended:?}");
    assert!(ended.stderr.contains(&said), "{case}: `{said}` is not in {}", ended.stderr);
}

#[test]
fn a_start_that_is_refused_says_what_the_page_says() {
    let world = World::new();
    assert_eq!(world.serve().terminate().code(), Some(0));
    let refused = |env: &[(&str, &str)]| world.try_serve(env).err().expect("it must not start");
    check("wrong master key", &refused(&[("ZEROONE_MASTER_KEY", &"5e0c".repeat(16))]));
    check("master key is no key", &refused(&[("ZEROONE_MASTER_KEY", "short")]));
    check("wrong configuration", &refused(&[("ZEROONE_LOG__LEVEL", "loud")]));
    let file = world.path("file");
    fs::write(&file, "").unwrap();
    check("data folder closed", &refused(&[("ZEROONE_DATA", file.join("below").to_str().unwrap())]));

    let key = world.path("zeroone-data/master.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    check("master key open to others", &refused(&[]));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&key, world.path("kept")).unwrap();
    check("no master key", &refused(&[]));
    fs::rename(world.path("kept"), &key).unwrap();

    let serving = world.serve();
    check("folder in use", &world.run(&["serve", "--bind", "127.0.0.1:0", "--runtime", "process"], &[]));
    let bind = serving.url.trim_start_matches("http://");
    check("address in use", &world.run(&["serve", "--bind", bind, "--runtime", "process", "--data", "other"], &[]));
    drop(serving);
    fs::write(world.path("zeroone-data/zeroone.redb"), "not a store").unwrap();
    check("damaged store", &refused(&[]));
}

#[test]
fn a_plan_that_is_used_up_is_told_with_its_code() {
    let world = World::new();
    let serving = world.serve();
    serving.verb(&world, &["user", "create", "--email", "a@b.c", "--plan", "free"]);
    let key = serving.verb(&world, &["key", "create", "--user", "a@b.c"]);
    let create = |name: &str| {
        let create = ["agent", "create", name, "--provider", "ollama", "--model", "m", "-o", "json"];
        world.run(&create, &[("ZEROONE_URL", &serving.url), ("ZEROONE_API_KEY", key.trim())])
    };
    let refused = (0..100).map(|n| create(&format!("a{n}"))).find(|ended| ended.code != Some(0)).expect("a bound");
    let problem: serde_json::Value = serde_json::from_str(&refused.stderr).unwrap();
    assert_eq!(problem["code"], *said("plan used up"), "{problem}");
    let page = world.run(
        &["agent", "create", "x", "--provider", "ollama", "--model", "m"],
        &[("ZEROONE_URL", &serving.url), ("ZEROONE_API_KEY", key.trim())],
    );
    assert!(page.code == Some(4) && page.stderr.contains("plan"), "{page:?}");
}
