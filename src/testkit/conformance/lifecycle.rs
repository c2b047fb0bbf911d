//! What becomes of an instance.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{AgentSpec, Origin, Provider, Timestamp, UserId};
use crate::runtime::{DataPolicy, Exit, InstanceSpec, InstanceState, LogQuery, ObservedInstance, Resync, RuntimeError};
use futures_util::stream::StreamExt;

use super::{
    Act, GRACE, PATIENCE, Subject, at_rest, counted, end, exited, file, observed, printed, spec, staged, started,
    texts, until,
};

/// Creation makes the instance once, does not start it, stages its files, and says whether this very call made it.
pub async fn created_once(subject: &dyn Subject) {
    let (runtime, spec) = (subject.runtime(), spec(subject, Act::Count(1)));
    assert_eq!(runtime.observe(&spec.key).await.unwrap(), None);
    let first = runtime.ensure_created(&spec).await.unwrap();
    assert!(first.created_now);
    assert_eq!((&first.key, &first.state, &first.spec_hash), (&spec.key, &InstanceState::Created, &spec.hash()));
    let again = runtime.ensure_created(&spec).await.unwrap();
    assert_eq!(again, ObservedInstance { created_now: false, data_created_now: false, ..first });
    assert_eq!(runtime.observe(&spec.key).await.unwrap(), Some(again.clone()));
    assert_eq!(runtime.list_owned().await.unwrap(), [again]);
    assert_eq!(staged(subject, &spec.key, "workspace/FIRST.md").await.as_deref(), Some(&b"first"[..]));
    end(subject, &spec.key).await;
}

/// A start answers the run; of one that runs already it answers the same run.
pub async fn started_once(subject: &dyn Subject) {
    let (runtime, spec) = (subject.runtime(), spec(subject, Act::Count(1)));
    runtime.ensure_created(&spec).await.unwrap();
    let before = Timestamp::now();
    let run = started(&*runtime, &spec.key).await;
    assert!(run.started_at >= before - Duration::from_secs(1) && run.started_at <= Timestamp::now());
    assert_eq!(runtime.start(&spec.key).await.unwrap(), InstanceState::Running(run.clone()));
    assert_eq!(observed(&*runtime, &spec.key).await.state, InstanceState::Running(run));
    end(subject, &spec.key).await;
}

/// Stopping, killing and removing what is stopped or not there is success.
pub async fn nothing_to_do_is_success(subject: &dyn Subject) {
    let (runtime, spec) = (subject.runtime(), spec(subject, Act::Count(1)));
    let ended = || async {
        runtime.stop(&spec.key, GRACE).await.unwrap();
        runtime.kill(&spec.key).await.unwrap();
    };
    ended().await;
    runtime.remove(&spec.key, DataPolicy::Remove).await.unwrap();
    runtime.remove(&spec.key, DataPolicy::Keep).await.unwrap();
    runtime.ensure_created(&spec).await.unwrap();
    ended().await;
    assert_eq!(observed(&*runtime, &spec.key).await.state, InstanceState::Created);
    started(&*runtime, &spec.key).await;
    runtime.stop(&spec.key, GRACE).await.unwrap();
    assert!(at_rest(&*runtime, &observed(&*runtime, &spec.key).await.state));
    ended().await;
    // Also of one that runs.
    started(&*runtime, &spec.key).await;
    for _ in 0..2 {
        runtime.remove(&spec.key, DataPolicy::Remove).await.unwrap();
        assert_eq!(runtime.observe(&spec.key).await.unwrap(), None);
        assert_eq!(runtime.list_owned().await.unwrap(), []);
    }
}

/// An instance of another spec is replaced, on the same data.
pub async fn another_hash_makes_it_anew(subject: &dyn Subject) {
    let (runtime, spec) = (subject.runtime(), spec(subject, Act::Count(1)));
    runtime.ensure_created(&spec).await.unwrap();
    let old = started(&*runtime, &spec.key).await;
    let mut other = InstanceSpec { generation: 2, files: vec![file("workspace/SECOND.md", "second")], ..spec.clone() };
    other.env.push(("EXTRA".into(), "1".into()));
    let made = runtime.ensure_created(&other).await.unwrap();
    assert!(made.created_now);
    assert_eq!((made.state, made.spec_hash), (InstanceState::Created, other.hash()));
    assert_eq!(staged(subject, &spec.key, "workspace/FIRST.md").await.as_deref(), Some(&b"first"[..]), "data is kept");
    assert_eq!(staged(subject, &spec.key, "workspace/SECOND.md").await.as_deref(), Some(&b"second"[..]));
    assert_ne!(started(&*runtime, &spec.key).await.run_id, old.run_id);
    end(subject, &spec.key).await;
}

