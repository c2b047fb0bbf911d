//! The main job from the shell: serve, create, ask, kill, start again, delete.

use serde_json::Value;

use super::world::{Serving, World, echo_model, processes_in, runs, signal, until};

fn agent(serving: &Serving, world: &World) -> Value {
    serving.json(world, &["agent", "get", "ada"])
}

/// The agent's process: the one that works in its folder.
fn pid(world: &World) -> String {
    processes_in(&world.path("zeroone-data/agents")).pop().unwrap_or_default()
}

fn ask(serving: &Serving, world: &World, words: &str) {
    let answer = serving.verb(world, &["agent", "message", "ada", words]);
    assert!(answer.contains(words), "{answer}");
}

/// Named, and from standard input.
fn a_conversation(serving: &Serving, world: &World) {
    let said = world.run_with(&["agent", "message", "ada", "--session", "s", "-"], &serving.url, "two\nlines\n");
    assert_eq!((said.code, said.stdout.trim_end()), (Some(0), "echo: two\nlines"), "{said:?}");
    let answer = serving.json(world, &["agent", "message", "ada", "--session", "s", "again"]);
    assert_eq!(answer["response"], "echo: again");
    let refused = serving.refused(world, &["agent", "message", "ada", "--session", "a b", "hi"]);
    assert_eq!(refused.code, Some(4));
    assert!(refused.stderr.contains("--session: "), "{refused:?}");
}

/// The running agent's pid, once it has another one than `before`.
fn running_anew(serving: &Serving, world: &World, before: &str) -> String {
    until("it runs again", || {
        let (record, pid) = (agent(serving, world), pid(world));
        (record["status"] == "RUNNING" && !pid.is_empty() && pid != before).then_some(pid)
    })
}

#[test]
fn an_agent_from_its_creation_to_its_end_through_kills_of_everything() {
    let (world, model) = (World::new(), echo_model());
    let mut serving = world.serve();
    let create = ["agent", "create", "Ada", "--provider", "openai", "--model", "m", "--provider-url", &model];
    let id = serving.verb(&world, &[&create[..], &["--api-key-env", "MODEL_KEY", "--wait"]].concat());
    let record = agent(&serving, &world);
    assert_eq!((record["id"].as_str(), record["status"].as_str()), (Some(id.as_str()), Some("RUNNING")));
    ask(&serving, &world, "hello there");
    a_conversation(&serving, &world);

    let first = pid(&world);
    signal(&first, "-KILL");
    let second = running_anew(&serving, &world, &first);
    ask(&serving, &world, "after a kill");
    let incidents = serving.json(&world, &["agent", "incidents", "ada"]);
    let told = ["cause", "exitCode", "state"].map(|member| incidents[0][member].clone());
    assert_eq!(told, [Value::from("exit"), Value::from(137), Value::from("recovered")], "{incidents}");

    serving.kill();
    assert!(runs(&second), "agents outlive the service");
    let mut serving = world.serve();
    assert!(!serving.greeting.iter().any(|line| line.contains("zo_")), "the key is shown once");
    assert_eq!(running_anew(&serving, &world, ""), second, "adopted, not started again");
    ask(&serving, &world, "after a crash");

    assert_eq!(serving.terminate().code(), Some(0));
    assert!(runs(&second), "an orderly end leaves agents running, too");
    let serving = world.serve();
    assert_eq!(running_anew(&serving, &world, ""), second);

    assert_eq!(serving.verb(&world, &["agent", "stop", "ada", "--wait"]), "STOPPED");
    serving.verb(&world, &["agent", "wait", "ada", "--status", "stopped"]);
    assert!(!runs(&second));
    assert_eq!(serving.verb(&world, &["agent", "start", "ada", "--wait"]), "RUNNING");
    let events = serving.json(&world, &["agent", "events", "ada"]);
    assert!(events.as_array().unwrap().iter().any(|event| event["to"] == "STOPPED"), "{events}");
    assert!(serving.verb(&world, &["agent", "explain", "ada"]).contains("RUNNING"));
    assert!(serving.verb(&world, &["agent", "logs", "ada"]).contains("gateway starting"));

    assert_eq!(serving.verb(&world, &["agent", "delete", "ada", "--wait"]), "deleted ada");
    assert_eq!(serving.json(&world, &["agent", "list"]), serde_json::json!([]));
    drop(serving);
    until("no process is left", || processes_in(world.folder.path()).is_empty().then_some(()));
    let left = std::fs::read_dir(world.path("zeroone-data/agents")).unwrap().count();
    assert_eq!(left, 0, "nothing of it is left on the disk");
}

