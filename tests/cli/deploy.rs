//! What is in `deploy`: the unit's protocol, and that dashboards and alerts ask for figures that there are.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use super::world::{World, echo_model, until};

fn deployed(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)).unwrap()
}

/// As systemd would hear it.
#[test]
fn the_service_manager_hears_of_readiness_life_and_the_end() {
    let world = World::new();
    let socket = UnixDatagram::bind(world.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut serving = world
        .try_serve(&[("NOTIFY_SOCKET", world.path("notify").to_str().unwrap()), ("WATCHDOG_USEC", "300000")])
        .expect("it serves");
    let next = || {
        let mut buffer = [0; 1024];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let first = next();
    assert!(first.contains("READY=1") && first.contains(&serving.url), "{first}");
    assert!(next().contains("WATCHDOG=1"));
    assert!(next().contains("WATCHDOG=1"), "and again");
    assert_eq!(serving.terminate().code(), Some(0));
    until("it says that it stops", || next().contains("STOPPING=1").then_some(()));
    let unit = deployed("systemd/zeroone.service");
    for line in ["Type=notify", "KillMode=process", "OOMPolicy=continue", "NoNewPrivileges=yes"] {
        assert!(unit.lines().any(|is| is == line), "{line}");
    }
}

/// The names of figures in a query language's text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let figure = |word: &&str| (word.starts_with("zeroone_") || word.starts_with("process_")) && word.len() > 8;
    words.filter(figure).map(str::to_owned).collect()
}

#[test]
fn dashboards_and_alerts_ask_for_figures_that_there_are() {
    let (world, model) = (World::new(), echo_model());
    let serving = world.serve();
    let create = ["agent", "create", "Ada", "--provider", "openai", "--model", "m", "--api-key-env", "MODEL_KEY"];
    serving.verb(&world, &[&create[..], &["--provider-url", &model, "--wait"]].concat());
    serving.verb(&world, &["agent", "message", "ada", "hi"]);
    let dead = ["agent", "create", "Eve", "--provider", "ollama", "--model", "m", "--provider-url"];
    serving.verb(&world, &[&dead[..], &["http://127.0.0.1:9/v1", "--wait"]].concat());
    assert_eq!(serving.refused(&world, &["agent", "message", "eve", "hi"]).code, Some(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let metrics = runtime.block_on(async {
        let http = super::http_client::http_client(Duration::from_secs(30));
        http.get(format!("{}/metrics", serving.url)).send().await.unwrap().text().await.unwrap()
    });
    let told = names(&metrics);
    for sample in ["zeroone_messages_total{outcome=\"answered\"} 1", "zeroone_build_info{version="] {
        assert!(metrics.contains(sample), "{sample} is not in {metrics}");
    }
    assert_eq!(metrics.matches("# EOF").count(), 1);
    for file in ["grafana/zeroone.json", "prometheus/alerts.yml"] {
        for name in names(&deployed(file)) {
            // A family without a sample yet has its description alone.
            let family = ["_total", "_bucket"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
            assert!(told.contains(&name) || told.contains(family), "{file} asks for {name}, which is not told");
        }
    }
}

/// All manifests in a folder of `deploy/kubernetes`.
fn manifests(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(&folder)).unwrap().flatten()
        {
            let name = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            if entry.path().is_dir() { folders.push(name) } else { found.push((name.clone(), deployed(&name))) }
        }
    }
    found
}

/// What stands behind this key, on one line, in either style.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let behind = text.match_indices(key).map(|(at, _)| text[at + key.len()..].lines().next().unwrap_or_default());
    behind.map(|value| value.split([',', '}']).next().unwrap_or_default().trim().trim_matches('"')).collect()
}

#[test]
fn manifests_ask_for_paths_and_set_keys_that_there_are() {
    let world = World::new();
    let serving = world.serve();
    let manifests = manifests("kubernetes");
    let paths: BTreeSet<&str> = manifests
        .iter()
        .flat_map(|(_, text)| text.lines().filter(|line| line.contains("httpGet")))
        .flat_map(|line| values(line, "path: "))
        .collect();
    assert!(paths.len() >= 2, "{paths:?}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for path in paths {
        let asked = async {
            let http = super::http_client::http_client(Duration::from_secs(30));
            http.get(format!("{}{path}", serving.url)).send().await.unwrap().status()
        };
        assert_eq!(runtime.block_on(asked), 200, "a probe asks for {path}");
    }
    let variables: BTreeSet<&str> = manifests
        .iter()
        .flat_map(|(_, text)| text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')))
        .filter(|word| word.strip_prefix("ZEROONE_").is_some_and(|key| !key.is_empty()))
        .collect();
    for variable in variables {
        let shown = world.run(&["config", "show"], &[(variable, "no value of this kind")]);
        let said = shown.stdout + &shown.stderr;
        assert!(!said.contains("is no key"), "{variable} is set in a manifest: {said}");
    }
}

#[test]
fn cells_have_as_many_namespaces_as_replicas_and_the_router_knows_them_all() {
    let replicas: usize = values(&deployed("kubernetes/cells/cells.yaml"), "replicas: ")[0].parse().unwrap();
    let kustomization = deployed("kubernetes/cells/kustomization.yaml");
    let folders: Vec<&str> = kustomization.lines().filter_map(|line| line.strip_prefix("- agents-")).collect();
    assert_eq!(folders, (0..replicas).map(|number| number.to_string()).collect::<Vec<_>>());
    for number in folders {
        let agents = deployed(&format!("kubernetes/cells/agents-{number}/kustomization.yaml"));
        assert_eq!(
            values(&agents, "namespace: "),
            [format!("zeroone-{number}-agents")],
            "as cells.yaml makes it of the Pod's name"
        );
    }
    let router = deployed("kubernetes/cells/router.yaml");
    assert!(router.contains(&format!("http://zeroone-{{0..{}}}.zeroone:3001", replicas - 1)));
    for (file, text) in manifests("kubernetes/cells") {
        for patch in values(&text, "- path: ").into_iter().filter(|patch| patch.ends_with(".yaml")) {
            assert!(!deployed(&format!("kubernetes/cells/{patch}")).is_empty(), "{file}");
        }
    }
}