/// An instance of the same spec is taken as it is.
pub async fn the_same_hash_is_adopted(subject: &dyn Subject) {
    let (runtime, spec) = (subject.runtime(), spec(subject, Act::Count(1)));
    runtime.ensure_created(&spec).await.unwrap();
    let run = started(&*runtime, &spec.key).await;
    let again = InstanceSpec { generation: 2, files: vec![file("workspace/FIRST.md", "changed")], ..spec.clone() };
    let adopted = runtime.ensure_created(&again).await.unwrap();
    assert!(!adopted.created_now);
    assert_eq!(adopted.state, InstanceState::Running(run));
    assert_eq!(subject.read(&spec.key, "workspace/FIRST.md").await.as_deref(), Some(&b"first"[..]));
    end(subject, &spec.key).await;
}

/// Files are replaced while nothing runs; while something runs that is a conflict, and what is not there is `NotFound`.
pub async fn files_are_staged_between_runs(subject: &dyn Subject) {
    let (runtime, spec) = (subject.runtime(), spec(subject, Act::Count(1)));
    let files = [file("workspace/FIRST.md", "changed"), file(".zeroclaw/config.toml", "a = 1")];
    assert_eq!(runtime.stage(&spec.key, &files).await, Err(RuntimeError::NotFound));
    runtime.ensure_created(&spec).await.unwrap();
    started(&*runtime, &spec.key).await;
    assert!(matches!(runtime.stage(&spec.key, &files).await, Err(RuntimeError::Conflict(_))));
    assert_eq!(subject.read(&spec.key, "workspace/FIRST.md").await.as_deref(), Some(&b"first"[..]));
    runtime.stop(&spec.key, GRACE).await.unwrap();
    runtime.stage(&spec.key, &files).await.unwrap();
    assert_eq!(staged(subject, &spec.key, "workspace/FIRST.md").await.as_deref(), Some(&b"changed"[..]));
    assert_eq!(staged(subject, &spec.key, ".zeroclaw/config.toml").await.as_deref(), Some(&b"a = 1"[..]));
    end(subject, &spec.key).await;
}

/// A start of what was never created is `NotFound`.
pub async fn what_is_not_there_cannot_start(subject: &dyn Subject) {
    let (runtime, spec) = (subject.runtime(), spec(subject, Act::Count(1)));
    assert_eq!(runtime.start(&spec.key).await, Err(RuntimeError::NotFound));
    assert_eq!(runtime.usage(&spec.key).await.unwrap_err(), RuntimeError::NotFound);
    assert_eq!(runtime.logs(&spec.key, LogQuery::default()).await.err(), Some(RuntimeError::NotFound));
    assert_eq!(runtime.list_owned().await.unwrap(), []);
}

/// No two runs have the same id, and later ones start later.
pub async fn every_start_has_a_run_id_of_its_own(subject: &dyn Subject) {
    let (runtime, spec) = (subject.runtime(), spec(subject, Act::Count(1)));
    runtime.ensure_created(&spec).await.unwrap();
    let first = started(&*runtime, &spec.key).await;
    runtime.kill(&spec.key).await.unwrap();
    let second = started(&*runtime, &spec.key).await;
    runtime.stop(&spec.key, GRACE).await.unwrap();
    let third = started(&*runtime, &spec.key).await;
    assert!(first.run_id != second.run_id && second.run_id != third.run_id && first.run_id != third.run_id);
    assert!(first.started_at < second.started_at && second.started_at < third.started_at);
    end(subject, &spec.key).await;
}