#[test]
fn the_first_start_makes_everything_and_its_curl_line_works() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new();
    let serving = world.serve();
    let mode = |name: &str| std::fs::metadata(world.path(name)).unwrap().permissions().mode() & 0o777;
    // Others may get through it to an agent that is one of them, and no more.
    assert_eq!(mode("zeroone-data") & 0o776, 0o700);
    for file in ["zeroone.redb", "master.key", "admin.key"] {
        assert_eq!(mode(&format!("zeroone-data/{file}")), 0o600, "{file}");
    }
    let key = std::fs::read_to_string(world.path("zeroone-data/admin.key")).unwrap();
    let curl = serving.greeting.iter().find_map(|line| line.trim().strip_prefix("curl ")).unwrap();
    let (header, url) = curl.strip_prefix("-H '").unwrap().split_once("' ").unwrap();
    assert_eq!(header, format!("Authorization: Bearer {}", key.trim()));
    assert_eq!(url, format!("{}/api/agents", serving.url));
    assert_eq!(get(&serving.url, header), "HTTP/1.1 200 OK");
}

/// The first line of the answer to what `curl` would send.
fn get(url: &str, header: &str) -> String {
    use std::io::{BufRead as _, BufReader, Write as _};
    let mut stream = std::net::TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    write!(stream, "GET /api/agents HTTP/1.1\r\nHost: zeroone\r\n{header}\r\nConnection: close\r\n\r\n").unwrap();
    BufReader::new(stream).lines().next().unwrap().unwrap()
}

#[test]
fn users_and_keys_are_made_used_and_revoked() {
    let world = World::new();
    let serving = world.serve();
    let user = serving.verb(&world, &["user", "create", "--plan", "free", "--email", "a@b.c"]);
    let key = serving.verb(&world, &["key", "create", "--user", &user]);
    assert!(key.starts_with("zo_"), "{key}");
    let as_user =
        |arguments: &[&str]| world.run(arguments, &[("ZEROONE_URL", &serving.url), ("ZEROONE_API_KEY", &key)]);
    assert_eq!(as_user(&["agent", "list"]).code, Some(0));
    assert_eq!(as_user(&["user", "list"]).code, Some(4), "no admin");
    let plan = serving.json(&world, &["user", "set-plan", &user, "pro"]);
    assert_eq!(plan["plan"], "pro");
    let planned = as_user(&["upgrade", "--all", "--dry-run"]);
    assert_eq!(planned.code, Some(0), "without the scope admin all agents are one's own: {planned:?}");
    let keys: Value = serde_json::from_str(&as_user(&["key", "list", "-o", "json"]).stdout).unwrap();
    let revoked = as_user(&["key", "revoke", keys[0]["id"].as_str().unwrap(), "-o", "json"]);
    assert_eq!(revoked.code, Some(0));
    assert_eq!(serde_json::from_str::<Value>(&revoked.stdout).unwrap()["revoked"], true);
    assert_eq!(as_user(&["agent", "list"]).code, Some(4), "revoked");
}

/// As a store is that was left by a version that let its last administrator go.
fn forget_all_keys(store: &std::path::Path) {
    use zeroone::internal::store::{Batch, commit};
    use zeroone::store::{Store, StoreOptions};
    let store = Store::open(store, StoreOptions::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for key in store.load().await.unwrap().keys {
            commit(&store, Batch::remove_keys(key.user, vec![key.id])).await.unwrap();
        }
        store.close().await;
    });
}

#[test]
fn administrators_help_suspend_and_delete_users_by_their_address() {
    let world = World::new();
    let serving = world.serve();
    serving.verb(&world, &["user", "create", "--plan", "pro", "--email", "a@b.c"]);
    let key = serving.verb(&world, &["key", "create", "--user", "a@b.c", "--name", "laptop"]);
    let as_user =
        |arguments: &[&str]| world.run(arguments, &[("ZEROONE_URL", &serving.url), ("ZEROONE_API_KEY", &key)]);
    let keys = serving.json(&world, &["key", "list", "--user", "A@b.c"]);
    assert_eq!((keys.as_array().unwrap().len(), &keys[0]["name"]), (1, &Value::from("laptop")));
    assert_eq!(serving.json(&world, &["user", "suspend", "a@b.c"])["status"], "suspended");
    let refused = as_user(&["agent", "list"]);
    assert!(refused.code == Some(4) && refused.stderr.contains("suspended"), "{refused:?}");
    assert_eq!(serving.json(&world, &["user", "resume", "a@b.c"])["status"], "active");
    assert_eq!(as_user(&["agent", "list"]).code, Some(0));
    serving.verb(&world, &["key", "revoke", "--user", "a@b.c", keys[0]["id"].as_str().unwrap()]);
    assert_eq!(as_user(&["agent", "list"]).code, Some(4), "revoked");
    assert_eq!(serving.json(&world, &["user", "get", "a@b.c"])["email"], "a@b.c");
    assert_eq!(serving.refused(&world, &["user", "get", "no@body"]).code, Some(3));
    assert_eq!(serving.refused(&world, &["user", "get", "nobody"]).code, Some(2));
    assert_eq!(serving.verb(&world, &["user", "delete", "a@b.c"]), "deleted");
    assert_eq!(serving.refused(&world, &["user", "get", "a@b.c"]).code, Some(3));
}

