//! A hostile instance, as an agent that was talked into mischief: what it reaches of the machine and of its neighbours.

use std::fs;

use super::*;

/// Tries each thing by a command of the shell, and says how it went.
fn attempt(what: &str, command: &str) -> String {
    format!("if ( {command} ) > /dev/null 2>&1; then echo 'reached {what}'; else echo 'held {what}'; fi; ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_instance_reaches_its_own_folder_and_the_internet_and_nothing_else() {
    let bench = Bench::new();
    let walls = bench.runtime.caps().walls;
    for wall in ["calls", "files", "limits", "privileges", "processes"] {
        assert!(walls.contains(&wall), "this kernel lacks {wall}: {walls:?}");
    }
    let neighbour = bench.spec(&["count", "1"]);
    bench.runtime.ensure_created(&neighbour).await.unwrap();
    let run = started(&bench.runtime, &neighbour.key).await;
    printed(&bench.runtime, &neighbour.key, &run, "line 1").await;
    let neighbour_pid = bench.processes()[0];
    let theirs = bench.folder(&neighbour.key).join("data/secret");
    fs::write(&theirs, "theirs").unwrap();
    let master_key = bench.options.root.parent().unwrap().join("master.key");
    fs::write(&master_key, "key").unwrap();
    let service = std::process::id();

    let (theirs, master_key) = (theirs.display(), master_key.display());
    let forbidden = [
        ("files of a neighbour", format!("cat {theirs}")),
        ("the folder of a neighbour", format!("ls $(dirname {theirs})")),
        ("writing to a neighbour", format!("echo x >> {theirs}")),
        ("the master key", format!("cat {master_key}")),
        ("the environment of a neighbour", format!("tr -d x < /proc/{neighbour_pid}/environ | grep .")),
        ("the environment of the service", format!("tr -d x < /proc/{service}/environ | grep .")),
        ("the memory of the service", format!("head -c 1 /proc/{service}/mem")),
        ("open files of the service", format!("ls -l /proc/{service}/fd/ | grep -e '->'")),
        ("passwords", "cat /etc/shadow".into()),
        ("temporary files of everybody", "echo x > /tmp/zeroone-hostile".into()),
        ("the home of root", "ls /root".into()),
        ("system files", "echo x > /usr/zeroone-hostile".into()),
        ("a socket of the file system", perl("socket(S, PF_UNIX, SOCK_STREAM, 0)")),
        ("packets of the network", perl("socket(S, 17, SOCK_RAW, 0)")),
        ("another namespace", "unshare --user true".into()),
        ("a mount", "mount -t tmpfs none $HOME".into()),
        ("privileges", "grep -E '^Cap(Eff|Bnd).*[1-9a-f]' /proc/self/status".into()),
        ("core dumps", "[ $(ulimit -c) != 0 ]".into()),
    ];
    let allowed = [
        ("its own file", "echo mine > $HOME/f && grep mine $HOME/f".to_owned()),
        ("its own temporary files", "f=$(mktemp) && echo x > $f && rm $f".into()),
        ("the names of hosts", "cat /etc/hosts".into()),
        ("sockets of the internet", perl("socket(S, PF_INET, SOCK_STREAM, 0)")),
        ("no new privileges", "grep -E 'NoNewPrivs:.*1' /proc/self/status".into()),
        ("devices without data", "head -c 1 /dev/urandom > /dev/null".into()),
    ];
    let script: String = forbidden.iter().chain(&allowed).map(|(what, command)| attempt(what, command)).collect();
    let hostile = bench.spec(&["script", &script]);
    bench.runtime.ensure_created(&hostile).await.unwrap();
    let run = started(&bench.runtime, &hostile.key).await;
    printed(&bench.runtime, &hostile.key, &run, "done").await;
    let lines = texts(&bench.runtime, &hostile.key, LogQuery::default()).await;
    let expected = forbidden.iter().map(|(what, _)| format!("held {what}"));
    let expected = expected.chain(allowed.iter().map(|(what, _)| format!("reached {what}")));
    let wrong: Vec<String> = expected.filter(|line| !lines.contains(line)).collect();
    assert_eq!(wrong, Vec::<String>::new(), "{lines:#?}");
    if walls.contains(&"signals") {
        let script = attempt("a neighbour by a signal", &format!("kill -0 {neighbour_pid}"));
        let signaller = bench.spec(&["script", &script]);
        bench.runtime.ensure_created(&signaller).await.unwrap();
        let run = started(&bench.runtime, &signaller.key).await;
        printed(&bench.runtime, &signaller.key, &run, "held a neighbour by a signal").await;
    }
}

fn perl(condition: &str) -> String {
    format!("perl -MSocket -e 'exit !({condition})'")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_walls_an_instance_is_as_free_as_its_user_and_a_readable_folder_can_be_read() {
    let mut bench = Bench::new();
    let outside = bench.options.root.parent().unwrap().join("outside");
    fs::write(&outside, "x").unwrap();
    let script = attempt("what is outside", &format!("cat {}", outside.display()));
    for (walls, readable, expected) in
        [(true, vec![], "held"), (true, vec![outside.clone()], "reached"), (false, vec![], "reached")]
    {
        let options = ProcessOptions { walls, readable, ..bench.options.clone() };
        bench.runtime = ProcessRuntime::open(options).unwrap();
        let spec = bench.spec(&["script", &script]);
        bench.runtime.ensure_created(&spec).await.unwrap();
        let run = started(&bench.runtime, &spec.key).await;
        printed(&bench.runtime, &spec.key, &run, &format!("{expected} what is outside")).await;
    }
}
