//! The process runtime, with real processes.
#![cfg(feature = "process")]

#[path = "support/process_bench.rs"]
mod bench;

#[path = "support/program.rs"]
mod program;

#[cfg(all(feature = "cli", feature = "gateway"))]
#[path = "process/shutdown.rs"]
mod shutdown;

#[path = "process/walls.rs"]
mod walls;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bench::{Bench, pid, session, signal};
use futures_util::stream::StreamExt;
use rustix::process::Signal;
use zeroone::runtime::fault::{Fault, FaultInjector as _};
use zeroone::runtime::process::{ProcessFaultInjector, ProcessRuntime};
use zeroone::runtime::{
    ContainerRuntime, DataPolicy, Exit, InstanceSpec, InstanceState, LogQuery, Resync, Run, RuntimeError,
};
use zeroone::testkit::conformance::{self, PATIENCE, Subject, exited, file, observed, printed, started, texts, until};

mod conforms {
    use super::*;
    conformance::tests!(Bench::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_outlives_the_service_even_one_that_died_before_it_wrote_anything_down() {
    let mut bench = Bench::new();
    let spec = bench.spec(&["count", "3"]);
    let run = in_a_service_that_ends(&bench, &spec, "line 3").await;
    let record = bench.folder(&spec.key).join(format!("logs/{}.json", run.started_at.as_nanosecond()));
    fs::remove_file(&record).unwrap();
    bench.runtime = ProcessRuntime::open(bench.options.clone()).unwrap();
    assert_eq!(observed(&bench.runtime, &spec.key).await.state, InstanceState::Running(run.clone()));
    assert!(record.exists(), "now it is written down");
    assert_eq!(bench.processes().len(), 1);
    // Its death is noticed too, and how it ended outlives the next service.
    let mut changes = bench.runtime.watch();
    signal(bench.processes()[0], Signal::KILL);
    let change = tokio::time::timeout(PATIENCE, changes.next()).await.expect("a death wakes");
    assert_eq!(change, Some(Resync::Instance(spec.key.agent)));
    until("the exit is written down", || async {
        String::from_utf8(fs::read(&record).unwrap()).unwrap().contains("\"ended\":true").then_some(())
    })
    .await;
    let seen = exited(&bench.runtime, &spec.key).await;
    bench.runtime = ProcessRuntime::open(bench.options.clone()).unwrap();
    assert_eq!(seen.code, Some(137));
    assert_eq!(exited(&bench.runtime, &spec.key).await, seen);
    let query = LogQuery::default().with_run_id(run.run_id);
    assert_eq!(texts(&bench.runtime, &spec.key, query).await, ["line 1", "line 2", "line 3"]);
}

/// A folder, with all that is in it, beside another one.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_copied_folder_no_run_of_the_old_folder_is_taken_for_its_own() {
    let mut bench = Bench::new();
    let spec = bench.spec(&["count", "1"]);
    in_a_service_that_ends(&bench, &spec, "line 1").await;
    assert_eq!(bench.processes().len(), 1);
    let old = bench.options.root.clone();
    bench.options.root = old.with_file_name("restored");
    copy(&old, &bench.options.root);
    let kept = bench.folder(&spec.key).join("data/a-note");
    fs::write(&kept, "kept").unwrap();
    bench.runtime = ProcessRuntime::open(bench.options.clone()).unwrap();
    until("the run in the old folder is ended", || async { bench.processes().is_empty().then_some(()) }).await;
    assert!(matches!(observed(&bench.runtime, &spec.key).await.state, InstanceState::Exited(_)));
    bench.runtime.ensure_created(&spec).await.unwrap();
    bench.runtime.start(&spec.key).await.unwrap();
    let pid = bench.processes()[0];
    let works_in = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    assert!(works_in.starts_with(&bench.options.root), "{}", works_in.display());
    assert_eq!(fs::read_to_string(kept).unwrap(), "kept");
    assert!(old.join(spec.key.agent.to_string()).join("data").is_dir(), "nothing of the old folder is removed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_was_moved_keeps_its_runs() {
    let mut bench = Bench::new();
    let spec = bench.spec(&["count", "1"]);
    let run = in_a_service_that_ends(&bench, &spec, "line 1").await;
    let old = bench.options.root.clone();
    bench.options.root = old.with_file_name("moved");
    fs::rename(&old, &bench.options.root).unwrap();
    bench.runtime = ProcessRuntime::open(bench.options.clone()).unwrap();
    assert_eq!(observed(&bench.runtime, &spec.key).await.state, InstanceState::Running(run));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_services_that_start_one_agent_make_one_process() {
    let bench = Bench::new();
    let spec = bench.spec(&["count", "1"]);
    let other = ProcessRuntime::open(bench.options.clone()).unwrap();
    for runtime in [&bench.runtime, &other] {
        runtime.ensure_created(&spec).await.unwrap();
    }
    for round in 0..20 {
        let (first, second) = tokio::join!(bench.runtime.start(&spec.key), other.start(&spec.key));
        assert_eq!(first.unwrap(), second.unwrap(), "round {round}");
        assert_eq!(bench.processes().len(), 1);
        other.kill(&spec.key).await.unwrap();
        exited(&bench.runtime, &spec.key).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_the_environment_is_refused_and_goes_on_after_a_create() {
    let mut bench = Bench::new();
    let spec = bench.spec(&["count", "1"]);
    bench.runtime.ensure_created(&spec).await.unwrap();
    bench.runtime = ProcessRuntime::open(bench.options.clone()).unwrap();
    assert!(matches!(bench.runtime.start(&spec.key).await, Err(RuntimeError::Conflict(_))));
    assert!(!bench.runtime.ensure_created(&spec).await.unwrap().created_now);
    bench.runtime.start(&spec.key).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_a_stranger_holds_keeps_the_agent_from_starting() {
    let bench = Bench::new();
    let spec = bench.spec(&["count", "1"]);
    bench.runtime.ensure_created(&spec).await.unwrap();
    let lock = fs::File::open(bench.folder(&spec.key).join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert!(matches!(bench.runtime.start(&spec.key).await, Err(RuntimeError::Conflict(_))));
    assert_eq!(bench.processes(), Vec::<i32>::new());
    drop(lock);
    bench.runtime.start(&spec.key).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_environment_is_the_specs_and_the_runtimes_and_nothing_else() {
    let bench = Bench::new();
    let mut spec = bench.spec(&["env"]);
    for (name, value) in [
        ("HOME", "/zeroclaw-data"),
        ("ZEROCLAW_WORKSPACE", "/zeroclaw-data/workspace"),
        ("ZEROCLAW_GATEWAY_PORT", "42617"),
        ("ZEROCLAW_GATEWAY_HOST", "0.0.0.0"),
        ("ZEROCLAW_ALLOW_PUBLIC_BIND", "true"),
        ("PROVIDER", "openai"),
    ] {
        spec.env.push((name.into(), value.into()));
    }
    bench.runtime.ensure_created(&spec).await.unwrap();
    let run = started(&bench.runtime, &spec.key).await;
    printed(&bench.runtime, &spec.key, &run, "PROVIDER=openai").await;
    let mut environment = texts(&bench.runtime, &spec.key, LogQuery::default()).await;
    // The shell sets these itself.
    environment.retain(|entry| !["PWD=", "OLDPWD=", "SHLVL=", "_="].iter().any(|own| entry.starts_with(own)));
    environment.retain(|entry| !entry.starts_with("ZEROONE_INSTANCE="));
    environment.sort_unstable();
    let data = bench.folder(&spec.key).join("data");
    let mut expected = vec![
        "API_KEY=sk-planted-secret".to_owned(),
        format!("HOME={}", data.display()),
        format!("PATH={}", std::env::var("PATH").unwrap()),
        "PROVIDER=openai".to_owned(),
        format!("TMPDIR={}", bench.folder(&spec.key).join("tmp").display()),
        format!("ZEROCLAW_CONFIG_DIR={}", data.join(".zeroclaw").display()),
        "ZEROCLAW_GATEWAY_HOST=127.0.0.1".to_owned(),
        format!("ZEROCLAW_GATEWAY_PORT={}", spec.port.unwrap()),
        format!("ZEROCLAW_WORKSPACE={}", data.join("workspace").display()),
        // The same for ZeroClaw from 0.8 on, which reads other names.
        "ZEROCLAW_gateway__allow_public_bind=false".to_owned(),
        "ZEROCLAW_gateway__host=127.0.0.1".to_owned(),
        format!("ZEROCLAW_gateway__port={}", spec.port.unwrap()),
    ];
    expected.sort_unstable();
    assert_eq!(environment, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_folder_is_private_and_holds_no_secret_of_the_environment() {
    let bench = Bench::new();
    let spec = bench.spec(&["count", "1"]);
    bench.runtime.ensure_created(&spec).await.unwrap();
    let run = started(&bench.runtime, &spec.key).await;
    printed(&bench.runtime, &spec.key, &run, "line 1").await;
    let mut folders = vec![bench.options.root.clone()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        // Where agents are users of their own they get through these two, and read neither.
        let through = folder == bench.options.root || folder == bench.folder(&spec.key);
        let through = through && bench.runtime.caps().walls.contains(&"users");
        let others = if through { 0o066 } else { 0o077 };
        assert_eq!(fs::metadata(&folder).unwrap().mode() & others, 0, "{}", folder.display());
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
                continue;
            }
            files += 1;
            assert_eq!(entry.metadata().unwrap().mode() & 0o777, 0o600, "{}", entry.path().display());
            let content = fs::read(entry.path()).unwrap();
            assert!(!String::from_utf8_lossy(&content).contains("planted"), "{}", entry.path().display());
        }
    }
    assert_eq!(files, 5, "spec.json, lock, log, its record, the staged file");
    assert!(!format!("{:?}", bench.runtime).contains("planted"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_leaves_no_child_behind() {
    let bench = Bench::new();
    let spec = bench.spec(&["family"]);
    bench.runtime.ensure_created(&spec).await.unwrap();
    let run = started(&bench.runtime, &spec.key).await;
    printed(&bench.runtime, &spec.key, &run, "born").await;
    let leader = pid(&observed(&bench.runtime, &spec.key).await);
    until("all are there, marked or not", || async {
        (bench.processes().len() == 3 && session(leader).len() == 3).then_some(())
    })
    .await;
    bench.runtime.kill(&spec.key).await.unwrap();
    until("all are gone", || async { (bench.processes().is_empty() && session(leader).is_empty()).then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_instance_left_behind_is_ended() {
    let bench = Bench::new();
    let spec = bench.spec(&["leave"]);
    bench.runtime.ensure_created(&spec).await.unwrap();
    bench.runtime.start(&spec.key).await.unwrap();
    assert_eq!(exited(&bench.runtime, &spec.key).await.code, Some(3));
    until("what it left is gone", || async { bench.processes().is_empty().then_some(()) }).await;
}

/// Starts an instance, waits until it has printed this, and ends the service without a word, as a kill would.
async fn in_a_service_that_ends(bench: &Bench, spec: &InstanceSpec, ready: &'static str) -> Run {
    let (options, spec) = (bench.options.clone(), spec.clone());
    tokio::task::spawn_blocking(move || {
        let service = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let run = service.block_on(async {
            let runtime = ProcessRuntime::open(options).unwrap();
            runtime.ensure_created(&spec).await.unwrap();
            let run = started(&runtime, &spec.key).await;
            printed(&runtime, &spec.key, &run, ready).await;
            run
        });
        service.shutdown_background();
        run
    })
    .await
    .unwrap()
}

/// Starts an instance with children and ends it while no service is there to see it. The children hold the agent's lock.
/// Answers the instance's session.
async fn orphans(bench: &Bench, spec: &InstanceSpec) -> i32 {
    let run = in_a_service_that_ends(bench, spec, "born").await;
    let leader = run.run_id.0.split(':').nth(1).unwrap().parse().unwrap();
    until("the children are there", || async {
        (bench.processes().len() == 3 && session(leader).len() == 3).then_some(())
    })
    .await;
    signal(leader, Signal::KILL);
    until("the instance is dead", || async { (!bench.processes().contains(&leader)).then_some(()) }).await;
    assert_eq!((bench.processes().len(), session(leader).len()), (2, 2), "marked, and in its session");
    leader
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_ends_what_died_unseen_when_it_opens() {
    let mut bench = Bench::new();
    let spec = bench.spec(&["family"]);
    let leader = orphans(&bench, &spec).await;
    bench.runtime = ProcessRuntime::open(bench.options.clone()).unwrap();
    until("the orphans are gone", || async {
        (bench.processes().is_empty() && session(leader).is_empty()).then_some(())
    })
    .await;
    assert_eq!(exited(&bench.runtime, &spec.key).await, Exit::default(), "nobody saw how");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_that_hold_the_lock_do_not_keep_the_agent_from_starting() {
    let bench = Bench::new();
    let spec = bench.spec(&["family"]);
    let leader = orphans(&bench, &spec).await;
    let before = bench.processes();
    bench.runtime.ensure_created(&spec).await.unwrap();
    assert!(matches!(observed(&bench.runtime, &spec.key).await.state, InstanceState::Exited(_)));
    let run = started(&bench.runtime, &spec.key).await;
    assert_eq!(observed(&bench.runtime, &spec.key).await.state, InstanceState::Running(run));
    until("the orphans are gone", || async {
        let now = bench.processes();
        (before.iter().all(|pid| !now.contains(pid)) && session(leader).is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_process_can_be_asked_to_end_and_can_be_started() {
    let bench = Bench::new();
    let spec = bench.spec(&["count", "1"]);
    bench.runtime.ensure_created(&spec).await.unwrap();
    let run = started(&bench.runtime, &spec.key).await;
    bench.pause(&observed(&bench.runtime, &spec.key).await).await;
    assert_eq!(bench.runtime.start(&spec.key).await.unwrap(), InstanceState::Running(run.clone()));
    until("it runs again", || async {
        matches!(observed(&bench.runtime, &spec.key).await.state, InstanceState::Running(_)).then_some(())
    })
    .await;
    bench.pause(&observed(&bench.runtime, &spec.key).await).await;
    bench.runtime.stop(&spec.key, PATIENCE).await.unwrap();
    let ended = observed(&bench.runtime, &spec.key).await.state;
    assert_eq!(ended, InstanceState::Exited(Exit::with_code(143)), "by SIGTERM, not by force");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_cannot_be_run_is_named_and_leaves_no_trace() {
    let mut bench = Bench::new();
    let spec = bench.spec(&["count", "1"]);
    for program in [PathBuf::from("/nowhere/zeroclaw"), PathBuf::from("no-such-zeroclaw"), bench.options.root.clone()] {
        let options = bench.options.clone().with_program(program.clone());
        bench.runtime = ProcessRuntime::open(options).unwrap();
        let prepared = bench.runtime.prepare(&spec.key, Arc::new(|_| {})).await;
        assert!(matches!(prepared, Err(RuntimeError::Invalid(_))), "{prepared:?}");
        bench.runtime.ensure_created(&spec).await.unwrap();
        let started = bench.runtime.start(&spec.key).await;
        assert!(matches!(started, Err(RuntimeError::Invalid(_))), "{started:?}");
        assert_eq!(observed(&bench.runtime, &spec.key).await.state, InstanceState::Created);
    }
    bench.runtime = ProcessRuntime::open(bench.options.clone()).unwrap();
    bench.runtime.prepare(&spec.key, Arc::new(|_| {})).await.unwrap();
    bench.runtime.ensure_created(&spec).await.unwrap();
    bench.runtime.start(&spec.key).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_removed_under_a_running_agent_is_still_owned_and_comes_back_whole() {
    let mut bench = Bench::new();
    let spec = bench.spec(&["count", "1"]);
    bench.runtime.ensure_created(&spec).await.unwrap();
    let run = started(&bench.runtime, &spec.key).await;
    fs::remove_dir_all(bench.folder(&spec.key)).unwrap();
    for _ in 0..2 {
        let owned = bench.runtime.list_owned().await.unwrap();
        assert_eq!(owned.len(), 1);
        assert_eq!((&owned[0].key, &owned[0].state), (&spec.key, &InstanceState::Running(run.clone())));
        bench.runtime = ProcessRuntime::open(bench.options.clone()).unwrap();
    }
    assert!(bench.runtime.ensure_created(&spec).await.unwrap().created_now);
    let again = started(&bench.runtime, &spec.key).await;
    assert_ne!(again.run_id, run.run_id);
    assert_eq!(bench.processes().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_output_is_bounded_and_its_newest_lines_are_whole() {
    const LIMIT: u64 = 256 * 1024;
    /// Some 100 MB.
    const LINES: u64 = 12_000_000;
    let mut bench = Bench::new();
    bench.options.log_limit_bytes = LIMIT;
    bench.runtime = ProcessRuntime::open(bench.options.clone()).unwrap();
    let spec = bench.spec(&["flood", &LINES.to_string()]);
    bench.runtime.ensure_created(&spec).await.unwrap();
    let run = started(&bench.runtime, &spec.key).await;
    let follow = LogQuery::default().with_run_id(run.run_id.clone()).with_follow(true);
    let mut stream = bench.runtime.logs(&spec.key, follow).await.unwrap();
    // A reader that cannot keep up misses lines, and never sees one twice, out of order, or in part.
    let (mut last, mut seen) = (0, 0_u64);
    loop {
        let next = tokio::time::timeout(PATIENCE, stream.next()).await.expect("lines go on");
        let line = next.expect("the instance runs on").unwrap();
        if line.text == "done" {
            break;
        }
        let number = line.text.parse::<u64>().unwrap_or_else(|_| panic!("a whole line: {:?}", line.text));
        assert!(last < number && number <= LINES, "{number} after {last}");
        (last, seen) = (number, seen + 1);
    }
    assert_eq!(last, LINES);
    assert!(seen > 0);
    let log = bench.folder(&spec.key).join(format!("logs/{}.log", run.started_at.as_nanosecond()));
    until("the disk is given back", || async {
        (fs::metadata(&log).unwrap().blocks() * 512 <= LIMIT * 3 / 2).then_some(())
    })
    .await;
    let kept = texts(&bench.runtime, &spec.key, LogQuery::default()).await;
    let numbers = kept[..kept.len() - 1].iter().map(|line| line.parse::<u64>().unwrap()).collect::<Vec<_>>();
    assert!(numbers.len() > 10_000 && numbers.last() == Some(&LINES));
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "no line of what is kept is missing");
    let tail = LogQuery::default().with_tail(2);
    assert_eq!(texts(&bench.runtime, &spec.key, tail).await, [LINES.to_string(), "done".into()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_beyond_the_plan_is_refused_and_an_abort_for_it_is_told_apart() {
    let bench = Bench::new();
    let hog = bench.spec(&["hog"]).with_memory_mb(16);
    let out_of_memory = bench.spec(&["abort"]);
    for spec in [&hog, &out_of_memory] {
        bench.runtime.ensure_created(spec).await.unwrap();
        bench.runtime.start(&spec.key).await.unwrap();
    }
    let exit = exited(&bench.runtime, &hog.key).await;
    assert!(exit.code.is_some_and(|code| code != 0), "{exit:?}");
    assert_eq!(exited(&bench.runtime, &out_of_memory.key).await, Exit::with_code(134).with_oom(true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_process_shows_its_use_of_the_cpu() {
    let bench = Bench::new();
    let spec = bench.spec(&["burn"]);
    bench.runtime.ensure_created(&spec).await.unwrap();
    let run = started(&bench.runtime, &spec.key).await;
    printed(&bench.runtime, &spec.key, &run, "burning").await;
    until("it is seen to burn", || async {
        (bench.runtime.usage(&spec.key).await.unwrap().cpu_percent > 1.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_installations_folder_is_not_touched() {
    let bench = Bench::new();
    let spec = bench.spec(&["count", "1"]);
    bench.runtime.ensure_created(&spec).await.unwrap();
    let foreign = bench.foreign().await;
    let refusals = [
        foreign.ensure_created(&spec).await.err(),
        foreign.start(&spec.key).await.err(),
        foreign.stage(&spec.key, &[file("workspace/FIRST.md", "changed")]).await.err(),
        foreign.remove(&spec.key, DataPolicy::Remove).await.err(),
        foreign.observe(&spec.key).await.err(),
    ];
    for refusal in refusals {
        assert!(matches!(refusal, Some(RuntimeError::NotOwned(_))), "{refusal:?}");
    }
    assert_eq!(bench.read(&spec.key, "workspace/FIRST.md").await.as_deref(), Some(&b"first"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_a_run_ended_is_known_from_the_first_look_on() {
    let bench = Bench::new();
    let spec = bench.spec(&["exit", "3"]);
    bench.runtime.ensure_created(&spec).await.unwrap();
    for round in 0..30 {
        bench.runtime.start(&spec.key).await.unwrap();
        let looks = (0..4).map(|_| async { exited(&bench.runtime, &spec.key).await.code });
        assert_eq!(futures_util::future::join_all(looks).await, [Some(3); 4], "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_on_purpose_are_done_to_instances_of_ones_own_and_taken_back() {
    let (bench, others) = (Bench::new(), Bench::new());
    let spec = bench.spec(&["count", "1"]);
    let injector = ProcessFaultInjector::new(bench.options.installation);
    let agent = spec.key.agent;
    assert!(!injector.inject(agent, Fault::Kill).await.unwrap(), "nothing runs");
    bench.runtime.ensure_created(&spec).await.unwrap();
    bench.runtime.start(&spec.key).await.unwrap();
    let foreign = others.spec(&["count", "1"]);
    others.runtime.ensure_created(&foreign).await.unwrap();
    others.runtime.start(&foreign.key).await.unwrap();
    assert_eq!(injector.alive().await.unwrap(), [(agent, 1)].into());
    assert!(!injector.inject(foreign.key.agent, Fault::Kill).await.unwrap(), "another installation's");

    assert!(injector.inject(agent, Fault::Pause).await.unwrap());
    let paused = || async { matches!(observed(&bench.runtime, &spec.key).await.state, InstanceState::Paused(_)) };
    until("it is paused", || async { paused().await.then_some(()) }).await;
    injector.undo(agent, Fault::Pause).await.unwrap();
    until("it goes on", || async { (!paused().await).then_some(()) }).await;
    for (fault, code) in [(Fault::Stop, 143), (Fault::Kill, 137)] {
        assert!(injector.inject(agent, fault).await.unwrap());
        assert_eq!(exited(&bench.runtime, &spec.key).await.code, Some(code), "{fault}");
        injector.undo(agent, fault).await.unwrap();
        bench.runtime.start(&spec.key).await.unwrap();
    }
    assert!(matches!(injector.inject(agent, Fault::Cut).await, Err(RuntimeError::Invalid(_))));
    assert!(!injector.faults().contains(&Fault::Cut));
    let state = observed(&others.runtime, &foreign.key).await.state;
    assert!(matches!(state, InstanceState::Running(_)), "{state:?}");
}