#[test]
fn administrators_call_agents_of_others_by_slug_and_delete_them_with_their_user() {
    let world = World::new();
    let serving = world.serve();
    serving.verb(&world, &["user", "create", "--email", "a@b.c"]);
    let key = serving.verb(&world, &["key", "create", "--user", "a@b.c"]);
    let as_user =
        |arguments: &[&str]| world.run(arguments, &[("ZEROONE_URL", &serving.url), ("ZEROONE_API_KEY", &key)]);
    let created = as_user(&["agent", "create", "Bob", "--provider", "ollama", "--model", "m", "--wait"]);
    assert_eq!(created.code, Some(0), "{created:?}");
    assert_eq!(serving.verb(&world, &["agent", "stop", "bob", "--wait"]), "STOPPED");
    assert_eq!(serving.refused(&world, &["agent", "stop", "bo"]).code, Some(3));
    serving.verb(&world, &["agent", "create", "Own", "--provider", "ollama", "--model", "m"]);
    assert_eq!(as_user(&["agent", "get", "own"]).code, Some(3), "for those with the scope admin alone");
    let gone = serving.json(&world, &["user", "delete", "a@b.c", "--with-agents", "--yes", "--wait"]);
    assert_eq!(gone["deleted"], true);
    assert_eq!(serving.refused(&world, &["user", "get", "a@b.c"]).code, Some(3));
}

#[test]
fn the_master_key_is_changed_by_a_verb() {
    let world = World::new();
    let mut serving = world.serve();
    let file = world.path("zeroone-data/master.key");
    let old = std::fs::read_to_string(&file).unwrap();
    let rotated = serving.json(&world, &["rotate-key"]);
    assert!(rotated["key"].is_string(), "{rotated}");
    let new = std::fs::read_to_string(&file).unwrap();
    assert!(old != new && new.lines().count() == 1);
    assert_eq!(serving.terminate().code(), Some(0));
    std::fs::write(&file, old).unwrap();
    let refused = world.run(&["serve", "--bind", "127.0.0.1:0", "--runtime", "process"], &[]);
    assert_eq!(refused.code, Some(1), "the old key is refused: {refused:?}");
    std::fs::write(&file, new).unwrap();
    assert!(world.serve().url.starts_with("http"));
}

#[test]
fn whoever_has_the_data_folder_is_never_locked_out() {
    let world = World::new();
    let mut serving = world.serve();
    let keys = serving.json(&world, &["key", "list"]);
    let last = serving.refused(&world, &["key", "revoke", keys[0]["id"].as_str().unwrap()]);
    assert!(last.code == Some(4) && last.stderr.contains("last-administrator"), "{last:?}");
    assert_eq!(serving.terminate().code(), Some(0));
    forget_all_keys(&world.path("zeroone-data/zeroone.redb"));
    let mut serving = world.serve();
    assert!(serving.greeting.iter().any(|line| line.trim().starts_with("zo_")), "{:?}", serving.greeting);
    assert_eq!(serving.json(&world, &["user", "list"]).as_array().unwrap().len(), 1, "the same admin");
    // The file alone is no reason for another key.
    std::fs::remove_file(world.path("zeroone-data/admin.key")).unwrap();
    assert_eq!(serving.terminate().code(), Some(0));
    assert!(!world.serve().greeting.iter().any(|line| line.contains("zo_")));
}

#[test]
fn the_demo_shows_the_whole_job_and_leaves_nothing() {
    let world = World::new();
    let tmp = world.folder.path().to_str().unwrap();
    let ended = world.run(&["demo", "--exit", "--message", "is anyone there"], &[("TMPDIR", tmp)]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for part in ["STARTING", "RUNNING", "3 words: \"is anyone there\"", "no AI"] {
        assert!(ended.stdout.contains(part), "{part} is not in {}", ended.stdout);
    }
    assert_eq!(std::fs::read_dir(tmp).unwrap().count(), 0);
    assert_eq!(processes_in(world.folder.path()), Vec::<String>::new());
}
