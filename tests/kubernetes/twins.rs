//! Whether an agent ever had two containers at once: by what the node's engine tells of starts and ends, which neither the
//! control plane nor the API server has a hand in.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::cluster;
use crate::world::{World, until};

pub(crate) struct Twins {
    events: Child,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    running: HashMap<String, Vec<String>>,
    starts: usize,
    twins: Vec<String>,
}

impl Twins {
    /// Watches the agents of a test from now on.
    pub(crate) fn watch(world: &World) -> Self {
        let namespace = format!("label=io.kubernetes.pod.namespace={}", world.namespace);
        let filters =
            ["type=container", "label=io.kubernetes.container.name=agent", &namespace, "event=start", "event=die"];
        let now = zeroone::domain::Timestamp::now().as_second().to_string();
        let mut command = cluster::script(&["docker", "events", "--since", &now, "--format", "{{json .}}"]);
        for filter in filters {
            command.args(["--filter", filter]);
        }
        let mut events = command.stdout(Stdio::piped()).spawn().unwrap();
        let (lines, seen) =
            (BufReader::new(events.stdout.take().unwrap()).lines(), Arc::new(Mutex::new(Seen::default())));
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            for event in lines.map_while(Result::ok).filter_map(|line| serde_json::from_str::<Value>(&line).ok()) {
                shared.lock().unwrap().take(&event);
            }
        });
        Self { events, seen }
    }

    /// There were so many starts at least, and no container beside another of the same agent.
    pub(crate) async fn were_none(self, starts: usize) {
        until("all starts are told", async || (self.seen.lock().unwrap().starts >= starts).then_some(())).await;
        assert_eq!(self.seen.lock().unwrap().twins, Vec::<String>::new());
    }
}

impl Drop for Twins {
    fn drop(&mut self) {
        let _ = self.events.kill();
        let _ = self.events.wait();
    }
}

impl Seen {
    fn take(&mut self, event: &Value) {
        let attribute = |name: &str| event["Actor"]["Attributes"][name].as_str().unwrap_or_default().to_owned();
        let container = event["Actor"]["ID"].as_str().unwrap_or_default().to_owned();
        let pod = attribute("io.kubernetes.pod.name");
        let running = self.running.entry(pod.clone()).or_default();
        if event["Action"] == "die" {
            running.retain(|other| *other != container);
            return;
        }
        running.push(container);
        self.starts += 1;
        if running.len() > 1 {
            self.twins.push(format!("{pod}: {running:?}"));
        }
    }
}
