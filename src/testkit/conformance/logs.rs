//! What logs must show.

use futures_util::stream::StreamExt;

use crate::runtime::{ContainerRuntime, LogQuery};

use super::{Act, PATIENCE, Subject, counted, end, lines, printed, spec, started, texts};

/// Whether these are the lines that were asked for. Where times are whole seconds, lines of the same second may stand round them.
fn are_asked_for(runtime: &dyn ContainerRuntime, found: &[String], expected: &[String]) -> bool {
    if runtime.caps().exact_log_times {
        return found == expected;
    }
    found.windows(expected.len()).any(|part| part == expected)
}

/// Lines of a run are those of that run and no other. Where times are whole seconds ([`Caps::exact_log_times`]), others of the
/// same second may stand round them.
///
/// [`Caps::exact_log_times`]: crate::runtime::Caps::exact_log_times
pub async fn logs_of_one_run_only(subject: &dyn Subject) {
    let (runtime, spec) = (subject.runtime(), spec(subject, Act::Count(3)));
    runtime.ensure_created(&spec).await.unwrap();
    let mut runs = Vec::new();
    for _ in 0..2 {
        let run = started(&*runtime, &spec.key).await;
        printed(&*runtime, &spec.key, &run, "line 3").await;
        runtime.kill(&spec.key).await.unwrap();
        runs.push(run);
    }
    if !runtime.caps().keeps_ended_runs {
        let last = started(&*runtime, &spec.key).await;
        printed(&*runtime, &spec.key, &last, "line 3").await;
        for (run, expected) in [(&runs[0], vec![]), (&runs[1], vec![]), (&last, counted(1..=3))] {
            let query = LogQuery { run_id: Some(run.run_id.clone()), ..LogQuery::default() };
            assert_eq!(texts(&*runtime, &spec.key, query).await, expected);
        }
        end(subject, &spec.key).await;
        return;
    }
    for run in &runs {
        let query = LogQuery { run_id: Some(run.run_id.clone()), ..LogQuery::default() };
        let lines = lines(&*runtime, &spec.key, query).await;
        // Else those of the second in which the run before ended are there, too, and the start may have taken longer.
        if runtime.caps().exact_log_times {
            assert!(lines.iter().all(|line| line.time >= run.started_at));
        }
        let texts: Vec<String> = lines.into_iter().map(|line| line.text).collect();
        assert!(are_asked_for(&*runtime, &texts, &counted(1..=3)), "{texts:?}");
    }
    let all = texts(&*runtime, &spec.key, LogQuery::default()).await;
    assert_eq!(all, [counted(1..=3), counted(1..=3)].concat());
    end(subject, &spec.key).await;
}

/// A query by tail or by time gives exactly those lines.
pub async fn logs_by_tail_and_time(subject: &dyn Subject) {
    let (runtime, spec) = (subject.runtime(), spec(subject, Act::Count(300)));
    runtime.ensure_created(&spec).await.unwrap();
    assert_eq!(texts(&*runtime, &spec.key, LogQuery::default()).await, Vec::<String>::new());
    let first = started(&*runtime, &spec.key).await;
    printed(&*runtime, &spec.key, &first, "line 300").await;
    let tail = |tail| LogQuery { tail: Some(tail), ..LogQuery::default() };
    assert_eq!(texts(&*runtime, &spec.key, tail(10)).await, counted(291..=300));
    assert_eq!(texts(&*runtime, &spec.key, tail(0)).await, Vec::<String>::new());
    assert_eq!(texts(&*runtime, &spec.key, tail(1000)).await, counted(1..=300));
    runtime.kill(&spec.key).await.unwrap();
    let second = started(&*runtime, &spec.key).await;
    printed(&*runtime, &spec.key, &second, "line 300").await;
    let earlier = if runtime.caps().keeps_ended_runs { counted(296..=300) } else { Vec::new() };
    let across = [earlier, counted(1..=300)].concat();
    assert_eq!(texts(&*runtime, &spec.key, tail(305)).await, across);
    let since = LogQuery { since: Some(second.started_at), ..LogQuery::default() };
    let found = texts(&*runtime, &spec.key, since).await;
    assert!(are_asked_for(&*runtime, &found, &counted(1..=300)), "{found:?}");
    end(subject, &spec.key).await;
}

/// Behind any line's cursor come exactly the lines after it (review, B7).
pub async fn a_log_is_resumed_behind_any_line(subject: &dyn Subject) {
    let (runtime, spec) = (subject.runtime(), spec(subject, Act::Count(20)));
    runtime.ensure_created(&spec).await.unwrap();
    let run = started(&*runtime, &spec.key).await;
    printed(&*runtime, &spec.key, &run, "line 20").await;
    let of_run = || LogQuery { run_id: Some(run.run_id.clone()), ..LogQuery::default() };
    let all = lines(&*runtime, &spec.key, of_run()).await;
    for (index, line) in all.iter().enumerate() {
        let after = LogQuery { after: Some(line.cursor.clone()), ..of_run() };
        let rest = texts(&*runtime, &spec.key, after).await;
        assert_eq!(rest, all[index + 1..].iter().map(|line| line.text.clone()).collect::<Vec<_>>());
    }
    let follow = LogQuery { after: Some(all[17].cursor.clone()), follow: true, ..of_run() };
    let mut stream = runtime.logs(&spec.key, follow).await.unwrap();
    for expected in counted(19..=20) {
        let line = tokio::time::timeout(PATIENCE, stream.next()).await.expect("lines go on").expect("no end yet");
        assert_eq!(line.unwrap().text, expected);
    }
    runtime.kill(&spec.key).await.unwrap();
    let rest = tokio::time::timeout(PATIENCE, stream.count()).await.expect("the stream ends with the run");
    assert_eq!(rest, 0);
    end(subject, &spec.key).await;
}

/// A follower gets each line once and in order, and its stream ends with the run.
pub async fn followed_lines_come_once_until_the_end(subject: &dyn Subject) {
    let (runtime, spec) = (subject.runtime(), spec(subject, Act::Count(300)));
    runtime.ensure_created(&spec).await.unwrap();
    let run = started(&*runtime, &spec.key).await;
    let query = LogQuery { run_id: Some(run.run_id.clone()), follow: true, ..LogQuery::default() };
    let mut stream = runtime.logs(&spec.key, query).await.unwrap();
    let mut seen = Vec::new();
    while seen.last().is_none_or(|text| text != "line 300") {
        let line = tokio::time::timeout(PATIENCE, stream.next()).await.expect("lines go on").expect("no end yet");
        seen.push(line.unwrap().text);
    }
    assert_eq!(seen, counted(1..=300));
    runtime.kill(&spec.key).await.unwrap();
    let rest = tokio::time::timeout(PATIENCE, stream.count()).await.expect("the stream ends with the run");
    assert_eq!(rest, 0);
    end(subject, &spec.key).await;
}