/// An exit tells its code, and whether a signal ended it.
pub async fn exits_have_codes(subject: &dyn Subject) {
    let (runtime, leaving, killed) = (subject.runtime(), spec(subject, Act::Exit(7)), spec(subject, Act::Count(1)));
    for spec in [&leaving, &killed] {
        runtime.ensure_created(spec).await.unwrap();
        runtime.start(&spec.key).await.unwrap();
    }
    assert_eq!(exited(&*runtime, &leaving.key).await, Exit::with_code(7));
    started(&*runtime, &killed.key).await;
    runtime.kill(&killed.key).await.unwrap();
    if runtime.caps().keeps_ended_runs {
        let exit = exited(&*runtime, &killed.key).await;
        assert_eq!((exit.code, exit.oom), (Some(137), false));
    } else {
        assert_eq!(observed(&*runtime, &killed.key).await.state, InstanceState::Created);
    }
    end(subject, &leaving.key).await;
    end(subject, &killed.key).await;
}

/// An instance that does not heed a stop is killed when its grace is over.
pub async fn grace_has_an_end(subject: &dyn Subject) {
    let (runtime, spec) = (subject.runtime(), spec(subject, Act::Deaf));
    runtime.ensure_created(&spec).await.unwrap();
    let run = started(&*runtime, &spec.key).await;
    printed(&*runtime, &spec.key, &run, "deaf").await;
    runtime.stop(&spec.key, Duration::from_millis(50)).await.unwrap();
    if runtime.caps().keeps_ended_runs {
        assert_eq!(exited(&*runtime, &spec.key).await.code, Some(137));
    } else {
        assert_eq!(observed(&*runtime, &spec.key).await.state, InstanceState::Created);
    }
    if !runtime.caps().kills_while_stopping {
        end(subject, &spec.key).await;
        return;
    }
    // A kill does not wait for a stop that does.
    let run = started(&*runtime, &spec.key).await;
    printed(&*runtime, &spec.key, &run, "deaf").await;
    let stopping = {
        let (runtime, key) = (Arc::clone(&runtime), spec.key.clone());
        tokio::spawn(async move { runtime.stop(&key, PATIENCE * 10).await })
    };
    tokio::time::timeout(PATIENCE, runtime.kill(&spec.key)).await.expect("kills at once").unwrap();
    tokio::time::timeout(PATIENCE, stopping).await.expect("notices the kill").unwrap().unwrap();
    end(subject, &spec.key).await;
}

/// One that does not run without having ended shows as paused, and a kill ends it.
pub async fn a_paused_instance_shows_and_can_be_killed(subject: &dyn Subject) {
    let (runtime, spec) = (subject.runtime(), spec(subject, Act::Count(1)));
    runtime.ensure_created(&spec).await.unwrap();
    let run = started(&*runtime, &spec.key).await;
    if !runtime.caps().sees_pauses {
        // Nothing may rest on what it cannot tell.
        assert_eq!(observed(&*runtime, &spec.key).await.state, InstanceState::Running(run));
        end(subject, &spec.key).await;
        return;
    }
    subject.pause(&observed(&*runtime, &spec.key).await).await;
    let paused = until("it shows as paused", || async {
        let observed = observed(&*runtime, &spec.key).await;
        matches!(observed.state, InstanceState::Paused(_)).then_some(observed)
    })
    .await;
    assert_eq!(paused.state, InstanceState::Paused(run));
    runtime.kill(&spec.key).await.unwrap();
    assert!(at_rest(&*runtime, &observed(&*runtime, &spec.key).await.state));
    end(subject, &spec.key).await;
}

/// A start whose port a stranger has answers `PortTaken`, and leaves nothing running.
pub async fn a_taken_port_is_named(subject: &dyn Subject) {
    let (runtime, spec) = (subject.runtime(), spec(subject, Act::Count(1)));
    let Some(port) = spec.port else {
        // It has addresses of its own: whoever holds the host's port is in nobody's way.
        assert!(!runtime.caps().host_ports);
        return;
    };
    let stranger = subject.stranger(port);
    runtime.ensure_created(&spec).await.unwrap();
    for _ in 0..2 {
        assert_eq!(runtime.start(&spec.key).await, Err(RuntimeError::PortTaken(port)));
        assert_eq!(observed(&*runtime, &spec.key).await.state, InstanceState::Created);
    }
    drop(stranger);
    // A test beside this one that forks just now has a copy of the listener for some milliseconds.
    until("the free port is taken", || async { runtime.start(&spec.key).await.ok() }).await;
    end(subject, &spec.key).await;
}

