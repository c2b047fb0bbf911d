//! A hostile instance, as an agent that was talked into mischief: what it reaches of the machine and of its neighbours.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::geteuid;
use zeroone::runtime::InstanceKey;

use super::*;

/// A user that may do nothing special.
const NOBODY: u32 = 65_534;
/// Walls that have to stand, besides those that every kernel has.
const KNOWN_WALLS: &str = "ZEROONE_TEST_WALLS";

/// Tries each thing by a command of the shell, and says how it went.
fn attempt(what: &str, command: &str) -> String {
    format!("if ( {command} ) > /dev/null 2>&1; then echo 'reached {what}'; else echo 'held {what}'; fi; ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_instance_reaches_its_own_folder_and_the_internet_and_nothing_else() {
    let bench = Bench::new();
    let (walls, missing) = (bench.runtime.caps().walls, bench.runtime.caps().missing_walls);
    // scripts/check-vm knows what its machine has.
    let known = std::env::var(KNOWN_WALLS).unwrap_or_default();
    for wall in ["calls", "files", "limits", "privileges", "processes"].into_iter().chain(known.split_whitespace()) {
        assert!(walls.contains(&wall), "this kernel lacks {wall}: {walls:?}");
    }
    for wall in ["memory", "signals", "users"] {
        assert!(walls.contains(&wall) != missing.get(wall).is_some_and(|why| !why.is_empty()), "{wall}: {missing:?}");
    }
    assert_eq!(walls.contains(&"users"), geteuid().is_root(), "{missing:?}");
    let neighbour = bench.spec(&["count", "1"]);
    bench.runtime.ensure_created(&neighbour).await.unwrap();
    let run = started(&bench.runtime, &neighbour.key).await;
    printed(&bench.runtime, &neighbour.key, &run, "line 1").await;
    let neighbour_pid = bench.processes()[0];
    let theirs = bench.folder(&neighbour.key).join("data/secret");
    fs::write(&theirs, "theirs").unwrap();
    let master_key = bench.options.root.parent().unwrap().join("master.key");
    let admin_key = master_key.with_file_name("admin.key");
    for key in [&master_key, &admin_key] {
        fs::write(key, "key").unwrap();
        fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let service = std::process::id();

    let (theirs, master_key, admin_key) = (theirs.display(), master_key.display(), admin_key.display());
    // A plain user's bounds are as they are, and lead nowhere.
    let bounded = if geteuid().is_root() { "Eff|Bnd" } else { "Eff" };
    let forbidden = [
        ("files of a neighbour", format!("cat {theirs}")),
        ("the folder of a neighbour", format!("ls $(dirname {theirs})")),
        ("writing to a neighbour", format!("echo x >> {theirs}")),
        ("the master key", format!("cat {master_key}")),
        ("the admin key", format!("cat {admin_key}")),
        ("the folder of all agents", "ls $HOME/../..".into()),
        ("its own limit of memory", "for f in $(find /sys/fs/cgroup -name 'memory*max' -o -name 'memory.limit_in_bytes'); do echo 1000000000 > $f && exit 0; done; exit 1".into()),
        ("a change of user", perl("$< = 1 if $< != 1; $< == 1 || ($> = 1) && $> == 1")),
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
        ("privileges", format!("grep -E '^Cap({bounded}).*[1-9a-f]' /proc/self/status")),
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
    if walls.contains(&"signals") || walls.contains(&"users") {
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
        let options = bench.options.clone().with_walls(walls).with_readable(readable);
        bench.runtime = ProcessRuntime::open(options).unwrap();
        let spec = bench.spec(&["script", &script]);
        bench.runtime.ensure_created(&spec).await.unwrap();
        let run = started(&bench.runtime, &spec.key).await;
        printed(&bench.runtime, &spec.key, &run, &format!("{expected} what is outside")).await;
    }
}

/// The tests above run as whoever runs them. Where that is root, the hostile one is run once more as a plain user.
#[test]
fn the_walls_hold_for_a_plain_users_service_too() {
    if !geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("tests");
    program::install(&std::env::current_exe().unwrap(), &own);
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for path in [folder.path(), &own] {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let mut tests = Command::new(own);
    tests
        .args(["walls::a_hostile_instance", "--nocapture"])
        .env("TMPDIR", folder.path())
        .env_remove(KNOWN_WALLS)
        .current_dir(folder.path());
    let output = tests.uid(NOBODY).gid(NOBODY).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

fn users_of(pid: i32) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    assert_eq!(line("Groups:").trim(), "", "no further groups");
    let ids = |name| line(name).split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<u32>>();
    assert_eq!(ids("Uid:"), ids("Gid:"));
    ids("Uid:")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_agent_of_a_root_service_is_a_user_of_its_own_and_stays_it() {
    if !geteuid().is_root() {
        return;
    }
    let mut bench = Bench::new();
    let mut users = Vec::new();
    let specs = [bench.spec(&["count", "1"]), bench.spec(&["count", "1"])];
    for spec in &specs {
        bench.runtime.ensure_created(spec).await.unwrap();
        started(&bench.runtime, &spec.key).await;
        let pid = pid(&observed(&bench.runtime, &spec.key).await);
        until("it runs its program", || async { (session(pid).len() == 1).then_some(()) }).await;
        let [user, rest @ ..] = &users_of(pid)[..] else { panic!("a user") };
        assert!(*user >= 2_000_000_000 && rest.iter().all(|id| id == user), "{user} {rest:?}");
        let folder = bench.folder(&spec.key);
        for (name, owner, mode) in [("data", *user, 0o700), ("tmp", *user, 0o700), ("logs", 0, 0o700), ("", 0, 0o710)] {
            let found = fs::metadata(folder.join(name)).unwrap();
            assert_eq!((found.uid(), found.mode() & 0o777), (owner, mode), "{name}");
        }
        users.push(*user);
    }
    assert_ne!(users[0], users[1]);
    // The next service finds the same; a folder that was restored by root is given to its agent again.
    bench.runtime = ProcessRuntime::open(bench.options.clone()).unwrap();
    let (spec, user) = (&specs[0], users[0]);
    assert_eq!(users_of(pid(&observed(&bench.runtime, &spec.key).await))[0], user);
    bench.runtime.kill(&spec.key).await.unwrap();
    let deep = bench.folder(&spec.key).join("data/workspace/deep");
    fs::create_dir(&deep).unwrap();
    fs::write(deep.join("note"), "x").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", deep.join("link")).unwrap();
    std::os::unix::fs::chown(bench.folder(&spec.key).join("data"), Some(0), Some(0)).unwrap();
    bench.runtime.ensure_created(spec).await.unwrap();
    bench.runtime.start(&spec.key).await.unwrap();
    assert_eq!(users_of(pid(&observed(&bench.runtime, &spec.key).await))[0], user);
    for name in ["", "note", "link"] {
        assert_eq!(fs::symlink_metadata(deep.join(name)).unwrap().uid(), user, "{name}");
    }
    assert_eq!(fs::metadata("/etc/passwd").unwrap().uid(), 0);
    // A file that is staged into the folder is the agent's, too.
    bench.runtime.kill(&spec.key).await.unwrap();
    bench.runtime.stage(&spec.key, &[file("workspace/new/a", "a")]).await.unwrap();
    for name in ["new", "new/a"] {
        assert_eq!(fs::metadata(deep.with_file_name(name)).unwrap().uid(), user, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_threw_away_all_marks_ends_with_its_agent() {
    let bench = Bench::new();
    let caps = bench.runtime.caps();
    if !caps.walls.contains(&"users") && !caps.walls.contains(&"memory") {
        return;
    }
    let script = "env -i setsid setsid sleep 1007.25 0<&- > /dev/null 2>&1 & ";
    let escaped = || {
        let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mark = format!("{}\0{}", "sleep", "1007.25");
        pids.filter(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(mark.as_bytes())))
            .count()
    };
    let spec = bench.spec(&["script", script]);
    bench.runtime.ensure_created(&spec).await.unwrap();
    let run = started(&bench.runtime, &spec.key).await;
    printed(&bench.runtime, &spec.key, &run, "done").await;
    until("it has escaped", || async { (escaped() == 1).then_some(()) }).await;
    bench.runtime.kill(&spec.key).await.unwrap();
    assert_eq!(escaped(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_of_all_that_an_agent_starts_is_limited_together() {
    let bench = Bench::new();
    if !bench.runtime.caps().walls.contains(&"memory") {
        return;
    }
    // Each of them is within what one process may have.
    let hog = "perl -e '$x = \"x\" x (60 << 20); print \"took\\n\"; sleep 1000'";
    let script = format!(
        "for i in 1 2 3 4 5 6 7 8; do ( {hog}; echo ended > $HOME/ended ) & done; \
         while [ ! -e $HOME/ended ]; do sleep 0.05; done; kill -9 $$"
    );
    let spec = bench.spec(&["script", &script]).with_memory_mb(128);
    bench.runtime.ensure_created(&spec).await.unwrap();
    started(&bench.runtime, &spec.key).await;
    let exit = exited(&bench.runtime, &spec.key).await;
    assert!(exit.oom, "{exit:?}");
    // The group goes with the run.
    until("its control group is removed", || async { groups_of(&spec.key).is_empty().then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn want_of_memory_is_told_also_of_an_agent_that_an_earlier_service_started() {
    let mut bench = Bench::new();
    if !bench.runtime.caps().walls.contains(&"memory") {
        return;
    }
    let script = "echo ready; while [ ! -e $HOME/grow ]; do sleep 0.05; done; \
                  exec perl -e 'push @all, \"x\" x (1 << 20) while 1'";
    let spec = bench.spec(&["script", script]).with_memory_mb(64);
    let run = in_a_service_that_ends(&bench, &spec, "ready").await;
    bench.runtime = ProcessRuntime::open(bench.options.clone()).unwrap();
    assert_eq!(observed(&bench.runtime, &spec.key).await.state, InstanceState::Running(run));
    fs::write(bench.folder(&spec.key).join("data/grow"), "").unwrap();
    let exit = exited(&bench.runtime, &spec.key).await;
    assert!(exit.oom, "{exit:?}");
}

/// The control groups of an agent's runs, wherever they are.
fn groups_of(key: &InstanceKey) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![PathBuf::from("/sys/fs/cgroup")]);
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(
            entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
        );
        if folder.to_string_lossy().contains(&key.agent.to_string()) {
            found.push(folder);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_control_groups_of_an_earlier_service_go_with_the_next_start() {
    let mut bench = Bench::new();
    if !bench.runtime.caps().walls.contains(&"memory") {
        return;
    }
    let spec = bench.spec(&["count", "1"]);
    bench.runtime.ensure_created(&spec).await.unwrap();
    let run = started(&bench.runtime, &spec.key).await;
    let group = groups_of(&spec.key).pop().expect("a group of its own");
    // As if a service had been killed that was in another group, and another installation's beside it.
    let (installation, agent) = (bench.options.installation, spec.key.agent);
    let login = group.parent().unwrap().join(format!("login-{installation}"));
    let (ours, foreign) = (format!("zeroone-{installation}-{agent}-1"), format!("zeroone-{agent}-{agent}-1"));
    let (ours, foreign) = (login.join(ours), login.join(foreign));
    for path in [&login, &ours, &foreign] {
        fs::create_dir(path).unwrap();
    }
    bench.runtime = ProcessRuntime::open(bench.options.clone()).unwrap();
    assert!(!ours.exists() && foreign.exists() && group.exists());
    fs::remove_dir(&foreign).and_then(|()| fs::remove_dir(&login)).unwrap();
    // The one that is in use was adopted with its run.
    assert_eq!(started(&bench.runtime, &spec.key).await, run);
    bench.runtime.kill(&spec.key).await.unwrap();
    until("its control group is removed", || async { (!group.exists()).then_some(()) }).await;
}
