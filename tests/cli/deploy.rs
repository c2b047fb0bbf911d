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
