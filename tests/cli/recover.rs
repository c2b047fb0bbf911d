//! The store is lost; the agents are not.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::world::{World, echo_model, processes_in, until};

const CREATE: [&str; 8] = ["agent", "create", "Ada", "--provider", "openai", "--model", "m", "--provider-url"];

/// A service that had one agent with a memory, and lost its store.
fn robbed(world: &World, model: &str) -> String {
    let mut serving = world.serve();
    let id = serving.verb(world, &[&CREATE[..], &[model, "--api-key-env", "MODEL_KEY", "--wait"]].concat());
    serving.verb(world, &["agent", "message", "ada", "remember the harbour"]);
    let memory = world.path("zeroone-data/agents").join(&id).join("data/workspace/NOTE.md");
    std::fs::write(memory, "what it knows").unwrap();
    std::fs::remove_file(world.path("zeroone-data/zeroone.redb")).unwrap();
    let beside = recover(world, &[]);
    assert!(beside.code == Some(4) && beside.stderr.contains("in use by another process"), "{beside:?}");
    serving.kill();
    id
}

/// Paths and digests of the data folder's files, but for the output of what runs, and for the lock that keeps others away.
fn everything(world: &World) -> BTreeMap<PathBuf, String> {
    let (mut files, mut folders) = (BTreeMap::new(), vec![world.path("zeroone-data")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_none_or(|extension| extension != "log" && extension != "lock") {
                let digest = Sha256::digest(std::fs::read(&path).unwrap());
                files.insert(path, format!("{digest:x?}"));
            }
        }
    }
    files
}

fn recover(world: &World, more: &[&str]) -> super::world::Ended {
    world.run(&[&["recover", "--runtime", "process"], more].concat(), &[])
}

#[test]
fn a_lost_store_is_recovered_and_the_agent_runs_on_with_its_memory() {
    let (world, model) = (World::new(), echo_model());
    let id = robbed(&world, &model);
    let store = world.path("zeroone-data/zeroone.redb");

    let (before, running) = (everything(&world), processes_in(&world.path("zeroone-data/agents")));
    let dry = recover(&world, &["--dry-run", "-o", "json"]);
    assert_eq!(everything(&world), before, "a dry run changes no file");
    assert_eq!(processes_in(&world.path("zeroone-data/agents")), running, "and no process");
    assert_eq!(dry.code, Some(0), "{dry:?}");
    let rows: Value = serde_json::from_str(&dry.stdout).unwrap();
    assert_eq!((&rows[0]["id"], &rows[0]["missing"]), (&Value::from(id.as_str()), &serde_json::json!(["apiKey"])));
    assert!(!store.exists(), "a dry run writes nothing");

    // The key that sealed what is lost is of no more use.
    std::fs::remove_file(world.path("zeroone-data/master.key")).unwrap();
    let done = recover(&world, &[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("made a new master key"), "{done:?}");
    assert!(done.stdout.contains("agents recorded: 1; their users: 1;") && store.exists(), "{done:?}");
    let again = recover(&world, &[]);
    assert!(again.code == Some(4) && again.stderr.contains("move it away"), "{again:?}");
    let left = std::fs::read_dir(world.path("zeroone-data")).unwrap();
    let drafts = left.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("recovering"));
    assert_eq!(drafts.count(), 0);

    // The user admin is who the agent belonged to, so the new admin's key reaches it.
    let serving = world.serve();
    let record = serving.json(&world, &["agent", "get", "ada"]);
    assert_eq!((&record["id"], &record["status"]), (&Value::from(id.as_str()), &Value::from("ERROR")));
    assert_eq!(record["statusReason"]["code"], "secrets-missing", "{record}");
    assert!(serving.verb(&world, &["agent", "explain", "ada"]).contains("apiKey"));
    until("what ran without its record is halted", || {
        processes_in(&world.path("zeroone-data/agents")).is_empty().then_some(())
    });

    let key = std::fs::read_to_string(world.path("zeroone-data/admin.key")).unwrap();
    patch(&serving.url, key.trim(), &id, r#"{"apiKey":"sk-planted-again"}"#);
    serving.verb(&world, &["agent", "start", "ada"]);
    serving.verb(&world, &["agent", "wait", "ada"]);
    let answer = serving.verb(&world, &["agent", "message", "ada", "are you back"]);
    assert!(answer.contains("are you back"), "{answer}");
    let memory = world.path("zeroone-data/agents").join(&id).join("data/workspace/NOTE.md");
    assert_eq!(std::fs::read_to_string(memory).unwrap(), "what it knows");
    serving.verb(&world, &["agent", "delete", "ada"]);
}

fn patch(url: &str, key: &str, id: &str, body: &str) {
    use std::io::{BufRead as _, BufReader, Write as _};
    let mut stream = std::net::TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    write!(
        stream,
        "PATCH /api/agents/{id} HTTP/1.1\r\nHost: zeroone\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    assert_eq!(BufReader::new(stream).lines().next().unwrap().unwrap(), "HTTP/1.1 200 OK");
}

#[test]
fn of_two_installations_the_one_that_is_meant_must_be_named() {
    let (world, model) = (World::new(), echo_model());
    let id = robbed(&world, &model);
    assert_eq!(world.serve().terminate().code(), Some(0), "a service that starts anew leaves the old agents alone");
    assert!(world.path("zeroone-data/agents").join(&id).exists());
    let mut serving = world.serve();
    serving.verb(&world, &[&CREATE[..], &[&model, "--api-key-env", "MODEL_KEY", "--wait"]].concat());
    serving.kill();
    std::fs::remove_file(world.path("zeroone-data/zeroone.redb")).unwrap();
    let asked = recover(&world, &["--dry-run"]);
    assert_eq!(asked.code, Some(2), "{asked:?}");
    let named = asked.stderr.lines().filter_map(|line| line.trim().split_once("  1 instances")).collect::<Vec<_>>();
    assert_eq!(named.len(), 2, "{asked:?}");
    let found = named.iter().map(|(installation, _)| {
        let ended = recover(&world, &["--dry-run", "--installation", installation]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.stdout.contains(&id)
    });
    assert_eq!(found.filter(|it| *it).count(), 1);
    let nobody = recover(&world, &["--installation", "019513f2-5c3e-7b1a-9c55-1f2e3d4c5b6a"]);
    assert_eq!(nobody.code, Some(3), "{nobody:?}");
}