/// The watch tells of an exit that nobody asked for.
pub async fn a_crash_wakes_the_watch(subject: &dyn Subject) {
    let (runtime, spec) = (subject.runtime(), spec(subject, Act::Count(1)));
    runtime.ensure_created(&spec).await.unwrap();
    let crashed = started(&*runtime, &spec.key).await;
    let mut changes = runtime.watch();
    subject.crash(&observed(&*runtime, &spec.key).await).await;
    let woken = async {
        loop {
            match changes.next().await.expect("the stream has no end") {
                Resync::Instance(agent) if agent != spec.key.agent => {}
                Resync::Instance(_) | Resync::All => {
                    let seen = observed(&*runtime, &spec.key).await;
                    match seen.state {
                        InstanceState::Exited(exit) => return exit,
                        // An engine of its own mind may have another run by now, and tells how the last one ended.
                        InstanceState::Running(run) if run.run_id != crashed.run_id => {
                            return seen.died.expect("it is known how the last run ended");
                        }
                        _ => {}
                    }
                }
            }
        }
    };
    let exit = tokio::time::timeout(PATIENCE, woken).await.expect("a death wakes");
    assert_eq!(exit.code, Some(137));
    end(subject, &spec.key).await;
}

/// What belongs to another installation is not listed, observed, started, stopped or removed.
pub async fn another_installation_is_left_alone(subject: &dyn Subject) {
    let (ours, theirs) = (subject.runtime(), subject.foreign().await);
    let (mine, other) = (spec(subject, Act::Count(1)), spec(subject, Act::Count(1)));
    ours.ensure_created(&mine).await.unwrap();
    ours.start(&mine.key).await.unwrap();
    theirs.ensure_created(&other).await.unwrap();
    theirs.start(&other.key).await.unwrap();
    let keys = |owned: Vec<ObservedInstance>| owned.into_iter().map(|observed| observed.key).collect::<Vec<_>>();
    assert_eq!(keys(ours.list_owned().await.unwrap()), std::slice::from_ref(&mine.key));
    assert_eq!(keys(theirs.list_owned().await.unwrap()), std::slice::from_ref(&other.key));
    theirs.remove(&other.key, DataPolicy::Remove).await.unwrap();
    end(subject, &mine.key).await;
}

/// A removal keeps the data or removes it, as it is told.
pub async fn removal_keeps_data_or_not(subject: &dyn Subject) {
    let (runtime, spec) = (subject.runtime(), spec(subject, Act::Count(1)));
    let bare = InstanceSpec { files: Vec::new(), ..spec.clone() };
    runtime.ensure_created(&spec).await.unwrap();
    started(&*runtime, &spec.key).await;
    runtime.remove(&spec.key, DataPolicy::Keep).await.unwrap();
    assert_eq!(runtime.observe(&spec.key).await.unwrap(), None);
    assert!(runtime.ensure_created(&bare).await.unwrap().created_now);
    assert_eq!(staged(subject, &spec.key, "workspace/FIRST.md").await.as_deref(), Some(&b"first"[..]));
    runtime.remove(&spec.key, DataPolicy::Remove).await.unwrap();
    assert!(runtime.ensure_created(&bare).await.unwrap().created_now);
    assert_eq!(staged(subject, &spec.key, "workspace/FIRST.md").await, None);
    end(subject, &spec.key).await;
}

