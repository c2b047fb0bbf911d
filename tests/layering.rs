//! Imports run strictly downwards, files of a module do not use each other in circles, and each library is named in one
//! module alone.

#[path = "layering/circles.rs"]
mod circles;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by layer, lowest first. A module may use those of lower layers.
const LAYERS: [&[&str]; 10] = [
    &["alarm", "by_id", "packed", "woken"],
    &["domain", "forwarded", "listen", "plain", "setters"],
    &["backoff", "ledger"],
    &["lifecycle"],
    &["vault", "runtime"],
    &["store", "zeroclaw"],
    // The engines behind the trait: they may know ZeroClaw, the trait may not.
    &["runtime/docker", "runtime/kubernetes", "runtime/process"],
    &["view", "accounts", "incident", "audit", "usage"],
    &["actor"],
    &["control"],
];

/// Modules above the control plane: programs and facades, which no module below uses.
const ABOVE: [&str; 9] = ["http", "console", "cli", "config", "telemetry", "testkit", "proxy", "gateway", "router"];

/// Which library may be named where.
const KEPT: [(&str, &[&str]); 8] = [
    ("bollard", &["runtime/docker"]),
    ("kube", &["runtime/kubernetes"]),
    ("k8s_openapi", &["runtime/kubernetes"]),
    ("redb", &["store"]),
    ("ractor", &["actor", "control"]),
    ("axum", &["http", "console", "gateway", "proxy", "router"]),
    ("rusqlite", &["gateway", "zeroclaw/database"]),
    ("maud", &["console"]),
];

/// Circles of files that are there, and why. A circle that is part of one of these is accepted.
const CIRCLES: [(&str, &[&str]); 6] = [
    // Routes hold the shared application, which holds what they use. To be untied from the top.
    ("gateway", &["gateway"]),
    ("http", &["http"]),
    // A level of the log is checked where the configuration is read, by the parser that applies it.
    ("config and telemetry", &["config/sections", "telemetry"]),
    // A descriptor is opened by what the process table shows, and the table is read for a descriptor's process.
    ("processes", &["runtime/process/pidfd", "runtime/process/table"]),
    // The fake engine, the state that it locks and the images in it.
    ("fake engine", &["testkit/engine", "testkit/images", "testkit/state"]),
    // The commands of the program and the service that two of them start.
    ("command line", &["cli"]),
];

#[test]
fn files_do_not_use_each_other_in_circles() {
    let sources = sources().into_iter().filter(|(file, _)| !is_test(file) && file != Path::new("main.rs"));
    let sources: circles::Sources = sources.map(|(file, text)| (module_path(&file), text)).collect();
    let accepted = |circle: &[String]| {
        let within = |name: &String, base: &str| name == base || name.starts_with(&format!("{base}/"));
        CIRCLES.iter().any(|(_, bases)| circle.iter().all(|name| bases.iter().any(|base| within(name, base))))
    };
    let found = circles::circles(&sources).into_iter().map(|circle| circle.iter().map(|m| m.join("/")).collect());
    let broken: Vec<Vec<String>> = found.filter(|circle: &Vec<String>| !accepted(circle)).collect();
    assert_eq!(broken, Vec::<Vec<String>>::new());
}

#[test]
fn a_circle_is_found_through_groups_re_exports_and_parents() {
    let source = |module: &str, text: &str| (module.split('/').map(str::to_owned).collect(), text.to_owned());
    let sources: circles::Sources = [
        source("a", "mod one; mod two; mod three; pub use two::Second;"),
        source("a/one", "use super::{Second, three::Third};"),
        source("a/two", "use crate::{b, a::three};"),
        source("a/three", "fn f() { super::one::g() }"),
        source("b", "use crate::a::Second as S;"),
    ]
    .into();
    let circle: Vec<_> = circles::circles(&sources).concat().iter().map(|module| module.join("/")).collect();
    assert_eq!(circle, ["a/one", "a/three", "a/two", "b"]);
    let cut: circles::Sources = sources
        .into_iter()
        .map(|(module, text)| (module, text.replace("three::Third", "One").replace("Second as S", "One")))
        .collect();
    assert_eq!(
        circles::circles(&cut),
        [["a/one", "a/three", "a/two"].map(|m| m.split('/').map(str::to_owned).collect::<Vec<_>>())]
    );
}

fn module_path(file: &Path) -> circles::Module {
    if file == Path::new("lib.rs") {
        return Vec::new();
    }
    file.with_extension("").components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect()
}

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

fn module_of(file: &Path) -> String {
    let name = file.to_string_lossy();
    if let Some(engine) =
        ["runtime/docker", "runtime/kubernetes", "runtime/process"].into_iter().find(|engine| name.starts_with(engine))
    {
        return engine.to_owned();
    }
    let first = file.components().next().expect("a path has a component").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

fn is_test(file: &Path) -> bool {
    file.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs")))
}

/// The modules of this crate that a source names.
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
    let layer_of = |module: &str| LAYERS.iter().position(|modules| modules.contains(&module));
    let mut broken = Vec::new();
    for (file, text) in sources() {
        let module = module_of(&file);
        let Some(layer) = layer_of(&module).filter(|_| !is_test(&file)) else { continue };
        for other in used(&text) {
            // A module of two layers is one module for the files inside.
            let home = module.split('/').next() == Some(other.as_str());
            let upwards = !home && layer_of(&other).is_some_and(|there| there >= layer);
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
        if module_of(&file) == "gateway" {
            let foreign = used(&text)
                .into_iter()
                .filter(|other| !["domain", "forwarded", "gateway", "listen"].contains(&other.as_str()));
            broken.extend(foreign.map(|other| format!("{} uses {other}", file.display())));
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn each_library_is_named_in_its_module_alone() {
    let mut broken = Vec::new();
    for (file, text) in sources() {
        let name = file.to_string_lossy().trim_end_matches(".rs").to_owned();
        for (library, modules) in KEPT {
            let at_home = modules.iter().any(|module| name == *module || name.starts_with(&format!("{module}/")));
            if !at_home && !is_test(&file) && text.contains(&format!("{library}::")) {
                broken.push(format!("{} names {library}", file.display()));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn every_module_has_a_layer() {
    let known: Vec<&str> = LAYERS.concat().into_iter().chain(ABOVE).chain(["lib", "main"]).collect();
    for file in sources().keys() {
        let module = module_of(file);
        assert!(known.contains(&module.as_str()), "{module} has no layer: give it one in {}", file!());
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
