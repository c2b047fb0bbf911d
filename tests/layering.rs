//! The house keeps its floors: imports run strictly downwards, and each library is known to one room alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms by floor, lowest first. A room may use rooms of its own floor only where [`SAME_FLOOR`] says so.
const FLOORS: [&[&str]; 9] = [
    &["domain", "listen", "plain"],
    &["backoff", "ledger"],
    &["lifecycle"],
    &["vault", "runtime"],
    &["store", "zeroclaw"],
    // The engines behind the trait: they may know ZeroClaw, the trait may not.
    &["runtime/docker", "runtime/process"],
    &["view", "accounts", "incident"],
    &["actor"],
    &["control"],
];

/// Rooms above the control plane: programs and facades, which the rooms below know nothing of.
const ABOVE: [&str; 7] = ["http", "cli", "config", "telemetry", "testkit", "proxy", "gateway"];

/// Which library may be named where.
const KEPT: [(&str, &[&str]); 5] = [
    ("bollard", &["runtime/docker"]),
    ("redb", &["store"]),
    ("ractor", &["actor", "control"]),
    ("axum", &["http", "gateway", "proxy"]),
    ("rusqlite", &["gateway"]),
];

fn sources() -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the source folder can be read") {
            let path = entry.expect("its entries, too").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("and its files");
                let name = path.strip_prefix(&root).expect("it is below the root").to_owned();
                found.insert(name, without_tests(&text));
            }
        }
    }
    assert!(found.len() > 30, "the sources were not found");
    found
}

/// What is compiled into the product: comments and inline test modules say nothing about it.
fn without_tests(text: &str) -> String {
    let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    product.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn room(file: &Path) -> String {
    let name = file.to_string_lossy();
    if let Some(engine) = ["runtime/docker", "runtime/process"].into_iter().find(|engine| name.starts_with(engine)) {
        return engine.to_owned();
    }
    let first = file.components().next().expect("a path has a component").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

fn is_test(file: &Path) -> bool {
    file.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs")))
}

/// The rooms of this crate that a source names.
fn used(text: &str) -> Vec<String> {
    text.match_indices("crate::")
        .map(|(at, name)| {
            let rest = &text[at + name.len()..];
            rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
        })
        .collect()
}

#[test]
fn imports_run_strictly_downwards() {
    let floor_of = |room: &str| FLOORS.iter().position(|rooms| rooms.contains(&room));
    let mut broken = Vec::new();
    for (file, text) in sources() {
        let room = room(&file);
        let Some(floor) = floor_of(&room).filter(|_| !is_test(&file)) else { continue };
        for other in used(&text) {
            // A room with a wall in it is one room all the same for those inside.
            let home = room.split('/').next() == Some(other.as_str());
            let upwards = !home && floor_of(&other).is_some_and(|there| there >= floor);
            if upwards || ABOVE.contains(&other.as_str()) {
                broken.push(format!("{} uses {other}", file.display()));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn the_embedded_gateway_shares_nothing_but_the_domain() {
    let mut broken = Vec::new();
    for (file, text) in sources() {
        if room(&file) == "gateway" {
            let foreign =
                used(&text).into_iter().filter(|other| !["domain", "gateway", "listen"].contains(&other.as_str()));
            broken.extend(foreign.map(|other| format!("{} uses {other}", file.display())));
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn each_library_is_known_to_its_room_alone() {
    let mut broken = Vec::new();
    for (file, text) in sources() {
        let name = file.to_string_lossy().trim_end_matches(".rs").to_owned();
        for (library, rooms) in KEPT {
            let at_home = rooms.iter().any(|room| name == *room || name.starts_with(&format!("{room}/")));
            if !at_home && !is_test(&file) && text.contains(&format!("{library}::")) {
                broken.push(format!("{} names {library}", file.display()));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn no_room_stands_outside_the_plan() {
    let known: Vec<&str> = FLOORS.concat().into_iter().chain(ABOVE).chain(["lib", "main"]).collect();
    for file in sources().keys() {
        let room = room(file);
        assert!(known.contains(&room.as_str()), "{room} has no floor: give it one in {}", file!());
    }
}

#[test]
fn the_gateways_agent_knows_nothing_of_incoming_messages() {
    /// What lies above these files and must not be named in them: tools send messages, so that sending is below the
    /// agent and receiving above it.
    const BELOW: [(&str, &[&str]); 4] = [
        ("gateway/channels", &["agent", "tools", "incoming", "shared", "routes"]),
        ("gateway/tools", &["agent", "incoming", "routes"]),
        ("gateway/agent", &["incoming", "routes"]),
        ("gateway/provider", &["agent", "tools", "channels", "incoming", "routes"]),
    ];
    let mut broken = Vec::new();
    for (file, text) in sources() {
        let name = file.to_string_lossy().trim_end_matches(".rs").to_owned();
        let Some((_, above)) = BELOW.iter().find(|(at, _)| name == *at || name.starts_with(&format!("{at}/"))) else {
            continue;
        };
        for other in above.iter().filter(|other| names_gateway_module(&text, other)) {
            broken.push(format!("{name} uses {other}"));
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

/// Whether a source of the gateway imports one of its modules, by whichever path.
fn names_gateway_module(text: &str, module: &str) -> bool {
    let paths = [format!("crate::gateway::{module}"), format!("super::{module}"), format!("use super::{{{module}")];
    paths.iter().any(|path| {
        text.match_indices(path.as_str()).any(|(at, found)| {
            let next = text[at + found.len()..].chars().next();
            !next.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
        })
    })
}
