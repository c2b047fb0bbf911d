//! An agent that was talked into mischief, under the real service: what it gets of the service's secrets and of others.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::http_client::http_client;
use super::program;
use super::world::{PATIENCE, World, until};

/// Tries what it should not get, says how it went, and then stays.
const ROGUE: &str = r#"#!/bin/sh
[ "$1" = --version ] && { echo zeroclaw 0.6.9; exit 0; }
try() { what=$1; shift; if "$@" > /dev/null 2>&1; then echo "reached $what"; else echo "held $what"; fi; }
data=$HOME/../../..
try master.key cat $data/master.key
try admin.key cat $data/admin.key
try store cat $data/zeroone.redb
try agents ls $data/agents
for pid in $(ls /proc | grep '^[0-9]*$'); do
  {
    tr '\0' '\n' < /proc/$pid/environ | grep '^HOME=' | grep -vqx "HOME=$HOME" && echo "reached the environment of $pid"
    stat=$(cat /proc/$pid/stat) && set -- ${stat##*) } && [ "$4" != $$ ] && kill -0 $pid && echo "reached $pid by a signal"
  } 2> /dev/null
done
try own sh -c 'echo x > $HOME/mine'
echo over
exec sleep 1000
"#;

#[test]
fn an_agent_of_the_real_service_gets_neither_its_keys_nor_its_neighbours() {
    let world = World::new();
    fs::set_permissions(world.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    held(&world, rustix::process::geteuid().is_root());
}

/// The same once more as a plain user.
#[test]
fn nor_does_one_of_a_plain_users_service() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(folder.path(), Some(65_534), Some(65_534)).unwrap();
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["hostile::an_agent_of_the_real_service", "--nocapture"]).env("TMPDIR", folder.path());
    let output = again.current_dir(folder.path()).uid(65_534).gid(65_534).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

fn held(world: &World, root: bool) {
    let program = world.path("rogue.sh");
    program::write(ROGUE, &program);
    let env = [("ZEROONE_PROCESS__COMMAND", program.to_str().unwrap()), ("PATH", "/usr/bin:/bin")];
    let serving = world.try_serve(&env).expect("it serves");
    let ready: serde_json::Value = {
        let url = format!("{}/readyz?verbose", serving.url);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let text =
            runtime.block_on(async { http_client(PATIENCE).get(url).send().await.unwrap().text().await.unwrap() });
        serde_json::from_str(&text).unwrap()
    };
    let walls = ready["details"]["runtime"]["walls"].as_array().unwrap_or_else(|| panic!("{ready}"));
    assert_eq!(walls.contains(&"users".into()), root, "{ready}");
    for name in ["victim", "rogue"] {
        serving.verb(world, &["agent", "create", name, "--provider", "ollama", "--model", "m"]);
    }
    let log = until("it has tried everything", || {
        let ended = world.run(&["agent", "logs", "rogue"], &[("ZEROONE_URL", &serving.url)]);
        ended.stdout.contains("over").then_some(ended.stdout)
    });
    for line in ["held master.key", "held admin.key", "held store", "held agents", "reached own"] {
        assert!(log.contains(line), "{line} is not in\n{log}");
    }
    let apart = walls.contains(&"users".into()) || walls.contains(&"signals".into());
    let not_meant =
        |line: &&str| line.contains("reached") && !line.contains("reached own") && (apart || !line.contains("signal"));
    let reached: Vec<&str> = log.lines().filter(not_meant).collect();
    assert_eq!(reached, Vec::<&str>::new(), "{log}");
    // What is made in the data folder is for nobody else.
    for entry in fs::read_dir(world.path("zeroone-data")).unwrap().flatten() {
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        let others = if entry.file_name() == "agents" { mode & 0o066 } else { mode & 0o077 };
        assert_eq!(others, 0, "{:?} has mode {mode:03o}", entry.file_name());
    }
}
