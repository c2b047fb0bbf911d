//! The drill: a backup of a service under load, restored into another folder, with the agents' memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::http_client::http_client;
use super::world::{Serving, World, echo_model, processes_in, signal, until};

const AGENTS: [&str; 3] = ["ada", "eve", "bob"];

fn create(serving: &Serving, world: &World, model: &str, name: &str) -> String {
    let create = ["agent", "create", name, "--provider", "openai", "--model", "m", "--provider-url", model];
    serving.verb(world, &[&create[..], &["--api-key-env", "MODEL_KEY", "--wait"]].concat())
}

/// What an agent's gateway answers to a request about its memory.
fn memory(url: &str, key: &str, agent: &str, note: Option<&Value>) -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let http = http_client(Duration::from_secs(30));
        let url = format!("{url}/api/agents/{agent}/gateway/api/memory");
        let request = match note {
            Some(note) => http.post(url).json(note),
            None => http.get(url),
        };
        let answer = request.bearer_auth(key).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
        answer.json().await.unwrap()
    })
}

/// Messages, and agents that come and go, until it is told to stop.
fn load(serving: &Serving, world: &World, over: &AtomicBool) {
    let mut round = 0;
    while !over.load(Ordering::Relaxed) {
        round += 1;
        serving.verb(world, &["agent", "message", AGENTS[round % AGENTS.len()], &format!("round {round}")]);
        let name = format!("passing-{round}");
        serving.verb(world, &["agent", "create", &name, "--provider", "ollama", "--model", "m"]);
        serving.verb(world, &["agent", "delete", &name]);
    }
    assert!(round > 0);
}

#[test]
fn a_backup_under_load_brings_agents_back_elsewhere_with_their_memory() {
    let (world, model) = (World::new(), echo_model());
    let mut serving = world.serve();
    let ids = AGENTS.map(|name| create(&serving, &world, &model, name));
    let key = std::fs::read_to_string(world.path("zeroone-data/admin.key")).unwrap().trim().to_owned();
    for id in &ids {
        memory(&serving.url, &key, id, Some(&json!({ "key": "drink", "content": format!("tea for {id}") })));
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| load(&serving, &world, &over));
        for n in 0..5 {
            let made = serving.verb(&world, &["backup", &format!("{n}.tar")]);
            assert!(made.contains("keep a copy of that key"), "{made}");
        }
        over.store(true, Ordering::Relaxed);
        loading.join().unwrap();
    });
    let again = serving.refused(&world, &["backup", "0.tar"]);
    assert!(again.code == Some(4) && again.stderr.contains("is there already"), "{again:?}");
    let archive = std::fs::read(world.path("4.tar")).unwrap();
    for secret in
        [key.as_str(), "sk-planted", std::fs::read_to_string(world.path("zeroone-data/master.key")).unwrap().trim()]
    {
        assert!(!archive.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()), "a secret is in the backup");
    }

    // The machine is lost.
    serving.kill();
    processes_in(world.folder.path()).iter().for_each(|pid| signal(pid, "-KILL"));
    until("all are dead", || processes_in(world.folder.path()).is_empty().then_some(()));

    let elsewhere = World::new();
    let (file, key_file) = (world.path("4.tar"), world.path("zeroone-data/master.key"));
    let (file, key_file) = (file.to_str().unwrap(), key_file.to_str().unwrap());
    let keyless = elsewhere.run(&["restore", file], &[]);
    assert!(keyless.code == Some(4) && keyless.stderr.contains("--master-key-file"), "{keyless:?}");
    std::fs::write(elsewhere.path("cut.tar"), &archive[..archive.len() / 2]).unwrap();
    let cut = elsewhere.run(&["restore", "cut.tar", "--master-key-file", key_file], &[]);
    assert!(cut.code == Some(4) && cut.stderr.contains("not a whole backup"), "{cut:?}");
    std::fs::write(elsewhere.path("any.txt"), "password=sk-planted\n".repeat(50)).unwrap();
    let any = elsewhere.run(&["restore", "any.txt", "--master-key-file", key_file], &[]);
    assert!(any.code == Some(4) && any.stderr.contains("no tar archive"), "{any:?}");
    assert!(!any.stderr.contains("sk-planted"), "what is in the file is nobody's business: {any:?}");
    let wrong = elsewhere.run(&["restore", file], &[("ZEROONE_MASTER_KEY", &"5e0c".repeat(16))]);
    assert!(wrong.code == Some(4) && wrong.stderr.contains("master key"), "{wrong:?}");
    assert!(!elsewhere.path("zeroone-data/zeroone.redb").exists(), "a restore that is refused leaves no store");

    let restored = elsewhere.run(&["restore", file, "--master-key-file", key_file], &[]);
    assert_eq!(restored.code, Some(0), "{restored:?}");
    let twice = elsewhere.run(&["restore", file, "--master-key-file", key_file], &[]);
    assert!(twice.code == Some(4) && twice.stderr.contains("is there"), "{twice:?}");
    let serving = elsewhere.serve();
    assert!(!serving.greeting.iter().any(|line| line.contains("zo_")), "the keys are as they were");
    let verb = |arguments: &[&str]| {
        let ended = elsewhere.run(arguments, &[("ZEROONE_URL", &serving.url), ("ZEROONE_API_KEY", &key)]);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        ended.stdout
    };
    for (name, id) in AGENTS.iter().zip(&ids) {
        verb(&["agent", "wait", name]);
        assert!(verb(&["agent", "message", name, "are you there"]).contains("are you there"));
        let notes = memory(&serving.url, &key, id, None).to_string();
        assert!(notes.contains(&format!("tea for {id}")), "{notes}");
    }
}
