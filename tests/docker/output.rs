//! Logs and usage.

use std::collections::HashSet;

use futures_util::StreamExt;
use zeroone::runtime::{ContainerRuntime, LogLine, LogQuery, LogStream, RuntimeError};
use zeroone::testkit::conformance::started;

use crate::assert_error;
use crate::world::{World, spec, until};

pub(crate) async fn lines_of_one_run_only(world: &World) {
    let spec = spec(&["gateway"]);
    let mut runs = Vec::new();
    // Fast enough that several runs share a second, which the engine's own filter cannot tell apart.
    for _ in 0..4 {
        let run = world.launch(&spec).await;
        let of_run = LogQuery::default().with_run_id(run.run_id.clone());
        let lines = until("both lines", async || {
            let lines = world.lines(&spec.key, of_run.clone()).await;
            (lines.len() >= 2).then_some(lines)
        })
        .await;
        assert!(lines.len() == 2 && lines[0].starts_with("run ") && lines[1] == "listening", "{lines:?}");
        runs.push((of_run, lines));
        world.runtime.kill(&spec.key).await.unwrap();
    }
    let said: HashSet<&String> = runs.iter().map(|(_, lines)| &lines[0]).collect();
    assert_eq!(said.len(), runs.len(), "each run said its own");

    let all = world.runtime.logs(&spec.key, LogQuery::default()).await.unwrap();
    let all: Vec<LogLine> = all.map(Result::unwrap).collect().await;
    assert_eq!(all.len(), 8);
    assert!(all.iter().all(|line| line.stream == LogStream::Stdout));
    assert!(all.is_sorted_by_key(|line| line.time));
    let since = LogQuery::default().with_since(all[5].time);
    assert_eq!(world.lines(&spec.key, since).await.len(), 3, "to the nanosecond");
    let tail = LogQuery::default().with_tail(3);
    assert_eq!(world.lines(&spec.key, tail).await, all[5..].iter().map(|line| line.text.clone()).collect::<Vec<_>>());

    let elsewhere = spec.clone().with_memory_mb(64);
    world.launch(&elsewhere).await;
    let gone = world.runtime.logs(&spec.key, runs[0].0.clone()).await.map(drop);
    assert_error!(gone, RuntimeError::NotFound);
}

pub(crate) async fn long_lines_are_joined_and_cut(world: &World) {
    // The engine cuts at 16 KiB, newline or not: the first is in one piece, the others in several.
    for length in [100, LogLine::MAX - 10, 3 * LogLine::MAX] {
        let spec = spec(&["talk", "3", &length.to_string()]);
        world.launch(&spec).await;
        world.line_when(&spec.key, |line| line == "all said").await;
        let lines = world.lines(&spec.key, LogQuery::default()).await;
        let expected = |n: usize| {
            let mut line = format!("{n} {}", "x".repeat(length));
            line.truncate(LogLine::MAX);
            line
        };
        assert_eq!(lines, [expected(0), expected(1), expected(2), "all said".to_owned()]);
        world.runtime.kill(&spec.key).await.unwrap();
    }
}

pub(crate) async fn followed_across_rotation_each_line_once(world: &World) {
    const LINES: usize = 3000;
    let runtime = world.with(|options| {
        options.log_size = "64k".into();
        // As many files as hold it all, so that nothing is rotated away before it is read.
        options.log_files = 100;
    });
    let spec = spec(&["talk", &LINES.to_string(), "200"]);
    runtime.ensure_created(&spec).await.unwrap();
    let run = started(&runtime, &spec.key).await;
    let query = LogQuery::default().with_run_id(run.run_id).with_follow(true);
    let mut lines = runtime.logs(&spec.key, query).await.unwrap();
    for n in 0..LINES {
        let line = lines.next().await.unwrap().unwrap();
        assert!(line.text.starts_with(&format!("{n} x")), "line {n} is {}", &line.text[..20]);
    }
    assert_eq!(lines.next().await.unwrap().unwrap().text, "all said");
    runtime.kill(&spec.key).await.unwrap();
    assert!(lines.next().await.is_none(), "the stream ends with the run");

    let again = LogQuery::default().with_follow(true).with_tail(1);
    let rest: Vec<_> = runtime.logs(&spec.key, again).await.unwrap().map(|line| line.unwrap().text).collect().await;
    assert_eq!(rest, ["all said"], "nothing is waited for where nothing runs");
}

pub(crate) async fn a_flood_of_a_hundred_megabytes_is_bounded(world: &World) {
    const LINES: usize = 100_000;
    let runtime = world.with(|options| {
        options.log_size = "1m".into();
        options.log_files = 2;
    });
    let spec = spec(&["talk", &LINES.to_string(), "1000"]);
    runtime.ensure_created(&spec).await.unwrap();
    runtime.start(&spec.key).await.unwrap();
    let newest = || LogQuery::default().with_tail(200);
    until("all is said", async || {
        let last = world.lines(&spec.key, newest()).await.pop();
        (last.as_deref() == Some("all said")).then_some(())
    })
    .await;
    let kept = world.lines(&spec.key, newest()).await;
    assert_eq!(kept.len(), 200);
    for (line, n) in kept.iter().zip(LINES - 199..LINES) {
        assert!(line.starts_with(&format!("{n} x")), "line {n} is {}", &line[..20]);
    }
    // Two files of a megabyte, and what each line has around it.
    let all = world.lines(&spec.key, LogQuery::default()).await;
    let bytes: usize = all.iter().map(String::len).sum();
    assert!(bytes <= 2 << 20, "{bytes} bytes are kept of a hundred million");
    runtime.kill(&spec.key).await.unwrap();
}

pub(crate) async fn usage_is_measured(world: &World) {
    let spec = spec(&["burn"]);
    world.launch(&spec).await;
    let first = world.runtime.usage(&spec.key).await.unwrap();
    assert_eq!(first.cpu_percent, 0.0, "one sample tells no speed");
    assert_eq!(first.memory_limit_mb, Some(128.0));
    assert!(first.memory_mb > 0.0 && first.memory_mb < 128.0, "{first:?}");
    assert!(first.pids >= Some(1));
    // It spins as fast as its half a core lets it.
    let busy = until("a busy sample", async || {
        let sample = world.runtime.usage(&spec.key).await.unwrap();
        (sample.cpu_percent > 1.0).then_some(sample)
    })
    .await;
    assert!(busy.at > first.at);
    world.runtime.kill(&spec.key).await.unwrap();
    assert_error!(world.runtime.usage(&spec.key).await, RuntimeError::Conflict(_));
}