/// The runtime of a restarted service finds what the earlier one left running, with the same run ids.
pub async fn a_reopened_runtime_goes_on(subject: &dyn Subject) {
    let (runtime, spec) = (subject.runtime(), spec(subject, Act::Count(3)));
    runtime.ensure_created(&spec).await.unwrap();
    let run = started(&*runtime, &spec.key).await;
    printed(&*runtime, &spec.key, &run, "line 3").await;
    let reopened = subject.reopened().await;
    let found = observed(&*reopened, &spec.key).await;
    assert_eq!(found, observed(&*runtime, &spec.key).await);
    assert_eq!(found.state, InstanceState::Running(run.clone()));
    assert_eq!(reopened.list_owned().await.unwrap(), [found]);
    assert!(!reopened.ensure_created(&spec).await.unwrap().created_now);
    assert_eq!(reopened.start(&spec.key).await.unwrap(), InstanceState::Running(run.clone()));
    let query = LogQuery { run_id: Some(run.run_id.clone()), ..LogQuery::default() };
    assert_eq!(texts(&*reopened, &spec.key, query).await, counted(1..=3));
    reopened.stop(&spec.key, GRACE).await.unwrap();
    assert!(at_rest(&*runtime, &observed(&*runtime, &spec.key).await.state));
    assert_ne!(started(&*reopened, &spec.key).await.run_id, run.run_id);
    reopened.remove(&spec.key, DataPolicy::Remove).await.unwrap();
    assert_eq!(runtime.observe(&spec.key).await.unwrap(), None);
}

/// Starts of one instance at the same time make one run.
pub async fn starts_at_once_are_one(subject: &dyn Subject) {
    let (runtime, spec) = (subject.runtime(), spec(subject, Act::Count(1)));
    runtime.ensure_created(&spec).await.unwrap();
    let starts = (0..8).map(|_| {
        let (runtime, key) = (Arc::clone(&runtime), spec.key.clone());
        tokio::spawn(async move { started(&*runtime, &key).await })
    });
    let mut runs = Vec::new();
    for start in starts.collect::<Vec<_>>() {
        runs.push(start.await.unwrap());
    }
    assert!(runs.iter().all(|run| *run == runs[0]));
    end(subject, &spec.key).await;
}

/// What runs has figures; what does not run is a `Conflict`, what is not there `NotFound`.
pub async fn usage_of_what_runs(subject: &dyn Subject) {
    let (runtime, spec) = (subject.runtime(), spec(subject, Act::Count(1)));
    runtime.ensure_created(&spec).await.unwrap();
    assert!(matches!(runtime.usage(&spec.key).await, Err(RuntimeError::Conflict(_))));
    let run = started(&*runtime, &spec.key).await;
    printed(&*runtime, &spec.key, &run, "line 1").await;
    if !runtime.caps().measures_usage {
        assert!(matches!(runtime.usage(&spec.key).await, Err(RuntimeError::Failed(_))));
        end(subject, &spec.key).await;
        return;
    }
    let usage = runtime.usage(&spec.key).await.unwrap();
    assert!(usage.cpu_percent.abs() < f64::EPSILON, "nothing to compare with yet");
    assert!(usage.pids.is_none_or(|pids| pids >= 1));
    assert_eq!(usage.memory_limit_mb, Some(128.0));
    until("it uses memory", || async { (runtime.usage(&spec.key).await.unwrap().memory_mb > 0.0).then_some(()) }).await;
    assert!(runtime.usage(&spec.key).await.unwrap().at > usage.at);
    end(subject, &spec.key).await;
}

/// The origin is told for as long as the instance is there, also by a reopened runtime.
pub async fn whose_it_is_outlives_everything_else(subject: &dyn Subject) {
    let (runtime, bare) = (subject.runtime(), spec(subject, Act::Count(1)));
    assert_eq!(runtime.origin(&bare.key).await, Err(RuntimeError::NotFound));

    let agent = Arc::new(AgentSpec::new("Ada \"x\" \u{e9}", Provider::Openai, "m"));
    let created_at = "2026-11-01T00:00:00Z".parse().unwrap();
    let origin = Origin { user: UserId::new(), created_at, spec: agent, channels: Vec::new() };
    let told = InstanceSpec { origin: Some(Arc::new(origin.clone())), ..bare.clone() };
    assert_eq!(told.hash(), bare.hash(), "no reason to make an instance anew");
    runtime.ensure_created(&told).await.unwrap();
    assert_eq!(runtime.origin(&told.key).await.unwrap(), Some(origin.clone()));
    started(&*runtime, &told.key).await;
    runtime.kill(&told.key).await.unwrap();
    assert_eq!(subject.reopened().await.origin(&told.key).await.unwrap(), Some(origin));
    end(subject, &told.key).await;
}
